"""What a barrier or a direct exchange can never do, found by arithmetic before a run starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from covsim.scenario.population import PeerSpec
from covsim.scenario.preflight_machines import step_seconds
from covsim.scenario.rounded import time_text
from covsim.scenario.schema import Scenario
from covsim.world.fairness import Resource
from covsim.world.latency import Ways
from covsim.world.phases import phase_seconds
from covsim.world.topology import Member

MOST_PEERS = 300
"""Of an exchange in pairs that is worked out beforehand."""


def timeline_warnings(
    scenario: Scenario, peers: Sequence[PeerSpec], exchange_s: Callable[[PeerSpec], float]
) -> Iterator[str]:
    """Every warning about whom a barrier waits for, and about a direct exchange.

    Args:
        scenario: what is to run.
        peers: its population.
        exchange_s: seconds of a round in which a peer exchanges through the store and does not train.
    """
    if not scenario.timeline.foresees:
        yield from _deadline(scenario, peers, exchange_s)
    if scenario.topology.direct and len(peers) <= MOST_PEERS:
        yield from _given_up(scenario, peers)


def exchange_at_least_s(scenario: Scenario, peers: Sequence[PeerSpec]) -> float:
    """Seconds that a direct exchange of all takes at least: in each phase, latency and its fullest link."""
    ways, members = Ways(scenario.network), []
    for peer in peers:
        uplink, downlink = Resource("up", peer.uplink_bits_per_s), Resource("down", peer.downlink_bits_per_s)
        for link in (uplink, downlink):
            ways.place(link, scenario.cohorts[peer.cohort].region)
        members.append(Member(f"peer:{peer.uid}", uplink, downlink, scenario.payload_bytes))
    topology = scenario.topology

    def latency_s(one: Member, other: Member) -> float:
        return ways.latency_s(one.uplink, other.downlink)

    groups = topology.groups(members, lambda name: 0.0)
    return max(
        sum(sum(phase_seconds(phase, ways)) for phase in topology.phases(group, latency_s, scenario.adds_on_the_way))
        for group in groups
    )


def _deadline(scenario: Scenario, peers: Sequence[PeerSpec], exchange_s: Callable[[PeerSpec], float]) -> Iterator[str]:
    """Peers for whom no round is long enough: a window lasts from one opening to the next, exchange and steps."""
    limit, steps = scenario.window_s, scenario.plan.inner_steps
    between_s = exchange_at_least_s(scenario, peers) if _works_out(scenario, peers) else 0.0

    def needed_s(peer: PeerSpec) -> float:
        return steps * step_seconds(scenario, peer) + (between_s if scenario.topology.direct else exchange_s(peer))

    short = sorted((peer for peer in peers if needed_s(peer) > limit), key=needed_s)
    if short:
        who = "nobody meets" if len(short) == len(peers) else f"{len(short)} of {len(peers)} peers never meet"
        took = time_text(needed_s(short[len(short) // 2]))
        yield (
            f"{who} the deadline: an exchange and {steps} inner steps take {took}, "
            f"the next window opens after {time_text(limit)} at the latest"
        )


def _works_out(scenario: Scenario, peers: Sequence[PeerSpec]) -> bool:
    return scenario.topology.direct and len(peers) <= MOST_PEERS


def _given_up(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """An exchange that is given up in every round."""
    limit, needed_s = scenario.timeline.gather_timeout, exchange_at_least_s(scenario, peers)
    if needed_s > limit:
        yield (
            f"nobody can finish an exchange: topology {scenario.topology.kind} takes {time_text(needed_s)} at least, "
            f"it is given up after {time_text(limit)}"
        )
