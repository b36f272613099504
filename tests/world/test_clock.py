"""Windows are half open, their times do not drift, stalls move them, and opening wakes in a known order."""

import math

import pytest
import simpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.world.clock import BlockClock, Windowed, alarm

TIMELINE = Windowed(block="12 s", blocks_per_window=170, put_window="180 s")


def clock_of(block=12.0, blocks=10, stalls=(), env=None):
    """A clock; stalls as (at, lasts) in seconds."""
    timeline = Windowed(
        block=f"{block!r} s",
        blocks_per_window=blocks,
        put_window=f"{block / 2!r} s",
        stalls=[{"at": f"{at!r} s", "lasts": f"{lasts!r} s"} for at, lasts in stalls],
    )
    return BlockClock(simpy.Environment() if env is None else env, timeline)


def test_defaults_are_those_of_the_deployed_code():
    timeline = Windowed()
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
    timeline = Windowed(block=f"{block} s", blocks_per_window=blocks, put_window="1 us")
    clock = BlockClock(simpy.Environment(), timeline)
    opens = clock.opens_at(window)
    assert opens == window * blocks * timeline.block
    assert clock.window_at(opens) == window
    if window:
        assert clock.window_at(math.nextafter(opens, 0)) == window - 1


def test_waiting_ends_exactly_at_the_opening():
    # 0.1 s blocks: sums of timeouts would drift away from the multiples.
    env = simpy.Environment(initial_time=0.7)
    clock = BlockClock(env, Windowed(block="0.1 s", blocks_per_window=3, put_window="0.1 s"))
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


# Blocks and stalls.


def test_a_block_lasts_from_its_second_to_the_next():
    clock = clock_of()
    assert [clock.block_at(h) for h in (0, 1, 10)] == [0, 12, 120]
    assert [clock.height_at(t) for t in (0, 11.999, 12, 119.999, 120)] == [0, 0, 1, 9, 10]


def test_a_stall_delays_the_blocks_that_were_due_and_all_that_follow():
    clock = clock_of(stalls=[(30, 100)])
    assert [clock.block_at(h) for h in range(5)] == [0, 12, 24, 136, 148]
    assert [clock.height_at(t) for t in (24, 29, 30, 100, 135.999, 136, 148)] == [2, 2, 2, 2, 2, 3, 4]
    assert [clock.opens_at(w) for w in range(4)] == [0, 220, 340, 460]
    assert clock.window_s == 120, "the nominal length"
    assert clock.put_closes_at(1) == 226, "the store's time goes on"
    assert [clock.window_at(t) for t in (0, 119, 120, 219.999, 220, 339.999, 340)] == [0, 0, 0, 0, 1, 1, 2]


def test_a_stall_between_two_blocks_stops_the_chains_time_too():
    clock = clock_of(stalls=[(13, 5)])
    assert [clock.block_at(h) for h in range(4)] == [0, 12, 29, 41]


def test_a_block_that_is_due_when_a_stall_begins_waits_for_its_end():
    clock = clock_of(stalls=[(24, 7), (43, 8)])
    assert [clock.block_at(h) for h in range(6)] == [0, 12, 31, 51, 63, 75]


def test_a_window_that_opens_in_a_stall_opens_when_it_ends_or_later():
    clock = clock_of(stalls=[(120, 1000), (1120, 60), (1200, 0.5)])
    assert [clock.opens_at(w) for w in (1, 2)] == [1180, 1300.5]
    assert [clock.window_at(t) for t in (1179.999, 1180, 1300.499, 1300.5)] == [0, 1, 1, 2]


def test_a_block_that_a_stall_held_up_is_not_sealed_a_rounding_before_its_end():
    due_s = 16 * 8.8 + 24.8
    clock = clock_of(8.8, stalls=[(1, 24.8), (due_s, 17.4)])
    assert due_s + 17.4 > 16 * 8.8 + (24.8 + 17.4), "the sum alone would say so"
    assert clock.block_at(16) == due_s + 17.4


STALLS = st.lists(st.tuples(st.floats(1e-3, 3000), st.floats(1e-3, 5000)), max_size=6)


def _one_after_the_other(gaps):
    """Stalls as (at, lasts) from the time between them and how long they last."""
    stalls, end = [], 0.0
    for gap, lasts in gaps:
        stalls.append((end + gap, lasts))
        end = end + gap + lasts
    return stalls


@given(block=st.floats(0.05, 500), gaps=STALLS, heights=st.lists(st.integers(0, 3000), min_size=1, max_size=20))
@settings(deadline=None)
def test_blocks_follow_each_other_and_none_is_sealed_in_a_stall(block, gaps, heights):
    stalls = _one_after_the_other(gaps)
    clock = clock_of(block, 7, stalls)
    for height in heights:
        sealed, following = clock.block_at(height), clock.block_at(height + 1)
        assert sealed < following
        assert clock.height_at(sealed) == height
        assert clock.height_at(math.nextafter(following, 0)) == height
        assert not any(at <= sealed < at + lasts for at, lasts in stalls)
        before = math.fsum(lasts for at, lasts in stalls if at < sealed)
        assert sealed == pytest.approx(height * block + before, rel=1e-12)
        assert before or sealed == height * block, "exact before the first stall"
    for at, lasts in stalls:
        assert clock.height_at(at) == clock.height_at(math.nextafter(at + lasts, 0)), "nothing is sealed meanwhile"


@given(block=st.floats(0.05, 500), blocks=st.integers(1, 40), gaps=STALLS, times=st.lists(st.floats(0, 1e5)))
@settings(deadline=None)
def test_windows_are_half_open_over_stalls(block, blocks, gaps, times):
    clock = clock_of(block, blocks, _one_after_the_other(gaps))
    for time_s in times:
        window = clock.window_at(time_s)
        assert clock.opens_at(window) <= time_s < clock.closes_at(window)
        assert clock.window_at(clock.closes_at(window)) == window + 1
    ordered = [clock.window_at(time_s) for time_s in sorted(times)]
    assert ordered == sorted(ordered)


@given(block=st.floats(1e-3, 1e4), heights=st.lists(st.integers(0, 10**9)))
def test_without_stalls_a_block_is_a_multiple_rounded_once(block, heights):
    clock = clock_of(block)
    assert [clock.block_at(height) for height in heights] == [height * clock.timeline.block for height in heights]


def test_a_long_stall_of_many_short_blocks_takes_no_time_to_look_up():
    clock = clock_of(0.001, 5000, [(1, 1e9), (1e9 + 1, 1e9), (3e9, 5.0)])
    assert clock.height_at(1.5e9) == 999
    assert clock.height_at(3e9 - 1) == pytest.approx(1e12, rel=1e-3)
    assert clock.window_at(2e9 + 0.5) == 0


def test_waiting_ends_when_a_stall_has_passed():
    env = simpy.Environment()
    clock = clock_of(stalls=[(100, 50)], env=env)
    heard = []
    clock.on_open(lambda window: heard.append((env.now, window)))
    env.process(_note_at(env, clock.opened(1), heard))
    env.run(until=300)
    assert heard == [(0, 0), (170, 1), (170, "woken"), (290, 2)]


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
        ({"stalls": [{"at": "0 s", "lasts": "1 s"}]}, "stalls must begin after 0 s"),
        ({"stalls": [{"at": "5 s"}]}, "Field required"),
        ({"stalls": [{"at": "5 s", "lasts": "0 s"}]}, "greater than 0"),
        ({"stalls": [{"at": 5, "lasts": "1 s"}]}, "needs a unit"),
        (
            {"stalls": [{"at": "90 s", "lasts": "9 s"}, {"at": "30 s", "lasts": "1 s"}]},
            "must be sorted: one at 30 s stands after one at 90 s",
        ),
        (
            {"stalls": [{"at": "30 s", "lasts": "20 s"}, {"at": "45 s", "lasts": "1 s"}]},
            "must not overlap: one at 45 s begins before the one at 30 s ends, at 50 s",
        ),
    ],
)
def test_a_timeline_that_cannot_be_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Windowed(**changes)


def _note_at(env, event, heard):
    yield event
    heard.append((env.now, "woken"))


@given(st.lists(st.floats(0, 100_000), max_size=30))
@settings(deadline=None)
def test_what_was_asked_before_does_not_change_the_window_of_a_time(times):
    """Would catch a remembered window that is taken for the present one, at its edges or over a stall."""
    timeline = Windowed(block="12 s", blocks_per_window=170, stalls=[{"at": "3000 s", "lasts": "5000 s"}])
    clock = BlockClock(simpy.Environment(), timeline)
    edges = [clock.opens_at(window) for window in range(1, 4)]
    for time_s in [*times, *edges, *(math.nextafter(edge, 0) for edge in edges)]:
        fresh = BlockClock(simpy.Environment(), timeline)
        assert clock.window_at(time_s) == fresh.window_at(time_s) == clock.height_at(time_s) // 170
