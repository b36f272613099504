"""Links that vary: courses against their closed forms, and links that follow them only while somebody uses them."""

import math

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.randomness import Streams
from covsim.world.links import LinkRates
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.variations import Daily, RandomWalk, Steps, Traced

MB = 1e6
HOUR_S = 3600.0


def generator(uid=0):
    return Streams(1).numpy("uplink varies", uid)


def course_of(variation, rate=8 * MB, uid=0):
    return variation.course(rate, generator(uid))


def steps(*pairs):
    return Steps(steps=[{"at": f"{at} s", "factor": factor} for at, factor in pairs])


def traced(tmp_path, text, **settings):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return Traced(path=str(path), **settings)


def finish_s(variation, megabytes, *, start_s=0.0, fault=None):
    """When one transfer over an 8 Mb/s link that varies is done; fault: (from, to, factor)."""
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    rates, link = LinkRates(env, network), Resource("link", 8 * MB)
    rates.vary(link, course_of(variation))
    done = []

    def play():
        yield env.timeout(start_s)
        yield network.transfer((link,), megabytes * MB).done
        done.append(env.now)

    def strike(from_s, to_s, factor):
        yield env.timeout(from_s)
        rates.slow(link, factor)
        yield env.timeout(to_s - from_s)
        rates.restore(link, factor)

    env.process(play())
    if fault:
        env.process(strike(*fault))
    env.run(until=1e6)
    return done[0]


# On the clock.


def test_a_step_slows_what_is_under_way():
    # 1 MB/s until 4 s, half of it after: 4 MB, and 4 more in 8 s.
    assert finish_s(steps((4, 0.5)), 8) == pytest.approx(12)


def test_what_begins_later_finds_the_link_as_it_is_then():
    assert finish_s(steps((4, 0.5), (100, 0.25)), 1, start_s=10) == pytest.approx(12)
    assert finish_s(steps((4, 0.5), (100, 0.25)), 1, start_s=100) == pytest.approx(104)


def test_a_fault_comes_on_top_and_goes_again():
    # 0.5 MB/s in [0, 4), nothing in [4, 10), 0.5 again.
    assert finish_s(steps((0, 0.5)), 4, fault=(4, 10, 0.0)) == pytest.approx(14)
    # The course changes while the fault is there: 1 MB/s to 2 s, 1/2 to 4 s, 1/4 from then to 10 s, then 1/2.
    assert finish_s(steps((4, 0.5)), 6, fault=(2, 10, 0.5)) == pytest.approx(10 + (6 - 2 - 1 - 1.5) / 0.5)


def test_only_links_in_use_make_events():
    # A walk that steps every second for a day has 86,400 steps; a link that is used twice for 3 s makes a handful.
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    rates, link = LinkRates(env, network), Resource("link", 8 * MB)
    rates.vary(link, course_of(RandomWalk(sigma=0.1, every="1 s", bound=0.9)))

    def play():
        for start_s in (10, 80_000):
            yield env.timeout(start_s - env.now)
            yield network.transfer((link,), 3 * MB).done

    env.process(play())
    steps_taken = 0
    while env.peek() < math.inf:  # it ends by itself: nothing is kept alive
        env.step()
        steps_taken += 1
    assert env.now < 80_010
    assert steps_taken < 60


def test_what_it_carries_is_told_while_it_is_used_and_when_a_fault_changes_it():
    # 1 MB/s to 4 s, half to 20 s: used in [0, 6) and from 30 s on, slowed to a half of that in [2, 3) and [35, 36).
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    rates, link = LinkRates(env, network), Resource("link", 8 * MB)
    told = []
    course = course_of(steps((4, 0.5), (20, 0.25)))
    rates.vary(link, course, lambda bits_per_s, until_s: told.append((env.now, bits_per_s / MB, until_s)))

    def play():
        yield network.transfer((link,), 4.5 * MB).done
        yield env.timeout(30 - env.now)
        yield network.transfer((link,), 2 * MB).done

    def strike():
        for begins_s in (2, 35):
            yield env.timeout(begins_s - env.now)
            rates.slow(link, 0.5)
            yield env.timeout(1)
            rates.restore(link, 0.5)

    env.process(play())
    env.process(strike())
    env.run()
    first = [(0, 8, 4), (2, 4, 4), (3, 8, 4), (4, 4, 20)]
    second = [(30, 2, math.inf), (35, 1, math.inf), (36, 2, math.inf)]
    assert told == [pytest.approx(row) for row in first + second]


def test_a_link_that_is_used_again_at_the_very_instant_of_a_change_is_up_to_date():
    # The transfer ends at 4 s, where the link changes, and the next begins there.
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    rates, link = LinkRates(env, network), Resource("link", 8 * MB)
    rates.vary(link, course_of(steps((4, 0.5), (5, 0.25))))
    done = []

    def play():
        for _ in range(2):
            yield network.transfer((link,), 4 * MB).done
            done.append(env.now)

    env.process(play())
    env.run()
    assert done == [4, pytest.approx(4 + 1 + 3.5 / 0.25)]


# Courses.


@pytest.mark.parametrize(
    "variation",
    [
        steps((0, 0.5), (7, 0.25), (7.5, 1)),
        Daily(depth="60 %", spread="24 h"),
        Daily(depth="60 %", period="1 h", every="7 s"),
        RandomWalk(sigma=0.3, every="7 s", bound=0.2),
    ],
    ids=lambda variation: variation.kind,
)
@given(times=st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(sorted))
@settings(deadline=None, max_examples=40)
def test_a_stretch_ends_after_it_began_and_holds_until_then(variation, times):
    course, again = course_of(variation), course_of(variation)
    for time_s in times:
        stretch = course.at(time_s)
        assert stretch.until_s > time_s
        assert variation.lowest(8 * MB) * (1 - 1e-12) <= stretch.factor <= 1
        last_s = np.nextafter(min(stretch.until_s, 1e9), 0)
        assert again.at(time_s) == stretch
        assert again.at(max(time_s, float(last_s))).factor == stretch.factor


def test_a_day_is_a_cosine():
    course = course_of(Daily(depth="40 %", best="6 h"))
    by_hour = [course.at(hour * HOUR_S + 1).factor for hour in range(48)]
    assert by_hour[6] == max(by_hour) == pytest.approx(1, abs=1e-3)
    assert by_hour[18] == min(by_hour) == pytest.approx(0.6, abs=1e-3)
    assert by_hour[:24] == pytest.approx(by_hour[24:])
    assert sum(by_hour) / 48 == pytest.approx(0.8, abs=1e-3)


def test_days_are_spread_over_links():
    variation = Daily(depth="40 %", spread="24 h")
    at_noon = [course_of(variation, uid=uid).at(12 * HOUR_S).factor for uid in range(400)]
    assert np.mean(at_noon) == pytest.approx(0.8, abs=0.03)
    assert len({course_of(Daily(depth="40 %"), uid=uid).at(12 * HOUR_S).factor for uid in range(5)}) == 1


def test_a_walk_goes_everywhere_between_its_bounds_and_each_link_its_own_way():
    # Mirrored at both ends, the logarithm is uniform in the long run, and at the start.
    variation = RandomWalk(sigma=0.3, every="1 s", bound=0.25)
    for factors in (
        [course_of(variation, uid=uid).at(0).factor for uid in range(2000)],
        [course_of(variation, uid=uid).at(500).factor for uid in range(2000)],
    ):
        places = np.log(factors) / math.log(0.25)
        assert np.histogram(places, bins=4, range=(0, 1))[0] == pytest.approx([500] * 4, abs=90)


def test_where_a_walk_is_does_not_depend_on_when_it_is_asked():
    variation = RandomWalk(sigma=0.3, every="1 s")
    often, once = course_of(variation), course_of(variation)
    for second in range(300):
        last = often.at(second)
    assert once.at(299) == last


# Traces.


def test_a_trace_holds_from_row_to_row(tmp_path):
    course = course_of(traced(tmp_path, "seconds,factor\n0,1\n10,0.5\n60,0.25\n"))
    assert [course.at(time_s) for time_s in (0, 9.9, 10, 59, 60, 1e7)] == [
        (1, 10),
        (1, 10),
        (0.5, 60),
        (0.5, 60),
        (0.25, math.inf),
        (0.25, math.inf),
    ]


def test_a_trace_may_repeat(tmp_path):
    course = course_of(traced(tmp_path, "seconds,factor\n0,1\n10,0.5\n60,1\n", repeats=True))
    assert [course.at(time_s) for time_s in (59, 60, 70, 119.5, 6015)] == [
        (0.5, 60),
        (1, 70),
        (0.5, 120),
        (0.5, 120),
        (0.5, 6060),
    ]


def test_recorded_rates_are_at_most_the_links_own(tmp_path):
    course = course_of(traced(tmp_path, "seconds,bits_per_s\n0,2e6\n10,64e6\n"), rate=8 * MB)
    assert [course.at(time_s).factor for time_s in (0, 10)] == [0.25, 1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seconds,factor\n0,1\n10,\n", r"trace\.csv:3: is a gap: a row needs seconds and factor, and has '10,'"),
        ("seconds,factor\n0,1\n\n20,1\n", r"trace\.csv:3: is a gap"),
        ("seconds,factor\n0,1\n10,nan\n", r"trace\.csv:3: is a gap: '10,nan' are not finite"),
        ("seconds,factor\n0,1\n3700,1\n", r"trace\.csv:3: is 3700 s after the row before, which is a gap: longest_gap"),
        ("seconds,factor\n0,1\n20,1\n10,1\n", r"trace\.csv:4: must be in the order of time: 10 s stands after 20 s"),
        ("seconds,factor\n0,1\n20,1\n20,1\n", r"trace\.csv:4: must be in the order of time"),
        ("seconds,factor\n5,1\n", r"trace\.csv:2: the first row must be at 0 s, not at 5 s"),
        ("seconds,factor\n0,-0.5\n", r"trace\.csv:2: factor must be above 0, not -0\.5"),
        ("seconds,bits_per_s\n0,0\n", r"trace\.csv:2: bits_per_s must be above 0, not 0; a link that is down"),
        ("seconds,factor\n0,1.5\n", r"trace\.csv:2: a factor is at most 1, not 1\.5"),
        ("seconds,factor\n0,fast\n", r"trace\.csv:2: '0,fast' are not two numbers"),
        ("seconds,factor\n0,1,2\n", r"trace\.csv:2: is a gap: a row needs"),
        ("time,factor\n0,1\n", r"trace\.csv:1: must be 'seconds,factor' or 'seconds,bits_per_s', not 'time,factor'"),
        ("seconds,factor\n", r"trace\.csv: has no rows"),
        ("", r"trace\.csv:1: must be"),
    ],
)
def test_a_trace_that_cannot_be_is_refused_with_its_line(tmp_path, text, complaint):
    with pytest.raises(ValidationError, match=complaint):
        traced(tmp_path, text)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "trace.txt").write_text("seconds,factor\n0,1\n")
    with pytest.raises(ValidationError, match=r"must end in \.csv"):
        Traced(path=str(tmp_path / "trace.txt"))
    (tmp_path / "latin.csv").write_bytes(b"seconds,factor\n0,1\xff\n")
    with pytest.raises(ValidationError, match="is not UTF-8 text"):
        Traced(path=str(tmp_path / "latin.csv"))
    with pytest.raises(ValidationError, match="no such file"):
        Traced(path=str(tmp_path / "nowhere.csv"))
    with pytest.raises(ValidationError, match="one row cannot be repeated"):
        traced(tmp_path, "seconds,factor\n0,1\n", repeats=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: steps((5, 0.5), (5, 0.6)),
        lambda: steps((5, 0.0)),
        lambda: steps((5, 1.5)),
        lambda: Daily(depth="100 %"),
        lambda: RandomWalk(sigma=0),
        lambda: RandomWalk(sigma=0.1, bound=0),
    ],
)
def test_a_variation_that_cannot_be_is_refused(make):
    with pytest.raises(ValidationError):
        make()
