"""Max-min fair sharing: who gets what of links that flows have in common. No clock here.

An allocation is max-min fair when no flow can get more without taking from one that has no more than it. Progressive
filling finds it (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2): raise all flows together until some
resource is full, freeze the flows over it, and go on with the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heapify, heappop, heappush


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


def max_min_rates(num_flows: Mapping[Path, int]) -> dict[Path, float]:
    """The max-min fair rate of a flow over each path, in bits per second.

    Args:
        num_flows: how many flows take each path, at least 1; a path names limited resources, each once, at least one.
    """
    spare = {resource: resource.capacity_bits_per_s for path in num_flows for resource in path}
    load = dict.fromkeys(spare, 0)
    users: dict[Resource, list[Path]] = {resource: [] for resource in spare}
    for path, flows in num_flows.items():
        for resource in path:
            load[resource] += flows
            users[resource].append(path)
    # The position breaks ties, so the order never depends on how resources compare.
    fullest = [(spare[resource] / load[resource], position, resource) for position, resource in enumerate(spare)]
    heapify(fullest)
    rates: dict[Path, float] = {}
    while len(rates) < len(num_flows):
        share, position, resource = heappop(fullest)
        if not load[resource]:
            continue
        share_now = spare[resource] / load[resource]
        if share_now > share:  # flows that froze elsewhere left it more to give
            heappush(fullest, (share_now, position, resource))
            continue
        for path in users[resource]:
            if path not in rates:
                rates[path] = share
                for shared in path:
                    spare[shared] -= num_flows[path] * share
                    load[shared] -= num_flows[path]
    return rates
