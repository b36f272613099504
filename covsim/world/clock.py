"""Blocks and windows: when a window opens, when its uploads close, and whom that wakes.

A window is half open, `[opens_at(w), opens_at(w + 1))`, and so is the span in which its uploads count. All times are
simulated seconds since the start, where block 0 and window 0 begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappush
from typing import Literal

import simpy
from pydantic import BaseModel, ConfigDict, Field, model_validator
from simpy.events import NORMAL, URGENT, EventPriority

from covsim.units import Seconds, format_duration

_DAY_S = 86_400.0


class Timeline(BaseModel):
    """The `timeline:` section: how a run is cut into windows (templar v2.1.28: 12 s, 115 blocks, 70 s, 600 s)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["windowed"] = "windowed"
    block: Seconds = Field(default=12.0, gt=0, le=_DAY_S, description="Time between two blocks of the chain.")
    blocks_per_window: int = Field(default=115, ge=1, le=1_000_000, description="Blocks in one window.")
    put_window: Seconds = Field(
        default=70.0, gt=0, le=30 * _DAY_S, description="How long after a window opens an upload still counts."
    )
    gather_timeout: Seconds = Field(
        default=600.0, gt=0, le=30 * _DAY_S, description="After how long a gather is given up: no outer step then."
    )
    poll: Seconds = Field(default=0.5, gt=0, le=_DAY_S, description="How often a node asks whether a payload is there.")

    @model_validator(mode="after")
    def _put_window_fits(self) -> Timeline:
        window_s = self.blocks_per_window * self.block
        if self.put_window >= window_s:
            raise ValueError(
                f"put_window of {format_duration(self.put_window)} must be shorter than a window, "
                f"{self.blocks_per_window} blocks of {format_duration(self.block)} = {format_duration(window_s)}"
            )
        return self


class BlockClock:
    """Tells windows from seconds, and wakes who waits for one to open.

    Args:
        env: the simulation whose time it reads.
        timeline: block time, blocks per window and put window.
    """

    def __init__(self, env: simpy.Environment, timeline: Timeline) -> None:
        self.timeline = timeline
        self._env = env
        self._openings: dict[int, simpy.Event] = {}
        self._listeners: list[Callable[[int], None]] = []

    @property
    def window_s(self) -> float:
        """Length of a window, in seconds."""
        return self.opens_at(1)

    def first_block(self, window: int) -> int:
        """Height of the block that opens a window."""
        return window * self.timeline.blocks_per_window

    def opens_at(self, window: int) -> float:
        """Second at which a window opens; a multiple of the block time, rounded once, so it does not drift."""
        return self.first_block(window) * self.timeline.block

    def closes_at(self, window: int) -> float:
        """Second at which a window ends, the first that no longer belongs to it."""
        return self.opens_at(window + 1)

    def put_closes_at(self, window: int) -> float:
        """First second of a window at which an upload no longer counts."""
        return self.opens_at(window) + self.timeline.put_window

    def window_at(self, time_s: float) -> int:
        """The window that holds a time: `opens_at(w) <= time_s < closes_at(w)`."""
        window = math.floor(time_s / self.window_s)
        # The quotient is rounded; the comparison below is what everybody else goes by.
        while self.closes_at(window) <= time_s:
            window += 1
        while self.opens_at(window) > time_s:
            window -= 1
        return window

    def opened(self, window: int) -> simpy.Event:
        """An event that fires when a window opens; it has fired already if the window is open or past."""
        opening = self._openings.get(window)
        if opening is not None:
            return opening
        if self.opens_at(window) <= self._env.now:
            return self._env.event().succeed()
        return self._schedule(window)

    def on_open(self, listener: Callable[[int], None]) -> None:
        """Call `listener(window)` whenever a window opens, from now on and before anybody who waits for it.

        A clock with a listener ticks for ever, so run the simulation with `until`.
        """
        self._listeners.append(listener)
        current = self.window_at(self._env.now)
        coming = current if self.opens_at(current) == self._env.now else current + 1
        if coming not in self._openings:
            self._schedule(coming)

    def _schedule(self, window: int) -> simpy.Event:
        # Urgent: the instant of opening belongs to the new window, so nothing else of that instant may come first.
        opening = alarm(self._env, self.opens_at(window), URGENT)
        on_event(opening, lambda _: self._open(window))
        self._openings[window] = opening
        return opening

    def _open(self, window: int) -> None:
        del self._openings[window]
        if self._listeners and window + 1 not in self._openings:
            self._schedule(window + 1)
        for listener in self._listeners:
            listener(window)


def alarm(env: simpy.Environment, time_s: float, priority: EventPriority = NORMAL) -> simpy.Event:
    """An event that fires at `time_s` to the last bit; unlike a timeout it does not count as triggered before.

    Args:
        env: the simulation.
        time_s: when, in simulated seconds, not before now.
        priority: rank among the events of that instant.
    """
    assert time_s >= env.now, f"an alarm at {time_s} s cannot be set at {env.now} s"
    event = env.event()
    on_event(event, _trigger)
    # The queue gets the time itself: `schedule` takes a delay, and some times are not now plus any float.
    heappush(env._queue, (time_s, priority, next(env._eid), event))
    return event


def on_event(event: simpy.Event, callback: Callable[[simpy.Event], None]) -> None:
    """Call back when an event is processed, after those that asked before."""
    assert event.callbacks is not None, "the event has been processed"
    event.callbacks.append(callback)


def _trigger(event: simpy.Event) -> None:
    event._ok, event._value = True, None
