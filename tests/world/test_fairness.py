"""Max-min fair rates: closed forms, and the conditions that define them, with weights and caps."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world.fairness import Demand, Resource, max_min_rates


def test_equal_flows_share_equally():
    assert max_min_rates([Demand((Resource("link", 90.0),), num_flows=3)]) == [30.0]


def test_what_a_slow_flow_leaves_goes_to_the_others():
    server, a, b, c = (Resource(name, rate) for name, rate in [("s", 500), ("a", 500), ("b", 500), ("c", 50)])
    assert max_min_rates([Demand((link, server)) for link in (a, b, c)]) == [225, 225, 50]


def test_parking_lot():
    # One flow over all of n links and one over each: every flow gets half, however long the path.
    links = tuple(Resource(f"link {i}", 10.0) for i in range(5))
    assert set(max_min_rates([Demand(links), *(Demand((link,)) for link in links)])) == {5.0}


def test_three_levels_fill_one_after_another():
    # x takes 1 of y's 10, two flows of y's other path share the 9 left, z's own flow gets all of the rest.
    x, y, z = Resource("x", 1.0), Resource("y", 10.0), Resource("z", 100.0)
    assert max_min_rates([Demand((x, y)), Demand((y, z), num_flows=2), Demand((z,))]) == [1.0, 4.5, 91.0]


def test_nothing_to_share():
    assert max_min_rates([]) == []


def test_a_flow_counts_as_many_as_it_weighs():
    # 8 connections against 1 and another 1: eight tenths of the link.
    link = Resource("link", 100.0)
    assert max_min_rates([Demand((link,), weight=8), Demand((link,), num_flows=2)]) == [80.0, 10.0]


def test_what_a_cap_leaves_goes_to_the_others():
    link = Resource("link", 100.0)
    assert max_min_rates([Demand((link,), cap_bits_per_s=10.0), Demand((link,), num_flows=2)]) == [10.0, 45.0]


def test_a_cap_that_does_not_bind_changes_nothing():
    link = Resource("link", 100.0)
    assert max_min_rates([Demand((link,), cap_bits_per_s=50.1), Demand((link,))]) == [50.0, 50.0]


def test_a_cap_alone_is_a_rate():
    assert max_min_rates([Demand((), cap_bits_per_s=7.0)]) == [7.0]


@pytest.mark.parametrize("capacity", [0, -1.0, math.nan])
def test_a_resource_needs_a_capacity(capacity):
    with pytest.raises(ValueError, match="uplink of 3 needs a capacity above 0 b/s"):
        Resource("uplink of 3", capacity)


@st.composite
def topologies(draw):
    capacities = draw(st.lists(st.floats(0.1, 1e9), min_size=1, max_size=8))
    resources = [Resource(f"r{i}", capacity) for i, capacity in enumerate(capacities)]
    demand = st.builds(
        Demand,
        st.lists(st.sampled_from(resources), min_size=1, max_size=4, unique=True).map(tuple),
        num_flows=st.integers(1, 50),
        weight=st.just(1.0) | st.integers(1, 16).map(float) | st.floats(0.1, 20),
        cap_bits_per_s=st.just(math.inf) | st.floats(0.01, 1e9),
    )
    return resources, draw(st.lists(demand, min_size=1, max_size=12))


@given(topologies())
@settings(deadline=None, max_examples=300)
def test_no_resource_is_over_capacity_and_no_flow_can_be_raised(topology):
    resources, demands = topology
    rates = max_min_rates(demands)
    used = {
        r: sum(d.num_flows * rate for d, rate in zip(demands, rates, strict=True) if r in d.path) for r in resources
    }
    assert all(used[r] <= r.capacity_bits_per_s * (1 + 1e-9) for r in resources)
    for demand, rate in zip(demands, rates, strict=True):
        assert 0 < rate <= demand.cap_bits_per_s * (1 + 1e-9)
        # To raise it, some full resource would have to take from a flow of no higher level: its bottleneck.
        level = rate / demand.weight
        assert rate >= demand.cap_bits_per_s * (1 - 1e-9) or any(
            _is_full(r, used) and level >= _largest(r, demands, rates) * (1 - 1e-9) for r in demand.path
        )


@given(topologies(), st.randoms())
@settings(deadline=None)
def test_the_order_of_listing_does_not_matter(topology, random):
    _, demands = topology
    order = list(range(len(demands)))
    random.shuffle(order)
    rates, others = max_min_rates(demands), max_min_rates([demands[place] for place in order])
    assert others == pytest.approx([rates[place] for place in order], rel=1e-9)


@given(topologies())
@settings(deadline=None)
def test_a_cap_is_a_private_resource_of_each_flow_and_a_weight_so_many_flows(topology):
    # The same from the plain rule alone: one demand a connection, and each flow's cap a resource of its own.
    _, demands = topology
    whole = [Demand(d.path, min(d.num_flows, 3), float(math.ceil(d.weight)), d.cap_bits_per_s) for d in demands]
    plain = []
    for number, demand in enumerate(whole):
        for flow in range(demand.num_flows):
            cap = Resource(f"cap {number} {flow}", demand.cap_bits_per_s)
            own = (cap,) if demand.cap_bits_per_s < math.inf else ()
            plain.append(Demand((*demand.path, *own), num_flows=int(demand.weight)))
    by_connection = iter(max_min_rates(plain))
    for demand, rate in zip(whole, max_min_rates(whole), strict=True):
        for _ in range(demand.num_flows):
            assert next(by_connection) * demand.weight == pytest.approx(rate, rel=1e-9)


def _is_full(resource, used):
    return used[resource] >= resource.capacity_bits_per_s * (1 - 1e-9)


def _largest(resource, demands, rates):
    return max(rate / d.weight for d, rate in zip(demands, rates, strict=True) if resource in d.path)
