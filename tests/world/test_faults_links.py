"""Links whose capacity changes while bytes flow: closed forms, and an oracle that computes all anew each time."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world.network import Network, NetworkSettings, Resource

MB = 1e6


def play(flows, changes):
    """Seconds at which flows (start, path, bytes) are done, None for those that never are.

    Changes are (second, resource, bits per second).
    """
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    done_s = [None] * len(flows)

    def send(position, start_s, path, num_bytes):
        yield env.timeout(start_s)
        transfer = network.transfer(path, num_bytes)
        complete = yield transfer.done
        assert complete
        done_s[position] = env.now

    def change(at_s, resource, bits_per_s):
        yield env.timeout(at_s)
        network.set_capacity(resource, bits_per_s)

    for position, flow in enumerate(flows):
        env.process(send(position, *flow))
    for entry in changes:
        env.process(change(*entry))
    env.run()
    return done_s


def test_a_slower_link_takes_longer_from_then_on():
    # 8 MB at 8 Mb/s: 2 MB are through after 2 s, the rest at 2 Mb/s takes 24 s.
    link = Resource("link", 8 * MB)
    assert play([(0, (link,), 8 * MB)], [(2, link, 2 * MB)]) == [pytest.approx(26)]


def test_a_cut_link_holds_what_flows_and_what_begins_until_it_is_back():
    link = Resource("link", 8 * MB)
    flows = [(0, (link,), 4 * MB), (5, (link,), 0.5 * MB), (6, (link,), 0)]
    # 2 MB left at 10 s, beside 0.5 MB and nothing: nothing is through at once, the small one after 1 s.
    assert play(flows, [(2, link, 0), (10, link, 8 * MB)]) == [pytest.approx(12.5), pytest.approx(11), 10]


def test_what_a_cut_link_leaves_goes_to_the_others():
    store, cut, whole = Resource("store", 8 * MB), Resource("cut", 8 * MB), Resource("whole", 8 * MB)
    flows = [(0, (cut, store), 4 * MB), (0, (whole, store), 4 * MB)]
    # Half each until 2 s; then 3 MB at full rate until 5 s; then the cut one, back at 7 s, has 3 MB left.
    assert play(flows, [(2, cut, 0), (7, cut, 8 * MB)]) == [pytest.approx(10), pytest.approx(5)]


def test_who_shared_a_store_with_a_link_that_is_cut_gets_more_though_the_store_is_slack_then():
    store, cut, whole = Resource("store", 8 * MB), Resource("cut", 8 * MB), Resource("whole", 6 * MB)
    flows = [(0, (cut, store), 4 * MB), (0, (whole, store), 4 * MB)]
    # Half of the store each until 2 s; alone the link of 6 Mb/s cannot fill it, and has 3 MB to go.
    assert play(flows, [(2, cut, 0)]) == [None, pytest.approx(6)]


def test_a_link_that_is_never_back_never_delivers():
    link = Resource("link", 8 * MB)
    assert play([(0, (link,), 4 * MB)], [(1, link, 0)]) == [None]


def test_what_completes_at_the_instant_of_the_cut_is_complete():
    link = Resource("link", 8 * MB)
    assert play([(0, (link,), 2 * MB)], [(2, link, 0)]) == [2]


def test_a_faster_link_fills_a_store_that_was_slack():
    # Two links of 1 Mb/s never fill 8 Mb/s; at 16 Mb/s each they do, and share it.
    store = Resource("store", 8 * MB)
    links = [Resource("a", MB), Resource("b", MB)]
    flows = [(0, (link, store), 1 * MB) for link in links]
    # At 4 s half of each is through, the rest goes at 4 Mb/s.
    assert play(flows, [(4, link, 16 * MB) for link in links]) == [pytest.approx(5), pytest.approx(5)]


def test_a_capacity_that_cannot_be_is_refused():
    network = Network(simpy.Environment(), NetworkSettings())
    for nonsense in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="cannot have a capacity of"):
            network.set_capacity(Resource("link", 1), nonsense)
    with pytest.raises(AssertionError, match="has no limit to change"):
        network.set_capacity(Resource("link", math.inf), 1)


def test_a_change_reaches_only_its_component(monkeypatch):
    sizes = []
    set_rate = Network._set_rate
    monkeypatch.setattr(Network, "_set_rate", lambda *given: sizes.append(given[0].env.now) or set_rate(*given))
    links = [Resource(f"link {i}", 8 * MB) for i in range(20)]
    store = Resource("store", 1e12)
    play([(0, (link, store), 4 * MB) for link in links], [(1, links[3], 4 * MB)])
    assert (sizes.count(0), sizes.count(1)) == (20, 1), "one link of a store that nobody fills moves nobody else"


@dataclass
class Workload:
    capacities: list[int]
    flows: list[tuple[Fraction, tuple[int, ...], int]]
    changes: list[tuple[Fraction, int, int]]


@st.composite
def workloads(draw):
    capacities = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 20, 100]), min_size=1, max_size=5))
    resources = st.integers(0, len(capacities) - 1)
    paths = st.lists(resources, min_size=1, max_size=3, unique=True).map(tuple)
    starts = st.integers(0, 40).map(lambda quarters: Fraction(quarters, 4))
    # Off every grid, so that no change coincides with a completion.
    moments = st.integers(0, 30).map(lambda second: second + Fraction(123456789, 10**9))
    flows = draw(st.lists(st.tuples(starts, paths, st.integers(1, 12)), max_size=8))
    changes = draw(st.lists(st.tuples(moments, resources, st.sampled_from([0, 0, 1, 2, 7, 50])), max_size=6))
    return Workload(capacities, flows, sorted(changes, key=lambda change: change[0]))


@given(workloads())
@settings(max_examples=300)
def test_completions_equal_an_exact_oracle(workload):
    resources = [Resource(f"r{i}", capacity) for i, capacity in enumerate(workload.capacities)]
    flows = [(float(start), [resources[r] for r in path], size) for start, path, size in workload.flows]
    changes = [(float(at), resources[r], capacity) for at, r, capacity in workload.changes]
    found, expected = play(flows, changes), exact_completions(workload)
    assert [end is None for end in found] == [end is None for end in expected]
    assert [end for end in found if end is not None] == pytest.approx(
        [float(end) for end in expected if end is not None], rel=1e-9, abs=1e-9
    )


def exact_completions(workload):
    """The same by stepping from event to event in exact arithmetic."""
    capacities, changes, now_s = list(workload.capacities), list(workload.changes), Fraction(0)
    done_s = [None] * len(workload.flows)
    left = {i: Fraction(8 * size) for i, (_, _, size) in enumerate(workload.flows)}
    while left:
        while changes and changes[0][0] <= now_s:
            _, resource, capacity = changes.pop(0)
            capacities[resource] = capacity
        for i in [i for i in left if left[i] == 0]:
            done_s[i] = now_s
            del left[i]
        flowing = {i: workload.flows[i][1] for i in left if workload.flows[i][0] <= now_s}
        rates = exact_rates(capacities, flowing)
        coming = [workload.flows[i][0] for i in left if workload.flows[i][0] > now_s]
        coming += [change[0] for change in changes]
        coming += [now_s + left[i] / rates[i] for i in flowing if rates[i]]
        if not coming:
            break
        for i in flowing:
            left[i] -= rates[i] * (min(coming) - now_s)
        now_s = min(coming)
    return done_s


def exact_rates(capacities, paths):
    """Max-min fair rates by the definition: find the tightest resource, freeze its flows, repeat."""
    rates = {}
    while len(rates) < len(paths):
        shares = []
        for resource, capacity in enumerate(capacities):
            waiting = [i for i, path in paths.items() if resource in path and i not in rates]
            if waiting:
                taken = sum(rate for i, rate in rates.items() if resource in paths[i])
                shares.append(((Fraction(capacity) - taken) / len(waiting), waiting))
        share, waiting = min(shares)
        rates.update(dict.fromkeys(waiting, share))
    return rates
