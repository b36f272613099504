"""Scenarios derived from a scenario: the same under another seed, the same with nobody cheating and nothing failing.

A twin is on the same streams: every peer that is in both has the same uid, links, machine, shards and luck.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from covsim.behaviors import Honest
from covsim.behaviors.membership import Always, Churn, FromRound, Membership
from covsim.behaviors.scoring import Scoring
from covsim.registry import did_you_mean
from covsim.scenario.counterfactual import Counterfactual
from covsim.scenario.schema import LONGEST_NAME, Scenario

_CLEAN = "-clean"
_HAPHAZARD = "churn"
"""The membership whose comings and goings are drawn: a fault of the world, and not a plan of the scenario's."""

Clean = Literal["honest", "absent"]
"""What becomes of cheaters in a clean twin: they do the work, or they are not there."""


def with_seed(scenario: Scenario, seed: int) -> Scenario:
    """The same scenario under another seed."""
    return scenario.model_copy(update={"seed": seed})


def cheaters(scenario: Scenario) -> list[str]:
    """The cohorts whose script is not the honest one, by name."""
    return sorted(name for name, cohort in scenario.cohorts.items() if cohort.behavior.kind != "honest")


def clean_twin(scenario: Scenario, how: Clean = "honest", cohorts: Collection[str] | None = None) -> Scenario:
    """The same scenario as it would be if nobody cheated and nothing failed; `<name>-clean`, which claims nothing.

    Peers keep links and machines. Validators score as the rules say, nobody comes and goes by chance (`churn`), and
    there are no faults, stalls or outages. Reads that fail now and then stay: they are how the store is.

    Args:
        scenario: whose twin.
        how: whether cheaters are honest, or absent.
        cohorts: who they are; by default all whose script is not the honest one.

    Raises:
        ValueError: a cohort does not exist, or nobody would be left.
    """
    for name in cohorts or ():
        if name not in scenario.cohorts:
            raise ValueError(f"no cohort is called {name!r}{did_you_mean(name, scenario.cohorts)}")
    chosen = set(cheaters(scenario) if cohorts is None else cohorts)
    name = scenario.name[: LONGEST_NAME - len(_CLEAN)] + _CLEAN
    update: dict[str, Any] = {"name": name, "expect": None, **_as_it_should_be(scenario)}
    if how == "absent":
        if chosen >= set(scenario.cohorts):
            raise ValueError("without these cohorts nobody is left; compare with honest ones")
        instead = scenario.counterfactual or Counterfactual()
        absent = [*instead.absent, *sorted(chosen - set(instead.absent))]
        update["counterfactual"] = instead.model_copy(update={"absent": absent})
    else:
        update["cohorts"] = {
            name: cohort.model_copy(update={"behavior": Honest()}) if name in chosen else cohort
            for name, cohort in update["cohorts"].items()
        }
    return scenario.model_copy(update=update)


def seeds(scenario: Scenario) -> list[int]:
    """The seeds over which the scenario's claims are judged; its own one if it claims nothing."""
    return list(range(scenario.seed, scenario.seed + (scenario.expect.seeds if scenario.expect else 1)))


def _as_it_should_be(scenario: Scenario) -> dict[str, Any]:
    """The sections of a scenario in which nothing fails and no validator plays foul."""
    return {
        "cohorts": {
            name: cohort.model_copy(update={"membership": _steady(cohort.membership)})
            for name, cohort in scenario.cohorts.items()
        },
        "validators": {
            name: validator.model_copy(update={"behavior": Scoring()})
            for name, validator in scenario.validators.items()
        },
        "timeline": scenario.timeline.model_copy(update={"stalls": []}),
        "store": scenario.store.model_copy(update={"outages": []}),
        "faults": [],
    }


def _steady(membership: Membership) -> Membership:
    """The same membership, without comings and goings that are drawn: a fault of the world, and nobody's plan."""
    if not isinstance(membership, Churn):
        return membership
    return FromRound(round=membership.from_round) if membership.from_round else Always()


def with_peer(scenario: Scenario, uid: int, how: Clean) -> Scenario:
    """The same scenario with one peer honest or absent, all else being as it is; it claims nothing.

    Raises:
        ValueError: there is no such uid.
    """
    instead = scenario.counterfactual or Counterfactual()
    update = {"absent": [*instead.absent, uid]} if how == "absent" else {"honest": [*instead.honest, uid]}
    changed = instead.model_copy(update=update)
    changed.check(scenario.peers, scenario.cohorts)
    end = f"-{uid}-{how}"
    name = scenario.name[: LONGEST_NAME - len(end)] + end
    return scenario.model_copy(update={"name": name, "expect": None, "counterfactual": changed})
