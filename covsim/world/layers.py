"""Layer-level timelines: the segments of an inner step, and the link on which the layers' exchanges queue.

A step is a forward and a backward pass, each split evenly over the layers:

    forward    layer 0, 1, ..., L - 1     a third of the step
    backward   layer L - 1, ..., 1, 0     two thirds

An exchange of a layer begins when its backward pass ends and takes the peer's link for itself; those that ask for the
link meanwhile wait in the order in which they asked. The forward pass of a later step that needs the layer waits
for it.

Source: the simulation behind table 4 of Streaming DiLoCo (arXiv 2501.18512).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import simpy
from pydantic import Field

from covsim.units import Share
from covsim.world.clock import Clock, Timeline, on_event, timelines
from covsim.world.network import Network, Path, Transfer


@timelines.register
class Layered(Timeline):
    """Seconds of single layers instead of windows: what compute hides of an exchange, and what it does not.

    Nothing is trained, no payload passes a store, and nobody is scored. A round is the span in which every layer's
    exchange begins once; it has the bytes that cross the links while it runs. An exchange goes up and down at once, and
    seconds for which a peer waits while its own part flows are booked as download; for the parts of others it is idle.
    The last round ends when all exchanges are over. Source: Streaming DiLoCo (arXiv 2501.18512), table 4.
    """

    kind: Literal["layered"] = "layered"
    forward_share: Annotated[Share, Field(gt=0, lt=1)] = Field(
        default=1 / 3,
        description="Part of an inner step that the forward pass takes; the backward pass takes the rest.",
    )
    volume: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="How often a layer's bytes cross a peer's link in an exchange; in a ring of n peers 2 (n - 1) / n.",
    )
    cycle: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Inner steps in which every fragment is exchanged once, evenly spread; by default fragments times "
        "protocol.inner_steps.",
    )

    @property
    def window_s(self) -> float:
        """Infinite: there are no windows."""
        return float("inf")

    def clock(self, env: simpy.Environment) -> Clock:
        """There is none, and nobody may ask for it."""
        raise AssertionError("a layered timeline has no windows")


@dataclass(frozen=True)
class Segments:
    """How long the passes through one layer take.

    Attributes:
        num_layers: L.
        forward_s, backward_s: seconds of one layer in a pass.
    """

    num_layers: int
    forward_s: float
    backward_s: float

    @classmethod
    def of(cls, step_s: float, num_layers: int, forward_share: float) -> Segments:
        """Those of an inner step of so many seconds."""
        return cls(num_layers, step_s * forward_share / num_layers, step_s * (1 - forward_share) / num_layers)

    def forward_until(self, layer: int) -> float:
        """Seconds of a forward pass before it enters a layer; with L all of it."""
        return layer * self.forward_s

    def backward_through(self, layer: int) -> float:
        """Seconds of a backward pass until it leaves a layer; with 0 all of it."""
        return (self.num_layers - layer) * self.backward_s

    @property
    def step_s(self) -> float:
        """Both passes through all layers."""
        return self.forward_until(self.num_layers) + self.backward_through(0)


class FifoLink:
    """A peer's link, which its transfers take one after the other.

    Args:
        network: what the transfers flow over.
        path: the peer's resources, all taken at once.
        latency_s: before the first byte of each.
    """

    def __init__(self, network: Network, path: Path, latency_s: float) -> None:
        self._network, self._path, self._latency_s = network, path, latency_s
        self._waiting: deque[tuple[float, Callable[[float], None]]] = deque()
        self._busy = False

    def send(self, num_bytes: float, sent: Callable[[float], None]) -> None:
        """Queue a transfer; `sent(started_s)` is called at its end, with when the link was free for it."""
        self._waiting.append((num_bytes, sent))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        num_bytes, sent = self._waiting.popleft()
        self._busy = True
        started_s = self._network.env.now
        transfer: Transfer = self._network.transfer(self._path, num_bytes, self._latency_s)
        on_event(transfer.done, lambda _: self._end(started_s, sent))

    def _end(self, started_s: float, sent: Callable[[float], None]) -> None:
        self._busy = False
        sent(started_s)
        if self._waiting:
            self._next()
