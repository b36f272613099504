"""How long one phase of a direct exchange takes, by its fullest link, without playing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from covsim.world.fairness import Resource
from covsim.world.latency import Ways
from covsim.world.topology import Flow


def phase_seconds(phase: Sequence[Flow], ways: Ways) -> tuple[float, float]:
    """The longest latency of a phase's flows, and the seconds that its fullest link needs for all that passes it.

    Where all flows of a phase are alike the sum is exact; elsewhere it is a lower bound, since a link may stand idle
    while others hold its flows back.
    """
    load: dict[Resource, float] = defaultdict(float)
    for flow in phase:
        for link in _path(flow, ways):
            load[link] += flow.num_bytes * 8
    full_s = max(bits / link.capacity_bits_per_s for link, bits in load.items())
    return max(flow.latency_s for flow in phase), full_s


def _path(flow: Flow, ways: Ways) -> set[Resource]:
    """The links of a flow and those between regions on its way, each once."""
    links = flow.path  # in pairs, up and down, of the members in their order
    hops = [(links[place], links[(place + 3) % len(links)]) for place in range(0, len(links), 2)]
    return {*links, *(link for source, sink in hops for link in ways.between(source, sink))}
