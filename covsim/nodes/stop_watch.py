"""Watches a run's events for the first stop condition that is reached, and counts the rounds that are settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import simpy

from covsim.events import (
    BatchCut,
    Event,
    HeldOutMeasured,
    NodeLeft,
    PeerCrashed,
    PeerEntered,
    RoundSettled,
    RoundSkipped,
    Submitted,
    Trained,
    ValidatorSettled,
)
from covsim.scenario.population import PeerSpec
from covsim.scenario.schema import Scenario
from covsim.scenario.sections import Stop


class StopWatch:
    """Watches a run's events for the first stop condition that is reached."""

    def __init__(self, scenario: Scenario, specs: Sequence[PeerSpec], env: simpy.Environment) -> None:
        self.reason: str | None = None
        self.rounds_settled = 0
        self._stop: Stop = scenario.stop
        self._tokens_per_step = scenario.tokens_per_step
        self._tokens = 0
        self._bytes = 0.0
        self._settled: dict[int, int] = {}
        self._taking_part = {spec.uid for spec in specs if spec.membership.first_round == 0}
        self._changes = {0: len(self._taking_part) + len(scenario.validators)}  # by round: who comes, less who goes
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            BatchCut: self._batch_cut,
            Trained: self._trained,
            Submitted: self._submitted,
            HeldOutMeasured: self._measured,
            RoundSettled: self._done,
            RoundSkipped: self._done,
            ValidatorSettled: self._done,
            PeerEntered: self._entered,
            NodeLeft: self._gone,
            PeerCrashed: self._gone,
        }
        if self._stop.tokens is None:  # nobody asks for what every peer's training adds up to
            del self._notes[BatchCut], self._notes[Trained]
        if self._stop.bytes is None:
            del self._notes[Submitted]
        if self._stop.simulated is not None:
            env.timeout(self._stop.simulated).callbacks.append(lambda _: self._reach("simulated"))

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What takes note of events of a type."""
        return [self._notes[kind]] if kind in self._notes else []

    def _batch_cut(self, event: BatchCut) -> None:
        """What the steps, counted as whole ones, lack."""
        self._tokens -= event.steps * (self._tokens_per_step - self._tokens_per_step * event.batch // event.whole)

    def _trained(self, event: Trained) -> None:
        self._tokens += event.steps * self._tokens_per_step
        assert self._stop.tokens is not None
        if self._tokens >= self._stop.tokens:
            self._reach("tokens")

    def _submitted(self, event: Submitted) -> None:
        self._bytes += event.num_bytes
        assert self._stop.bytes is not None
        if self._bytes >= self._stop.bytes:
            self._reach("bytes")

    def _measured(self, event: HeldOutMeasured) -> None:
        if self._stop.loss is not None and event.loss <= self._stop.loss:
            self._reach("loss")

    def _done(self, event: RoundSettled | RoundSkipped | ValidatorSettled) -> None:
        self.are_done(event.round, 1)

    def are_done(self, round: int, nodes: int) -> None:
        """So many nodes have settled a round, or skipped it."""
        self._settled[round] = self._settled.get(round, 0) + nodes
        if round == self.rounds_settled:
            self._count()

    def _entered(self, event: PeerEntered) -> None:
        self._taking_part.add(event.uid)
        self._change(event.round, 1)

    def _gone(self, event: NodeLeft | PeerCrashed) -> None:
        if event.uid in self._taking_part:
            self._taking_part.remove(event.uid)
            self._change(event.round + isinstance(event, NodeLeft), -1)  # a crash leaves its round undone
            self._count()

    def _change(self, round: int, by: int) -> None:
        self._changes[round] = self._changes.get(round, 0) + by

    def _count(self) -> None:
        """A round is settled when everybody who takes part in it is done with it or has skipped it."""
        while self._settled.get(self.rounds_settled, 0) >= self._expected(self.rounds_settled):
            self._settled.pop(self.rounds_settled, None)
            self.rounds_settled += 1
        if self._stop.rounds is not None and self.rounds_settled >= self._stop.rounds:
            self._reach("rounds")

    def _expected(self, round: int) -> int:
        """How many nodes take part in a round."""
        return sum(by for since, by in self._changes.items() if since <= round)

    def _reach(self, reason: str) -> None:
        self.reason = self.reason or reason
