"""Windows are half open, their times do not drift, and opening wakes in a known order."""

import math

import pytest
import simpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.world.clock import BlockClock, Timeline, alarm

TIMELINE = Timeline(block="12 s", blocks_per_window=170, put_window="180 s")


def test_defaults_are_those_of_the_deployed_code():
    timeline = Timeline()
    clock = BlockClock(simpy.Environment(), timeline)
    assert clock.window_s == 23 * 60
    assert (timeline.put_window, timeline.gather_timeout, timeline.poll) == (70, 600, 0.5)


def test_windows_follow_each_other_without_gap():
    clock = BlockClock(simpy.Environment(), TIMELINE)
    assert [clock.opens_at(w) for w in (0, 1, 2)] == [0, 2040, 4080]
    assert [clock.closes_at(w) for w in (0, 1)] == [2040, 4080]
    assert clock.put_closes_at(1) == 2220
    assert clock.first_block(3) == 510
    assert [clock.window_at(t) for t in (0, 2039.999, 2040, 2040.001, 4080)] == [0, 0, 1, 1, 2]


@given(
    block=st.floats(1e-3, 1e4),
    blocks=st.integers(1, 10_000),
    window=st.integers(0, 100_000),
)
@settings(deadline=None)
def test_an_opening_belongs_to_its_window_and_the_instant_before_does_not(block, blocks, window):
    timeline = Timeline(block=f"{block} s", blocks_per_window=blocks, put_window="1 us")
    clock = BlockClock(simpy.Environment(), timeline)
    opens = clock.opens_at(window)
    assert opens == window * blocks * timeline.block
    assert clock.window_at(opens) == window
    if window:
        assert clock.window_at(math.nextafter(opens, 0)) == window - 1


def test_waiting_ends_exactly_at_the_opening():
    # 0.1 s blocks: sums of timeouts would drift away from the multiples.
    env = simpy.Environment(initial_time=0.7)
    clock = BlockClock(env, Timeline(block="0.1 s", blocks_per_window=3, put_window="0.1 s"))
    woke = []

    def wait():
        for window in range(3, 2000):
            yield clock.opened(window)
            woke.append(env.now == clock.opens_at(window) and clock.window_at(env.now) == window)
            yield env.timeout(0.0123)

    env.process(wait())
    env.run()
    assert len(woke) == 1997
    assert all(woke)


def test_an_opening_is_triggered_only_once_it_is_reached():
    env = simpy.Environment()
    clock = BlockClock(env, TIMELINE)
    assert clock.opened(0).triggered
    later = clock.opened(1)
    assert not later.triggered
    assert clock.opened(1) is later
    env.run(until=3000)
    assert later.processed
    assert clock.opened(1).triggered


def test_listeners_hear_of_every_window_before_who_waits_for_it():
    env = simpy.Environment()
    clock = BlockClock(env, TIMELINE)
    heard = []
    env.process(_note_at(env, alarm(env, 2040), heard))
    clock.on_open(lambda window: heard.append((env.now, f"first {window}")))
    clock.on_open(lambda window: heard.append((env.now, f"second {window}")))
    env.process(_note_at(env, clock.opened(1), heard))
    env.run(until=5000)
    assert heard == [
        (0, "first 0"),
        (0, "second 0"),
        (2040, "first 1"),
        (2040, "second 1"),
        (2040, "woken"),
        (2040, "woken"),
        (4080, "first 2"),
        (4080, "second 2"),
    ]


def test_a_listener_that_comes_inside_a_window_hears_the_next():
    env = simpy.Environment(initial_time=100)
    clock = BlockClock(env, TIMELINE)
    heard = []
    clock.on_open(heard.append)
    env.run(until=2041)
    assert heard == [1]


@given(now=st.floats(0, 1), time_s=st.floats(1, 1e9))
@example(now=0.3033685109329176, time_s=5.700644849148476)  # no float added to this now is that time
@settings(deadline=None)
def test_an_alarm_rings_at_its_very_float(now, time_s):
    env = simpy.Environment(initial_time=now)
    event = alarm(env, time_s)
    assert not event.triggered
    env.run(until=event)
    assert env.now == time_s


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"put_window": "23 min"}, "put_window of 1380 s must be shorter than a window, 115 blocks of 12 s = 1380 s"),
        ({"block": "0 s"}, "greater than 0"),
        ({"block": 12}, "needs a unit"),
        ({"blocks_per_window": 0}, "greater than or equal to 1"),
        ({"poll": "2 d"}, "less than or equal to"),
        ({"kind": "continuous"}, "windowed"),
        ({"windows": 3}, "Extra inputs"),
    ],
)
def test_a_timeline_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Timeline(**changes)


def _note_at(env, event, heard):
    yield event
    heard.append((env.now, "woken"))
