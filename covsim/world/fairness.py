"""Max-min fair sharing: who gets what of links that flows have in common. No clock here.

An allocation is max-min fair when no flow can get more without taking from one that has no more than it. Progressive
filling finds it (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2): raise all flows together until some
resource is full, freeze the flows over it, and go on with the rest.

A flow of weight w counts as w flows that share its bytes: the level that rises is rate / weight. A flow with a cap is
frozen when it gets there, as if it had a link of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol


class Resource:
    """Something that flows share: a link of a node, the ingress or egress of the store.

    Args:
        name: for messages.
        capacity_bits_per_s: what all flows over it may have together; `math.inf` for no limit. While transfers are
            under way only their network may change it, see `Network.set_capacity`.

    Raises:
        ValueError: the capacity is not positive.
    """

    __slots__ = ("capacity_bits_per_s", "name")

    def __init__(self, name: str, capacity_bits_per_s: float) -> None:
        if not capacity_bits_per_s > 0:
            raise ValueError(f"{name} needs a capacity above 0 b/s, not {capacity_bits_per_s}")
        self.name = name
        self.capacity_bits_per_s = capacity_bits_per_s

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.capacity_bits_per_s!r})"

    @property
    def is_limited(self) -> bool:
        """Whether it can slow anybody down."""
        return self.capacity_bits_per_s < math.inf


Path = tuple[Resource, ...]


class Flows(Protocol):
    """Flows that are alike; see `Demand`."""

    @property
    def path(self) -> Path: ...
    @property
    def num_flows(self) -> int: ...
    @property
    def weight(self) -> float: ...
    @property
    def cap_bits_per_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Demand:
    """Flows that are alike: they want all that they can get.

    Attributes:
        path: the limited resources that they take, each once; at least one, unless there is a cap.
        num_flows: how many they are, at least 1.
        weight: as how many flows each of them counts.
        cap_bits_per_s: the most that each of them takes.
    """

    path: Path
    num_flows: int = 1
    weight: float = 1.0
    cap_bits_per_s: float = math.inf


class _Share:
    """A resource while it fills: what is left of it, for what weight of flows that still rise, and whose they are."""

    __slots__ = ("load", "num_rising", "spare", "users")

    def __init__(self, spare: float) -> None:
        self.spare = spare
        self.load = 0.0
        self.num_rising = 0
        self.users: list[int] = []


def max_min_rates(demands: Sequence[Flows]) -> list[float]:
    """The max-min fair rate of one flow of each demand, in bits per second, in their order.

    Source: progressive filling, Bertsekas and Gallager, Data Networks, 1992, section 6.5.2.
    """
    shares = _shares(demands)
    # The position breaks ties, so the order never depends on how resources compare.
    fullest: list[tuple[float, int, _Share | int]] = [
        (share.spare / share.load, position, share) for position, share in enumerate(shares.values())
    ]
    fullest += [
        (demand.cap_bits_per_s / demand.weight, len(shares) + place, place)
        for place, demand in enumerate(demands)
        if demand.cap_bits_per_s < math.inf
    ]
    heapify(fullest)
    rates: list[float] = [-1.0] * len(demands)
    num_rising = len(demands)
    while num_rising:
        level, position, full = heappop(fullest)
        if isinstance(full, int):  # a cap
            if rates[full] < 0:
                _freeze(demands[full], demands[full].cap_bits_per_s, shares)
                rates[full] = demands[full].cap_bits_per_s
                num_rising -= 1
            continue
        if not full.num_rising:
            continue
        level_now = full.spare / full.load
        if level_now > level:  # flows that froze elsewhere left it more to give
            heappush(fullest, (level_now, position, full))
            continue
        for place in full.users:
            if rates[place] < 0:
                rates[place] = level * demands[place].weight
                _freeze(demands[place], rates[place], shares)
                num_rising -= 1
    return rates


def _shares(demands: Sequence[Flows]) -> dict[Resource, _Share]:
    """The resources of some demands, in the order in which these name them, before anything flows."""
    shares: dict[Resource, _Share] = {}
    for place, demand in enumerate(demands):
        weight = demand.num_flows * demand.weight
        for resource in demand.path:
            share = shares.get(resource)
            if share is None:
                share = shares[resource] = _Share(resource.capacity_bits_per_s)
            share.load += weight
            share.num_rising += 1
            share.users.append(place)
    return shares


def _freeze(demand: Flows, rate_bits_per_s: float, shares: dict[Resource, _Share]) -> None:
    """Let flows rise no more: what they have is gone from their resources."""
    taken, weight = demand.num_flows * rate_bits_per_s, demand.num_flows * demand.weight
    for resource in demand.path:
        share = shares[resource]
        share.spare -= taken
        share.load -= weight
        share.num_rising -= 1
