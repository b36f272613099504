"""Who sees which events: every observer is asked once for each type of event, not for each event."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, starmap
from operator import itemgetter
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from covsim.events import Event, Row


@runtime_checkable
class Sorted(Protocol):
    """An observer that knows beforehand what it does with events of a type."""

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What is called with every event of this type, in order; empty if it wants none of them."""


Observer: TypeAlias = Callable[[Event], None]
"""Is called with every event of a run, in their order."""


class Stretch:
    """What happened in a span of time: events as they came, and rows of those that many nodes have in every round.

    Iterating makes all of them events, in their order; who can read rows saves that.

    Args:
        events: by time.
        rows: the values of events' fields by type, each by time.
    """

    def __init__(self, events: Sequence[Event], rows: Mapping[type[Event], Sequence[Row]]) -> None:
        self.events = events
        self.rows = rows

    @cached_property
    def order(self) -> list[int]:
        """The places of all, by time, in the events followed by the rows type by type; ties stay in that order."""
        times = [event.time_s for event in self.events]
        for columns in self.columns.values():
            times += columns[0]
        places: list[int] = np.argsort(np.array(times), kind="stable").tolist()
        return places

    @cached_property
    def columns(self) -> dict[type[Event], list[tuple[Any, ...]]]:
        """The rows of each type that there is, field by field."""
        return {kind: list(zip(*rows, strict=True)) for kind, rows in self.rows.items() if rows}

    def __iter__(self) -> Iterator[Event]:
        made = [*self.events, *chain.from_iterable(starmap(kind, rows) for kind, rows in self.rows.items())]
        return (made[place] for place in self.order)

    def __len__(self) -> int:
        return len(self.events) + sum(map(len, self.rows.values()))


@runtime_checkable
class ReadsRows(Protocol):
    """An observer that takes a stretch as it is."""

    def take(self, stretch: Stretch) -> None:
        """See all of a stretch."""


class Observers:
    """Hands events on.

    Args:
        observers: in the order in which each event comes to them.
    """

    def __init__(self, observers: Sequence[Observer | Sorted]) -> None:
        self._observers = tuple(observers)
        self._takers: dict[type[Event], tuple[Callable[[Any], None], ...]] = {}

    def emit(self, event: Event) -> None:
        """Show an event to whoever wants it."""
        takers = self._takers.get(type(event))
        if takers is None:
            takers = self._sort(type(event))
        for take in takers:
            take(event)

    def take(self, stretch: Stretch) -> None:
        """Show a stretch to all, one after the other."""
        made: list[Event] = []
        for observer in self._observers:
            if isinstance(observer, ReadsRows):
                observer.take(stretch)
                continue
            made = made or list(stretch)
            show = Observers([observer]).emit
            for event in made:
                show(event)

    def _sort(self, kind: type[Event]) -> tuple[Callable[[Any], None], ...]:
        takers: list[Callable[[Any], None]] = []
        for observer in self._observers:
            takers += observer.takers(kind) if isinstance(observer, Sorted) else [observer]
        self._takers[kind] = tuple(takers)
        return self._takers[kind]


class Backlog:
    """Holds events back until all of a span are known, and shows them in their order, with rows of the same span.

    Args:
        observers: who sees them then.
        acting: who sees events at once, because something depends on it.
    """

    def __init__(self, observers: Observers, acting: Observers) -> None:
        self._observers, self._acting = observers, acting
        self._events: list[Event] = []
        self._rows: dict[type[Event], list[Row]] = {}

    def emit(self, event: Event) -> None:
        """Take an event of now."""
        self._acting.emit(event)
        self._events.append(event)

    def rows(self, kind: type[Event]) -> list[Row]:
        """Where rows of a type are put, of any time from now on; ties are shown in the order of asking for this."""
        return self._rows.setdefault(kind, [])

    def show_before(self, time_s: float) -> None:
        """Show all events, which are of before, and the rows of before a time."""
        due: dict[type[Event], list[Row]] = {}
        for kind, rows in self._rows.items():
            rows.sort(key=itemgetter(0))
            num = bisect_left(rows, time_s, key=itemgetter(0))
            due[kind] = rows[:num]
            del rows[:num]
        stretch = Stretch(self._events, due)
        self._events = []
        if len(stretch):
            self._observers.take(stretch)

    def end(self, time_s: float, included: bool = True) -> None:
        """Show what was until a time, that included or not; what would have been later never happens."""
        self.show_before(math.nextafter(time_s, math.inf) if included else time_s)
        for rows in self._rows.values():
            rows.clear()
