"""The chain on the clock: what is handed in enters the next block, the tempo ends epochs, stalls delay both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import simpy

from covsim.chain.extrinsics import CloseRun, CommitWeights, PayloadHash, Register, RevealWeights, SetWeights
from covsim.chain.ledger import Block
from covsim.chain.settings import ChainSettings
from covsim.chain.verification import read
from covsim.events import BlockSealed, Deregistered, EpochSettled, Event, Registered
from covsim.nodes.chain_node import ChainNode, Member, peer_name
from covsim.randomness import Streams
from covsim.world.clock import BlockClock, Windowed, alarm, on_event

SEED = 4
BLOCK_S = 12.0
STAKES = {"lead": 0.6, "second": 0.3, "third": 0.1}
HASH = PayloadHash(0, "ab" * 32)


def peer(uid: int) -> Member:
    return Member(peer_name(uid), uid, "peer")


class Play:
    """A chain node on a clock of 12 s a block, with peers 0 to 2 and three validators.

    Args:
        stalls: when the chain stalls, as the timeline has it.
        settings: of the chain; an epoch has 10 blocks.
    """

    def __init__(self, stalls: list[dict[str, str]] | None = None, **settings: Any) -> None:
        self.env = simpy.Environment()
        self.clock = BlockClock(self.env, Windowed(block="12 s", put_window="70 s", stalls=stalls or []))
        small: dict[str, Any] = {"tempo": 10, "rate_limit": 0, "commit_reveal": "none", "slots": 9, "immunity": 0}
        self.events: list[Event] = []
        self.settings = ChainSettings(**(small | settings))
        self.node = ChainNode(self.env, self.clock, self.settings, Streams(SEED), self.events.append)
        validators = [Member(f"validator:{name}", -1, "validator", stake) for name, stake in STAKES.items()]
        self.node.found([peer(0), peer(1), peer(2), *validators])
        self.env.process(self.node.run())

    def at(self, time_s: float, act: Callable[[], Any]) -> None:
        """Do something at a second."""
        on_event(alarm(self.env, time_s), lambda _: act())

    def until(self, time_s: float) -> Play:
        self.env.run(until=time_s)
        return self

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def blocks(self) -> list[Block]:
        return [sealed.block for sealed in self.node.chain.blocks]

    def weigh(self, name: str, weights: dict[int, float], burned: float = 0.0, round: int = 0) -> None:
        self.node.set_weights(f"validator:{name}", round, weights, burned)


# Blocks ---------------------------------------------------------------------------------------------------------------


def test_everybody_who_is_there_from_the_start_is_in_block_0() -> None:
    play = Play()
    assert [event.height for event in play.of(BlockSealed)] == [0]
    assert [(event.time_s, event.node, event.uid, event.slot, event.cost) for event in play.of(Registered)] == [
        (0.0, "owner", -1, 0, 0.0),
        *((0.0, f"peer:{uid}", uid, uid + 1, 0.0) for uid in range(3)),
        *((0.0, f"validator:{name}", -1, slot, 0.0) for slot, name in enumerate(STAKES, start=4)),
    ]
    assert play.node.peers == {0, 1, 2}
    assert set(play.blocks[0].outcomes) == {""}


@pytest.mark.parametrize(("time_s", "height"), [(0.0, 1), (0.1, 1), (11.9, 1), (12.0, 2), (59.0, 5), (60.0, 6)])
def test_what_is_submitted_enters_the_next_block(time_s: float, height: int) -> None:
    """At the very second of a block it is too late for that block."""
    play = Play()
    play.at(time_s, lambda: play.node.submit("peer:1", HASH))
    play.until(100)
    (sealed,) = play.of(BlockSealed)[1:]
    assert (sealed.height, sealed.time_s, sealed.extrinsics) == (height, height * BLOCK_S, 1)
    assert play.blocks[1].extrinsics[0].call == HASH
    assert sealed.block_sha256 == play.node.chain.blocks[1].sha256


def test_one_block_takes_all_that_came_since_the_last() -> None:
    play = Play()
    for time_s, uid in ((13.0, 2), (14.0, 0), (23.9, 2), (25.0, 1)):
        play.at(time_s, lambda uid=uid: play.node.submit(peer_name(uid), HASH))  # type: ignore[misc]
    play.until(100)
    assert [(event.height, event.extrinsics) for event in play.of(BlockSealed)[1:]] == [(2, 3), (3, 1)]
    assert all(outcome == "" for block in play.blocks for outcome in block.outcomes)


def test_who_has_no_slot_says_nothing() -> None:
    play = Play()
    play.at(5, lambda: play.node.submit("peer:7", HASH))
    play.until(100)
    assert len(play.of(BlockSealed)) == 1


# Epochs ---------------------------------------------------------------------------------------------------------------


def test_an_epoch_ends_at_every_multiple_of_the_tempo() -> None:
    play = Play().until(3.5 * 120)
    settled = play.of(EpochSettled)
    assert [(event.time_s, event.height, event.blocks) for event in settled] == [
        (120.0, 10, 10),
        (240.0, 20, 10),
        (360.0, 30, 10),
    ]
    assert [event.height for event in play.of(BlockSealed)] == [0, 10, 20, 30]


def test_an_epoch_pays_peers_by_uid_and_validators_by_name() -> None:
    """10 tokens: 1.8 to the owner, 4.1 to peers, a fifth of it burned, 4.1 to validators."""
    play = Play()
    play.at(5, lambda: play.weigh("lead", {2: 0.6, 0: 0.2}, burned=0.2))
    play.until(125)
    (epoch,) = play.of(EpochSettled)
    paid = dict(epoch.paid)
    assert paid == {0: pytest.approx(0.82, rel=1e-4), 1: 0.0, 2: pytest.approx(2.46, rel=1e-4)}
    assert dict(epoch.dividends) == {"lead": pytest.approx(4.1), "second": 0.0, "third": 0.0}
    assert (epoch.owner, epoch.burned) == (pytest.approx(1.8), pytest.approx(0.82, rel=1e-4))
    assert dict(epoch.consensus) == {0: pytest.approx(0.2, rel=1e-4), 1: 0.0, 2: pytest.approx(0.6, rel=1e-4)}
    total = sum(paid.values()) + sum(dict(epoch.dividends).values()) + epoch.owner + epoch.burned
    assert total == pytest.approx(10)


@pytest.mark.parametrize(("begins_s", "height", "sealed_s"), [(6, 1, 112.0), (12, 1, 112.0), (13, 2, 124.0)])
def test_a_stall_delays_blocks_and_epochs(begins_s: float, height: int, sealed_s: float) -> None:
    """100 s of stall: a block that was due at the second in which it begins comes when it ends."""
    play = Play([{"at": f"{begins_s} s", "lasts": "100 s"}])
    play.at(begins_s, lambda: play.node.submit("peer:1", HASH))
    play.until(500)
    first, epoch, *_ = play.of(BlockSealed)[1:]
    assert (first.height, first.time_s) == (height, sealed_s)
    assert (epoch.height, epoch.time_s) == (10, 220.0)


def test_the_end_shows_what_is_hidden_and_pays_for_the_last_blocks() -> None:
    play = Play(commit_reveal=2)
    play.at(125, lambda: play.weigh("lead", {1: 1.0}))
    play.until(150)
    play.node.submit("validator:lead", CloseRun("ab", "cd", 2.5, 1))
    play.node.close()
    last = play.blocks[-1]
    assert (last.closing, last.height) == (True, 13)
    assert [type(signed.call) for signed in last.extrinsics] == [CloseRun, RevealWeights]
    epoch = play.of(EpochSettled)[-1]
    assert (epoch.height, epoch.blocks) == (13, 3)
    assert dict(epoch.paid)[1] == pytest.approx(0.41 * 3)
    data = b"".join(block.line() + b"\n" for block in play.blocks)
    assert read(data, play.settings, SEED).faults == ()


# Weights --------------------------------------------------------------------------------------------------------------


def test_weights_are_whole_numbers_by_slot_and_the_burn_is_the_owners() -> None:
    """0.1 : 0.2 : 0.3, so the largest, 0.3, is 65535; peer 9 is a stranger to the chain's slots."""
    play = Play()
    play.at(1, lambda: play.node.register(peer(9)))
    play.at(1, lambda: play.weigh("lead", {0: 0.1, 2: 0.2, 9: 0.4}, burned=0.3))
    play.until(15)
    (call,) = [signed.call for signed in play.blocks[1].extrinsics if isinstance(signed.call, SetWeights)]
    assert call == SetWeights(0, ((0, 65535), (1, 21845), (3, 43690)))


def test_floats_are_handed_on_as_they_are() -> None:
    play = Play(weights="float")
    play.at(1, lambda: play.weigh("lead", {0: 0.1, 2: 0.2}, burned=0.7, round=3))
    play.until(15)
    assert play.blocks[1].extrinsics[0].call == SetWeights(3, ((0, 0.7), (1, 0.1), (3, 0.2)))


def test_commitments_are_salted_and_shown_an_epoch_later() -> None:
    play = Play(commit_reveal=1)
    for name in ("lead", "second"):
        play.at(5, lambda name=name: play.weigh(name, {0: 1.0}))  # type: ignore[misc]
    play.until(125)
    hidden = [signed.call for signed in play.blocks[1].extrinsics]
    shown = [signed.call for signed in play.blocks[2].extrinsics]
    assert [type(call) for call in hidden + shown] == [CommitWeights] * 2 + [RevealWeights] * 2
    assert len({call.digest for call in hidden if isinstance(call, CommitWeights)}) == 2, "equal weights look different"
    assert play.blocks[2].outcomes == ("", "")
    assert play.blocks[2].height == 10


def test_who_set_weights_waits_for_the_rate_limit() -> None:
    """Set in block 2 with a limit of 4: the next chance is block 6, so from second 60 on."""
    play = Play(rate_limit=4)
    asked: dict[float, bool] = {}
    for time_s in (13.0, 25.0, 59.0, 60.0, 61.0):
        play.at(time_s, lambda time_s=time_s: asked.setdefault(time_s, play.node.may_set_weights("validator:lead")))  # type: ignore[misc]
    play.at(14, lambda: play.weigh("lead", {0: 1.0}))
    play.at(60.5, lambda: play.weigh("lead", {1: 1.0}, round=1))
    play.until(100)
    assert asked == {13.0: True, 25.0: False, 59.0: False, 60.0: True, 61.0: True}
    assert [block.outcomes for block in play.blocks[1:]] == [("",), ("",)]
    assert play.node.may_set_weights("validator:second")


def test_what_others_have_on_the_chain_is_their_mean_by_stake() -> None:
    """Second (0.3) pays peer 0 a half and burns a half, third (0.1) pays peers 0 and 1 the same.

    For lead: peer 0 has 0.75 * 0.5 + 0.25 * 0.5, peer 1 has 0.25 * 0.5. For third: second's alone, as lead has none.
    """
    play = Play(weights="float")
    play.at(1, lambda: play.weigh("second", {0: 0.5}, burned=0.5))
    play.at(1, lambda: play.weigh("third", {0: 3.0, 1: 3.0}))
    assert play.node.weights_of_others("validator:lead") == {}
    play.until(15)
    assert play.node.weights_of_others("validator:lead") == pytest.approx({0: 0.5, 1: 0.125})
    assert play.node.weights_of_others("validator:third") == pytest.approx({0: 0.5})


def test_hidden_weights_are_not_to_be_copied() -> None:
    play = Play(commit_reveal=1)
    play.at(1, lambda: play.weigh("second", {0: 1.0}))
    play.until(119)
    assert play.node.weights_of_others("validator:lead") == {}
    play.until(121)
    assert play.node.weights_of_others("validator:lead") == {0: 1.0}


# Coming and going -----------------------------------------------------------------------------------------------------


def test_who_comes_later_has_a_slot_with_the_next_block() -> None:
    play = Play(registration_cost=2.0)
    play.at(30, lambda: play.node.register(peer(5)))
    play.until(35)
    assert not play.node.is_registered("peer:5")
    assert play.node.peers == {0, 1, 2}
    play.until(40)
    assert play.node.is_registered("peer:5")
    assert play.node.peers == {0, 1, 2, 5}
    registered = play.of(Registered)[-1]
    assert (registered.time_s, registered.node, registered.uid, registered.slot, registered.cost) == (
        36.0, "peer:5", 5, 7, 2.0,
    )  # fmt: skip
    play.node.submit("peer:5", HASH)
    play.until(50)
    assert play.blocks[-1].outcomes == ("",)


def test_a_newcomer_takes_the_place_of_the_lowest() -> None:
    """All 7 slots are taken; peers 0 and 2 are paid, so peer 1 goes, and says so."""
    play = Play(slots=7)
    play.at(1, lambda: play.weigh("lead", {0: 0.5, 2: 0.5}))
    play.at(125, lambda: play.node.register(peer(5)))
    play.until(135)
    (gone,) = play.of(Deregistered)
    assert (gone.time_s, gone.node, gone.uid, gone.slot) == (132.0, "peer:1", 1, 2)
    assert play.of(Registered)[-1].slot == 2
    assert play.node.peers == {0, 2, 5}
    assert not play.node.is_registered("peer:1")
    play.node.submit("peer:1", HASH)
    play.until(239)
    assert play.blocks[-1].height == 11, "who has no slot says nothing"
    play.until(245)
    assert 1 not in dict(play.of(EpochSettled)[-1].paid)


def test_who_lost_its_slot_can_come_back() -> None:
    play = Play(slots=7)
    play.at(1, lambda: play.weigh("lead", {0: 0.5, 2: 0.5}))
    play.at(125, lambda: play.node.register(peer(5)))
    play.at(125, lambda: play.node.submit("peer:1", HASH))  # comes behind the registration that costs it its slot
    play.at(137, lambda: play.node.register(peer(1)))
    play.until(143)
    assert play.blocks[-1].outcomes == ("", "", "the account has no slot")
    play.until(145)
    assert play.node.peers == {0, 1, 2}
    play.node.submit("peer:1", HASH)
    play.until(160)
    assert [outcome for block in play.blocks[-2:] for outcome in block.outcomes] == ["", "", ""]


def test_who_was_refused_can_ask_again() -> None:
    play = Play(slots=7, immunity=13)
    play.at(125, lambda: play.node.register(peer(5)))
    play.until(135)
    assert not play.node.is_registered("peer:5")
    assert play.blocks[-1].outcomes[0].startswith("all 7 slots are held by")
    play.at(150, lambda: play.node.register(peer(5)))
    play.until(160)
    assert isinstance(play.blocks[-1].extrinsics[0].call, Register)
    assert play.blocks[-1].outcomes == ("", "")
    assert play.node.is_registered("peer:5")


def test_the_same_seed_gives_the_same_blocks() -> None:
    def heads() -> list[str]:
        play = Play(commit_reveal=1)
        play.at(5, lambda: play.weigh("lead", {0: 1.0}))
        return [event.block_sha256 for event in play.until(300).of(BlockSealed)]

    assert heads() == heads()
    assert len(heads()) == 4


# Coming back ----------------------------------------------------------------------------------------------------------


def test_a_slot_lost_and_bought_again_costs_once_each_time() -> None:
    """All four places of peers are taken: uid 3 takes one, and who lost it buys another; no cost is counted twice."""
    play = Play(slots=8, registration_cost=2.0)
    play.at(5.0, lambda: play.node.register(peer(3)))
    play.at(17.0, lambda: play.node.register(peer(4)))
    play.until(30.0)
    (lost,) = [event.uid for event in play.of(Deregistered)]
    play.at(31.0, lambda: play.node.register(peer(lost)))
    play.until(60.0)
    assert [(event.uid, event.cost) for event in play.of(Registered) if event.time_s > 0] == [
        (3, 2.0),
        (4, 2.0),
        (lost, 2.0),
    ]


def test_the_next_block_comes_behind_its_sealing() -> None:
    """Whoever waits for it knows whether it got a slot."""
    play = Play(stalls=[{"at": "13 s", "lasts": "30 s"}])
    seen: list[tuple[float, bool]] = []

    def ask() -> None:
        play.node.register(peer(3))
        on_event(play.node.next_block(), lambda _: seen.append((play.env.now, play.node.is_registered("peer:3"))))

    play.at(5.0, ask)
    play.at(14.0, lambda: on_event(play.node.next_block(), lambda _: seen.append((play.env.now, True))))
    play.until(80.0)
    assert seen == [(12.0, True), (54.0, True)]
