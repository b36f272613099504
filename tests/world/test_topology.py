"""Direct exchanges on the network: closed forms, published rows, and what every topology keeps."""

from __future__ import annotations

import math

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.randomness import Streams
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.topology import AllToAll, Gossip, Member, Ring, Tree, topologies

GB = 1e9
DIRECT = [kind for kind, topology in topologies.items() if topology.direct]


def members(num, num_bytes, up=1e9, down=1e9):
    sizes = num_bytes if isinstance(num_bytes, list) else [num_bytes] * num
    ups = up if isinstance(up, list) else [up] * num
    return [Member(f"peer:{n}", Resource(f"{n} up", ups[n]), Resource(f"{n} down", down), sizes[n]) for n in range(num)]


def lots(seed=0):
    return lambda name: Streams(seed).uniform("lot", name)


def seconds(topology, group, sums, latency_s=0.0):
    """How long an exchange takes on the network, over all groups, and what each member sent and received."""
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    up, down = dict.fromkeys([m.name for m in group], 0.0), dict.fromkeys([m.name for m in group], 0.0)

    def exchange(some):
        for phase in topology.phases(some, lambda one, other: latency_s, sums):
            transfers = [network.transfer(flow.path, flow.num_bytes, flow.latency_s) for flow in phase]
            yield env.all_of([transfer.done for transfer in transfers])
            for flow in phase:
                for name in flow.senders:
                    up[name] += flow.num_bytes
                for name in flow.receivers:
                    down[name] += flow.num_bytes

    done = env.all_of([env.process(exchange(some)) for some in topology.groups(group, lots())])
    env.run(done)
    return env.now, up, down


@pytest.mark.parametrize(("gbit_per_s", "expected_s"), [(1.44, 103), (0.389, 382), (0.317, 469)])
def test_a8_a_ring_of_14_nodes_with_one_slow_link(gbit_per_s, expected_s):
    """INTELLECT-1 (arXiv 2412.01152), targets A8: 10 GB over 14 nodes; the bandwidths are back-solved."""
    group = members(14, 10 * GB, up=[gbit_per_s * 1e9] + [10e9] * 13, down=10e9)
    took_s, _, _ = seconds(Ring(), group, sums=True)
    assert took_s == pytest.approx(expected_s, rel=0.05)
    assert took_s == pytest.approx(2 * 13 / 14 * 80 / gbit_per_s, rel=1e-9)


@pytest.mark.parametrize(("exchange_s", "expected"), [(103, 95.7), (382, 85.6), (469, 83.0)])
def test_a7_utilization_is_compute_over_compute_and_exchange(exchange_s, expected):
    """Targets A7, within 0.3 points: 38 minutes of inner steps between two exchanges of A8."""
    bits_per_s = 2 * 13 / 14 * 80e9 / exchange_s
    took_s, _, _ = seconds(Ring(), members(14, 10 * GB, up=[bits_per_s] + [10e9] * 13, down=10e9), sums=True)
    assert 100 * 38 * 60 / (38 * 60 + took_s) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(
    ("topology", "sums", "expected_s"),
    [
        (Ring(), True, 2 * 7 / 8 * 8 + 14 * 0.1),  # 8 members, 1 GB at 1 Gb/s: 8 s a payload
        (Ring(), False, 7 * 8 + 7 * 0.1),
        (AllToAll(), True, 2 * (7 / 8 * 8 + 0.1)),
        (AllToAll(), False, 7 * 8 + 0.1),
        (Tree(branching=1), True, 2 * (8 + 7 * 0.1)),
        (Tree(branching=2), True, 2 * (2 * 8 + 3 * 0.1)),
        (Tree(branching=7), True, 2 * (7 * 8 + 0.1)),
        (Tree(branching=7), False, (7 * 8 + 0.1) + (7 * 7 * 8 + 0.1)),
        (Gossip(), True, 8 + 0.1),
        (Gossip(), False, 8 + 0.1),
    ],
)
def test_closed_forms_of_equal_members(topology, sums, expected_s):
    took_s, _, _ = seconds(topology, members(8, GB), sums, latency_s=0.1)
    assert took_s == pytest.approx(expected_s, rel=1e-9)


def test_what_is_added_on_the_way_costs_a_ring_2_of_n_parts():
    _, up, down = seconds(Ring(), members(8, GB), sums=True)
    assert set(up.values()) == set(down.values()) == {2 * 7 / 8 * GB}


@settings(max_examples=60)
@given(
    st.sampled_from(DIRECT),
    st.booleans(),
    st.integers(1, 9).flatmap(lambda num: st.lists(st.floats(1e6, 1e9), min_size=num, max_size=num)),
)
def test_what_is_sent_is_received_and_links_are_not_exceeded(kind, sums, sizes):
    """It would catch a flow that is charged to one end only, or one that goes around a link."""
    topology = topologies[kind]()
    group = members(len(sizes), [max(sizes)] * len(sizes) if sums else sizes)
    took_s, up, down = seconds(topology, group, sums)
    assert math.fsum(up.values()) == pytest.approx(math.fsum(down.values()))
    for moved in (*up.values(), *down.values()):
        assert 8 * moved <= 1e9 * took_s * (1 + 1e-9)


@settings(max_examples=40)
@given(
    st.sampled_from([kind for kind in DIRECT if topologies[kind].reaches_all]),
    st.integers(2, 9).flatmap(lambda num: st.lists(st.floats(1e6, 1e9), min_size=num, max_size=num)),
)
def test_who_gets_all_payloads_has_downloaded_all_others(kind, sizes):
    """It would catch a tree whose edges forget a subtree."""
    _, _, down = seconds(topologies[kind](), members(len(sizes), sizes), sums=False)
    for place, size in enumerate(sizes):
        assert down[f"peer:{place}"] >= (math.fsum(sizes) - size) * (1 - 1e-9)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_gossip_pairs_everybody_once_by_luck_alone(num, seed):
    group = members(num, GB)
    pairs = Gossip().groups(group, lots(seed))
    names = [member.name for pair in pairs for member in pair]
    assert sorted(names) == sorted(member.name for member in group)
    assert sorted(map(len, pairs)) == sorted([2] * (num // 2) + [1] * (num % 2))
    backwards = Gossip().groups(group[::-1], lots(seed))
    assert pairs == backwards


@pytest.mark.parametrize("kind", DIRECT)
@pytest.mark.parametrize("sums", [True, False])
def test_one_alone_sends_nothing(kind, sums):
    assert topologies[kind]().phases(members(1, GB), lambda one, other: 1.0, sums) == []


@pytest.mark.parametrize("kind", [kind for kind in DIRECT if kind != "tree"])
def test_the_slowest_link_paces_everybody(kind):
    """A straggler of a tenth of the bandwidth makes any exchange of all at least ten times as long."""
    quick, _, _ = seconds(topologies[kind](), members(6, GB), sums=True)
    slow, _, _ = seconds(topologies[kind](), members(6, GB, up=[1e8] + [1e9] * 5), sums=True)
    assert slow == pytest.approx(10 * quick)
