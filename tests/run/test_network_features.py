"""Whole runs over a network with places, ranges, limits and links that vary: the checkers hold, and runs repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from covsim.digest import Digest
from covsim.events import Event, RequestRefused, Transferred
from covsim.nodes.seam import Computed
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, load
from covsim.simulation import Simulation

EVERYTHING = [
    "stop.rounds=2",
    "learning=synthetic",
    "store.region=europe",
    "store.rate_limit=3",
    "store.retries=6",
    "store.backoff=exponential",
    "store.ranges={size: 64 MB, parallel: 4, per_connection: 100 Mb/s}",
    "network.latencies={europe: {europe: 5 ms, america: 40 ms, asia: 250 ms}}",
    "network.jitter={kind: lognormal, sigma: 0.5}",
    "network.request_overhead=100 ms",
    "network.regions={asia: {uplink: 800 Mb/s, downlink: 3 Gb/s}}",
    "network.trunks={europe: {america: 2 Gb/s}}",
    "cohorts.europe.uplink_varies={kind: daily, depth: 30 %, spread: 24 h}",
    "cohorts.america.uplink_varies={kind: random_walk, every: 20 s, sigma: 0.2, bound: 0.6}",
    "cohorts.america.downlink_varies={kind: random_walk, every: 20 s, sigma: 0.2, bound: 0.6}",
    "cohorts.asia.downlink_varies={kind: steps, steps: [{at: 40 min, factor: 0.7}]}",
    "validators.second.downlink_varies={kind: steps, steps: [{at: 0 s, factor: 0.1}]}",
]
SLOWED = "faults=[{kind: link_slow, from_round: 1, to_round: 2, region: america, factor: 0.8}]"


def played(scenario: Scenario, observers: Sequence[Callable[[Event], None]] = ()) -> tuple[list[Event], str]:
    """The events of a run that trains nothing, and the digest of its clock."""
    events: list[Event] = []
    digest = Digest()
    simulation = Simulation(scenario, Computed(), (events.append, digest.add, *observers))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return events, digest.clock


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load("network/base", [*EVERYTHING, SLOWED])


@pytest.fixture(scope="module")
def clock(scenario: Scenario) -> str:
    return played(scenario)[1]


def test_all_rules_hold_and_the_run_repeats(scenario: Scenario, clock: str) -> None:
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, digest = played(scenario, [checker.observe for checker in checkers])
    assert digest == clock
    assert any(isinstance(event, RequestRefused) for event in events)
    uploads = [event for event in events if isinstance(event, Transferred) and event.purpose == "submit"]
    assert len({event.time_s - event.started_s for event in uploads if event.complete}) > 30, "links are apart"


@pytest.mark.parametrize("without", range(3, len(EVERYTHING)))
def test_each_setting_moves_the_clock(without: int, clock: str) -> None:
    """Catches a setting that is read and not heeded. Without exponential waits only who failed has another time."""
    kept = [change for place, change in enumerate(EVERYTHING) if place != without]
    if EVERYTHING[without] == "store.backoff=exponential":
        kept.append("store.read_failure=20 %")
        clock = played(load("network/base", [*EVERYTHING, "store.read_failure=20 %", SLOWED]))[1]
    assert played(load("network/base", [*kept, SLOWED]))[1] != clock


def test_a_trace_is_found_beside_the_scenario_and_changes_uploads(tmp_path: Path) -> None:
    def late(factor: float) -> int:
        (tmp_path / "mine.csv").write_text(f"seconds,factor\n0,{factor}\n")
        text = "extends: network/base\nversion: 1\nname: mine\nlearning: synthetic\nstop: {rounds: 2}\n"
        text += "cohorts: {asia: {uplink_varies: {kind: trace, path: mine.csv}}}\n"
        (tmp_path / "mine.yaml").write_text(text)
        events, _ = played(load(tmp_path / "mine.yaml"))
        uploads = [event for event in events if isinstance(event, Transferred) and event.purpose == "submit"]
        return sum(event.time_s - event.started_s > 240 for event in uploads)

    assert (late(1.0), late(0.5)) == (0, 2 * 8)
