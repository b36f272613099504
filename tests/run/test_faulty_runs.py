"""Whole runs with every fault: each does what it says, breaks no rule, and leaves what it does not strike alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_resume import assert_equal
from test_resume_protocols import Press

from covsim.events import (
    Evaluated,
    Event,
    FaultBegan,
    FaultEnded,
    Gathered,
    NodeJoined,
    ObjectDamaged,
    OuterStepTaken,
    PeerCrashed,
    PeerEntered,
    Registered,
    RequestRefused,
    RoundSettled,
    RoundSkipped,
    RunStopped,
    StoreClockSet,
    Submitted,
    Trained,
    Transferred,
    ValidatorSettled,
    WindowOpened,
)
from covsim.record.checkers import all_checkers
from covsim.record.checkpoint import newest_checkpoint
from covsim.record.runner import Interrupted, resume, run
from covsim.scenario import Scenario, loads
from covsim.world.faults import faults as kinds

BASE = """
version: 1
name: faulty
seed: 5
stop: {rounds: 5}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 1}
protocol: {kind: sparseloco, inner_steps: 2, k: 64}
deployment: {preset: covenant-72b, inner_step: 200 s, evaluation: 8 s}
timeline: {blocks_per_window: 100, put_window: 200 s, gather_timeout: 500 s}
peers: 7
cohorts:
  near: {share: rest, uplink: 110 Mb/s, downlink: 500 Mb/s}
  far: {count: 2, region: north, uplink: 110 Mb/s, downlink: 500 Mb/s}
validators: {lead: {stake: 0.7}, second: {stake: 0.3}}
selection: {kind: all}
gauntlet: {evaluated_per_window: 7, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
compute: {threads: 1}
"""
WINDOW_S = 1200.0
ROUNDS_1_AND_2 = "from_round: 1, to_round: 3"  # exchanged in windows 2 and 3
UPLOAD_S = 1_989_513_180 * 8 / 110e6  # of a regular payload

Faulty = Callable[..., list[Event]]


def scenario_with(*faults: str, **more: Any) -> Scenario:
    return loads(
        f"{BASE}\nfaults: [{', '.join(faults)}]\n", overrides=[f"{key}={value}" for key, value in more.items()]
    )


@pytest.fixture(scope="module")
def faulty(play: Callable[..., tuple[list[Event], Any]]) -> Faulty:
    """The events of a run with some faults, under all checkers."""
    known: dict[str, list[Event]] = {}

    def events(*faults: str, **more: Any) -> list[Event]:
        key = json.dumps([faults, more])
        if key not in known:
            scenario = scenario_with(*faults, **more)
            checkers = all_checkers(put_window_s=scenario.timeline.put_window)
            known[key], _ = play(scenario, [checker.observe for checker in checkers])
        return known[key]

    return events


def of(events: list[Event], kind: type[Any], **fields: Any) -> list[Any]:
    """The events of a kind whose fields have these values."""
    found = [event for event in events if isinstance(event, kind)]
    return [event for event in found if all(getattr(event, name) == value for name, value in fields.items())]


def without_faults(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, FaultBegan | FaultEnded)]


def submitted(events: list[Event], uid: int) -> list[int]:
    """The rounds for which a peer's payload landed in time."""
    return [event.round for event in of(events, Submitted, uid=uid, on_time=True)]


def gathered(events: list[Event], node: str) -> dict[int, tuple[int, ...]]:
    return {event.round: event.uids for event in of(events, Gathered, node=node)}


def judged(events: list[Event], uid: int) -> list[str]:
    """What the lead validator says of a peer in each round."""
    return [event.status for event in of(events, Evaluated, validator="lead", uid=uid)]


NEEDED = {
    "link_slow": ", factor: 0.8, share: 50 %",
    "link_cut": ", share: 30 %, restarts: true",
    "flapping": ", period: 90 s, share: 50 %",
    "partition": ", share: 30 %, restarts: true",
    "store_rate_limit": ", requests_per_s: 0.5",
    "slow_reads": ", limit: 100 Mb/s, delay: 10 s",
    "clock_skew": ", behind: 100 s",
    "region_failure": ", region: north",
    "late_block": ", lasts: 50 s",
    "crash": ", share: 30 %",
    "nan_batch": ", share: 30 %",
    "bad_shard": ", share: 50 %",
    "lost_object": ", share: 30 %",
    "truncated_object": ", share: 30 %",
    "version_split": ", share: 40 %",
}


@pytest.mark.parametrize("kind", list(kinds))
def test_a_run_with_it_ends_and_breaks_no_rule(kind: str, faulty: Faulty) -> None:
    """And is the clean run until it strikes: what it does not strike yet, it does not move."""
    extra = NEEDED.get(kind, "")
    events = faulty(f"{{kind: {kind}, {ROUNDS_1_AND_2}{extra}}}")
    assert of(events, RunStopped)[0].rounds == 5
    began, ended = of(events, FaultBegan), of(events, FaultEnded)
    assert len(began) == len(ended) >= 1
    assert [event.ends_s for event in began] == [event.time_s for event in ended]
    first = events.index(began[0])
    prefix = [event for event in events[:first] if type(event).__name__ != "CheckpointStored"]
    prefix = [event for event in prefix if getattr(event, "purpose", "") != "checkpoint"]
    if kind != "late_block":  # a window may open in the very instant
        assert prefix == faulty()[: len(prefix)]


def test_a_fault_that_hits_nobody_changes_nothing(faulty: Faulty) -> None:
    """Not an event more or less: neither streams nor the order of an instant depend on what might have struck."""
    assert faulty("{kind: link_cut, rate: 0.000000001}", "{kind: store_outage, at: 90 d, lasts: 1 s}") == faulty()


# Links.


def test_a_slow_link_takes_as_much_longer(faulty: Faulty) -> None:
    events = faulty(f"{{kind: link_slow, {ROUNDS_1_AND_2}, uids: [3], factor: 0.8, direction: up}}")
    for uid, factor in ((2, 1.0), (3, 0.8)):
        for round in range(5):
            share = factor if round in (1, 2) else 1.0
            (upload,) = of(events, Transferred, node=f"peer:{uid}", key=f"round-{round}/uid-{uid}", direction="up")
            assert upload.time_s - upload.started_s == pytest.approx(0.05 + UPLOAD_S / share)


def test_two_slow_downs_multiply(faulty: Faulty) -> None:
    fault = "{{kind: link_slow, {when}, uids: [3], factor: 0.9, direction: up}}"
    twice = [fault.format(when=ROUNDS_1_AND_2), fault.format(when="from_round: 2, to_round: 3")]
    events = faulty(*twice)
    times = {e.round: e.stored_s - WINDOW_S * (e.round + 1) for e in of(events, Submitted, uid=3)}
    expected = [UPLOAD_S, UPLOAD_S / 0.9, UPLOAD_S / 0.81, UPLOAD_S, UPLOAD_S]
    assert [times[round] - 0.05 for round in range(5)] == pytest.approx(expected)


def test_a_cut_link_holds_an_upload_until_it_is_back(faulty: Faulty) -> None:
    events = faulty(f"{{kind: link_cut, {ROUNDS_1_AND_2}, uids: [3]}}")
    assert submitted(events, 3) == [0, 4]
    (late,) = of(events, Submitted, uid=3, round=1)
    assert not late.on_time
    assert late.stored_s == pytest.approx(4 * WINDOW_S + UPLOAD_S), "it went on where it stood"
    assert of(events, RoundSkipped, uid=3)
    assert submitted(events, 2) == [0, 1, 2, 3, 4]


def test_a_flapping_link_is_up_for_its_duty(faulty: Faulty) -> None:
    """Down for 15 s first, then up for 45 s of every minute: 144.7 s of upload take 195 s."""
    fault = f"{{kind: flapping, {ROUNDS_1_AND_2}, uids: [3], period: 60 s, duty: 75 %, direction: up}}"
    events = faulty(fault)
    (landed,) = of(events, Submitted, uid=3, round=1)
    ups = math.floor(UPLOAD_S / 45)
    assert landed.stored_s - 2 * WINDOW_S == pytest.approx(60 * ups + 15 + UPLOAD_S - 45 * ups)


def test_a_partition_breaks_off_requests_and_mends(faulty: Faulty) -> None:
    events = faulty(f"{{kind: partition, {ROUNDS_1_AND_2}, uids: [3]}}")
    assert submitted(events, 3) == [0, 3, 4]
    assert [len(uids) for uids in gathered(events, "peer:3").values()] == [7, 0, 0, 7, 7]
    assert judged(events, 3) == ["ok", "missing", "missing", "ok", "ok"]
    assert submitted(events, 2) == [0, 1, 2, 3, 4]
    assert gathered(events, "peer:2")[1] == (0, 1, 2, 4, 5, 6)
    steps = {event.round for event in of(events, OuterStepTaken, node="peer:3")}
    assert steps == {0, 3, 4}, "it goes on from the theta it has"


def test_a_partition_one_way_leaves_the_other(faulty: Faulty) -> None:
    up = faulty(f"{{kind: partition, {ROUNDS_1_AND_2}, uids: [3], direction: up}}")
    assert submitted(up, 3) == [0, 3, 4]
    assert all(uids for uids in gathered(up, "peer:3").values())
    down = faulty(f"{{kind: partition, {ROUNDS_1_AND_2}, uids: [3], direction: down}}")
    assert submitted(down, 3) == [0, 1, 2, 3, 4]
    assert [len(uids) for uids in gathered(down, "peer:3").values()] == [7, 1, 1, 7, 7], "its own it has at hand"


def test_who_restarts_after_a_partition_takes_every_outer_step(faulty: Faulty) -> None:
    events = faulty(f"{{kind: partition, {ROUNDS_1_AND_2}, uids: [3], restarts: true}}", stop="{rounds: 6}")
    assert of(events, PeerCrashed, uid=3)[0].time_s == 4 * WINDOW_S
    last = {event.node: event.lineage for event in of(events, OuterStepTaken, round=5)}
    assert last["peer:3"] == last["peer:2"] == last["validator:lead"]


def test_the_chain_does_not_hear_of_who_is_cut_off(faulty: Faulty) -> None:
    """Newcomers ask for a slot in window 1; what they asked in vain is heard once, with the first block after."""
    late = {"cohorts.far.membership": "{kind: from_round, round: 2}", "stop": "{rounds: 6}"}
    fault = "{kind: partition, at: 1100 s, lasts: 2000 s, cohort: far, direction: up}"

    def registered(events: list[Event]) -> list[float]:
        far = {event.uid for event in of(events, NodeJoined, cohort="far")}
        return [event.time_s for event in of(events, Registered) if event.uid in far]

    assert registered(faulty(**late)) == [1512, 1512]
    assert registered(faulty(fault, **late)) == [3108, 3108]


# The store.


def test_an_outage_is_that_of_the_store_section(faulty: Faulty) -> None:
    """One way to do it: but for what it says of itself, the run is the same."""
    events = faulty("{kind: store_outage, at: 2390 s, lasts: 500 s}")
    same = faulty(**{"store.outages": "[{at: 2390 s, lasts: 500 s}]"})
    assert without_faults(events) == same != faulty()


def test_a_rate_limit_refuses_and_spreads(faulty: Faulty) -> None:
    events = faulty(f"{{kind: store_rate_limit, {ROUNDS_1_AND_2}, requests_per_s: 0.5}}")
    refused = of(events, RequestRefused)
    assert refused
    assert {event.direction for event in refused} == {"up", "down"}
    assert all(2 * WINDOW_S <= event.time_s < 4 * WINDOW_S + 60 for event in refused)


def test_slow_reads_make_gathers_longer(faulty: Faulty) -> None:
    """Six payloads of 15.9 Gb: shared over 500 Mb/s they take 191 s, at 60 Mb/s each 265 s, and 20 s of delay."""
    events = faulty(f"{{kind: slow_reads, {ROUNDS_1_AND_2}, limit: 60 Mb/s, delay: 20 s}}")
    bits = UPLOAD_S * 110e6
    took = [e.time_s - e.started_s for e in of(events, Transferred, node="peer:2", key="round-1/uid-3")]
    assert took == [pytest.approx(0.05 + 20 + bits / 60e6)]
    took = [e.time_s - e.started_s for e in of(events, Transferred, node="peer:2", key="round-0/uid-3")]
    assert took == [pytest.approx(0.05 + 6 * bits / 500e6)]


def test_a_lost_object_is_missing_and_a_truncated_one_invalid(faulty: Faulty) -> None:
    lost = faulty(f"{{kind: lost_object, {ROUNDS_1_AND_2}, uids: [3]}}")
    assert submitted(lost, 3) == [0, 1, 2, 3, 4], "its owner knows nothing of it"
    assert judged(lost, 3) == ["ok", "missing", "missing", "ok", "ok"]
    truncated = faulty(f"{{kind: truncated_object, {ROUNDS_1_AND_2}, uids: [3]}}")
    assert judged(truncated, 3) == ["ok", "invalid", "invalid", "ok", "ok"]
    for events, damage in ((lost, "lost"), (truncated, "truncated")):
        assert [(event.key, event.damage) for event in of(events, ObjectDamaged)] == [
            ("round-1/uid-3", damage),
            ("round-2/uid-3", damage),
        ]
        assert 3 not in gathered(events, "validator:lead")[1]


@pytest.mark.parametrize(
    ("skew", "status", "rounds"), [("ahead: 100 s", "late", {1, 2}), ("behind: 150 s", "early", {1, 2})]
)
def test_a_false_clock_makes_the_punctual_late_or_early(
    skew: str, status: str, rounds: set[int], faulty: Faulty
) -> None:
    events = faulty(f"{{kind: clock_skew, {ROUNDS_1_AND_2}, {skew}}}")
    for uid in (2, 3):
        assert [status if round in rounds else "ok" for round in range(5)] == judged(events, uid)
    assert [event.ahead_s for event in of(events, StoreClockSet)][-1] == 0


def test_a_split_of_versions_makes_two_networks(faulty: Faulty) -> None:
    events = faulty(f"{{kind: version_split, {ROUNDS_1_AND_2}, uids: [3, 5]}}")
    assert gathered(events, "peer:3")[1] == gathered(events, "peer:5")[1] == (3, 5)
    assert gathered(events, "peer:2")[1] == gathered(events, "validator:lead")[1] == (0, 1, 2, 4, 6)
    assert gathered(events, "peer:3")[3] == tuple(range(7))
    assert judged(events, 3) == ["ok", "missing", "missing", "ok", "ok"]


# Nodes.


def test_a_crash_loses_the_rest_of_its_round_and_comes_back(faulty: Faulty) -> None:
    events = faulty("{kind: crash, at: 2450 s, lasts: 100 s, uids: [3]}")
    (crash,) = of(events, PeerCrashed)
    assert (crash.uid, crash.time_s) == (3, 2450)
    cut = of(events, Transferred, node="peer:3", complete=False)
    assert [event.time_s for event in cut] == [2450], "the upload of round 1 was under way"
    (back,) = of(events, PeerEntered)
    assert back.time_s >= 2550
    assert 1 not in submitted(events, 3)
    last = {event.node: event.lineage for event in of(events, OuterStepTaken, round=4)}
    assert last["peer:3"] == last["peer:2"]


def test_overlapping_crashes_are_one(faulty: Faulty) -> None:
    """The machine comes back when the last of them is over."""
    twice = ["{kind: crash, at: 2450 s, lasts: 100 s, uids: [3]}", "{kind: crash, at: 2500 s, lasts: 300 s, uids: [3]}"]
    events = faulty(*twice)
    assert len(of(events, PeerCrashed)) == 1
    assert of(events, PeerEntered)[0].time_s >= 2800


@pytest.mark.parametrize("how", ["crash", "cut"])
def test_a_region_fails_as_one(how: str, faulty: Faulty) -> None:
    events = faulty(f"{{kind: region_failure, {ROUNDS_1_AND_2}, region: north, how: {how}}}")
    north = {event.uid for event in of(events, NodeJoined, cohort="far")}
    (began,) = of(events, FaultBegan)
    assert set(began.nodes) == {f"peer:{uid}" for uid in north}
    for uid in range(7):
        landed = [round for round in (1, 2) if round in submitted(events, uid)]
        assert landed == ([] if uid in north else [1, 2])


def test_a_validator_is_away_as_by_the_behavior(faulty: Faulty) -> None:
    """Leader or not: the same run as with the behavior `offline` for those rounds."""
    for name in ("lead", "second"):
        events = faulty(f"{{kind: validator_offline, {ROUNDS_1_AND_2}, validators: [{name}]}}")
        offline = f"{{kind: offline, {ROUNDS_1_AND_2}}}"
        assert without_faults(events) == faulty(**{f"validators.{name}.behavior": offline})
        assert not of(events, Evaluated, validator=name, round=1)


def test_a_validator_finishes_the_round_it_has_begun(faulty: Faulty) -> None:
    events = faulty("{kind: validator_offline, at: 2500 s, lasts: 1200 s}")
    rounds = {event.round for event in of(events, Evaluated, validator="lead")}
    assert rounds == {0, 1, 3, 4}
    assert len(of(events, ValidatorSettled, validator="lead")) == 5


def test_a_nan_batch_spoils_the_payload_of_its_round(faulty: Faulty) -> None:
    """And, by the error buffer that it has entered, those that follow; no theta takes it in."""
    events = faulty("{kind: nan_batch, from_round: 1, to_round: 2, uids: [3]}")
    assert judged(events, 3) == ["ok", "invalid", "invalid", "invalid", "invalid"]
    assert all(3 not in uids for round, uids in gathered(events, "peer:2").items() if round)


def test_a_restart_heals_a_peer_of_its_nan(faulty: Faulty) -> None:
    crash = "{kind: crash, at: 3700 s, lasts: 10 s, uids: [3]}"
    events = faulty("{kind: nan_batch, from_round: 1, to_round: 2, uids: [3]}", crash)
    assert judged(events, 3)[-1] == "ok"


def test_a_bad_shard_changes_what_is_learned_and_nothing_else(faulty: Faulty) -> None:
    events, clean = faulty("{kind: bad_shard, from_round: 0, to_round: 1, uids: [3]}"), faulty()
    for uid in (2, 3):
        (own,), (other,) = of(events, Submitted, round=0, uid=uid), of(clean, Submitted, round=0, uid=uid)
        assert (own.payload_sha256 == other.payload_sha256) == (uid == 2)
        assert of(events, Trained, uid=uid) == of(clean, Trained, uid=uid)
    assert of(events, RoundSettled) == of(clean, RoundSettled)


# The chain.


def test_a_stall_is_that_of_the_timeline_section(faulty: Faulty) -> None:
    events = faulty("{kind: chain_stall, at: 2390 s, lasts: 500 s}")
    assert without_faults(events) == faulty(**{"timeline.stalls": "[{at: 2390 s, lasts: 500 s}]"}) != faulty()


def test_late_blocks_put_off_the_windows(faulty: Faulty) -> None:
    events = faulty(f"{{kind: late_block, {ROUNDS_1_AND_2}, lasts: 60 s}}")
    opened = [event.time_s - WINDOW_S * event.window for event in of(events, WindowOpened)]
    assert opened == [0, 0, 60, 120, 120, 120, 120][: len(opened)]
    began = of(events, FaultBegan)
    assert [(event.time_s, event.ends_s) for event in began] == [(2400, 2460), (3660, 3720)]


# Resume.

MANY = [
    "{kind: crash, rate: 15 %, lasts: 700 s}",
    "{kind: partition, at: 2450 s, lasts: 1500 s, uids: [1, 2], restarts: true}",
    "{kind: nan_batch, from_round: 2, to_round: 3, uids: [6]}",
    "{kind: link_cut, rate: 20 %, lasts: 90 s}",
    "{kind: flapping, from_round: 0, to_round: 4, period: 70 s, cohort: far}",
    "{kind: store_rate_limit, from_round: 3, to_round: 4, requests_per_s: 2}",
    "{kind: truncated_object, rate: 10 %}",
    "{kind: late_block, rate: 50 %, lasts: 60 s}",
    "{kind: clock_skew, at: 100 s, lasts: 3000 s, behind: 20 s}",
    "{kind: validator_offline, from_round: 1, to_round: 2}",
]


def test_many_faults_at_once_break_no_rule(faulty: Faulty) -> None:
    assert len({event.fault for event in of(faulty(*MANY), FaultBegan)}) >= 8


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = scenario_with(*MANY, **{"record.checkpoint": "1 h"})
    return run(scenario, "text", out=tmp_path_factory.mktemp("whole")).folder


@pytest.mark.parametrize("kind", [PeerCrashed, PeerEntered, FaultEnded])
def test_an_interrupted_run_goes_on_to_the_same_bits(kind: type[Event], uninterrupted: Path, tmp_path: Path) -> None:
    """Stopped while a peer is down, just back, and in the middle of all sorts of faults."""
    scenario = scenario_with(*MANY, **{"record.checkpoint": "1 h"})
    press = Press(lambda event: isinstance(event, kind) and event.time_s > 2400)
    with pytest.raises(Interrupted) as caught:
        run(scenario, "text", out=tmp_path, observers=[press])
    folder = caught.value.folder
    assert newest_checkpoint(folder / "checkpoints") is not None
    resume(folder)
    assert_equal(folder, uninterrupted)
