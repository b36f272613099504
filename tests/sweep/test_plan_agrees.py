"""What a plan says is what a run does: seconds, shares and bytes of the same scenarios, played without tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pytest

from covsim.events import Event, Exchanged, RoundSettled, Submitted, Transferred, WindowOpened
from covsim.nodes.seam import Computed
from covsim.scenario import Scenario, load
from covsim.simulation import Simulation
from covsim.sweep.plan import RoundPlan, plan

FIRST = 1
"""Rounds are compared from this one on: the first has no exchange before it."""


@dataclass(frozen=True)
class Observed:
    """What a run shows of its rounds; means over peers and rounds."""

    round_s: float
    compute_s: float
    upload_s: float
    gather_s: float
    blocked_s: float
    utilization: float
    on_time: float
    up_bytes: float
    down_bytes: float
    gets: float


def observed(scenario: Scenario) -> Observed:
    """Play a scenario and read off its rounds."""
    events: list[Event] = []
    simulation = Simulation(scenario, Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    settled = [e for e in events if isinstance(e, RoundSettled) and e.round >= FIRST]
    opened = [e.time_s for e in events if isinstance(e, WindowOpened)]
    submitted = [e for e in events if isinstance(e, Submitted) and e.round >= FIRST]
    moved = [e for e in events if isinstance(e, Transferred)]
    exchanged = [e for e in events if isinstance(e, Exchanged)]
    rounds = len(opened) - 1
    compute_s = fmean(e.compute_s for e in settled)
    blocked_s = fmean(
        e.upload_s + e.download_s + e.idle_exchange_s + e.idle_retry_s + e.idle_arrival_s for e in settled
    )
    return Observed(
        round_s=(opened[-1] - opened[FIRST]) / (len(opened) - 1 - FIRST),
        compute_s=compute_s,
        upload_s=fmean(e.upload_s for e in settled),
        gather_s=fmean(e.download_s + e.idle_arrival_s + e.idle_retry_s for e in settled),
        blocked_s=blocked_s,
        utilization=compute_s / (compute_s + blocked_s),
        on_time=fmean(e.on_time for e in submitted),
        up_bytes=(sum(e.num_bytes for e in moved if e.direction == "up") + sum(e.bytes_up for e in exchanged)) / rounds,
        down_bytes=(sum(e.num_bytes for e in moved if e.direction == "down") + sum(e.bytes_down for e in exchanged))
        / rounds,
        gets=sum(e.direction == "down" for e in moved) / rounds,
    )


def honest(name: str, changes: Mapping[str, Any]) -> Scenario:
    """A shipped scenario, timing only, everybody honest and there, a few rounds of it."""
    cohorts = load(name).cohorts
    everybody = {f"cohorts.{cohort}.behavior": "honest" for cohort in cohorts}
    there = {f"cohorts.{cohort}.membership": "always" for cohort in cohorts}
    return load(name, {"learning": "synthetic", "stop.rounds": 4, "expect": None, **everybody, **there, **changes})


def check(scenario: Scenario, gather: float = 0.02, points: float = 0.01, period: float = 0.01) -> None:
    """A plan beside a run: seconds within 1 % (of gathers within `gather`), shares within `points`."""
    ours, seen = plan(scenario), observed(scenario)
    assert ours.round_s == pytest.approx(seen.round_s, rel=period)
    assert ours.parts["compute"].mean == pytest.approx(seen.compute_s, rel=0.01)
    if scenario.plan.overlap_steps is None:
        assert ours.parts["upload"].mean == pytest.approx(seen.upload_s, rel=0.01, abs=1e-6)
        assert ours.parts["gather"].mean == pytest.approx(seen.gather_s, rel=gather, abs=RETRY_S)
    assert ours.parts["blocked"].mean == pytest.approx(seen.blocked_s, rel=max(gather, 0.02), abs=RETRY_S)
    assert ours.utilization == pytest.approx(seen.utilization, abs=points)
    assert ours.deadlines.put_window == pytest.approx(seen.on_time, abs=0.02)
    check_bytes(ours, seen, gather)


def check_bytes(ours: RoundPlan, seen: Observed, tolerance: float) -> None:
    """The bill's traffic and requests, per round."""
    rounds = ours.bill.rounds
    assert ours.bill.tb_up / rounds * 1e12 == pytest.approx(seen.up_bytes, rel=0.01)
    assert ours.bill.tb_down / rounds * 1e12 == pytest.approx(seen.down_bytes, rel=max(0.03, tolerance))
    assert math.isclose(ours.bill.gets / rounds, seen.gets, rel_tol=0.03, abs_tol=0.5)


RETRY_S = 0.3
"""A read that fails, one in a hundred, is tried again after a second: what that adds to a gather of 15 at most."""

FEW = {"stop.rounds": 3}
SMALL = {"stop.rounds": 3, "peers": 24, "selection.gather": 8}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quickstart", {}),
        ("papers/a5/literal-20", {}),
        ("papers/a5/bytes-17", {}),
        ("papers/a8/1440", {}),
        ("protocols/diloco", {}),
        ("protocols/sparseloco", {}),
        ("plans/barrier", SMALL),
        ("plans/first", SMALL | {"timeline.wait_for": {"first": 20}}),
        ("plans/all-to-all", FEW),
    ],
)
def test_a_plan_is_the_run(name: str, changes: Mapping[str, Any]) -> None:
    """Windows, barriers, store and direct exchanges. Catches any part of a round that the plan times otherwise."""
    check(honest(name, changes))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("covenant72b", {}),
        ("covenant72b-d64", {}),
        ("covenant72b-as-reported", {}),
        ("covenant72b-live", {}),
        ("phases/72b-v2.1.28", {}),
        ("phases/72b-v2.1.0", {}),
        ("phases/8b-v0.3.10", {}),
        ("phases/8b-v1.0.20", {}),
        ("plans/barrier", {}),
        ("plans/first", {}),
        ("phases/1b-v0.2.88", {}),
    ],
)
@pytest.mark.slow
def test_plans_of_the_flagship_family_are_their_runs(name: str, changes: Mapping[str, Any]) -> None:
    """The shipped scenarios of 72 billion parameters and the live phases."""
    check(honest(name, changes), gather=0.05, points=0.015)


def test_fragments_in_turn_are_told_apart() -> None:
    """Of three fragments one is so large that its exchange outlasts the overlap; the mean size would show no wait."""
    scenario = honest("protocols/streaming_diloco", {"stop.rounds": 60})
    ours, seen = plan(scenario), observed(scenario)
    assert seen.utilization < 0.9
    assert ours.utilization == pytest.approx(seen.utilization, abs=0.015)


def test_who_shares_the_store_waits_for_it() -> None:
    """24 uploads through 1.5 Gb/s and 24 gathers through 6 Gb/s, which take much longer than links alone would."""
    store = {"ingress": "1.5 Gb/s", "egress": "6 Gb/s"}
    scenario = honest("plans/tight-store", SMALL | {"store": store})
    alone = plan(load("plans/barrier")).parts["upload"].mean
    assert plan(scenario).parts["upload"].mean > 1.5 * alone
    check(scenario, gather=0.03)


@pytest.mark.parametrize(("name", "optimistic"), [("plans/tree", 0.10), ("plans/gossip", 0.05)])
def test_drawn_places_are_right_on_average(name: str, optimistic: float) -> None:
    """A tree is a lower bound: a link stands idle while others hold its flows back. Gossip draws other pairs."""
    scenario = honest(name, {"stop.rounds": 6})
    ours, seen = plan(scenario), observed(scenario)
    assert ours.parts["gather"].mean == pytest.approx(seen.gather_s, rel=optimistic)
    assert ours.round_s == pytest.approx(seen.round_s, rel=optimistic)


def test_nobody_lands_where_nobody_can() -> None:
    """The literal links: uploads outlast the put window, so gathers are empty and no step counts."""
    ours, seen = plan(honest("covenant72b-literal", FEW)), observed(honest("covenant72b-literal", FEW))
    assert (ours.deadlines.put_window, seen.on_time) == (0, 0)
    assert (ours.useful_steps_per_hour, ours.bill.tb_down, seen.down_bytes) == (0, 0, 0)
    assert ours.utilization == pytest.approx(seen.utilization, abs=0.01)


@pytest.mark.parametrize("policy", ["fewer_steps", "smaller_batch"])
def test_slow_machines_do_what_fits(policy: str) -> None:
    """Half of the machines at less than half of the speed, on windows. Catches steps or batches that do not fit."""
    slow = {"kind": "choice", "values": [1.0, 0.4]}
    changes = {"cohorts.honest.speed": slow, "cohorts.honest.when_slow": policy}
    scenario = honest(
        "quickstart", changes | {"peers": 12, "cohorts": {"lazy": {"count": 0}, "flippers": {"count": 0}}}
    )
    ours = plan(scenario)
    assert ours.deadlines.all_steps < 0.8
    check(scenario)


def test_machines_that_vary_do_so_on_average() -> None:
    """Step noise and slow-downs; eight rounds are drawn as the engine draws them."""
    slowdowns = {"rate": 0.1, "factor": 2.0, "lasts": 2}
    scenario = honest("quickstart", {"cohorts.honest.slowdowns": slowdowns, "stop.rounds": 8})
    assert plan(scenario).parts["compute"].mean == pytest.approx(observed(scenario).compute_s, rel=0.02)
