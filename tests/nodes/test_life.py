"""A peer's life: it crashes, loses its memory, catches up, goes, comes back, and may take another uid."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from covsim.behaviors.base import Behavior
from covsim.events import (
    CaughtUp,
    CheckpointStored,
    Event,
    Gathered,
    NodeJoined,
    NodeLeft,
    OuterStepTaken,
    PeerCrashed,
    PeerEntered,
    ReadFailed,
    Registered,
    RoundSettled,
    RunStopped,
    Submitted,
    Trained,
    Transferred,
    ValidatorSettled,
)
from covsim.nodes.peer import Peer
from covsim.nodes.seam import Computed
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, loads
from covsim.simulation import Simulation
from covsim.world.clock import alarm, on_event

WINDOW_S = 1200.0

BASE = """
version: 1
name: life
seed: 5
stop: {rounds: 8}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 2}
protocol: {kind: sparseloco, inner_steps: 3, k: 64}
deployment: {preset: covenant-72b, inner_step: 200 s, evaluation: 8 s}
timeline: {blocks_per_window: 100, put_window: 200 s, gather_timeout: 500 s}
checkpoints: {every: 3}
peers: 6
cohorts:
  honest: {share: rest, uplink: 110 Mb/s, downlink: 10 Gb/s}
validators: {lead: {stake: 0.7}, second: {stake: 0.3}}
selection: {kind: all}
gauntlet: {evaluated_per_window: 4, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
"""


class World:
    """A run of the scenario above, with all checkers on, in which something befalls peers at given times.

    Args:
        text: YAML that replaces keys of the scenario, a line each.
    """

    def __init__(self, *lines: str) -> None:
        keys = {line.partition(":")[0] for line in lines}
        kept = [line for line in BASE.splitlines() if line.partition(":")[0] not in keys]
        if "cohorts" in keys:
            kept = [line for line in kept if not line.startswith("  ")]
        self.scenario: Scenario = loads("\n".join([*kept, *lines]))
        self.events: list[Event] = []
        checkers = all_checkers(put_window_s=self.scenario.timeline.put_window)
        observers = [self.events.append, *(checker.observe for checker in checkers)]
        self.simulation = Simulation(self.scenario, Computed(), observers)
        self.simulation.commons.shelf.wanted = True  # what a scenario with crashes sets

    def peer(self, uid: int) -> Peer:
        return next(peer for peer in self.simulation.peers if peer.spec.uid == uid)

    def at(self, time_s: float, act: Callable[[], Any]) -> World:
        on_event(alarm(self.simulation.env, time_s), lambda _: act())
        return self

    def crash(self, uid: int, at_s: float, back_s: float = math.inf) -> World:
        self.at(at_s, self.peer(uid).crash)
        if back_s < math.inf:
            self.at(back_s, self.peer(uid).come_back)
        return self

    def play(self) -> World:
        while not self.simulation.finished:
            self.simulation.step()
        self.simulation.finish()
        return self

    def of(self, kind: type[Any], node: str = "") -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and node in ("", getattr(event, "node", f"peer:{getattr(event, 'uid', '')}"))
        ]


# Crashing ------------------------------------------------------------------------------------------------------------


def test_a_crash_cuts_what_is_under_way_and_the_peer_is_silent_until_it_is_back() -> None:
    """An upload of 1.99 GB takes 145 s: one that began at 2400 s is cut at 2450 s, and nothing of it lies there."""
    world = World().crash(2, 2450.0, back_s=4000.0).play()
    cut = [event for event in world.of(Transferred, "peer:2") if not event.complete]
    assert [(event.key, event.direction, event.time_s) for event in cut if event.time_s < 9600] == [
        ("round-1/uid-2", "up", 2450.0)
    ]
    assert cut[0].num_bytes == pytest.approx(110e6 / 8 * (50 - 0.05))
    moved = [event for event in world.of(Transferred, "peer:2") if event.time_s > 2450.0]
    assert min(event.started_s for event in moved) >= 4000.0
    assert 1 not in {event.round for event in world.of(Submitted, "peer:2")}
    assert [(event.time_s, event.round) for event in world.of(PeerCrashed)] == [(2450.0, 1)]


@pytest.mark.parametrize("comes_first", ["crash", "last byte"])
@pytest.mark.parametrize("more", [(), ("protocol: {kind: sparseloco, inner_steps: 3, k: 64, outer_delay: 1}",)])
def test_a_crash_in_the_instant_of_an_uploads_last_byte(comes_first: str, more: tuple[str, ...]) -> None:
    """What comes first within the instant decides: nothing lies there, or all of it and the submission is said.

    Said by the peer that waited for it, it was never said here: others gathered what nobody had submitted.
    """
    world = World(*more).play()
    landed_s = next(e.time_s for e in world.of(Transferred, "peer:2") if e.key == "round-1/uid-2")
    world, set_s = World(*more), 0.0 if comes_first == "crash" else landed_s - 1.0
    world.at(set_s, lambda: world.crash(2, landed_s, back_s=landed_s + 600)).play()
    uploads = [e for e in world.of(Transferred, "peer:2") if e.key == "round-1/uid-2" and e.direction == "up"]
    assert [(e.time_s, e.complete) for e in uploads] == [(landed_s, comes_first == "last byte")]
    assert uploads[0].num_bytes == pytest.approx(1_989_513_180, rel=1e-6)  # counted once, as received or as lost
    said = [e for e in world.of(Submitted, "peer:2") if e.round == 1]
    entered = {e.node for e in world.of(Gathered) if e.round == 1 and 2 in e.uids}
    if comes_first == "crash":
        assert not said
        assert not entered
    else:
        assert [(e.time_s, e.stored_s, e.on_time) for e in said] == [(landed_s, landed_s, True)]
        assert {"validator:lead", "validator:second", "peer:0"} <= entered


def test_a_crash_in_the_gather_cuts_all_its_downloads() -> None:
    """The places of a gather are processes of their own; left alone they would go on downloading for a dead peer."""
    world = World("cohorts: {honest: {share: rest, downlink: 200 Mb/s}}").crash(2, 2700.0).play()
    downloads = [event for event in world.of(Transferred, "peer:2") if event.direction == "down" and not event.complete]
    assert {event.time_s for event in downloads} == {2700.0}
    assert len(downloads) == 5  # everybody's but its own
    assert max(event.time_s for event in world.of(Transferred, "peer:2")) == 2700.0


def test_moments_error_buffer_and_notes_are_lost() -> None:
    """It trained in 3 rounds before and 3 after: its moments know of the last three only."""
    world = World()
    buffers = world.simulation.exchange.buffers
    assert buffers is not None
    seen: dict[str, Any] = {}

    def look() -> None:
        peer = world.peer(2)
        seen["before"] = buffers.buffer(2) is not None
        peer.body.notes["a"] = 1
        peer.crash()
        seen["after"] = buffers.buffer(2)

    world.at(3500.0, look).at(3600.5, world.peer(2).come_back).play()
    assert seen == {"before": True, "after": None}
    assert world.peer(2).body.notes == {}
    entered = world.of(PeerEntered, "peer:2")[0].time_s
    steps = sum(event.steps for event in world.of(Trained, "peer:2") if event.time_s > entered)
    moments = world.simulation.trainer.state()["moments"]
    assert moments[2][2] == steps < moments[1][2]


def test_it_goes_on_with_the_next_round() -> None:
    """Back within the window in which it crashed: the round it was in is not played again."""
    world = World().crash(2, 2450.0, back_s=2460.0).crash(3, 1300.0, back_s=3700.0).play()
    assert [event.round for event in world.of(PeerEntered, "peer:2")] == [2]
    assert [event.round for event in world.of(RoundSettled, "peer:2")] == [0, 2, 3, 4, 5, 6, 7]
    assert [event.round for event in world.of(PeerEntered, "peer:3")] == [3]
    assert [event.round for event in world.of(RoundSettled, "peer:3")] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("back_s", [0.0, 700.0])
def test_a_crash_before_it_has_begun(back_s: float) -> None:
    world = World()
    world.peer(2).crash()
    world.at(back_s, world.peer(2).come_back).play()
    assert [event.round for event in world.of(PeerEntered, "peer:2")] == [1]


def test_what_cannot_crash_or_come_back_stays_as_it_is() -> None:
    """Down already, away, done, and a machine that comes back without having been down."""
    world = World(LATER % "{kind: from_round, round: 5}")
    later = next(peer for peer in world.simulation.peers if peer.spec.cohort == "later")
    other = next(peer for peer in world.simulation.peers if peer.spec.cohort == "honest")
    world.at(10.0, later.crash).at(20.0, other.come_back).at(30.0, other.crash).at(40.0, other.crash)
    world.at(50.0, other.come_back)
    while other.state != "done":
        world.simulation.step()
    assert not world.simulation.finished
    world.at(world.simulation.env.now, other.crash).play()
    assert [(event.time_s, event.uid) for event in world.of(PeerCrashed)] == [(30.0, other.uid)]
    assert world.of(PeerEntered, later.name)
    assert other.takes_part


class Stubborn:
    """Tries to catch whatever is thrown into it."""

    closed: int = 0
    kind = "stubborn"
    knowledge = "own"

    def play_round(self, peer: Any) -> Iterator[Any]:
        try:
            yield from peer.pause(10_000.0)
        except Exception:
            yield from peer.pause(10_000.0)
        finally:
            Stubborn.closed += 1


def test_no_script_survives_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    peer = world.peer(2)
    monkeypatch.setattr(Stubborn, "closed", 0)
    object.__setattr__(peer.spec, "behavior", Stubborn())
    closed: list[int] = []
    world.crash(2, 100.0).at(100.5, lambda: closed.append(Stubborn.closed)).play()
    assert closed == [1]


def test_an_exchange_that_overlaps_is_cut() -> None:
    """It runs beside the script, in a process of its own."""
    world = World(
        "protocol: {kind: streaming_diloco, inner_steps: 4}",
        "deployment: {preset: covenant-72b, inner_step: 200 s, evaluation: 8 s}",
    )
    world.crash(2, 2410.0, back_s=2500.0).play()
    after = [event for event in world.of(Transferred, "peer:2") if event.time_s >= 2410.0]
    assert [(event.time_s, event.complete, event.direction) for event in after[:1]] == [(2410.0, False, "up")]
    assert world.of(RunStopped)[0].rounds == 8


# Catching up ---------------------------------------------------------------------------------------------------------


def test_the_leader_keeps_checkpoints_of_full_size() -> None:
    """After rounds 2 and 5, 4 bytes a parameter, over its link of 10 Gb/s."""
    world = World().play()
    size = 4 * 72_747_327_488
    stored = world.of(CheckpointStored)
    assert [(event.node, event.round, event.num_bytes) for event in stored] == [
        ("validator:lead", 2, size),
        ("validator:lead", 5, size),
    ]
    moved = [event for event in world.of(Transferred, "validator:lead") if event.purpose == "checkpoint"]
    assert [event.num_bytes for event in moved if event.complete] == pytest.approx([size, size])
    assert all(event.time_s - event.started_s >= 8 * size / 10e9 for event in moved)


def test_catching_up_is_charged_exactly() -> None:
    """One checkpoint, and every payload that entered the gathers since; nothing else, and nothing twice."""
    world = World().crash(2, 2450.0, back_s=6100.0).play()
    (entered,) = world.of(PeerEntered, "peer:2")
    (caught_up,) = world.of(CaughtUp, "peer:2")
    assert (caught_up.round, caught_up.provider) == (2, "validator:lead")
    downloads = [
        event
        for event in world.of(Transferred, "peer:2")
        if event.direction == "down" and event.started_s >= 6100.0 and event.time_s <= entered.time_s
    ]
    assert all(event.complete for event in downloads)
    assert downloads[0].purpose == "checkpoint"
    sent = {(event.round, event.uid): event.num_bytes for event in world.of(Submitted)}
    gathered = [event for event in world.of(Gathered, "peer:2") if 6100.0 <= event.time_s <= entered.time_s]
    assert [event.round for event in gathered] == list(range(3, entered.round))
    expected = [sent[event.round, uid] for event in gathered for uid in event.uids]
    assert sum(event.num_bytes for event in downloads[1:]) == pytest.approx(sum(expected))
    assert len(downloads) - 1 == len(expected)
    assert downloads[0].num_bytes == pytest.approx(4 * 72_747_327_488)


def test_equal_histories_have_equal_theta_after_catching_up() -> None:
    """With sharing off every node computes for itself, so the one that caught up replays and the others do not."""
    world = World()
    world.simulation.lineages._sharing = False
    world.crash(2, 2450.0, back_s=6100.0).play()
    lineages = [peer.lineage for peer in world.simulation.peers]
    assert len({lineage.key for lineage in lineages}) == 1
    assert len({id(lineage) for lineage in lineages}) == 6
    assert all(torch.equal(lineage.theta, lineages[0].theta) for lineage in lineages)
    assert len(world.of(OuterStepTaken, "peer:2")) > 4


def test_before_the_first_checkpoint_everything_is_gathered_anew() -> None:
    """The theta of the start is known to all, so nothing is downloaded for it, and no payload was thrown away."""
    world = World("checkpoints: {every: 100}").crash(2, 2450.0, back_s=6100.0).play()
    (caught_up,) = world.of(CaughtUp, "peer:2")
    (entered,) = world.of(PeerEntered, "peer:2")
    assert (caught_up.round, caught_up.provider) == (-1, "")
    assert "checkpoint" not in {event.purpose for event in world.of(Transferred)}
    replayed = [event for event in world.of(Gathered, "peer:2") if 6100.0 <= event.time_s <= entered.time_s]
    assert [event.round for event in replayed] == list(range(entered.round))
    assert all(event.uids for event in replayed)
    assert len({peer.lineage.key for peer in world.simulation.peers}) == 1


def test_an_upload_that_fails_is_tried_again() -> None:
    """The leader steps after round 2 at about 3840 s, in an outage; the next window opens at 4800 s."""
    outage = "store: {retries: 0, outages: [{at: 3810 s, lasts: 600 s}]}"
    world = World(outage).play()
    first = world.of(CheckpointStored)[0]
    assert first.round == 2
    assert 4800.0 < first.time_s < 4800.0 + 300.0
    assert [event.round for event in world.of(CheckpointStored)] == [2, 5]


def test_a_download_that_fails_is_tried_again() -> None:
    """Without retries of a request, at four failures in five: a failed attempt does not repeat the luck of the last."""
    world = World("store: {retries: 0, read_failure: 80 %}")
    for uid in range(6):
        world.crash(uid, 5000.0, back_s=5001.0)
    while world.simulation.env.now < 7100.0:  # a download takes 233 s, a further attempt comes 12 s after a failure
        world.simulation.step()
    assert [event.round for event in world.of(CaughtUp)] == [2] * 6
    attempts = [event.node for event in world.of(ReadFailed) if "checkpoint" in event.key]
    assert max(Counter(attempts).values()) > 1, "nobody failed twice; another seed is needed"


def test_payloads_are_kept_for_those_who_may_come_and_no_longer() -> None:
    """After the checkpoint of round 5 nothing before it is needed; without anybody who may miss rounds, nothing is."""
    world = World()
    rounds_kept: dict[float, set[int]] = {}

    def look() -> None:
        keys = world.simulation.commons.store._objects
        rounds_kept[world.simulation.env.now] = {int(key.split("/")[0].removeprefix("round-")) for key in keys}

    for window in (4, 8):
        world.at(window * WINDOW_S + 1.0, look)
    world.play()
    assert rounds_kept == {4801.0: {2}, 9601.0: {5, 6}}  # a checkpoint, and what followed


# Coming and going ----------------------------------------------------------------------------------------------------

LATER = "cohorts: {honest: {share: rest, downlink: 10 Gb/s}, later: {count: 2, membership: %s, downlink: 10 Gb/s}}"


def test_who_comes_later_is_ready_for_its_round_if_its_links_allow() -> None:
    world = World(LATER % "{kind: from_round, round: 5}").play()
    entered = world.of(PeerEntered)
    assert [event.round for event in entered] == [5, 5]
    later = {event.uid for event in entered}
    joined = {event.uid: event.time_s for event in world.of(NodeJoined) if event.uid in later}
    assert set(joined.values()) == {4 * WINDOW_S}  # a window before
    assert all(4 * WINDOW_S < event.time_s < 5 * WINDOW_S for event in world.of(Registered) if event.uid in later)
    assert {event.round for event in world.of(RoundSettled) if event.uid in later} == {5, 6, 7}
    assert len({peer.lineage.key for peer in world.simulation.peers}) == 1


def test_who_goes_until_a_round_goes_for_good() -> None:
    world = World(LATER % "{kind: until_round, round: 3}").play()
    assert [event.round for event in world.of(NodeLeft)] == [2, 2]
    gone = {event.uid for event in world.of(NodeLeft)}
    assert {event.round for event in world.of(RoundSettled) if event.uid in gone} == {0, 1, 2}
    assert world.of(RunStopped)[0].rounds == 8


def test_rounds_go_on_when_nobody_is_there() -> None:
    """Everybody goes after round 2: the validators settle the rest of the rounds by themselves."""
    world = World("cohorts: {honest: {share: rest, membership: {kind: until_round, round: 3}}}").play()
    assert world.of(RunStopped)[0].rounds == 8
    assert max(event.round for event in world.of(Submitted)) == 2


def test_the_same_uid_comes_back_with_its_slot() -> None:
    churn = "{kind: churn, leaves: 100 %, rounds_away: 1, returns_as: same}"
    world = World("stop: {rounds: 12}", LATER % churn).play()
    goers = {event.uid for event in world.of(NodeLeft)}
    assert len(goers) == 2
    uid = min(goers)
    assert [event.round for event in world.of(RoundSettled, f"peer:{uid}")] == [0, 2, 4, 6, 8, 10]
    assert [event.round for event in world.of(NodeLeft, f"peer:{uid}")] == [0, 2, 4, 6, 8, 10]
    assert len(world.of(Registered, f"peer:{uid}")) == 1
    assert len([event for event in world.of(NodeJoined) if event.uid == uid]) == 1
    assert world.simulation.peers[uid].uid == uid


def test_a_new_uid_lies_behind_all_others_and_its_owner_keeps_machine_and_links() -> None:
    churn = "{kind: churn, leaves: 100 %, rounds_away: 1, returns_as: new}"
    world = World("chain: {registration_cost: 2}", LATER % churn).play()
    joined = {event.uid: event for event in world.of(NodeJoined) if event.uid >= 0}
    assert sorted(joined) == list(range(len(joined)))
    assert len(joined) > 8
    for peer in world.simulation.peers:
        before, now = joined[peer.spec.uid], joined[peer.uid]
        assert (before.cohort, before.uplink_bits_per_s, before.seconds_per_step) == (
            now.cohort,
            now.uplink_bits_per_s,
            now.seconds_per_step,
        )
    assert {event.cost for event in world.of(Registered) if event.uid >= 6} == {2.0}
    assert set(world.simulation.commons.roster.cohorts["later"]) == {
        u for u, j in joined.items() if j.cohort == "later"
    }


class Restart(Behavior):
    """Honest, and asks for another uid after round 2."""

    kind: str = "restart"

    def play_round(self, peer: Any) -> Iterator[Any]:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update)
        yield from peer.sync()
        peer.notes["rounds"] = peer.notes.get("rounds", 0) + 1
        if peer.round == 2:
            yield from peer.register_again()


def test_registering_again_gives_a_newcomer_with_the_same_theta() -> None:
    """Nothing is downloaded for it, no round is lost, and neither moments nor notes nor the account go with it."""
    world = World("chain: {registration_cost: 3}")
    world.simulation.commons.shelf.wanted = False
    peer = world.peer(2)
    object.__setattr__(peer.spec, "behavior", Restart())
    world.play()
    assert peer.uid == 6
    (left,), (joined,) = world.of(NodeLeft), world.of(NodeJoined, "peer:6")
    assert (left.uid, left.round, left.reason) == (2, 2, "registers again")
    assert (joined.time_s, joined.cohort) == (left.time_s, "honest")
    assert [(event.uid, event.cost) for event in world.of(Registered) if event.time_s > 0] == [(6, 3.0)]
    assert {event.purpose for event in world.of(Transferred, "peer:6")} == {"submit", "gather"}
    assert [event.round for event in world.of(RoundSettled, "peer:6")] == [3, 4, 5, 6, 7]
    assert len({other.lineage.key for other in world.simulation.peers}) == 1
    assert peer.body.notes == {"rounds": 5}
    assert world.simulation.trainer.state()["moments"][6][2] == 15
    assert 2 not in world.simulation.trainer.state()["moments"]
    assert world.simulation.commons.conspiracy.fellows(6) == (0, 1, 3, 4, 5, 6)
    accounts = world.simulation.commons.chain._accounts
    assert accounts["peer:6"].public != accounts["peer:2"].public


def refusals(world: World, node: str) -> list[int]:
    """The heights at which the chain refused a node a slot."""
    public = world.simulation.commons.chain._accounts[node].public
    return [
        sealed.block.height
        for sealed in world.simulation.commons.chain.chain.blocks
        for signed, outcome in zip(sealed.block.extrinsics, sealed.block.outcomes, strict=True)
        if signed.public == public and "slots are held" in outcome
    ]


def test_who_is_refused_a_slot_asks_again_once_a_round() -> None:
    """4 peers, 2 validators and the owner hold all 7 slots until their immunity of 600 blocks has passed, 6 windows."""
    world = World(
        "chain: {slots: 7, immunity: 600}", "stop: {rounds: 11}", LATER % "{kind: from_round, round: 2}"
    ).play()
    entered = world.of(PeerEntered)
    assert len(entered) == 2
    for event in entered:
        heights = refusals(world, event.node)
        windows = [height // 100 for height in heights]
        assert windows == sorted(set(windows)), "it asked twice in a window"
        assert windows == list(range(windows[0], 6))
        assert event.round >= 6
        downloaded = Counter(e.purpose for e in world.of(Transferred, event.node) if e.time_s <= event.time_s)
        assert downloaded["checkpoint"] <= 1  # it keeps up meanwhile
    assert len(world.of(PeerEntered)) == 2


# Validators ----------------------------------------------------------------------------------------------------------

OFFLINE = (
    "validators: {lead: {stake: 0.7, behavior: {kind: offline, from_round: %d, to_round: %d}}, second: {stake: 0.3}}"
)


def test_a_validator_comes_back_by_the_checkpoint_of_another() -> None:
    world = World(OFFLINE % (1, 5)).play()
    assert [(event.node, event.round) for event in world.of(CheckpointStored)] == [
        ("validator:second", 2),
        ("validator:lead", 5),
    ]
    assert [(event.node, event.round, event.provider) for event in world.of(CaughtUp)] == [
        ("validator:lead", 2, "validator:second")
    ]
    assert {event.round for event in world.of(OuterStepTaken, "validator:lead")} == {0, 3, 4, 5, 6, 7}
    assert world.simulation.validators[0].lineage.key == world.simulation.validators[1].lineage.key


def test_a_validator_takes_no_checkpoint_that_is_older_than_its_own_theta() -> None:
    world = World(OFFLINE % (4, 5)).play()
    assert not world.of(CaughtUp)
    assert {event.round for event in world.of(OuterStepTaken, "validator:lead")} == set(range(8))
    assert world.simulation.validators[0].lineage.key == world.simulation.validators[1].lineage.key


def test_the_upload_of_a_validator_that_goes_away_is_cut() -> None:
    """A link of 1 Gb/s needs 39 min for the checkpoint of round 2; in round 3 the leader is away."""
    slow = OFFLINE.replace("stake: 0.7,", "stake: 0.7, uplink: 1 Gb/s,")
    world = World(slow % (3, 7)).play()
    (cut,) = [event for event in world.of(Transferred, "validator:lead") if event.purpose == "checkpoint"][:1]
    assert not cut.complete
    assert cut.time_s == 4 * WINDOW_S
    assert [(event.node, event.round) for event in world.of(CheckpointStored)] == [("validator:second", 5)]


class Returner:
    """Catches up without having said that it may."""

    kind = "returner"
    catches_up = False

    def play_round(self, validator: Any) -> Iterator[Any]:
        yield from validator.catch_up()


def test_catching_up_without_having_said_so_is_an_error_of_one_line() -> None:
    world = World()
    world.simulation.commons.shelf.wanted = False
    world.simulation.validators[1]._behavior = Returner()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="validator:second must catch up, and nothing is kept for that"):
        world.play()


# All of it -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_every_round_is_settled_once(seed: int) -> None:
    """Crashes at random times on top of churn: the checkers hold, and the run ends by its rounds with all settled."""
    churn = f"{{kind: churn, leaves: 30 %, rounds_away: 1.5, returns_as: {('same', 'new')[seed % 2]}}}"
    world = World(
        f"seed: {seed}",
        "store: {read_failure: 10 %, retries: 1}",
        f"cohorts: {{honest: {{share: rest, downlink: 5 Gb/s, membership: {churn}}}}}",
    )
    lots = random.Random(seed)
    for _ in range(12):
        at_s = lots.uniform(0.0, 8 * WINDOW_S)
        world.crash(lots.randrange(6), at_s, back_s=at_s + lots.uniform(0.0, 2 * WINDOW_S))
    world.play()
    assert world.of(RunStopped)[0].rounds == 8
    assert {event.round for event in world.of(ValidatorSettled)} == set(range(8))
    played = [(event.uid, event.round) for event in world.of(RoundSettled)]
    assert len(set(played)) == len(played)
    assert world.of(PeerCrashed)
    assert world.of(PeerEntered)
