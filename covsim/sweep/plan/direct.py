"""Seconds and bytes of an exchange from peer to peer, by the phases that the topology itself gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covsim.randomness import Streams
from covsim.scenario.population import PeerSpec
from covsim.scenario.schema import Scenario
from covsim.sweep.plan.sharing import Floats
from covsim.world.fairness import Resource
from covsim.world.latency import Ways
from covsim.world.phases import phase_seconds
from covsim.world.topology import Latency, Member


@dataclass(frozen=True)
class Direct:
    """One exchange, linear in the payload.

    Attributes:
        latency_s: seconds that do not depend on the payload [P].
        s_per_byte: seconds per byte of a payload [P].
        up_share, down_share: payloads' worth of bytes that a peer sends and receives [P].
    """

    latency_s: Floats
    s_per_byte: Floats
    up_share: Floats
    down_share: Floats

    def seconds(self, payload_bytes: float) -> Floats:
        """How long the exchange takes each peer [P]."""
        return self.latency_s + self.s_per_byte * payload_bytes


def direct_exchange(scenario: Scenario, peers: Sequence[PeerSpec], uplink: Floats, downlink: Floats) -> Direct:
    """The exchange of a topology for payloads of one byte.

    A phase takes as long as its fullest link needs for all that passes it. Where all flows of a phase are alike that is
    exact; elsewhere it is a lower bound, since a link may stand idle while others hold its flows back.

    Args:
        scenario: names the topology and the network.
        peers: who takes part.
        uplink, downlink: rates [P], bits per second.
    """
    ways = Ways(scenario.network)
    members = [
        Member(f"peer:{p.uid}", Resource("uplink", float(up)), Resource("downlink", float(down)), 1.0)
        for p, up, down in zip(peers, uplink, downlink, strict=True)
    ]
    for member, peer in zip(members, peers, strict=True):
        for link in (member.uplink, member.downlink):
            ways.place(link, scenario.cohorts[peer.cohort].region)
    places = {member.name: place for place, member in enumerate(members)}
    sums, streams = scenario.adds_on_the_way, Streams(scenario.seed)
    latency: Latency = lambda one, other: ways.latency_s(one.uplink, other.downlink)  # noqa: E731
    numbers = np.zeros((4, len(members)))
    for group in scenario.topology.groups(members, lambda name: streams.uniform("plan", name)):
        taken = [places[member.name] for member in group]
        for phase in scenario.topology.phases(group, latency, sums):
            wait_s, full_s = phase_seconds(phase, ways)
            numbers[0, taken] += wait_s
            numbers[1, taken] += full_s
            for flow in phase:
                numbers[2, [places[x] for x in flow.senders]] += flow.num_bytes
                numbers[3, [places[x] for x in flow.receivers]] += flow.num_bytes
    return Direct(numbers[0], numbers[1], numbers[2], numbers[3])
