"""Recorded evidence judged again: the same scripts, clock and chain, other rules, and nothing trained.

A validator's turn is one round of one validator, at the time when it was done with it. Scripts play their rounds on a
body whose `gather` waits for the turn and whose `evaluate` judges what was recorded, so bribed, copying and absent
validators do again what they did. What would have been trained after a different selection is not known: evidence is of
the run as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import simpy

from covsim.behaviors.base import ValidatorBehavior
from covsim.events import Event
from covsim.gauntlet.evidence import Evidence
from covsim.nodes.board import Board
from covsim.nodes.books import Books, Office
from covsim.nodes.chain_node import ChainNode, Member, peer_name
from covsim.randomness import Streams
from covsim.scenario.schema import Scenario
from covsim.world.barrier import BarrierClock

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


@dataclass(frozen=True)
class Turn:
    """One round of one validator: when it was done, and what it had to judge, None where it judged nothing.

    Attributes:
        validator: its name.
        time_s: simulated seconds.
        num_drawn, evaluation_s: as recorded; they are passed on.
        active: the peers that counted as taking part when the evidence was gathered.
    """

    validator: str
    round: int
    time_s: float
    evidence: tuple[Evidence, ...] | None
    active: frozenset[int]
    num_drawn: int = 0
    evaluation_s: float = 0.0


@dataclass(frozen=True)
class Joining:
    """A peer of a cohort that was there from block 0 on, or got a slot at a later time; again, if it had lost one."""

    uid: int
    cohort: str
    time_s: float


Stamps: TypeAlias = Mapping[tuple[int, int], float]
"""By (round, uid), when the first payload of a peer for a round lay in the store."""


def rescore(
    scenario: Scenario,
    turns: Sequence[Turn],
    joined: Sequence[Joining],
    end_s: float,
    observers: Sequence[Callable[[Event], None]],
    stamps: Stamps | None = None,
    opened_s: Sequence[float] = (),
) -> None:
    """Let validators take their turns under a scenario's rules; observers see what follows.

    Args:
        scenario: rules, selection, chain, timeline, stakes and scripts, seed.
        turns: in the order of time.
        joined: peers, in the order of their slots.
        end_s: when the chain is closed.
        observers: see every event.
        stamps: of all payloads, from which follows who is active when a list is put up, a moment after the evidence was
            gathered; None where they are not known: then those count who were active before.
        opened_s: when each window opened, where that does not follow from the timeline.
    """
    _Rescoring(scenario, turns, joined, observers, stamps, opened_s).run(end_s)


class _Rescoring:
    def __init__(
        self,
        scenario: Scenario,
        turns: Sequence[Turn],
        joined: Sequence[Joining],
        observers: Sequence[Callable[[Event], None]],
        stamps: Stamps | None,
        opened_s: Sequence[float],
    ) -> None:
        self.env = simpy.Environment()
        self._scenario, self._joined = scenario, joined
        self._observers = observers
        streams = Streams(scenario.seed)
        clock = scenario.timeline.clock(self.env)
        if isinstance(clock, BarrierClock):
            clock.recall(opened_s)
        self._clock = clock
        self._chain = ChainNode(self.env, clock, scenario.chain, streams, self._emit)
        office = Office(
            env=self.env,
            clock=clock,
            streams=streams,
            board=Board(),
            chain=self._chain,
            emit=self._emit,
            rules=scenario.gauntlet,
            selection=scenario.selection,
            expects_everybody=not scenario.plan.asynchrony,
        )
        cohorts = {
            name: tuple(dict.fromkeys(each.uid for each in joined if each.cohort == name)) for name in scenario.cohorts
        }
        self._validators = [
            _Replayed(office, scenario, name, rank, _of(turns, name), cohorts, stamps)
            for rank, name in enumerate(scenario.validators_by_stake)
        ]

    def run(self, end_s: float) -> None:
        """From block 0 to the closing block."""
        stakes = {name: validator.stake for name, validator in self._scenario.validators.items()}
        first = [Member(peer_name(each.uid), each.uid, "peer") for each in self._joined if each.time_s <= 0]
        validators = [Member(each.name, -1, "validator", stakes[each.label]) for each in self._validators]
        self._chain.found([*first, *validators])
        self._validators[0].publish_first_list(frozenset(each.uid for each in self._joined if each.time_s <= 0))
        turns = [self.env.process(validator.run()) for validator in self._validators]
        for each in self._joined:
            if each.time_s > 0:
                self.env.process(self._join(each))
        self.env.process(self._chain.run())
        self.env.run(until=self.env.all_of(turns))  # the last one may end at the instant at which the run did
        if self.env.now < end_s:
            self.env.run(until=end_s)
        self._chain.close()

    def _join(self, joining: Joining) -> Generator[Any, Any, None]:
        """Ask for a slot between two blocks, so that the one of the recorded time gives it."""
        height = self._clock.height_at(joining.time_s)
        yield self.env.timeout((self._clock.block_at(height - 1) + self._clock.block_at(height)) / 2)
        self._chain.register(Member(peer_name(joining.uid), joining.uid, "peer"))

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


class _Replayed:
    """The body of `behaviors.base.ValidatorVerbs` over recorded turns."""

    def __init__(
        self,
        office: Office,
        scenario: Scenario,
        label: str,
        rank: int,
        turns: Sequence[Turn],
        cohorts: Mapping[str, Sequence[int]],
        stamps: Stamps | None,
    ) -> None:
        self.label = label
        self.name = f"validator:{label}"
        self._office, self._turns, self._cohorts = office, turns, cohorts
        self._behavior: ValidatorBehavior = scenario.validators[label].behavior
        self._books = Books(office, label, rank)
        self._stamps = stamps
        self._turn = turns[0] if turns else None

    @property
    def round(self) -> int:
        return self._now.round

    def run(self) -> Generator[Any, Any, None]:
        """Play the script once a turn."""
        for turn in self._turns:
            self._turn = turn
            yield from self._behavior.play_round(self)

    def publish_first_list(self, active: Collection[int]) -> None:
        """Before the first round, of nobody who is known."""
        self._books.put_up_list(-1, active, effective_window=0)

    def judged_weights(self) -> Mapping[int, float]:
        return self._books.weights

    def weights_on_chain(self) -> Mapping[int, float]:
        return self._office.chain.weights_of_others(self.name)

    def cohort(self, name: str) -> Sequence[int]:
        return self._cohorts.get(name, ())

    def gather(self) -> Verb[bool]:
        env = self._office.env
        yield env.timeout(max(0.0, self._now.time_s - env.now))
        return self._now.evidence is not None

    def evaluate(self) -> Verb[None]:
        turn = self._now
        if turn.evidence is not None:
            self._books.judge(turn.evidence, turn.round, turn.active, turn.num_drawn, turn.evaluation_s)
        yield from ()

    def set_weights(self, weights: Mapping[int, float]) -> None:
        self._books.set_weights(weights, self.round)

    def publish_list(self) -> None:
        self._books.publish_list(self.round, self._active())

    def step(self) -> None:
        """There is no theta to move."""

    def sit_out(self) -> Verb[None]:
        yield from ()

    def catch_up(self) -> Verb[None]:
        yield from ()

    def _active(self) -> Collection[int]:
        """Who counts as active by now, and not only those who did when evaluation began."""
        stamps, now_s = self._stamps, self._office.env.now
        if stamps is None:
            return self._now.active
        return self._books.active(self.round, lambda uid, of: stamps.get((of, uid), math.inf) <= now_s)

    @property
    def _now(self) -> Turn:
        assert self._turn is not None, "a validator without turns plays no round"
        return self._turn


def _of(turns: Sequence[Turn], validator: str) -> list[Turn]:
    return [turn for turn in turns if turn.validator == validator]
