"""The wall-clock driver: timers at their exact times, what comes from outside at the wall's, and the lag measured."""

import threading
import time

import pytest
import simpy

from covsim.emulation.driver import Driver, WallClock, happens
from covsim.world.clock import alarm, on_event

SCALE = 0.02  # wall seconds of a simulated one


def started(driver: Driver) -> Driver:
    """A driver whose run begins now."""
    driver.clock = WallClock(time.monotonic(), SCALE, 1_000.0)
    return driver


def test_timers_bear_their_own_times_and_take_the_wall_s():
    """Would catch a loop that runs ahead of the wall, and one that lets the wall's jitter into timers."""
    driver, seen = Driver(simpy.Environment()), []

    def life(env):
        for _ in range(5):
            yield env.timeout(2.0)
            seen.append(env.now)
        driver.stop()

    driver.env.process(life(driver.env))
    began_s = time.monotonic()
    started(driver).run()
    assert seen == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert time.monotonic() - began_s >= 10.0 * SCALE


def test_what_a_thread_injects_happens_at_the_walls_time_between_timers():
    """Would catch an injected event that waits for the next timer, or that makes time go back."""
    driver, seen = started(Driver(simpy.Environment())), []
    event, fire = happens(driver.env)

    def life(env):
        yield event
        seen.append(env.now)
        driver.stop()

    driver.env.process(life(driver.env))
    on_event(alarm(driver.env, 1000.0), lambda _: driver.stop())
    threading.Timer(5 * SCALE, lambda: driver.inject(lambda: fire("done"))).start()
    driver.run()
    assert 5.0 <= seen[0] < 500.0


def test_what_has_ended_in_the_past_bears_that_time_unless_the_loop_is_past_it():
    """Would catch a transfer stamped by when the loop got round to it."""
    driver, seen = started(Driver(simpy.Environment())), []
    on_event(alarm(driver.env, 3.0), lambda _: time.sleep(10 * SCALE))  # the loop is busy until 13 s
    on_event(alarm(driver.env, 20.0), lambda _: driver.stop())
    threading.Timer(
        5 * SCALE, lambda: driver.inject(lambda: seen.append(driver.env.now), driver.clock.at(time.monotonic()))
    ).start()
    driver.run()
    assert 3.0 <= seen[0] < 13.0


def test_lag_is_how_long_an_event_had_to_wait_for_the_loop():
    """Would catch a run that was too fast for its machine and says nothing."""
    driver = started(Driver(simpy.Environment()))
    on_event(alarm(driver.env, 1.0), lambda _: time.sleep(10 * SCALE))
    on_event(alarm(driver.env, 2.0), lambda _: driver.stop())
    driver.run()
    assert driver.most_lag_s == pytest.approx(9.0, rel=0.5)
    assert driver.most_lag_at_s == 2.0


def test_a_stamp_of_the_stores_calendar_becomes_a_simulated_second():
    """Would catch a put window that is judged in wall seconds."""
    clock = WallClock(50.0, 0.5, 1_000.0)
    assert clock.stamped(1_003.0) == 6.0
    assert clock.at(51.0) == 2.0
    assert clock.wall_s(4.0) == 2.0
