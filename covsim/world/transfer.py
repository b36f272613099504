"""A transfer, and the bundle in which it flows.

Flows over one path always have one rate. So they are kept as a bundle with a single counter of bits served per flow,
and a heap of the counts at which they are complete: whatever their number, a change of rate is one change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import simpy

from covsim.world.fairness import Path


class Transfer:
    """Bytes on their way; `done` fires with True when the last has arrived, with False when they were cut."""

    __slots__ = ("_cut", "bundle", "done", "kept_bytes", "num_bytes", "path", "serial", "target_bits")

    def __init__(
        self, env: simpy.Environment, serial: int, path: Path, num_bytes: float, cut: Callable[[Transfer], None]
    ) -> None:
        self.serial = serial
        self.path = path
        self.num_bytes = num_bytes
        self.done = env.event()
        self.bundle: Bundle | None = None  # where it flows; None before and after
        self.target_bits = 0.0  # complete when its bundle has served so many
        self.kept_bytes = 0.0  # what had arrived when it left its bundle
        self._cut = cut

    @property
    def moved_bytes(self) -> float:
        """Bytes that have arrived until now."""
        return self.kept_bytes if self.bundle is None else self.bundle.moved_bytes(self, self.done.env.now)

    def cancel(self) -> None:
        """Cut the transfer where it is; nothing happens to one that is complete or already cut."""
        if not self.done.triggered:
            self._cut(self)


class Bundle:
    """The flows over one path: they share one rate, and `served_bits` says what each got since the bundle began."""

    __slots__ = (
        "finish_bits",
        "finish_s",
        "num_flows",
        "path",
        "queue",
        "rate_bits_per_s",
        "served_bits",
        "updated_s",
    )

    def __init__(self, path: Path, now_s: float) -> None:
        self.path = path
        self.queue: list[tuple[float, int, Transfer]] = []  # a heap by target; who was cut is dropped at the top
        self.num_flows = 0
        self.served_bits = 0.0
        self.updated_s = now_s
        self.rate_bits_per_s = 0.0
        self.finish_s, self.finish_bits = math.inf, math.inf  # when the first of its flows completes, and its target

    def serve(self, now_s: float) -> None:
        """Bring `served_bits` up to date."""
        self.served_bits += self.rate_bits_per_s * (now_s - self.updated_s)
        self.updated_s = now_s

    def moved_bytes(self, transfer: Transfer, now_s: float) -> float:
        """What a flow has got until now, in bytes."""
        served_bits = self.served_bits + self.rate_bits_per_s * (now_s - self.updated_s)
        bytes_left = (transfer.target_bits - served_bits) / 8
        return min(max(transfer.num_bytes - bytes_left, 0.0), transfer.num_bytes)

    def add(self, transfer: Transfer, now_s: float) -> None:
        """Let a transfer flow from now on."""
        self.serve(now_s)
        transfer.bundle, transfer.target_bits = self, self.served_bits + 8 * transfer.num_bytes
        self.num_flows += 1
        heappush(self.queue, (transfer.target_bits, transfer.serial, transfer))

    def remove(self, transfer: Transfer, now_s: float) -> None:
        """Let a transfer flow no longer; it keeps what has arrived."""
        transfer.kept_bytes = self.moved_bytes(transfer, now_s)
        transfer.bundle = None
        self.serve(now_s)
        self.num_flows -= 1

    def pop_complete(self, now_s: float) -> list[Transfer]:
        """Take out the flows that complete now, at `finish_s`."""
        # Set, not computed: the flow that this instant was computed for must not miss its target by rounding.
        self.served_bits, self.updated_s, self.finish_s = self.finish_bits, now_s, math.inf
        complete = []
        while self.first_target_bits() <= self.served_bits:
            transfer = heappop(self.queue)[2]
            self.num_flows -= 1
            transfer.kept_bytes, transfer.bundle = transfer.num_bytes, None
            complete.append(transfer)
        return complete

    def first_target_bits(self) -> float:
        """When so many are served, the next flow completes."""
        while self.queue and self.queue[0][2].bundle is not self:
            heappop(self.queue)
        return self.queue[0][0] if self.queue else math.inf

    def set_rate(self, rate_bits_per_s: float, now_s: float) -> None:
        """Serve every flow at this rate from now on; at 0 bits per second none completes."""
        self.serve(now_s)
        self.rate_bits_per_s = rate_bits_per_s
        self.finish_bits = self.first_target_bits()
        left_bits = max(self.finish_bits - self.served_bits, 0.0)
        self.finish_s = now_s + left_bits / rate_bits_per_s if rate_bits_per_s else math.inf
