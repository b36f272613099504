"""Windows that open when peers are ready, instead of at a block height; blocks go on being sealed by the clock.

A peer is ready for a window when it has nothing more to do before it opens: its inner steps are done. Who comes, goes
or crashes changes who is waited for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import simpy
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_serializer, model_validator
from simpy.events import NORMAL, URGENT, EventPriority

from covsim.units import Seconds
from covsim.world.clock import BlockTimes, Clock, Timeline, alarm, on_event, timelines

_DAY_S = 86_400.0

# After all else of an instant, so that everybody who becomes ready in it counts.
_COUNTING = EventPriority(NORMAL + 2)


class WaitFor(BaseModel):
    """Whom a barrier waits for: `all`, the `first` so many, or nobody after a `deadline`; the earlier of both."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: int | None = Field(default=None, ge=1, le=100_000, description="How many must be ready; all if not given.")
    deadline: Seconds | None = Field(
        default=None,
        gt=0,
        le=30 * _DAY_S,
        description="How long after a window opened the next one does at the latest.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value != "all":
                raise ValueError(f"{value!r} is nobody to wait for; write all, {{first: 20}} or {{deadline: 30 min}}")
            return {}
        return value

    @model_validator(mode="after")
    def _says_whom(self) -> Self:
        if self.model_fields_set and self.first is None and self.deadline is None:
            raise ValueError("give first or deadline, or write all")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Any) -> Any:
        given = {key: value for key, value in handler(self).items() if value is not None}
        return given or "all"


_AS_JSON: dict[str, Any] = {
    "anyOf": [
        {"const": "all"},
        {
            "type": "object",
            "properties": {
                "first": {"type": "integer", "minimum": 1, "maximum": 100_000},
                "deadline": {"type": "string"},
            },
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}


@timelines.register
class Barrier(Timeline):
    """A window opens when enough peers have ended their inner steps; uploads count for the put window that follows.

    Source: synchronous local SGD and DiLoCo (arXiv 2311.08105) wait for all; waiting for the first K is "backup
    workers" (Chen et al. 2016, arXiv 1604.00981), a deadline is that of FedCS (Nishio and Yonetani 2018, 1804.08333).
    """

    foresees: ClassVar[bool] = False

    kind: Literal["barrier"] = "barrier"
    wait_for: Annotated[WaitFor, WithJsonSchema(_AS_JSON)] = Field(
        default=WaitFor(),
        description="`all` who take part, `{first: K}`, or `{deadline: 30 min}`: nobody is waited for after it.",
    )
    late: Literal["cut", "miss"] = Field(
        default="cut",
        description="Who is still at work when a window opens stops at its next whole step, or goes on and misses it.",
    )
    put_window: Seconds = Field(
        default=600.0, gt=0, le=30 * _DAY_S, description="How long after a window opens an upload still counts."
    )
    longest: Seconds = Field(
        default=_DAY_S,
        gt=0,
        le=30 * _DAY_S,
        description="After so long the next window opens even if nobody is ready, and the round is empty.",
    )

    @property
    def window_s(self) -> float:
        """The deadline, or the limit on any window."""
        return self.longest if self.wait_for.deadline is None else min(self.longest, self.wait_for.deadline)

    def clock(self, env: simpy.Environment) -> Clock:
        """Windows by who is ready."""
        return BarrierClock(env, self)


class BarrierClock:
    """Opens a window when those who take part are ready for it.

    Args:
        env: the simulation whose time it reads.
        timeline: whom it waits for, how long at most, and when blocks are sealed.
    """

    def __init__(self, env: simpy.Environment, timeline: Barrier) -> None:
        self.timeline: Timeline = timeline
        self.lets_finish = timeline.late == "miss"
        self._env, self._policy, self._limit_s = env, timeline.wait_for, timeline.window_s
        self._blocks = BlockTimes(timeline)
        self._opened_s = [0.0]
        self._openings: dict[int, simpy.Event] = {}
        self._listeners: list[Callable[[int], None]] = []
        self._watchers: list[Callable[[], None]] = []
        self._ready_for: dict[str, int] = {}  # of all who take part: the last window for which they are ready
        self._cut: frozenset[str] = frozenset()  # who stops when a window opens
        self._is_counting = False
        on_event(alarm(env, 0.0, URGENT), lambda _: self._announce(0))

    def block_at(self, height: int) -> float:
        """Second at which a block is sealed; windows have no part in it."""
        return self._blocks.block_at(height)

    def height_at(self, time_s: float) -> int:
        """Height of the last block that is sealed by then."""
        return self._blocks.height_at(time_s)

    def first_block(self, window: int) -> int:
        """Height of the last block that was sealed when a window opened."""
        assert self.foresees(window), f"window {window} has not opened"
        return self.height_at(self._opened_s[window])

    def foresees(self, window: int) -> bool:
        """Only what has opened is known."""
        return window < len(self._opened_s)

    def opens_at(self, window: int) -> float:
        """Second at which a window opened; infinite if it has not."""
        return self._opened_s[window] if self.foresees(window) else float("inf")

    def closes_at(self, window: int) -> float:
        """Second at which the next window opened; infinite if it has not."""
        return self.opens_at(window + 1)

    def put_closes_at(self, window: int) -> float:
        """First second at which an upload for a window no longer counts, even if that lies in the next window."""
        return self.opens_at(window) + self.timeline.put_window

    def window_at(self, time_s: float) -> int:
        """The last window that had opened by a time."""
        return bisect_right(self._opened_s, time_s) - 1

    def opened(self, window: int) -> simpy.Event:
        """An event that fires when a window opens; it has fired already if the window is open or past."""
        if self.foresees(window):
            return self._env.event().succeed()
        return self._openings.setdefault(window, self._env.event())

    def on_open(self, listener: Callable[[int], None]) -> None:
        """Call `listener(window)` whenever a window opens, before anybody who waits for it."""
        self._listeners.append(listener)

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call `watcher()` at the end of every instant in which somebody became ready, came or left."""
        self._watchers.append(watcher)

    def recall(self, opened_s: Sequence[float]) -> None:
        """Go by the windows of an earlier run, from window 0 on, and wait for nobody."""
        if not opened_s:
            raise ValueError("when the windows of a barrier opened is not recorded")
        self._opened_s = list(opened_s)

    def join(self, who: str, window: int, is_cut: bool = True) -> None:
        """Wait for somebody who takes part from the round on that is trained in this window.

        With `is_cut` it stops at a whole step when a window opens before it is ready, if the timeline cuts anybody.
        """
        self._ready_for[who] = window
        self._cut = self._cut | {who} if is_cut else self._cut - {who}
        self._count_later()

    def leave(self, who: str) -> None:
        """Wait for somebody no longer; nothing happens to who is not waited for."""
        if self._ready_for.pop(who, None) is not None:
            self._count_later()

    def ready(self, who: str, window: int) -> simpy.Event:
        """Somebody has nothing more to do before a window opens; returns the opening."""
        if window > self._ready_for.get(who, window):
            self._ready_for[who] = window
            self._count_later()
        return self.opened(window)

    def awaited(self, window: int) -> frozenset[str]:
        """Who is to exchange in a window that has opened: who was ready, and who is cut and comes a step later."""
        cut = frozenset[str]() if self.lets_finish else self._cut
        return frozenset(who for who, reached in self._ready_for.items() if reached >= window or who in cut)

    def is_past(self, who: str, window: int) -> bool:
        """Whether somebody takes no part any more, or is ready for a later window."""
        return self._ready_for.get(who, window + 1) > window

    def _count_later(self) -> None:
        """See at the end of this instant whether the next window opens."""
        if not self._is_counting:
            self._is_counting = True
            on_event(alarm(self._env, self._env.now, _COUNTING), lambda _: self._count())

    def _count(self) -> None:
        self._is_counting = False
        for watcher in self._watchers:
            watcher()
        coming = len(self._opened_s)
        num_ready = sum(reached >= coming for reached in self._ready_for.values())
        if num_ready and num_ready >= self._needed:
            self._open()

    @property
    def _needed(self) -> int:
        """How many must be ready; where fewer than the first K take part, all of them."""
        everybody = len(self._ready_for)
        return everybody if self._policy.first is None else min(self._policy.first, everybody)

    def _open(self) -> None:
        window = len(self._opened_s)
        self._opened_s.append(float(self._env.now))
        self._announce(window)
        opening = self._openings.pop(window, None)
        if opening is not None:
            opening.succeed()
        self._count_later()

    def _announce(self, window: int) -> None:
        """Tell who listens, and see to it that the window ends."""
        for listener in self._listeners:
            listener(window)
        on_event(alarm(self._env, self._opened_s[window] + self._limit_s, _COUNTING), lambda _: self._end(window))

    def _end(self, window: int) -> None:
        """Time is up: the next window opens, unless it has."""
        if not self.foresees(window + 1):
            self._open()
