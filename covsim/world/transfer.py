"""A transfer, and the bundle in which it flows.

Flows over one path, of one weight and one cap, always have one rate. So they are kept as a bundle with a single counter
of bits served per flow, and a heap of the counts at which they are complete: whatever their number, a change of rate is
one change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import simpy

from covsim.world.fairness import Path, Resource


class Link:
    """A resource in use: by which bundles, and how much the rest of their paths lets them ask of it at most."""

    __slots__ = ("bundles", "demand_bits_per_s", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.bundles: dict[Bundle, None] = {}
        self.demand_bits_per_s = 0.0

    @property
    def is_slack(self) -> bool:
        """Whether it can never be full, whatever its bundles do; the margin is for rounding."""
        return self.demand_bits_per_s < self.resource.capacity_bits_per_s * (1 - 1e-9)


class Transfer:
    """Bytes on their way; `done` fires with True when the last has arrived, with False when they were cut."""

    __slots__ = (
        "_cut",
        "bundle",
        "cap_bits_per_s",
        "done",
        "kept_bytes",
        "num_bytes",
        "path",
        "serial",
        "target_bits",
        "weight",
    )

    def __init__(
        self,
        env: simpy.Environment,
        serial: int,
        path: Path,
        num_bytes: float,
        weight: float,
        cap_bits_per_s: float,
        cut: Callable[[Transfer], None],
    ) -> None:
        self.serial = serial
        self.path = path
        self.num_bytes = num_bytes
        self.weight = weight
        self.cap_bits_per_s = cap_bits_per_s
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
    """Flows that are alike: they share one rate, and `served_bits` says what each got since the bundle began.

    A value of `world.fairness.Flows`.

    Args:
        transfer: the first of them, whose path, weight and cap all have.
        links: the resources of the path, as they are in use.
        now_s: the simulated second.
    """

    __slots__ = (
        "cap_bits_per_s",
        "finish_bits",
        "finish_s",
        "links",
        "num_flows",
        "path",
        "queue",
        "rate_bits_per_s",
        "served_bits",
        "updated_s",
        "weight",
    )

    def __init__(self, transfer: Transfer, links: tuple[Link, ...], now_s: float) -> None:
        self.path = transfer.path
        self.weight = transfer.weight
        self.cap_bits_per_s = transfer.cap_bits_per_s
        self.links = links
        self.queue: list[tuple[float, int, Transfer]] = []  # a heap by target; who was cut is dropped at the top
        self.num_flows = 0
        self.served_bits = 0.0
        self.updated_s = now_s
        self.rate_bits_per_s = 0.0
        self.finish_s, self.finish_bits = math.inf, math.inf  # when the first of its flows completes, and its target

    def weigh(self, sign: int) -> None:
        """Count its demand in on all its links, or out: what the rest of the path lets through."""
        if len(self.links) == 1:
            self.links[0].demand_bits_per_s += sign * self.path[0].capacity_bits_per_s
            return
        for link in self.links:
            others = [other.capacity_bits_per_s for other in self.path if other is not link.resource]
            link.demand_bits_per_s += sign * min(others)

    @property
    def is_alone(self) -> bool:
        """Whether it slows nobody down and nobody slows it down: who else is on its links, can never fill them."""
        return not [link for link in self.links if len(link.bundles) > 1 and not link.is_slack]

    def rate_alone(self) -> float:
        """What each of its flows gets where it is alone, in bits per second: as max-min fairness has it."""
        weight = self.num_flows * self.weight
        level = self.cap_bits_per_s / self.weight
        for resource in self.path:
            share = resource.capacity_bits_per_s / weight
            level = min(level, share)
        return self.cap_bits_per_s if level == self.cap_bits_per_s / self.weight else level * self.weight

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
        self.served_bits += self.rate_bits_per_s * (now_s - self.updated_s)
        self.updated_s = now_s
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
        self.served_bits += self.rate_bits_per_s * (now_s - self.updated_s)
        self.updated_s = now_s
        self.rate_bits_per_s = rate_bits_per_s
        self.finish_bits = self.first_target_bits()
        left_bits = max(self.finish_bits - self.served_bits, 0.0)
        self.finish_s = now_s + left_bits / rate_bits_per_s if rate_bits_per_s else math.inf
