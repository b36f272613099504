"""Which way payloads take: through the object store, or from peer to peer in one exchange over all their links at once.

An exchange is a few phases, each a set of flows that begin together; the next phase begins when the last of them is
complete. `n` are the peers of the exchange, `S` is a payload's size, and `n S` the size of all of them. Values that can
be added on the way (`sums`) are reduced as they pass; others cannot, and every single payload goes to everybody.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field

from covsim.registry import Part, Registry
from covsim.world.fairness import Resource


@dataclass(frozen=True)
class Member:
    """A peer in an exchange: its links, and the size of the payload that it brings, as charged; 0 if it brings none."""

    name: str
    uplink: Resource
    downlink: Resource
    num_bytes: float = 0.0


@dataclass(frozen=True)
class Flow:
    """Bytes over all these links at once, after a latency; each sender sends, each receiver receives so many."""

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    path: tuple[Resource, ...]
    num_bytes: float
    latency_s: float


Phase: TypeAlias = Sequence[Flow]
Latency: TypeAlias = Callable[[Member, Member], float]
Lots: TypeAlias = Callable[[str], float]


class Topology(Part):
    """The way of payloads.

    With `direct` they go from peer to peer, and with `reaches_all` everybody gets those of everybody.
    """

    direct: ClassVar[bool] = True
    reaches_all: ClassVar[bool] = True

    kind: str

    @abstractmethod
    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """Who exchanges with whom; `lots` draws a number for a name and is asked where luck decides."""

    @abstractmethod
    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """The flows of one group's exchange; none for a group of one.

        Args:
            members: the group, in an order that does not depend on how the scenario lists them.
            latency: seconds from one member to another, one way.
            sums: whether payloads can be added on the way.
        """


topologies: Registry[Topology] = Registry("topology")


@topologies.register
class ObjectStoreTopology(Topology):
    """Two hops: everybody uploads to the object store, and downloads what is listed from it."""

    direct: ClassVar[bool] = False

    kind: Literal["object_store"] = "object_store"

    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """Nobody exchanges with anybody."""
        raise AssertionError("payloads pass the store")

    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """Nobody exchanges with anybody."""
        raise AssertionError("payloads pass the store")


@topologies.register
class Ring(Topology):
    """A ring all-reduce: reduce-scatter, then all-gather, all links at once at the pace of the slowest.

    2 (n - 1) / n x S each way and 2 (n - 1) latencies. What cannot be added is all-gathered: (n - 1) payloads each way
    and n - 1 latencies. Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of
    workstations; INTELLECT-1 (arXiv 2412.01152) has this ring between its nodes.
    """

    kind: Literal["ring"] = "ring"

    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """All in one."""
        return [list(members)]

    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """One flow over everybody's links."""
        num = len(members)
        if num < 2:
            return []
        sizes = [member.num_bytes for member in members]
        hop_s = max(latency(one, members[(place + 1) % num]) for place, one in enumerate(members))
        # Payloads differ in size at most where somebody sends another length: then the pace is that of the longest way.
        num_bytes = 2 * (num - 1) / num * max(sizes) if sums else math.fsum(sizes) - min(sizes)
        names = tuple(member.name for member in members)
        path = tuple(link for member in members for link in (member.uplink, member.downlink))
        return [[Flow(names, names, path, num_bytes, (2 if sums else 1) * (num - 1) * hop_s)]]


@topologies.register
class AllToAll(Topology):
    """Everybody to everybody: n (n - 1) flows of a payload, each at its fair share of the links.

    What can be added goes in shards: S / n to each, the sums of them back: 2 (n - 1) / n x S each way. Its cost to
    compute grows with the fourth power of n: meant for some tens of peers. Source: Thakur et al. 2005, Optimization of
    collective communication operations in MPICH.
    """

    kind: Literal["all_to_all"] = "all_to_all"

    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """All in one."""
        return [list(members)]

    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """One phase of payloads, or two of shards."""
        num = len(members)
        if num < 2:
            return []
        shard = max(member.num_bytes for member in members) / num
        phase = [
            _hop(one, other, shard if sums else one.num_bytes, latency)
            for one in members
            for other in members
            if one is not other
        ]
        return [phase, phase] if sums else [phase]


@topologies.register
class Tree(Topology):
    """Up a tree and down again, in a pipeline; an inner node's links carry all its children.

    What can be added is S over every edge, up and down. Of what cannot, an edge carries the payloads of the subtree
    below it up, and all others down. A latency per level. Source: Sanders, Speck and Träff 2009, Two-tree algorithms
    for full bandwidth broadcast, reduction and scan (here one tree).
    """

    kind: Literal["tree"] = "tree"
    branching: int = Field(default=2, ge=1, le=1000, description="Children of an inner node.")

    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """All in one, at drawn places."""
        return [sorted(members, key=lambda member: lots(member.name))]

    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """Up, and down."""
        num = len(members)
        if num < 2:
            return []
        below = [member.num_bytes for member in members]  # payloads of the subtree
        for place in range(num - 1, 0, -1):
            below[self._parent(place)] += below[place]
        largest, everything = max(member.num_bytes for member in members), below[0]
        up, down = list[Flow](), list[Flow]()
        for place in range(1, num):
            child, parent = members[place], members[self._parent(place)]
            depth = self._depth(num - 1)  # a pipeline is full when its last level has heard
            up.append(_hop(child, parent, largest if sums else below[place], latency, depth))
            down.append(_hop(parent, child, largest if sums else everything - below[place], latency, depth))
        return [up, down]

    def _parent(self, place: int) -> int:
        return (place - 1) // self.branching

    def _depth(self, place: int) -> int:
        """Edges between a place and the root."""
        depth = 0
        while place > 0:
            place, depth = self._parent(place), depth + 1
        return depth


@topologies.register
class Gossip(Topology):
    """Pairs, drawn anew in every round: each exchanges payloads with its partner only, and averages with it.

    Histories differ from the first round on, and nothing pulls them together: pseudo-gradients are averaged, not
    parameters. One who is left over by an odd number steps with its own payload. Source: Boyd et al. 2006, Randomized
    gossip algorithms; NoLoCo (arXiv 2506.10911) pairs replicas like this, and averages parameters too.
    """

    reaches_all: ClassVar[bool] = False

    kind: Literal["gossip"] = "gossip"

    def groups(self, members: Sequence[Member], lots: Lots) -> list[list[Member]]:
        """Pairs in a drawn order."""
        drawn = sorted(members, key=lambda member: lots(member.name))
        return [drawn[place : place + 2] for place in range(0, len(drawn), 2)]

    def phases(self, members: Sequence[Member], latency: Latency, sums: bool) -> list[Phase]:
        """Both ways at once."""
        if len(members) < 2:
            return []
        one, other = members
        return [[_hop(one, other, one.num_bytes, latency), _hop(other, one, other.num_bytes, latency)]]


def _hop(sender: Member, receiver: Member, num_bytes: float, latency: Latency, times: int = 1) -> Flow:
    """Bytes from one to another, after so many latencies."""
    path = (sender.uplink, receiver.downlink)
    return Flow((sender.name,), (receiver.name,), path, num_bytes, times * latency(sender, receiver))
