"""Drives a simulation's event loop by the wall clock: an event happens when its time has come, or when a thread says.

The loop's own time is that of the event it is at, so timers fire at the instants that a simulation gives them, to the
last bit; what comes from outside (a finished transfer, a message) bears the wall clock's time. How late the loop gets
to its events is measured: it is the lag.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import simpy

from covsim.world.clock import alarm, on_event

Action = Callable[[], object]

_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class WallClock:
    """Simulated seconds by the machine's monotonic clock, which all its processes share.

    Attributes:
        start_s: monotonic second at which the run starts.
        seconds_per_second: wall seconds of a simulated one.
        start_unix_s: the same instant as the store's calendar has it.
    """

    start_s: float
    seconds_per_second: float
    start_unix_s: float

    def now_s(self) -> float:
        """Simulated seconds since the start."""
        return self.at(time.monotonic())

    def at(self, monotonic_s: float) -> float:
        """The simulated second of a monotonic one."""
        return (monotonic_s - self.start_s) / self.seconds_per_second

    def stamped(self, unix_s: float) -> float:
        """The simulated second of a stamp of the store's."""
        return (unix_s - self.start_unix_s) / self.seconds_per_second

    def wall_s(self, simulated_s: float) -> float:
        """How long a simulated span takes."""
        return simulated_s * self.seconds_per_second


class Driver:
    """Runs an environment by the wall clock.

    Attributes:
        most_lag_s: the longest that an event had to wait for the loop, in simulated seconds, and when that was.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.clock: WallClock | None = None
        self.most_lag_s, self.most_lag_at_s = 0.0, 0.0
        self._inbox: SimpleQueue[tuple[float | None, Action]] = SimpleQueue()
        self._stopped = False

    def inject(self, action: Action, time_s: float | None = None) -> None:
        """Let something happen in the loop, from any thread: at once, or as of a simulated second that has passed."""
        self._inbox.put((time_s, action))

    def stop(self) -> None:
        """Let `run` return before the next event; to be called in the loop."""
        self._stopped = True

    def wait(self) -> None:
        """Before the start: do what is injected, until a start is set or the loop is stopped."""
        while self.clock is None and not self._stopped:
            self._inbox.get()[1]()

    def take_one(self, patience_s: float) -> None:
        """Outside of `run`: do the next thing that is injected, if one is within so many wall seconds."""
        try:
            self._inbox.get(timeout=patience_s)[1]()
        except Empty:
            return

    def take_all(self) -> None:
        """Outside of `run`: do what has been injected by now."""
        while not self._inbox.empty():
            self._inbox.get()[1]()

    def run(self) -> None:
        """Let everything happen at its time, until somebody stops the loop."""
        assert self.clock is not None, "the start is set"
        while not self._stopped:
            self._take_in()
            now_s, due_s = self.clock.now_s(), self.env.peek()
            if due_s <= now_s:
                self._note_lag(now_s - due_s, due_s)
                self.env.step()
            else:
                self._sleep(min(_LONGEST_WAIT_S, self.clock.wall_s(due_s - now_s)))

    def _take_in(self) -> None:
        while True:
            try:
                self._enter(*self._inbox.get_nowait())
            except Empty:
                return

    def _sleep(self, seconds: float) -> None:
        try:
            self._enter(*self._inbox.get(timeout=max(0.0, seconds)))
        except Empty:
            return

    def _enter(self, time_s: float | None, action: Action) -> None:
        assert self.clock is not None
        at_s = self.clock.now_s() if time_s is None else time_s
        on_event(alarm(self.env, max(0.0, at_s, self.env.now)), lambda _: _do(action))

    def _note_lag(self, lag_s: float, due_s: float) -> None:
        if lag_s > self.most_lag_s and math.isfinite(lag_s):
            self.most_lag_s, self.most_lag_at_s = lag_s, due_s


def _do(action: Action) -> None:
    action()


def happens(env: simpy.Environment) -> tuple[simpy.Event, Callable[[Any], None]]:
    """An event, and what fires it in the loop with a value; firing it again does nothing."""
    event = env.event()

    def fire(value: Any) -> None:
        if not event.triggered:
            event.succeed(value)

    return event, fire
