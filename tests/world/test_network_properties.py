"""What must hold of any traffic: weights, caps, links that change and staggered starts, watched while it flows.

Catches a rate that is not settled after a change, a bundle that mixes unlike flows, bytes made or lost, a link filled
beyond what it can carry, capacity left idle, and outcomes that depend on the order in which flows were listed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world.network import Network, NetworkSettings, Resource

CLOSE = 1e-6
BETWEEN_S = 0.487654321
"""Observations are off every grid on which flows start and links change."""


@dataclass(frozen=True)
class Flow:
    start_s: Fraction
    path: tuple[int, ...]
    num_bytes: int
    weight: float
    cap: float
    cut_s: Fraction | None


@dataclass(frozen=True)
class Traffic:
    capacities: tuple[int, ...]
    flows: tuple[Flow, ...]
    changes: tuple[tuple[Fraction, int, int], ...]


@st.composite
def traffic(draw) -> Traffic:
    capacities = draw(st.lists(st.sampled_from([1, 2, 3, 8, 20, 100]), min_size=1, max_size=5))
    link = st.integers(0, len(capacities) - 1)
    quarters = st.integers(0, 24).map(lambda number: Fraction(number, 4))
    flow = st.builds(
        Flow,
        quarters,
        st.lists(link, min_size=1, max_size=3, unique=True).map(tuple),
        st.integers(0, 12),
        st.sampled_from([1.0, 1.0, 2.0, 8.0, 1.5]),
        st.sampled_from([math.inf, math.inf, 1.0, 2.5, 10.0]),
        st.none() | st.integers(1, 30).map(lambda later: later + Fraction(123456789, 10**9)),
    )
    changes = st.tuples(quarters.map(lambda at: at + Fraction(1, 9)), link, st.sampled_from([0, 1, 5, 40]))
    return Traffic(
        tuple(capacities),
        tuple(draw(st.lists(flow, min_size=1, max_size=9))),
        tuple(draw(st.lists(changes, max_size=4))),
    )


class Watched:
    """Traffic as it is played; `look` sees who flows, how fast, and what the links can carry at that moment."""

    def __init__(self, traffic: Traffic, order: list[int] | None = None) -> None:
        self.env = simpy.Environment()
        self.network = Network(self.env, NetworkSettings())
        self.links = [Resource(f"link {i}", capacity) for i, capacity in enumerate(traffic.capacities)]
        self.transfers = {}
        self.ended_s = {}
        self.traffic = traffic
        for number in order or range(len(traffic.flows)):
            self.env.process(self._play(number, traffic.flows[number]))
        for change in traffic.changes:
            self.env.process(self._change(*change))
        self.env.process(self._mend())

    def _play(self, number, flow):
        yield self.env.timeout(float(flow.start_s))
        path = [self.links[link] for link in flow.path]
        transfer = self.network.transfer(path, flow.num_bytes, weight=flow.weight, cap_bits_per_s=flow.cap)
        self.transfers[number] = transfer
        if flow.cut_s is not None:
            yield transfer.done | self.env.timeout(float(flow.cut_s))
            transfer.cancel()
        yield transfer.done
        self.ended_s[number] = self.env.now

    def _change(self, at_s, link, bits_per_s):
        yield self.env.timeout(float(at_s))
        self.network.set_capacity(self.links[link], bits_per_s)

    def _mend(self):
        yield self.env.timeout(100)
        for link in self.links:
            self.network.set_capacity(link, 7)

    def rates(self) -> dict[int, float]:
        """Bits per second of those who flow now, from what arrives in a moment in which nothing changes."""
        flowing = {number: t for number, t in self.transfers.items() if t.bundle is not None}
        return {number: transfer.bundle.rate_bits_per_s for number, transfer in flowing.items()}


@given(traffic())
@settings(deadline=None, max_examples=150)
def test_at_every_moment_the_rates_are_max_min_fair_and_waste_nothing(traffic):
    watched = Watched(traffic)
    flows = traffic.flows
    for _ in range(40):
        watched.env.run(until=watched.env.now + BETWEEN_S)
        rates = watched.rates()
        used = [
            sum(rate for number, rate in rates.items() if link in flows[number].path)
            for link in range(len(watched.links))
        ]
        for link, resource in enumerate(watched.links):
            assert used[link] <= resource.capacity_bits_per_s * (1 + CLOSE), "no link over capacity"
        for number, rate in rates.items():
            flow = flows[number]
            if rate >= flow.cap * (1 - CLOSE):
                continue
            full = [link for link in flow.path if used[link] >= watched.links[link].capacity_bits_per_s * (1 - CLOSE)]
            assert full, "work is conserved: who gets less than its cap meets a full link"
            levels = {
                link: max(others / flows[other].weight for other, others in rates.items() if link in flows[other].path)
                for link in full
            }
            assert any(rate / flow.weight >= level * (1 - CLOSE) for level in levels.values()), "max-min"


@given(traffic())
@settings(deadline=None, max_examples=150)
def test_bytes_sent_are_bytes_received_and_lost(traffic):
    watched = Watched(traffic)
    sent_bits = dict.fromkeys(range(len(traffic.flows)), 0.0)
    while watched.env.peek() < math.inf:  # rates hold between two events
        before_s, rates = watched.env.now, watched.rates()
        watched.env.step()
        for number, rate in rates.items():
            sent_bits[number] += rate * (watched.env.now - before_s)
    for number, transfer in watched.transfers.items():
        assert transfer.moved_bytes * 8 == pytest.approx(sent_bits[number], rel=CLOSE, abs=CLOSE)
        if transfer.done.value:
            assert transfer.moved_bytes == traffic.flows[number].num_bytes
        else:
            assert 0 <= transfer.moved_bytes <= traffic.flows[number].num_bytes
    assert len(watched.ended_s) == len(traffic.flows), "everything ends, once the links are mended"


@given(traffic(), st.randoms())
@settings(deadline=None, max_examples=100)
def test_the_time_does_not_depend_on_the_order_of_listing(traffic, random):
    order = list(range(len(traffic.flows)))
    random.shuffle(order)
    one, other = Watched(traffic), Watched(traffic, order)
    one.env.run()
    other.env.run()
    assert other.ended_s == pytest.approx(one.ended_s, rel=1e-9, abs=1e-9)


@given(traffic())
@settings(deadline=None, max_examples=50)
def test_nothing_is_left_behind_when_all_is_over(traffic):
    watched = Watched(traffic)
    watched.env.run()
    watched.env.run(until=watched.env.now + 1)
    assert not any(watched.network.is_used(link) for link in watched.links)
    assert not watched.network._bundles
