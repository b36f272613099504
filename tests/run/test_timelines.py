"""Runs on barriers and over direct exchanges: closed forms of their time, who is late, who crashes, and resume."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted import resumed_at

from covsim.digest import Digest
from covsim.events import (
    Event,
    Exchanged,
    FaultBegan,
    FaultEnded,
    Gathered,
    NodeJoined,
    OuterStepTaken,
    PeerCrashed,
    PeerEntered,
    RoundSettled,
    RoundSkipped,
    RunStopped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    WindowOpened,
)
from covsim.nodes.seam import Computed
from covsim.nodes.spent import IDLE
from covsim.record.checkers import all_checkers
from covsim.record.other_rules import CannotRescore
from covsim.record.rescore import open_case, outcome
from covsim.record.runner import run as record
from covsim.scenario import Scenario, ScenarioError, loads, warnings
from covsim.simulation import Simulation

BY_HAND = """
version: 1
name: barrier
seed: 2
stop: {rounds: 3}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 1}
protocol: {kind: diloco, inner_steps: 4}
aggregate: {over: all, clip: none}
deployment: {preset: same, inner_step: 10 s, evaluation: 1 s, tensors: [{count: 1, shape: [64, 64]}]}
timeline: {kind: barrier, block: 12 s, put_window: 2000 s, gather_timeout: 4000 s, poll: 1 s, longest: 10000 s}
network: {latency: 0 s}
peers: 4
cohorts:
  quick: {share: rest, uplink: 1 kb/s, downlink: 1 kb/s}
  slow: {count: 1, uplink: 1 kb/s, downlink: 1 kb/s, speed: 0.25}
validators: {lead: {stake: 1, downlink: 1 Gb/s, uplink: 1 Gb/s}}
selection: all
gauntlet: {evaluated_per_window: 1, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
"""
STEP_S, H, SLOWNESS = 10.0, 4, 4


def scenario(*overrides: str) -> Scenario:
    """Four peers of which one has a quarter of the speed, on a barrier."""
    return loads(BY_HAND, overrides=overrides)


def run(played: Scenario) -> list[Event]:
    """Its events, with all checkers on."""
    return digested(played)[0]


def digested(played: Scenario) -> tuple[list[Event], Digest, int]:
    """Its events, its digest and the number of its steps."""
    events: list[Event] = []
    digest = Digest()
    checkers = all_checkers(put_window_s=played.timeline.put_window, direct=played.topology.direct)
    simulation = Simulation(played, Computed(), (events.append, digest.add, *(each.observe for each in checkers)))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    digest.add_final(simulation.final_theta.numpy().tobytes())
    return events, digest, simulation.num_steps


def of(events: list[Event], kind: type[Any], **wanted: Any) -> list[Any]:
    """The events of a kind with these values."""
    return [
        event
        for event in events
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items())
    ]


def slow_uid(events: list[Event]) -> int:
    return of(events, NodeJoined, cohort="slow")[0].uid


def opened_s(events: list[Event]) -> list[float]:
    return [event.time_s for event in of(events, WindowOpened)]


def payload_s(played: Scenario) -> float:
    """Seconds of a payload over 1 kb/s."""
    return played.payload_bytes * 8 / 1e3


# Barriers -----------------------------------------------------------------------------------------------------------


def test_all_wait_for_the_slowest_and_a_round_is_compute_upload_and_gather() -> None:
    played = scenario()
    events = run(played)
    compute_s, sent_s = H * STEP_S * SLOWNESS, payload_s(played)
    round_s = compute_s + sent_s + 3 * sent_s  # the slowest's steps, an upload, and the gather of three others
    expected = [0.0, compute_s, compute_s + round_s, compute_s + 2 * round_s]
    assert opened_s(events) == pytest.approx(expected, rel=1e-3)
    assert {event.steps for event in of(events, Trained)} == {H}
    assert {event.outcome for event in of(events, Gathered)} == {"complete"}


def test_the_quick_wait_at_the_barrier_and_the_slow_one_never_does() -> None:
    events = run(scenario())
    slow = slow_uid(events)
    for settled in of(events, RoundSettled):
        waited_s = 0.0 if settled.uid == slow else H * STEP_S * (SLOWNESS - 1)
        assert settled.idle_window_s == pytest.approx(waited_s, abs=1e-6)
        assert settled.idle_window_s + settled.idle_arrival_s == pytest.approx(settled.idle_s, abs=1e-6)


def test_the_first_three_cut_the_last_at_its_next_whole_step() -> None:
    played = scenario("timeline.wait_for={first: 3}")
    events = run(played)
    slow = slow_uid(events)
    assert opened_s(events)[1] == H * STEP_S  # 40 s: the slow one has ended one step, and ends no other until 40 s
    trained = of(events, Trained, uid=slow)
    assert [event.steps for event in trained] == [1, 1, 1]
    assert trained[0].time_s == STEP_S * SLOWNESS


def test_a_step_that_is_begun_is_ended() -> None:
    """At 40 s a peer of 0.3 steps a second-of-ten is within its second step, which ends at 66.7 s."""
    events = run(scenario("timeline.wait_for={first: 3}", "cohorts.slow.speed=0.3"))
    (first, *_) = of(events, Trained, uid=slow_uid(events))
    assert (first.steps, first.time_s) == (2, pytest.approx(2 * STEP_S / 0.3))


def test_who_is_not_cut_is_not_waited_for_by_those_who_are_ready() -> None:
    """With `when_slow: late` the slow peer does all its steps, whatever the barrier says, and the others exchange."""
    cut, late = (
        run(
            direct(
                "ring", "cohorts.slow.speed=0.25", "timeline.wait_for={first: 3}", f"cohorts.slow.when_slow={policy}"
            )
        )
        for policy in ("fewer_steps", "late")
    )
    slow = f"peer:{slow_uid(late)}"
    assert slow not in {event.node for event in of(late, Exchanged, round=0)}
    assert slow in {event.node for event in of(cut, Exchanged, round=0)}
    assert opened_s(late)[2] <= opened_s(cut)[2]


def test_who_may_miss_a_round_ends_its_steps_and_skips_what_began_meanwhile() -> None:
    events = run(scenario("timeline.wait_for={first: 3}", "timeline.late=miss", "timeline.put_window=100 s"))
    slow = slow_uid(events)
    (first, *_) = of(events, Trained, uid=slow)
    assert (first.steps, first.time_s) == (H, H * STEP_S * SLOWNESS)
    assert not any(event.on_time for event in of(events, Submitted, uid=slow, round=0))
    assert all(slow in event.missing for event in of(events, Gathered, round=0))
    assert of(events, RoundSkipped, uid=slow)


@pytest.mark.parametrize(("deadline", "opens_s"), [("60 s", 60.0), ("500 s", H * STEP_S * SLOWNESS)])
def test_a_deadline_is_the_latest_and_all_are_enough(deadline: str, opens_s: float) -> None:
    events = run(scenario(f"timeline.wait_for={{deadline: {deadline}}}"))
    assert opened_s(events)[1] == opens_s


def test_a_deadline_that_nobody_meets_gives_empty_rounds_and_a_warning() -> None:
    """Cut before a step is done: nobody hangs, nothing is lost from sight, and preflight has said so."""
    played = scenario("timeline.wait_for={deadline: 5 s}", "timeline.late=miss", "timeline.put_window=1 s")
    assert any("nobody" in line and "deadline" in line for line in warnings(played))
    events = run(played)
    assert {event.outcome for event in of(events, Gathered)} == {"empty"}
    assert not of(events, OuterStepTaken)
    assert of(events, RunStopped)[0].reason == "rounds"


def test_a_gather_ends_when_all_that_is_listed_is_there() -> None:
    played = scenario()
    events = run(played)
    ended_s = [event.gather_s for event in of(events, Gathered) if event.node.startswith("peer")]
    assert max(ended_s) < payload_s(played) * 4 + 2
    assert max(ended_s) < played.timeline.put_window


def test_every_second_of_a_peer_has_a_cause() -> None:
    """Over all rounds, and to a nanosecond: it would catch a wait that nobody books."""
    events = run(scenario("timeline.wait_for={first: 3}"))
    for uid in range(4):
        settled = of(events, RoundSettled, uid=uid)
        spans = [
            each for event in settled for each in (event.compute_s, event.upload_s, event.download_s, event.idle_s)
        ]
        assert math.fsum(spans) == pytest.approx(settled[-1].time_s, abs=1e-9)
        assert sum(event.idle_other_s for event in settled) == 0


# Who comes and goes -------------------------------------------------------------------------------------------------


def test_nobody_waits_for_who_has_crashed_and_it_comes_back() -> None:
    played = scenario("stop.rounds=6", "faults=[{kind: crash, cohort: slow, at: 100 s, lasts: 700 s}]")
    events = run(played)
    slow = slow_uid(events)
    assert of(events, PeerCrashed, uid=slow)
    assert opened_s(events)[1] == 100.0  # the others have been ready since 40 s
    (entered,) = of(events, PeerEntered, uid=slow)
    assert entered.time_s > 800
    assert of(events, RoundSettled, uid=slow)[0].round == entered.round
    assert of(events, RunStopped)[0].rounds == 6


def test_rounds_go_on_when_everybody_has_crashed() -> None:
    """The limit on any window is what ends it."""
    played = scenario("timeline.longest=2000 s", "stop.rounds=4", "faults=[{kind: crash, at: 20 s, lasts: 2500 s}]")
    events = run(played)
    assert opened_s(events)[:2] == [0.0, 2000.0]
    assert of(events, RunStopped)[0].rounds == 4


def test_a_fault_by_rounds_begins_and_ends_with_their_windows() -> None:
    """Nobody can foresee when; round 1 is exchanged in window 2."""
    played = scenario("faults=[{kind: link_slow, factor: 0.5, from_round: 1, to_round: 2}]", "stop.rounds=4")
    events = run(played)
    times = opened_s(events)
    assert [event.time_s for event in of(events, FaultBegan)] == [times[2]]
    assert [event.time_s for event in of(events, FaultEnded)] == [times[3]]
    lasted_s = [after - before for before, after in itertools.pairwise(times[1:])]
    assert lasted_s[1] - lasted_s[0] == pytest.approx(4 * payload_s(played), rel=0.05)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["faults=[{kind: crash, rate: 10 %, lasts: 10 s}]"], "a rate counts windows"),
        (["faults=[{kind: chain_stall, from_round: 1, to_round: 2}]"], "the chain is stalled before the run"),
        (["~stop.rounds", "+stop.simulated=3 h"], "how many rounds fit into a time is not known"),
        (["protocol=async_diloco"], "waits for nobody"),
        (["timeline.wait_for={first: 5}"], "there are 4 peers"),
        (["topology=ring", "timeline={kind: windowed}"], "it needs timeline.kind barrier"),
        (["topology=ring", "selection=random"], "it needs selection: all"),
        (["topology=ring", "stop={bytes: 1 GB}"], "counts uploads to a store"),
        (["topology=star"], "star"),
        (
            ["topology=ring", "+faults=[{kind: partition, from_round: 1, to_round: 2, share: 50 %}]"],
            "partition does nothing to a ring",
        ),
        (["topology=tree", "+network.jitter={kind: uniform, most: 1 s}"], "jitter belongs to requests of a store"),
        (["topology=ring", "+network.request_overhead=1 s"], "request_overhead belongs to requests of a store"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(overrides: list[str], complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(*overrides)
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# Direct exchanges ---------------------------------------------------------------------------------------------------


def direct(kind: str, *overrides: str) -> Scenario:
    """Four peers of equal speed."""
    return scenario(f"topology={kind}", "cohorts.slow.speed=1", *overrides)


@pytest.mark.parametrize(
    ("kind", "payloads"),
    [("ring", 2 * 3 / 4), ("all_to_all", 2 * 3 / 4), ("tree", 2 * 2), ("gossip", 1)],
)
def test_a_round_is_compute_and_the_closed_form_of_its_exchange(kind: str, payloads: float) -> None:
    played = direct(kind)
    events = run(played)
    round_s = H * STEP_S + payloads * payload_s(played)
    expected = [H * STEP_S + number * round_s for number in range(3)]
    assert opened_s(events)[1:] == pytest.approx(expected, rel=1e-9)
    for exchanged in of(events, Exchanged):
        assert exchanged.time_s - exchanged.started_s == pytest.approx(payloads * payload_s(played))


def test_what_cannot_be_added_on_the_way_is_all_gathered() -> None:
    """4 bits a value: sums have other levels, so a ring carries all three others' payloads over each link."""
    played = direct("ring", "protocol.values={kind: uniform, bits: 4}")
    events = run(played)
    (first, *_) = of(events, Exchanged)
    assert first.bytes_up == pytest.approx(3 * played.payload_bytes)


@pytest.mark.parametrize("kind", ["ring", "all_to_all", "tree"])
def test_everybody_gets_everything_and_histories_are_one(kind: str) -> None:
    events = run(direct(kind))
    assert {event.uids for event in of(events, Gathered)} == {(0, 1, 2, 3)}
    for round in range(3):
        assert len({event.lineage for event in of(events, OuterStepTaken, round=round)}) == 1


def test_what_is_learned_does_not_depend_on_the_way() -> None:
    """All payloads enter under all of these, so the final parameters are those of the store to the last bit."""
    lineages = [
        {event.lineage for event in of(run(played), OuterStepTaken, round=2)}
        for played in (direct("object_store"), direct("ring"), direct("tree"))
    ]
    assert lineages[0] == lineages[1] == lineages[2]


def test_a_trunk_carries_what_crosses_it_as_often_as_it_does() -> None:
    """Of the ring's four hops two go from one region to the other: half of the trunk is left for each."""
    regions = ("+cohorts.quick.region=eu", "+cohorts.slow.region=us", "cohorts.slow.count=2", "seed=3")
    trunks = "+network.trunks={eu: {us: 1 kb/s}, us: {eu: 1 kb/s}}"
    plain, crossed = run(direct("ring", *regions)), run(direct("ring", *regions, trunks))
    members = sorted(int(joined.node.partition(":")[2]) for joined in of(plain, NodeJoined, cohort="slow"))
    assert members in ([0, 2], [1, 3]), "the regions take turns in the ring"
    plain_s, crossed_s = (
        {event.time_s - event.started_s for event in of(events, Exchanged, round=1)} for events in (plain, crossed)
    )
    assert max(crossed_s) == pytest.approx(2 * max(plain_s), rel=1e-9)


def test_gossip_asks_for_a_quorum_of_its_pairs() -> None:
    """Catches a quorum of all peers, which no pair ever has, so that nobody would learn anything."""
    events = run(direct("gossip", "selection={kind: all, quorum: 0.9}"))
    assert {event.outcome for event in of(events, Gathered) if event.node.startswith("peer")} == {"complete"}


def test_gossip_averages_pairs() -> None:
    events = run(direct("gossip"))
    for gathered in of(events, Gathered):
        if gathered.node.startswith("peer"):
            assert len(gathered.uids) == 2
            assert int(gathered.node.partition(":")[2]) in gathered.uids
    lineages = {event.lineage for event in of(events, OuterStepTaken, round=2)}
    assert len(lineages) > 2


def test_a_validator_pays_all_who_took_part_the_same() -> None:
    events = run(direct("ring"))
    for scored in of(events, Scored):
        assert scored.weights == tuple((uid, 0.25) for uid in range(4))


def test_the_exchange_of_a_member_that_crashes_is_cut_and_done_again_by_the_rest() -> None:
    played = direct("ring", "faults=[{kind: crash, cohort: slow, at: 60 s, lasts: 5000 s}]")
    events = run(played)
    slow = slow_uid(events)
    cut, again = (of(events, Exchanged, round=0, complete=complete) for complete in (False, True))
    assert {event.time_s for event in cut} == {60.0}
    assert len(cut) == 4
    assert 0 < cut[0].bytes_up < 1.5 * played.payload_bytes
    assert {event.node for event in again} == {f"peer:{uid}" for uid in range(4) if uid != slow}
    assert again[0].time_s - 60 == pytest.approx(2 * 2 / 3 * payload_s(played))
    for gathered in of(events, Gathered, round=0):
        if gathered.node.startswith("peer"):
            assert (gathered.outcome, gathered.missing) == ("partial", (slow,))


def test_an_exchange_that_lasts_too_long_is_given_up_by_all() -> None:
    played = direct("ring", "timeline.gather_timeout=20 s", "stop.rounds=2")
    events = run(played)
    assert {event.outcome for event in of(events, Gathered) if event.node.startswith("peer")} == {"aborted"}
    assert not of(events, OuterStepTaken)


def test_who_comes_when_an_exchange_has_begun_fetches_what_came_of_it() -> None:
    """Late and not cut, it is on the same history as the rest after its round."""
    played = scenario("topology=ring", "timeline.wait_for={first: 3}", "timeline.late=miss")
    events = run(played)
    slow = slow_uid(events)
    (step, *_) = of(events, OuterStepTaken, node=f"peer:{slow}", round=0)
    assert step.lineage == of(events, OuterStepTaken, node="validator:lead", round=0)[0].lineage
    assert slow not in of(events, Gathered, node=f"peer:{slow}", round=0)[0].uids


def test_a_peer_that_comes_back_fetches_sums_and_takes_part_again() -> None:
    """One payload a round, not one of each: nobody has single payloads after an all-reduce."""
    crash = "faults=[{kind: crash, cohort: slow, at: 60 s, lasts: 100 s}]"
    played = direct("ring", "stop.rounds=6", crash, "cohorts.slow.downlink=10 kb/s")
    events = run(played)
    slow = slow_uid(events)
    (entered,) = of(events, PeerEntered, uid=slow)
    assert entered.round <= 4
    fetched = of(events, Transferred, node=f"peer:{slow}", direction="down")
    assert [event.num_bytes for event in fetched] == [pytest.approx(played.payload_bytes)] * entered.round
    last = of(events, OuterStepTaken, round=5)
    assert {event.node for event in last} >= {f"peer:{slow}"}
    assert len({event.lineage for event in last}) == 1


# The same to the last bit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [["timeline.wait_for={first: 3}"], ["topology=ring"], ["topology=gossip"]],
    ids=["first", "ring", "gossip"],
)
def test_a_run_goes_on_from_its_tape_to_the_same_bits(overrides: list[str], tmp_path: Path) -> None:
    played = scenario(*overrides)
    _, digest, num_steps = digested(played)
    found = 0
    for step in range(num_steps // 9, num_steps, num_steps // 9):
        after = resumed_at(played, tmp_path / f"tape-{step}", step)
        if after is not None:
            found += 1
            assert after == (digest.clock, digest.learning)
    assert found >= 3


def test_the_same_rules_make_the_same_of_a_recorded_barrier(tmp_path: Path) -> None:
    """Lists take force in windows whose openings only the record knows."""
    played = scenario(
        "timeline.wait_for={first: 3}", "stop.rounds=6", "selection={kind: random, gather: 2, reserve: 0}"
    )
    case = open_case(record(played, "text", out=tmp_path).folder)
    assert case.recorded is not None
    again = outcome(case, case.scenario)
    assert len(case.recorded.lists) > 2
    assert again.lists == case.recorded.lists
    assert list(map(str, again.verdicts)) == list(map(str, case.recorded.verdicts))  # some numbers are NaN


def test_a_direct_exchange_leaves_nothing_to_judge_again(tmp_path: Path) -> None:
    folder = record(direct("ring", "stop.rounds=1"), "text", out=tmp_path).folder
    with pytest.raises(CannotRescore, match="over a ring nothing was measured"):
        open_case(folder)


def test_what_a_ring_carries_is_in_the_tables_and_the_summary(tmp_path: Path) -> None:
    """Bytes of both directions, their cost, and every cause of idle time."""
    played = direct("ring", "economics={compute_per_hour: 0, upload_per_gb: 1000000}")
    run_of_it = record(played, "text", out=tmp_path)
    sent = 3 * 4 * 1.5 * played.payload_bytes
    assert run_of_it.summary["network.bytes_up"] == pytest.approx(sent)
    assert run_of_it.summary["network.bytes_down"] == pytest.approx(sent)
    peers = pd.read_parquet(run_of_it.folder / "peers.parquet")
    assert (peers[list(IDLE)].sum(axis=1) - peers["idle_s"]).abs().max() < 1e-9
    assert peers["contributed"].all()
    assert peers["cost"].sum() == pytest.approx(sent / 1e3)
