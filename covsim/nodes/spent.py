"""A peer's seconds of a round by cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import simpy

Cause = Literal[
    "compute_s",
    "upload_s",
    "download_s",
    "idle_preempted_s",
    "idle_exchange_s",
    "idle_retry_s",
    "idle_arrival_s",
    "idle_window_s",
    "idle_pause_s",
    "idle_other_s",
]

CAUSES: tuple[Cause, ...] = get_args(Cause)
"""What a peer's time can go into. Of several at once the first in this order counts: bytes that flow to a peer are
no idle time, whatever else it waits for; and who waits for nothing of this has `idle_other_s`."""

_RANKS: dict[Cause, int] = {cause: rank for rank, cause in enumerate(CAUSES)}

IDLE: tuple[Cause, ...] = CAUSES[3:]
"""Those in which a peer does nothing."""


class Spent:
    """Every second of a round under one cause, and under no other.

    Compute, upload and download are what they say, a request's latency included. A peer is idle while its machine is
    taken away (`idle_preempted_s`), while it waits for an exchange that runs beside its training and does not end
    before its overlap does (`idle_exchange_s`), for a further attempt after the store refused it (`idle_retry_s`), for
    others' payloads to arrive (`idle_arrival_s`), for a window to open, be it by the calendar or by a barrier
    (`idle_window_s`), because its script pauses (`idle_pause_s`), or for what its fellows say and for anything else
    (`idle_other_s`).

    Args:
        since_s: when the round's account begins.
    """

    __slots__ = ("_active", "_since_s", "seconds")

    def __init__(self, since_s: float = 0.0) -> None:
        self.seconds: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        self._active: dict[Cause, int] = {}  # how often each is under way, of those that are
        self._since_s = since_s

    def on(self, cause: Cause, env: simpy.Environment) -> _Span:
        """Book the simulated time of a block to a cause, but for what a cause before it has of the same time."""
        return _Span(self, cause, env)

    def begin(self, cause: Cause, now_s: float) -> None:
        """A cause begins to have time."""
        self.settle(now_s)
        self._active[cause] = self._active.get(cause, 0) + 1

    def end(self, cause: Cause, now_s: float) -> None:
        """A cause has no more time."""
        self.settle(now_s)
        self._less(cause)

    @contextmanager
    def instead(self, outer: Cause, cause: Cause, env: simpy.Environment) -> Iterator[None]:
        """Book the time of a block inside that of another cause to this one, and not to the other."""
        self.settle(env.now)
        self._less(outer)
        try:
            with self.on(cause, env):
                yield
        finally:
            self._active[outer] = self._active.get(outer, 0) + 1

    def move(self, seconds: float, cause: Cause, instead: Cause, now_s: float) -> None:
        """Book seconds of one cause to another: what turned out to be something else when it was over."""
        self.settle(now_s)
        self.seconds[cause] -= seconds
        self.seconds[instead] += seconds

    def settle(self, now_s: float) -> None:
        """Book all time until now; what is under way goes on."""
        if now_s > self._since_s:
            self.seconds[self._first()] += now_s - self._since_s
            self._since_s = now_s

    def _first(self) -> Cause:
        """Of what is under way, the first in the order of causes."""
        active = self._active
        if len(active) > 1:
            return min(active, key=_RANKS.__getitem__)
        return next(iter(active), CAUSES[-1])

    def _less(self, cause: Cause) -> None:
        """One block fewer has this cause."""
        left = self._active[cause] - 1
        if left:
            self._active[cause] = left
        else:
            del self._active[cause]


class _Span:
    """A block whose time is booked; a class and not a generator, for every verb of every peer opens some."""

    __slots__ = ("_cause", "_env", "_spent")

    def __init__(self, spent: Spent, cause: Cause, env: simpy.Environment) -> None:
        self._spent, self._cause, self._env = spent, cause, env

    def __enter__(self) -> None:
        spent, cause, now_s = self._spent, self._cause, self._env.now
        if now_s > spent._since_s:
            spent.settle(now_s)
        spent._active[cause] = spent._active.get(cause, 0) + 1

    def __exit__(self, *_: object) -> None:
        spent, cause, now_s = self._spent, self._cause, self._env.now
        if spent._active == {cause: 1}:  # as almost always: nothing else is under way, and all time is its own
            if now_s > spent._since_s:
                spent.seconds[cause] += now_s - spent._since_s
                spent._since_s = now_s
            spent._active.clear()
        else:
            spent.end(cause, now_s)
