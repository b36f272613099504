"""Max-min fair rates: closed forms, and the two conditions that define them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world.fairness import Resource, max_min_rates


def test_equal_flows_share_equally():
    link = Resource("link", 90.0)
    assert max_min_rates({(link,): 3}) == {(link,): 30.0}


def test_what_a_slow_flow_leaves_goes_to_the_others():
    server, a, b, c = (Resource(name, rate) for name, rate in [("s", 500), ("a", 500), ("b", 500), ("c", 50)])
    rates = max_min_rates({(a, server): 1, (b, server): 1, (c, server): 1})
    assert rates == {(a, server): 225, (b, server): 225, (c, server): 50}


def test_parking_lot():
    # One flow over all of n links and one over each: every flow gets half, however long the path.
    links = tuple(Resource(f"link {i}", 10.0) for i in range(5))
    rates = max_min_rates({links: 1} | {(link,): 1 for link in links})
    assert set(rates.values()) == {5.0}


def test_three_levels_fill_one_after_another():
    # x takes 1 of y's 10, two flows of y's other path share the 9 left, z's own flow gets all of the rest.
    x, y, z = Resource("x", 1.0), Resource("y", 10.0), Resource("z", 100.0)
    rates = max_min_rates({(x, y): 1, (y, z): 2, (z,): 1})
    assert rates == {(x, y): 1.0, (y, z): 4.5, (z,): 91.0}


def test_nothing_to_share():
    assert max_min_rates({}) == {}


@pytest.mark.parametrize("capacity", [0, -1.0, math.nan])
def test_a_resource_needs_a_capacity(capacity):
    with pytest.raises(ValueError, match="uplink of 3 needs a capacity above 0 b/s"):
        Resource("uplink of 3", capacity)


@st.composite
def topologies(draw):
    capacities = draw(st.lists(st.floats(0.1, 1e9), min_size=1, max_size=8))
    resources = [Resource(f"r{i}", capacity) for i, capacity in enumerate(capacities)]
    paths = st.lists(st.sampled_from(resources), min_size=1, max_size=4, unique=True).map(tuple)
    return resources, draw(st.dictionaries(paths, st.integers(1, 50), min_size=1, max_size=12))


@given(topologies())
@settings(deadline=None, max_examples=300)
def test_no_resource_is_over_capacity_and_no_flow_can_be_raised(topology):
    resources, num_flows = topology
    rates = max_min_rates(num_flows)
    assert rates.keys() == num_flows.keys()
    used = {r: sum(n * rates[path] for path, n in num_flows.items() if r in path) for r in resources}
    assert all(used[r] <= r.capacity_bits_per_s * (1 + 1e-9) for r in resources)
    for path, rate in rates.items():
        # To raise it, some full resource would have to take from a flow that has no more: its bottleneck.
        assert any(_is_full(r, used) and rate >= _largest(r, rates) * (1 - 1e-9) for r in path)


@given(topologies(), st.randoms())
@settings(deadline=None)
def test_the_order_of_listing_does_not_matter(topology, random):
    _, num_flows = topology
    shuffled = list(num_flows.items())
    random.shuffle(shuffled)
    rates, others = max_min_rates(num_flows), max_min_rates(dict(shuffled))
    assert others == pytest.approx(rates, rel=1e-9)


def _is_full(resource, used):
    return used[resource] >= resource.capacity_bits_per_s * (1 - 1e-9)


def _largest(resource, rates):
    return max(rate for path, rate in rates.items() if resource in path)
