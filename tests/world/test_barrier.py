"""The clock of a barrier: when windows open, by policy, and what it says of those that have not."""

from __future__ import annotations

import math

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.world.barrier import Barrier, BarrierClock
from covsim.world.clock import Windowed


def clock_of(**settings):
    env = simpy.Environment()
    timeline = Barrier.model_validate(settings)
    clock = timeline.clock(env)
    assert isinstance(clock, BarrierClock)
    return env, clock


def worker(env, clock, name, seconds, opened):
    """Works so long for each window, and waits for it to open."""
    clock.join(name, 0)
    for window, works_s in enumerate(seconds, start=1):
        yield env.timeout(works_s)
        yield clock.ready(name, window)
        opened.append((name, window, env.now))


def windows(seconds_by_name, until=1e6, **settings):
    """When each window opens for workers of these paces."""
    env, clock = clock_of(**settings)
    opened_s = []
    clock.on_open(lambda window: opened_s.append((window, env.now)))
    for name, seconds in seconds_by_name.items():
        env.process(worker(env, clock, name, seconds, []))
    env.run(until)
    return opened_s


def test_all_waits_for_the_slowest_of_every_round():
    opened_s = windows({"a": [10, 10, 40], "b": [30, 20, 5]}, until=80)
    assert opened_s == [(0, 0), (1, 30), (2, 50)]


def test_the_first_k_do_not_wait_for_the_rest():
    assert windows({"a": [10], "b": [20], "c": [90]}, until=80, wait_for={"first": 2})[1] == (1, 20)


def test_fewer_than_k_are_all_waited_for():
    assert windows({"a": [10], "b": [20]}, until=80, wait_for={"first": 5})[1] == (1, 20)


@pytest.mark.parametrize(("slowest_s", "opens_s"), [(90, 50), (20, 20)])
def test_a_deadline_waits_no_longer_and_no_longer_than_for_all(slowest_s, opens_s):
    assert windows({"a": [10], "b": [slowest_s]}, until=80, wait_for={"deadline": "50 s"})[1] == (1, opens_s)


def test_a_window_ends_though_nobody_is_ready():
    """A round in which nobody is ready would hang for ever."""
    opened_s = windows({"a": [1e9]}, until=350, longest="100 s")
    assert opened_s == [(0, 0), (1, 100), (2, 200), (3, 300)]


def test_nobody_at_all_is_no_reason_to_open():
    assert windows({}, until=50, longest="100 s") == [(0, 0)]


def test_who_leaves_is_not_waited_for_and_who_comes_is():
    env, clock = clock_of()
    opened_s = []
    clock.on_open(lambda window: opened_s.append(env.now))
    env.process(worker(env, clock, "a", [10, 30], []))
    clock.join("gone", 0)

    def happens():
        yield env.timeout(25)
        clock.leave("gone")
        yield env.timeout(1)
        yield from worker(env, clock, "new", [0, 100], [])

    env.process(happens())
    env.run(200)
    assert opened_s == [0, 25, 126]


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_opening_is_an_order_statistic_whatever_the_order_of_joining(seconds, first, random):
    """It would catch ties or orders of arrival that decide when a window opens."""
    shuffled = list(seconds)
    random.shuffle(shuffled)
    opened_s = windows({str(n): [works_s] for n, works_s in enumerate(shuffled)}, until=2000, wait_for={"first": first})
    assert opened_s[1] == (1, sorted(seconds)[min(first, len(seconds)) - 1])


def test_what_has_not_opened_is_infinitely_far():
    env, clock = clock_of(put_window="60 s")
    env.process(worker(env, clock, "a", [10], []))
    assert (clock.opens_at(1), clock.closes_at(0), clock.put_closes_at(1)) == (math.inf,) * 3
    assert not clock.foresees(1)
    env.run(20)
    assert clock.foresees(1)
    assert not clock.foresees(2)
    assert (clock.opens_at(1), clock.closes_at(0), clock.put_closes_at(1), clock.closes_at(1)) == (10, 10, 70, math.inf)
    assert [clock.window_at(time_s) for time_s in (0, 9.9, 10, 500)] == [0, 0, 1, 1]


def test_blocks_go_by_time_whatever_windows_do():
    env, clock = clock_of(block="12 s")
    env.process(worker(env, clock, "a", [30], []))
    env.run(40)
    assert (clock.first_block(0), clock.first_block(1)) == (0, 2)
    assert [clock.block_at(height) for height in (1, 2, 3)] == [12, 24, 36]


def test_who_listens_hears_before_who_waits():
    env, clock = clock_of()
    order = []
    clock.on_open(lambda window: order.append(("hears", window)))
    clock.opened(1).callbacks.append(lambda _: order.append(("waits", 1)))
    env.process(worker(env, clock, "a", [10], []))
    env.run(20)
    assert order == [("hears", 0), ("hears", 1), ("waits", 1)]


@pytest.mark.parametrize(("late", "awaited"), [("cut", {"quick", "slow"}), ("miss", {"quick"})], ids=["cut", "miss"])
def test_an_exchange_awaits_who_was_ready_and_who_is_cut(late, awaited):
    env, clock = clock_of(wait_for={"first": 1}, late=late)
    env.process(worker(env, clock, "quick", [10], []))
    env.process(worker(env, clock, "slow", [90], []))
    env.run(20)
    assert clock.awaited(1) == awaited
    assert not clock.is_past("quick", 1)
    clock.leave("quick")
    assert clock.is_past("quick", 1)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"wait_for": "some"}, "nobody to wait for"),
        ({"wait_for": {"first": 0}}, "greater than or equal to 1"),
        ({"wait_for": {"deadline": "-1 s"}}, "deadline"),
        ({"wait_for": {"last": 3}}, "Extra inputs"),
        ({"blocks_per_window": 3}, "Extra inputs"),
        ({"stalls": [{"at": "0 s", "lasts": "1 s"}]}, "block 0 opens the run"),
    ],
)
def test_nonsense_is_refused(settings, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Barrier.model_validate(settings)


def test_a_policy_is_written_as_it_was_given():
    for written in ("all", {"first": 3}, {"deadline": "1800 s"}):
        shown = Barrier.model_validate({"wait_for": written}).model_dump(mode="json")["wait_for"]
        assert shown == written
        assert Barrier.model_validate({"wait_for": shown}).model_dump(mode="json")["wait_for"] == written


def test_only_windows_by_height_are_known_before():
    assert Windowed().foresees
    assert not Barrier().foresees
    assert Barrier.model_validate({"longest": "100 s", "wait_for": {"deadline": "30 s"}}).window_s == 30
