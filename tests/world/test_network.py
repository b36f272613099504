"""Transfers on the clock: published cases, closed forms, an exact oracle, cancellation and order."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world import network as network_module
from covsim.world.clock import alarm
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.transfer import Bundle

MB = 1e6


def new_network():
    env = simpy.Environment()
    return env, Network(env, NetworkSettings())


def completion_times(flows, latency_s=0.0):
    """Seconds at which flows (path, bytes) that all start at 0 are done, in their order."""
    env, network = new_network()
    transfers = [network.transfer(path, num_bytes, latency_s) for path, num_bytes in flows]
    done_s = {}
    for transfer in transfers:
        transfer.done.callbacks.append(lambda _, serial=transfer.serial: done_s.setdefault(serial, env.now))
    env.run()
    assert all(transfer.done.value and transfer.moved_bytes == transfer.num_bytes for transfer in transfers)
    return [done_s[transfer.serial] for transfer in transfers]


def uploads(store_bits_per_s):
    store = Resource("store", store_bits_per_s)
    return [((Resource(f"uplink {i}", 500e6), store), 100 * MB) for i in range(70)]


# The published cases, computed independently with SimGrid 3.32.


@pytest.mark.parametrize("store_bits_per_s", [100e9, math.inf])
def test_b1_an_ample_store_leaves_each_upload_its_own_link(store_bits_per_s):
    assert completion_times(uploads(store_bits_per_s), latency_s=0.025) == pytest.approx([1.625] * 70, rel=1e-12)


def test_b2_a_store_of_10_gbit_is_shared():
    assert completion_times(uploads(10e9), latency_s=0.025) == pytest.approx([5.625] * 70, rel=1e-12)


def test_b3_a_slow_link_leaves_its_share_to_the_others():
    server = Resource("server", 500e6)
    links = [Resource("a", 500e6), Resource("b", 500e6), Resource("c", 50e6)]
    times = completion_times([((link, server), 62.5 * MB) for link in links])
    assert times == pytest.approx([62.5 * 8 / 225, 62.5 * 8 / 225, 10.0], rel=1e-12)
    assert times[0] == pytest.approx(2.222222, abs=1e-6)


# Closed forms.


def test_sizes_finish_in_turn_on_one_link():
    # 1, 2 and 3 MB at 24 Mb/s: thirds until 1 s, halves until 5/3 s, then alone.
    link = Resource("link", 24e6)
    assert completion_times([((link,), n * MB) for n in (3, 1, 2)]) == pytest.approx([2.0, 1.0, 5 / 3])


def test_a_latecomer_halves_the_rate_from_then_on():
    env, network = new_network()
    link = Resource("link", 8 * MB)
    log = []

    def send(name, start_s, num_bytes):
        yield env.timeout(start_s)
        yield network.transfer((link,), num_bytes).done
        log.append((name, env.now))

    env.process(send("first", 0, 10 * MB))
    env.process(send("second", 4, 2 * MB))
    env.run()
    assert log == [("second", pytest.approx(8)), ("first", pytest.approx(12))]


def test_flows_that_follow_each_other_at_once_keep_the_link_full():
    env, network = new_network()
    link = Resource("link", 8 * MB)
    log = []

    def send_three():
        for _ in range(3):
            yield network.transfer((link,), 1 * MB).done
            log.append(env.now)

    env.process(send_three())
    env.run()
    assert log == [1, 2, 3]


def test_a_flow_over_several_links_goes_at_the_slowest():
    path = [Resource("up", 80e6), Resource("store", 8e6), Resource("down", 800e6)]
    assert completion_times([(path, 3 * MB)]) == pytest.approx([3.0])


def test_no_limit_and_no_bytes_take_only_the_latency():
    flows = [((Resource("link", math.inf),), 1e15), ((Resource("link", 1.0),), 0.0), ((), 5.0)]
    assert completion_times(flows, latency_s=0.25) == [0.25] * 3
    assert completion_times(flows) == [0.0] * 3


@pytest.mark.parametrize(("num_bytes", "latency_s"), [(-1, 0), (math.nan, 0), (math.inf, 0), (1, -1), (1, math.nan)])
def test_a_transfer_that_cannot_be_is_refused(num_bytes, latency_s):
    _, network = new_network()
    with pytest.raises(ValueError, match="cannot transfer"):
        network.transfer((), num_bytes, latency_s)


# Cancellation.


def test_cutting_one_frees_its_share_and_keeps_what_arrived():
    env, network = new_network()
    link = Resource("link", 8 * MB)
    kept, cut = network.transfer((link,), 4 * MB), network.transfer((link,), 4 * MB)
    env.run(until=2)
    assert (kept.moved_bytes, cut.moved_bytes) == pytest.approx((1 * MB, 1 * MB))
    cut.cancel()
    cut.cancel()
    assert env.run(until=cut.done) is False
    assert (env.now, cut.moved_bytes) == (2, pytest.approx(1 * MB))
    assert env.run(until=kept.done) is True
    assert (env.now, kept.moved_bytes) == (pytest.approx(5), 4 * MB)
    kept.cancel()
    assert kept.moved_bytes == 4 * MB


def test_cutting_during_the_latency_moves_nothing():
    env, network = new_network()
    transfer = network.transfer((Resource("link", 8 * MB),), 4 * MB, latency_s=1)
    env.run(until=0.5)
    transfer.cancel()
    env.run()
    assert (transfer.done.value, transfer.moved_bytes, env.now) == (False, 0, 1)


def test_cutting_at_the_instant_of_completion_does_not_hurry_the_others():
    # The cut comes before the completion within the instant: the flow behind must not be taken for the one due.
    env, network = new_network()
    link = Resource("link", 8 * MB)
    log = []

    def cut_at(time_s):
        yield env.timeout(time_s)
        first.cancel()

    env.process(cut_at(2.0))
    first, second = network.transfer((link,), 1 * MB), network.transfer((link,), 4 * MB)
    second.done.callbacks.append(lambda _: log.append(env.now))
    env.run()
    assert (first.done.value, second.done.value) == (False, True)
    assert log == [pytest.approx(5)]


def test_nothing_joins_the_flow_that_is_due_at_its_instant():
    env, network = new_network()
    link = Resource("link", 8 * MB)
    log = []

    def empty_at(time_s):
        yield env.timeout(time_s)
        yield network.transfer((link,), 0).done
        log.append(("empty", env.now))

    env.process(empty_at(1.0))
    transfer = network.transfer((link,), 1 * MB)
    transfer.done.callbacks.append(lambda _: log.append(("full", env.now)))
    env.run()
    assert sorted(log) == [("empty", 1.0), ("full", 1.0)]


# Order and cost.


def test_those_who_finish_together_do_so_in_order_of_creation():
    env, network = new_network()
    links = [Resource(f"link {i}", 8e6 * (1 + i % 3)) for i in range(30)]
    log = []
    for i in reversed(range(30)):
        transfer = network.transfer((links[i],), 1 * MB)
        transfer.done.callbacks.append(lambda _, serial=transfer.serial: log.append((env.now, serial)))
    env.run()
    assert log == sorted(log)
    assert len({time_s for time_s, _ in log}) == 3


def test_the_order_of_creation_also_holds_between_links_that_were_settled_at_different_times():
    env, network = new_network()
    slowed, free = Resource("slowed", 8 * MB), Resource("free", 8 * MB)
    log = []
    for link, megabytes in [(slowed, 1.5), (free, 2)]:
        transfer = network.transfer((link,), megabytes * MB)
        transfer.done.callbacks.append(lambda _, serial=transfer.serial: log.append((env.now, serial)))
    rival = network.transfer((slowed,), 1.5 * MB)
    env.run(until=1)
    rival.cancel()
    env.run()
    assert log == [(2, 0), (2, 1)]


def test_a_completion_that_was_put_off_does_not_ride_on_another():
    env, network = new_network()
    links = [Resource("punctual", 8 * MB), Resource("put off", 8 * MB)]
    log = []
    for link in links:
        transfer = network.transfer((link,), 5 * MB)
        transfer.done.callbacks.append(lambda _, name=link.name: log.append((env.now, name)))
    network.transfer((links[1],), 50 * MB, latency_s=1)
    env.run()
    assert log == [(5, "punctual"), (9, "put off")]


def test_the_changes_of_an_instant_are_settled_once(settlements):
    completion_times(uploads(10e9), latency_s=0.025)
    assert settlements == [70, 0]


@pytest.mark.parametrize("store_bits_per_s", [math.inf, 10e9])
def test_a_change_reaches_only_its_component(settlements, store_bits_per_s):
    # 10 links of 0.5 Gb/s can never fill a store of 10 Gb/s, so it connects nothing.
    env, network = new_network()
    store = Resource("store", store_bits_per_s)
    for i in range(10):
        link = Resource(f"link {i}", 500e6)
        for j in range(20):
            network.transfer((link, store), (j + 1) * MB, latency_s=0.01 * (20 * i + j + 1))
    env.run()
    assert len(settlements) > 300
    assert max(settlements) == 1


def test_alarms_do_not_pile_up(alarms, settlements):
    # Every flow is due before those that began earlier, so each completion needs an alarm, and settles nothing: it
    # leaves links to themselves that nobody shares.
    completion_times([((Resource(f"link {i}", 8 * MB),), (100 - i) * MB) for i in range(50)])
    assert (len(settlements), len(alarms)) == (1, 1 + 50)
    env, network = new_network()
    for i in range(50):
        network.transfer((Resource(f"link {i}", 8 * MB),), (100 - i) * MB, latency_s=0.1 * i + 0.1)
    env.run()
    assert len(alarms) <= 4 * 50, "a settlement and two completions as it joins, and the next completion as it leaves"


def test_alarms_that_others_replaced_do_not_live_on(alarms):
    env, network = new_network()
    link = Resource("link", 8 * MB)
    network.transfer((link,), 20 * MB)
    for i in range(10):  # each of them gives the long one another alarm at 20 s
        network.transfer((Resource(f"link {i}", 8 * MB),), 0.5 * MB, latency_s=i + 0.5)
    network.transfer((link,), 50 * MB, latency_s=15)
    env.run()
    assert (alarms.count(20), alarms.count(25)) == (11, 1 + 1)  # the last is the settlement at 25 s


def test_who_is_due_later_needs_no_alarm_of_its_own(alarms, settlements):
    env, network = new_network()
    for i in range(50):
        network.transfer((Resource(f"link {i}", 8 * MB),), 100 * MB, latency_s=0.1 * i + 0.1)
    env.run(until=100)
    assert (len(settlements), len(alarms)) == (50, 50 + 1)


def test_only_those_who_use_a_store_now_can_fill_it(settlements):
    env, network = new_network()
    store = Resource("store", 1e9)
    network.transfer((Resource("lasting", 8 * MB), store), 100 * MB)
    for i in range(200):
        network.transfer((Resource(f"brief {i}", 8 * MB), store), 0.4 * MB, latency_s=0.5 * (i + 1))
    env.run()
    assert max(settlements) == 1


def test_a_full_store_connects_all_its_users(settlements):
    completion_times([((Resource(f"link {i}", 500e6), Resource("s", 1e12)), (i + 1) * MB) for i in range(5)])
    assert settlements == [5], "a store that nobody can fill hears of no completion"
    settlements.clear()
    store = Resource("store", 1e9)
    completion_times([((Resource(f"link {i}", 500e6), store), (i + 1) * MB) for i in range(5)])
    assert settlements == [5, 4, 3, 2, 1]


@pytest.fixture
def settlements(monkeypatch):
    """How many bundles each settlement of an instant had to find rates for."""
    sizes = []
    settle, together, alone = Network._settle, network_module.max_min_rates, Bundle.rate_alone

    def settled(network, event):
        sizes.append(0)
        settle(network, event)

    def of_some(flowing):
        sizes[-1] += len(flowing)
        return together(flowing)

    def of_one(bundle):
        sizes[-1] += 1
        return alone(bundle)

    monkeypatch.setattr(Network, "_settle", settled)
    monkeypatch.setattr(network_module, "max_min_rates", of_some)
    monkeypatch.setattr(Bundle, "rate_alone", of_one)
    return sizes


@pytest.fixture
def alarms(monkeypatch):
    """When each alarm of a network rings: one for every settlement, and those for completions."""
    times = []
    monkeypatch.setattr(network_module, "alarm", lambda env, at_s, *rest: times.append(at_s) or alarm(env, at_s, *rest))
    return times


# Against an oracle in exact fractions, one flow at a time, everything recomputed at every event.


@dataclass
class Flow:
    start_s: Fraction
    num_bytes: int
    path: tuple[int, ...]
    cut_s: Fraction | None


@st.composite
def workloads(draw):
    capacities = draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 20, 100, math.inf]), min_size=1, max_size=6))
    paths = st.lists(st.integers(0, len(capacities) - 1), min_size=1, max_size=3, unique=True).map(tuple)
    starts = st.integers(0, 40).map(lambda quarters: Fraction(quarters, 4))
    # Off every grid, so that no cut coincides with a completion.
    cuts = st.none() | st.integers(1, 30).map(lambda later: later + Fraction(123456789, 10**9))
    flow = st.tuples(starts, st.integers(0, 12), paths, cuts)
    flows = [
        Flow(start, size, path, cut and start + cut) for start, size, path, cut in draw(st.lists(flow, max_size=9))
    ]
    return capacities, flows


@given(workloads())
@settings(deadline=None, max_examples=300)
def test_completions_and_cuts_equal_an_exact_oracle(workload):
    capacities, flows = workload
    expected = exact_outcomes(capacities, flows)
    outcomes = simulated_outcomes(capacities, flows)
    assert [complete for complete, _, _ in outcomes] == [complete for complete, _, _ in expected]
    for (_, end_s, moved), (_, exact_end_s, exact_moved) in zip(outcomes, expected, strict=True):
        assert end_s == pytest.approx(float(exact_end_s), rel=1e-9, abs=1e-9)
        assert moved == pytest.approx(float(exact_moved), rel=1e-9, abs=1e-9)


@given(workloads())
@settings(deadline=None, max_examples=50)
def test_a_workload_runs_the_same_twice(workload):
    assert simulated_outcomes(*workload) == simulated_outcomes(*workload)


def simulated_outcomes(capacities, flows):
    """(complete, end in seconds, bytes moved) of every flow, from the network."""
    env, network = new_network()
    resources = [Resource(f"r{i}", capacity) for i, capacity in enumerate(capacities)]
    outcomes = [None] * len(flows)

    def play(i, flow):
        if flow.start_s:
            yield env.timeout(float(flow.start_s))
        transfer = network.transfer([resources[r] for r in flow.path], flow.num_bytes)
        if flow.cut_s is not None:
            yield transfer.done | env.timeout(float(flow.cut_s - flow.start_s))
            transfer.cancel()
        complete = yield transfer.done
        outcomes[i] = (complete, env.now, transfer.moved_bytes)

    for i, flow in enumerate(flows):
        env.process(play(i, flow))
    env.run()
    return outcomes


def exact_outcomes(capacities, flows):
    """The same by stepping from event to event in exact arithmetic."""
    now_s, outcomes = Fraction(0), [None] * len(flows)
    left = {i: Fraction(8 * flow.num_bytes) for i, flow in enumerate(flows)}
    while left:
        for i in [i for i in left if flows[i].start_s <= now_s]:
            unlimited = all(capacities[r] == math.inf for r in flows[i].path)
            if left[i] == 0 or unlimited:
                outcomes[i] = (True, now_s, flows[i].num_bytes)
                del left[i]
            elif flows[i].cut_s is not None and flows[i].cut_s <= now_s:
                outcomes[i] = (False, now_s, flows[i].num_bytes - left[i] / 8)
                del left[i]
        flowing = [i for i in left if flows[i].start_s <= now_s]
        rates = exact_rates(capacities, {i: flows[i].path for i in flowing})
        coming = [flows[i].start_s for i in left if flows[i].start_s > now_s]
        coming += [flows[i].cut_s for i in flowing if flows[i].cut_s is not None]
        coming += [now_s + left[i] / rates[i] for i in flowing]
        if not coming:
            break
        for i in flowing:
            left[i] -= rates[i] * (min(coming) - now_s)
        now_s = min(coming)
    return outcomes


def exact_rates(capacities, paths):
    """Max-min fair rates by the definition: find the tightest resource, freeze its flows, repeat."""
    rates = {}
    while len(rates) < len(paths):
        shares = []
        for resource, capacity in enumerate(capacities):
            waiting = [i for i, path in paths.items() if resource in path and i not in rates]
            if waiting and capacity != math.inf:
                taken = sum(rate for i, rate in rates.items() if resource in paths[i])
                shares.append(((Fraction(capacity) - taken) / len(waiting), waiting))
        share, waiting = min(shares)
        rates.update(dict.fromkeys(waiting, share))
    return rates


def test_a_run_of_43_thousand_downloads_does_work_in_proportion(settlements, alarms):
    # 72 nodes fetch 20 payloads in each of 30 rounds as they arrive, over links that all differ.
    env, network = new_network()
    links = [Resource(f"downlink {i}", 500e6 * (0.5 + i / 72)) for i in range(72)]
    store = Resource("store", math.inf)
    completed = []

    def play_rounds(link):
        for _ in range(30):
            started_s = env.now
            transfers = [network.transfer((link, store), 1.989e9, 0.05 + 2.5 * i) for i in range(20)]
            yield env.all_of([transfer.done for transfer in transfers])
            completed.append(len(transfers))
            yield env.timeout(started_s + 2040 - env.now)

    for link in links:
        env.process(play_rounds(link))
    env.run()
    assert sum(completed) == 43_200
    assert len(settlements) <= 2 * 43_200
    assert sum(settlements) <= 2 * 43_200
    assert len(alarms) <= 2.1 * len(settlements)
