"""The answer to "what would this scenario take?", from arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from covsim.behaviors import Honest
from covsim.scenario.schema import Scenario
from covsim.sweep.plan.bill import Bill, bill, checked_prices
from covsim.sweep.plan.bottleneck import Bottleneck, bottleneck
from covsim.sweep.plan.measures import Deadlines, Measures, Spread
from covsim.sweep.plan.setting import Setting
from covsim.sweep.plan.targets import MEASURES, Answer, Target, answers, parse_target


@dataclass(frozen=True)
class Reached:
    """A target, the measure as it is, and what would have to change."""

    target: Target
    now: float
    answers: list[Answer]


@dataclass(frozen=True)
class RoundPlan:
    """What a scenario takes; seconds, bytes, shares.

    Attributes:
        scenario: its name.
        payload_bytes: a regular payload; gather_bytes: what a peer downloads in a round, on average.
        compression_ratio: of a payload, against its parameters in fp32.
        round_s: from one window to the next.
        parts: `compute`, `upload`, `gather`, `idle` of a peer's round; `blocked`: communication that training waits
            for; `evaluation`: what a validator needs after the put window.
        utilization, compute_share: as a run's summary has them.
        deadlines: shares of peers.
        useful_steps_per_hour: inner steps of all peers whose payload counts.
        validator_load: seconds that the busiest validator needs over those of a round.
        notes: what the plan leaves out of this scenario.
    """

    scenario: str
    peers: int
    inner_steps: int
    payload_bytes: float
    gather_bytes: float
    compression_ratio: float
    round_s: float
    parts: Mapping[str, Spread]
    utilization: float
    compute_share: float
    deadlines: Deadlines
    useful_steps_per_hour: float
    validator_load: float
    bottleneck: Bottleneck
    bill: Bill
    target: Reached | None
    notes: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """The same as plain values, for JSON; None for what is infinite or not known."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plan(scenario: Scenario, target: str | None = None, prices: Mapping[str, float] | None = None) -> RoundPlan:
    """Say what a scenario takes, without running it.

    Args:
        scenario: on windows or a barrier, through the store or from peer to peer.
        target: `utilization=0.95`, `on_time=0.9`, `round=25 min`: what would have to change to reach it.
        prices: of what `covsim.sweep.plan.bill.PRICES` names, in one currency.

    Raises:
        CannotPlan: a ValueError of one line.
    """
    wanted = None if target is None else parse_target(target)
    checked = None if prices is None else checked_prices(prices)
    measured = Measures.of(Setting.of(scenario))
    setting = measured.setting
    return RoundPlan(
        scenario=scenario.name,
        peers=setting.num_peers,
        inner_steps=setting.inner_steps,
        payload_bytes=setting.payload_bytes,
        gather_bytes=measured.total(lambda x: x.exchange.down_bytes) / setting.num_peers,
        compression_ratio=setting.dense_bytes / setting.payload_bytes,
        round_s=measured.round_s,
        parts=_parts(measured),
        utilization=measured.utilization,
        compute_share=measured.compute_share,
        deadlines=measured.deadlines,
        useful_steps_per_hour=measured.useful_steps_per_hour,
        validator_load=measured.validator_load,
        bottleneck=bottleneck(measured),
        bill=bill(measured, checked),
        target=None if wanted is None else _reached(measured, wanted),
        notes=tuple(_notes(scenario)),
    )


def _parts(measured: Measures) -> dict[str, Spread]:
    put_window_s = measured.setting.put_window_s
    return {
        "compute": measured.spread(lambda x: x.compute_s),
        "upload": measured.spread(lambda x: x.exchange.upload_s),
        "gather": measured.spread(lambda x: x.exchange.gather_s),
        "blocked": measured.spread(lambda x: x.blocked_s),
        "idle": measured.spread(lambda x: x.idle_s),
        "evaluation": measured.spread(lambda x: (x.exchange.judged_s - put_window_s).clip(min=0)),
    }


def _reached(measured: Measures, target: Target) -> Reached:
    return Reached(target, MEASURES[target.name](measured), answers(measured.setting, target))


def _notes(scenario: Scenario) -> Iterator[str]:
    """What a run of this scenario has and its plan has not."""
    cheats = sorted({c.behavior.kind for c in scenario.cohorts.values() if not isinstance(c.behavior, Honest)})
    if cheats:
        yield f"everybody is taken to be honest; {', '.join(cheats)} train or send otherwise"
    if scenario.faults:
        yield f"{len(scenario.faults)} faults are left out"
    if any(cohort.membership.kind != "always" for cohort in scenario.cohorts.values()):
        yield "everybody is taken to be there in every round; who comes later also fetches a checkpoint"
    if scenario.store.read_failure or scenario.store.outages:
        yield "reads are taken to succeed at the first attempt"
    if scenario.store.rate_limit is not None:
        yield "the store is taken to refuse no request; its rate limit is left out"
    if any(cohort.preemption is not None for cohort in scenario.cohorts.values()):
        yield "preempted time is its average; a barrier that waits for all waits for the unluckiest"
