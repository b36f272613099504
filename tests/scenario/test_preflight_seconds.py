"""The seconds that warnings and plans reckon with are those of a run: places, jitter, overhead, ranges."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from covsim.events import Event, Exchanged, RoundSettled, Transferred
from covsim.nodes.seam import Computed
from covsim.scenario import Scenario, load, population
from covsim.scenario.preflight_network import gather_s, upload_s
from covsim.scenario.preflight_timelines import exchange_at_least_s
from covsim.simulation import Simulation
from covsim.sweep.plan.setting import Setting

PLACES = [
    "learning=synthetic",
    "stop.rounds=20",
    "peers=12",
    "cohorts.america.count=4",
    "cohorts.asia.count=4",
    "selection=all",
    "store.region=europe",
    "network.latencies={europe: {europe: 1 s, america: 2 s, asia: 4 s}}",
    "network.jitter={kind: lognormal, sigma: 0.6}",
    "network.request_overhead=500 ms",
]
MEAN_OF_JITTER = math.exp(0.6**2 / 2)
REQUEST_S = {"europe": 0.5 + 1 * MEAN_OF_JITTER, "america": 0.5 + 2 * MEAN_OF_JITTER, "asia": 0.5 + 4 * MEAN_OF_JITTER}


def played(scenario: Scenario) -> list[Event]:
    events: list[Event] = []
    simulation = Simulation(scenario, Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return events


def test_uploads_take_what_is_said_of_them() -> None:
    """A closed form, what warnings say, what a plan says, and the mean of a run.

    The mean of 80 requests spreads by 7 % of itself; by the plain latency of 50 ms it would be near 0.
    """
    scenario = load("network/base", PLACES)
    events, peers = played(scenario), population(scenario)
    planned = Setting.of(scenario).wait_s
    for place, request_s in REQUEST_S.items():
        own = [peer for peer in peers if peer.cohort == place]
        closed_s = request_s + scenario.payload_bytes * 8 / 110e6
        nodes = {f"peer:{peer.uid}" for peer in own}
        uploads = [e for e in events if isinstance(e, Transferred) and e.direction == "up" and e.node in nodes]
        took = [e.time_s - e.started_s for e in uploads]
        assert len(took) == 80
        assert [upload_s(scenario, peer) for peer in own] == pytest.approx([closed_s] * 4)
        assert [planned[peer.uid] for peer in own] == pytest.approx([request_s] * 4)
        assert fmean(took) == pytest.approx(closed_s, abs=0.25 * request_s)


def test_gathers_in_ranges_take_what_is_said_of_them() -> None:
    """One listed payload, 32 ranges over 4 connections of 50 Mb/s: 8 turns of requests, and 200 of 500 Mb/s.

    The listed peer uploads in no time, so the others' gather begins when the payload is there.
    """
    changes = [
        "learning=synthetic",
        "stop.rounds=3",
        "peers=3",
        "cohorts.america.count=1",
        "cohorts.asia.count=1",
        "selection={kind: fixed, uids: [0]}",
        "network.request_overhead=500 ms",
        "store.ranges={size: 64 MB, parallel: 4, per_connection: 50 Mb/s}",
        *(f"cohorts.{name}.uplink=100 Gb/s" for name in ("europe", "america", "asia")),
    ]
    scenario = load("network/base", changes)
    peer = population(scenario)[1]
    closed_s = 8 * 0.55 + scenario.payload_bytes * 8 / 200e6
    assert gather_s(scenario, peer, 1) == pytest.approx(closed_s)
    settled = [e for e in played(scenario) if isinstance(e, RoundSettled) and e.uid == 1]
    assert fmean(e.download_s for e in settled) == pytest.approx(closed_s, abs=0.01)


@pytest.mark.parametrize("topology", ["ring", "all_to_all"])
def test_direct_exchanges_pay_the_latencies_of_their_places(topology: str) -> None:
    """What warnings say, what a plan says and a run; all links alike, so the bound is exact."""
    changes = [
        "learning=synthetic",
        "stop.rounds=2",
        "peers=5",
        "cohorts.america.count=1",
        "cohorts.asia.count=1",
        "selection=all",
        "~timeline",
        "+timeline={kind: barrier, put_window: 240 s, gather_timeout: 900 s}",
        f"topology={topology}",
        "network.latencies={europe: {europe: 1 s, america: 5 s, asia: 10 s}, america: {america: 1 s, asia: 10 s}, "
        "asia: {asia: 1 s}}",
    ]
    scenario = load("network/base", changes)
    least_s = exchange_at_least_s(scenario, population(scenario))
    direct = Setting.of(scenario).direct
    assert direct is not None
    assert direct[0].seconds(scenario.payload_bytes).max() == pytest.approx(least_s)
    took = [e.time_s - e.started_s for e in played(scenario) if isinstance(e, Exchanged) and e.complete]
    assert len(took) == 10
    assert took == pytest.approx([least_s] * 10, rel=1e-6)
