"""A peer on a layer-level timeline: it computes layer by layer, sends what is due, and waits for what it needs.

No script, no store, no tensor: what happens follows from the protocol's plan, the deployment and the links.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from covsim.events import Event, RoundSettled, Trained, Transferred
from covsim.scenario.schema import Scenario
from covsim.world.clock import alarm
from covsim.world.layers import FifoLink, Layered, Segments

Emit = Callable[[Event], None]
Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class LayerPlan:
    """What is exchanged when, the same for everybody.

    Attributes:
        num_rounds: rounds until the run ends.
        num_layers: L.
        layer_bytes: what one exchange of one layer takes of a peer's link.
        due: for every step of a round, the layers whose exchange begins in its backward pass, the last one first.
        overlap_steps: steps that may begin before an exchange is over, beside the one that it began in.
    """

    num_rounds: int
    num_layers: int
    layer_bytes: float
    due: tuple[tuple[int, ...], ...]
    overlap_steps: int

    @classmethod
    def of(cls, scenario: Scenario) -> LayerPlan:
        """That of a scenario which `scenario.layered` has checked."""
        timeline, plan, num_layers = scenario.timeline, scenario.plan, scenario.deployment.layers
        assert isinstance(timeline, Layered)
        assert num_layers is not None
        assert scenario.stop.rounds is not None
        fragments = plan.fragments.layers_of(num_layers)
        steps = timeline.cycle or plan.inner_steps * len(fragments)
        due: list[list[int]] = [[] for _ in range(steps)]
        for number, layers in enumerate(fragments):
            due[round((number + 1) * steps / len(fragments)) - 1] += layers
        return cls(
            num_rounds=scenario.stop.rounds,
            num_layers=num_layers,
            layer_bytes=timeline.volume * scenario.payload_bytes * len(fragments) / num_layers,
            due=tuple(tuple(sorted(layers, reverse=True)) for layers in due),
            overlap_steps=plan.overlap_steps or 0,
        )


class Exchange:
    """One layer on its way between all peers: over when the transfers of all are."""

    def __init__(self, env: simpy.Environment, num_peers: int) -> None:
        self.over = env.event()
        self.over_s: float | None = None
        self.to_join = self._to_send = num_peers

    def sent(self, now_s: float) -> None:
        """One more peer's transfer has ended."""
        self._to_send -= 1
        if not self._to_send:
            self.over_s = now_s
            self.over.succeed()


class Exchanges:
    """All that are under way, by step and layer.

    Args:
        env: the simulation.
        num_peers: everybody takes part in each.
    """

    def __init__(self, env: simpy.Environment, num_peers: int) -> None:
        self._env, self._num_peers = env, num_peers
        self._open: dict[tuple[int, int], Exchange] = {}

    def join(self, step: int, layer: int) -> Exchange:
        """The exchange of a layer after a step; once everybody has joined it is forgotten here."""
        exchange = self._open.get((step, layer))
        if exchange is None:
            exchange = self._open[step, layer] = Exchange(self._env, self._num_peers)
        exchange.to_join -= 1
        if not exchange.to_join:
            del self._open[step, layer]
        return exchange


@dataclass
class _Pending:
    """An exchange that this peer has begun, and when its own transfer ended."""

    layer: int
    exchange: Exchange
    own_sent_s: float | None = None


@dataclass
class LayeredPeer:
    """One peer. `seconds_per_step` of its segments are those of its own machine.

    Attributes:
        env: the simulation.
        uid: who it is.
        segments: how long it computes.
        plan: what it exchanges.
        link: its own.
        exchanges: shared by all peers.
        begins: called with a round's number when it begins it.
        emit: takes its events.
    """

    env: simpy.Environment
    uid: int
    segments: Segments
    plan: LayerPlan
    link: FifoLink
    exchanges: Exchanges
    begins: Callable[[int], None]
    emit: Emit
    _at_s: float = 0.0  # until when it has computed; the clock catches up where somebody else is concerned
    _sending_s: float = 0.0  # of this round: waited while its own transfer ran
    _others_s: float = 0.0  # of this round: waited for the transfers of others
    _needed: dict[int, list[_Pending]] = field(default_factory=lambda: defaultdict(list))  # by the step that waits

    def run(self) -> Process:
        """Compute and exchange, round after round; the last one ends when the last exchange is over."""
        steps = len(self.plan.due)
        for round in range(self.plan.num_rounds):
            started_s, self._sending_s, self._others_s = self._at_s, 0.0, 0.0
            self.begins(round)
            for place in range(steps):
                step = round * steps + place
                yield from self._forward(step)
                yield from self._backward(step, self.plan.due[place], round)
            if round == self.plan.num_rounds - 1:
                yield from self._drain()
            yield from self._reach(self._at_s)
            self._at_s = self.env.now  # a wait is a difference, and its sum may be off by a rounding
            self._settle(round, started_s)

    def _forward(self, step: int) -> Process:
        """Through all layers, first to last; each waits for its exchange where one is needed by now."""
        began_s = self._at_s
        for pending in sorted(self._needed.pop(step, []), key=lambda pending: pending.layer):
            began_s += yield from self._wait(pending, began_s + self.segments.forward_until(pending.layer))
        self._at_s = began_s + self.segments.forward_until(self.plan.num_layers)

    def _backward(self, step: int, due: tuple[int, ...], round: int) -> Process:
        """Through all layers, last to first; what is due goes out when its layer is done."""
        for layer in due:
            yield from self._reach(self._at_s + self.segments.backward_through(layer))
            pending = _Pending(layer, self.exchanges.join(step, layer))
            self._needed[step + 1 + self.plan.overlap_steps].append(pending)
            self._send(pending, f"round-{round}/step-{step}/layer-{layer}")
        self._at_s += self.segments.backward_through(0)

    def _drain(self) -> Process:
        """Wait for all that is under way."""
        for step in sorted(self._needed):
            for pending in self._needed[step]:
                self._at_s += yield from self._wait(pending, self._at_s)
        self._needed.clear()

    def _send(self, pending: _Pending, key: str) -> None:
        num_bytes, node = self.plan.layer_bytes, f"peer:{self.uid}"

        def sent(started_s: float) -> None:
            pending.own_sent_s = self.env.now
            for direction in ("up", "down"):  # an exchange takes both at once
                self.emit(Transferred(self.env.now, node, key, "exchange", direction, num_bytes, started_s, True))
            pending.exchange.sent(self.env.now)

        self.link.send(num_bytes, sent)

    def _wait(self, pending: _Pending, from_s: float) -> Generator[simpy.Event, Any, float]:
        """Wait from a time on until an exchange is over; returns the seconds, booked by what they were lost to."""
        over_s = pending.exchange.over_s
        if over_s is not None and over_s <= from_s:
            return 0.0
        yield from self._reach(from_s)
        if pending.exchange.over_s is None:
            yield pending.exchange.over
        assert pending.own_sent_s is not None
        waited_s = self.env.now - from_s
        sending_s = min(max(pending.own_sent_s - from_s, 0.0), waited_s)
        self._sending_s += sending_s
        self._others_s += waited_s - sending_s
        return waited_s

    def _reach(self, time_s: float) -> Process:
        """Let the clock catch up with a time that this peer has computed until."""
        if time_s > self.env.now:
            yield alarm(self.env, time_s)

    def _settle(self, round: int, started_s: float) -> None:
        now_s, steps = self.env.now, len(self.plan.due)
        compute_s = steps * self.segments.step_s
        self.emit(Trained(now_s, self.uid, round, steps, steps, compute_s))
        self.emit(
            RoundSettled(
                now_s,
                self.uid,
                round,
                started_s=started_s,
                compute_s=compute_s,
                upload_s=0.0,
                download_s=self._sending_s,
                idle_s=self._others_s,
                idle_arrival_s=self._others_s,
            )
        )
