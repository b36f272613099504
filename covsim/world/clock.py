"""Blocks and windows: when a window opens, when its uploads close, and whom that wakes.

A window is half open, `[opens_at(w), opens_at(w + 1))`, and so is the span in which its uploads count. All times are
simulated seconds since the start, where block 0 and window 0 begin.

While the chain stalls, the time of its blocks stands still: no block is sealed, and all that follow come later by as
long as the stall lasts, and with them the windows, which are counted in blocks. Seconds that are counted on another
clock, such as the put window on the store's, go on.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heappush
from typing import ClassVar, Literal, Protocol

import simpy
from pydantic import Field, model_validator
from simpy.events import NORMAL, URGENT, EventPriority

from covsim.registry import Part, Registry
from covsim.units import Seconds, format_duration
from covsim.world.pauses import Pause, Pauses

_DAY_S = 86_400.0


class Timeline(Part):
    """The `timeline:` section: what a run is cut into, and how long each thing may take.

    `foresees` says whether all windows are known before a run starts.
    """

    foresees: ClassVar[bool] = True

    kind: str
    block: Seconds = Field(default=12.0, gt=0, le=_DAY_S, description="Time between two blocks of the chain.")
    put_window: Seconds = Field(
        default=70.0, gt=0, le=30 * _DAY_S, description="How long after a window opens an upload still counts."
    )
    gather_timeout: Seconds = Field(
        default=600.0, gt=0, le=30 * _DAY_S, description="After how long a gather is given up: no outer step then."
    )
    poll: Seconds = Field(default=0.5, gt=0, le=_DAY_S, description="How often a node asks whether a payload is there.")
    stalls: Pauses = Field(
        default=[], max_length=1000, description="When the chain seals no block, and what is counted in blocks rests."
    )

    @property
    @abstractmethod
    def window_s(self) -> float:
        """Nominal length of a window, in seconds; infinite where nothing bounds it."""

    @abstractmethod
    def clock(self, env: simpy.Environment) -> Clock:
        """The clock that tells its windows in a simulation."""

    @model_validator(mode="after")
    def _begins_with_a_block(self) -> Timeline:
        if self.stalls and self.stalls[0].at == 0:
            raise ValueError("stalls must begin after 0 s: block 0 opens the run")
        return self


timelines: Registry[Timeline] = Registry("timeline")


@timelines.register
class Windowed(Timeline):
    """Windows of so many blocks, whoever is ready (templar v2.1.28: 12 s, 115 blocks, 70 s, 600 s)."""

    kind: Literal["windowed"] = "windowed"
    blocks_per_window: int = Field(default=115, ge=1, le=1_000_000, description="Blocks in one window.")

    @property
    def window_s(self) -> float:
        """That of its blocks; a window in which the chain stalls is longer."""
        return self.blocks_per_window * self.block

    def clock(self, env: simpy.Environment) -> Clock:
        """Windows by block height."""
        return BlockClock(env, self)

    @model_validator(mode="after")
    def _put_window_fits(self) -> Windowed:
        if self.put_window >= self.window_s:
            raise ValueError(
                f"put_window of {format_duration(self.put_window)} must be shorter than a window, "
                f"{self.blocks_per_window} blocks of {format_duration(self.block)} = {format_duration(self.window_s)}"
            )
        return self


class Clock(Protocol):
    """Tells blocks and windows from seconds, and wakes who waits for a window to open.

    What is said of a window that nobody can foresee yet is infinite: it has not opened by any time.
    """

    timeline: Timeline

    def first_block(self, window: int) -> int:
        """Height of the block that opens a window, or of the last one before it did."""

    def block_at(self, height: int) -> float:
        """Second at which a block is sealed."""

    def height_at(self, time_s: float) -> int:
        """Height of the last block that is sealed by then."""

    def opens_at(self, window: int) -> float:
        """Second at which a window opens."""

    def closes_at(self, window: int) -> float:
        """Second at which a window ends, the first that no longer belongs to it."""

    def put_closes_at(self, window: int) -> float:
        """First second of a window at which an upload no longer counts."""

    def window_at(self, time_s: float) -> int:
        """The window that holds a time, among those that are known."""

    def foresees(self, window: int) -> bool:
        """Whether it is known when a window opens, or opened."""

    def opened(self, window: int) -> simpy.Event:
        """An event that fires when a window opens; it has fired already if the window is open or past."""

    def on_open(self, listener: Callable[[int], None]) -> None:
        """Call `listener(window)` whenever a window opens, before anybody who waits for it."""

    def join(self, who: str, window: int, is_cut: bool = True) -> None:
        """Somebody takes part from the round on that is trained in a window."""

    def leave(self, who: str) -> None:
        """Somebody takes part no longer."""

    def ready(self, who: str, window: int) -> simpy.Event:
        """Somebody has nothing more to do before a window opens; returns the opening."""

    @property
    def lets_finish(self) -> bool:
        """Whether who is still at its inner steps when the next window opens goes on, and is not cut."""


class BlockClock:
    """Tells blocks and windows from seconds, and wakes who waits for a window to open.

    Args:
        env: the simulation whose time it reads.
        timeline: block time, blocks per window, put window, and when the chain stalls.
    """

    lets_finish = False

    def __init__(self, env: simpy.Environment, timeline: Windowed) -> None:
        self.timeline: Timeline = timeline
        self._blocks_per_window = timeline.blocks_per_window
        self._env = env
        self._delays = _Delays(timeline.block, timeline.stalls)
        self._opens_s: dict[int, float] = {}  # asked for again and again, by every peer
        self._latest = 0  # the window that was last asked for
        self._openings: dict[int, simpy.Event] = {}
        self._listeners: list[Callable[[int], None]] = []

    @property
    def window_s(self) -> float:
        """Nominal length of a window, in seconds; one in which the chain stalls is longer."""
        return self.timeline.window_s

    def first_block(self, window: int) -> int:
        """Height of the block that opens a window."""
        return window * self._blocks_per_window

    def block_at(self, height: int) -> float:
        """Second at which a block is sealed: a multiple of the block time, later by the stalls before; no drift."""
        return self._delays.block_at(height)

    def height_at(self, time_s: float) -> int:
        """Height of the last block that is sealed by then: `block_at(h) <= time_s < block_at(h + 1)`."""
        return self._delays.height_at(time_s)

    def opens_at(self, window: int) -> float:
        """Second at which a window opens, that of its first block."""
        opens_s = self._opens_s.get(window)
        if opens_s is None:
            opens_s = self._opens_s[window] = self.block_at(self.first_block(window))
        return opens_s

    def closes_at(self, window: int) -> float:
        """Second at which a window ends, the first that no longer belongs to it."""
        return self.opens_at(window + 1)

    def put_closes_at(self, window: int) -> float:
        """First second of a window at which an upload no longer counts."""
        return self.opens_at(window) + self.timeline.put_window

    def window_at(self, time_s: float) -> int:
        """The window that holds a time: `opens_at(w) <= time_s < closes_at(w)`."""
        if not self.opens_at(self._latest) <= time_s < self.opens_at(self._latest + 1):
            self._latest = self.height_at(time_s) // self._blocks_per_window
        return self._latest

    def opened(self, window: int) -> simpy.Event:
        """An event that fires when a window opens; it has fired already if the window is open or past."""
        opening = self._openings.get(window)
        if opening is not None:
            return opening
        if self.opens_at(window) <= self._env.now:
            return self._env.event().succeed()
        return self._schedule(window)

    def foresees(self, window: int) -> bool:
        """All windows follow from block heights."""
        return True

    def join(self, who: str, window: int, is_cut: bool = True) -> None:
        """Nobody is waited for."""

    def leave(self, who: str) -> None:
        """Nobody is waited for."""

    def ready(self, who: str, window: int) -> simpy.Event:
        """Nobody is waited for: the opening."""
        return self.opened(window)

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


class BlockTimes:
    """When the blocks of a timeline are sealed, and which is the last by a time; needs no clock that runs.

    Args:
        timeline: block time, and when the chain stalls.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._delays = _Delays(timeline.block, timeline.stalls)

    def block_at(self, height: int) -> float:
        """Second at which a block is sealed."""
        return self._delays.block_at(height)

    def height_at(self, time_s: float) -> int:
        """Height of the last block that is sealed by then."""
        return self._delays.height_at(time_s)


class _Delays:
    """When blocks are sealed, given when the chain stalls.

    A stall also delays the blocks that follow if none was due while it lasted: the chain's time stands still in it. A
    block that was due at the second in which a stall begins is sealed when the stall ends.
    """

    def __init__(self, block_s: float, stalls: Sequence[Pause]) -> None:
        self._block_s = block_s
        self._delay_s = [0.0]  # of blocks behind so many stalls; each sum is rounded once
        self._ends_s = [-math.inf]  # of the last of so many stalls; no block behind it comes before
        self._first: list[int] = []  # the first block behind each stall
        for number, stall in enumerate(stalls):
            self._first.append(self._last_sealed(math.nextafter(stall.at, -math.inf), number) + 1)
            self._delay_s.append(math.fsum(each.lasts for each in stalls[: number + 1]))
            self._ends_s.append(stall.ends_s)
        self._resumes_s = [self.block_at(height) for height in self._first]

    def block_at(self, height: int) -> float:
        """Second at which a block is sealed."""
        num_stalls = bisect_right(self._first, height)
        return max(height * self._block_s + self._delay_s[num_stalls], self._ends_s[num_stalls])

    def height_at(self, time_s: float) -> int:
        """The last block sealed at or before a time."""
        return self._last_sealed(time_s, bisect_right(self._resumes_s, time_s))

    def _last_sealed(self, time_s: float, num_stalls: int) -> int:
        """The last block sealed by a time, between the first block behind so many stalls and that behind the next."""
        height = math.floor((time_s - self._delay_s[num_stalls]) / self._block_s)
        if num_stalls < len(self._first):
            height = min(height, self._first[num_stalls] - 1)
        # The quotient is rounded; the comparison is what everybody else goes by.
        while self.block_at(height + 1) <= time_s:
            height += 1
        while self.block_at(height) > time_s:
            height -= 1
        return height


def alarm(env: simpy.Environment, time_s: float, priority: EventPriority = NORMAL) -> simpy.Event:
    """An event that fires at `time_s` to the last bit; unlike a timeout it does not count as triggered before.

    Args:
        env: the simulation.
        time_s: when, in simulated seconds, not before now.
        priority: rank among the events of that instant.
    """
    assert time_s >= env.now, f"an alarm at {time_s} s cannot be set at {env.now} s"
    event = simpy.Event(env)
    event.callbacks.append(_trigger)
    # The queue gets the time itself: `schedule` takes a delay, and some times are not now plus any float.
    heappush(env._queue, (time_s, priority, next(env._eid), event))
    return event


def on_event(event: simpy.Event, callback: Callable[[simpy.Event], None]) -> None:
    """Call back when an event is processed, after those that asked before."""
    assert event.callbacks is not None, "the event has been processed"
    event.callbacks.append(callback)


def _trigger(event: simpy.Event) -> None:
    event._ok, event._value = True, None
