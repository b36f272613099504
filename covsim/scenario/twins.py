"""Scenarios derived from a scenario: the same under another seed, and the same with nobody cheating."""

from __future__ import annotations

from covsim.behaviors import Honest
from covsim.scenario.schema import LONGEST_NAME, Scenario

_CLEAN = "-clean"


def with_seed(scenario: Scenario, seed: int) -> Scenario:
    """The same scenario under another seed."""
    return scenario.model_copy(update={"seed": seed})


def clean_twin(scenario: Scenario) -> Scenario:
    """The same peers on the same links and machines, all of them honest; `<name>-clean`, which claims nothing."""
    cohorts = {name: cohort.model_copy(update={"behavior": Honest()}) for name, cohort in scenario.cohorts.items()}
    name = scenario.name[: LONGEST_NAME - len(_CLEAN)] + _CLEAN
    return scenario.model_copy(update={"name": name, "cohorts": cohorts, "expect": None})


def seeds(scenario: Scenario) -> list[int]:
    """The seeds over which the scenario's claims are judged; its own one if it claims nothing."""
    return list(range(scenario.seed, scenario.seed + (scenario.expect.seeds if scenario.expect else 1)))
