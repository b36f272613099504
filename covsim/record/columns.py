"""Events of one kind in columns: a tenth of the memory of as many objects, which are made again when somebody looks."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import repeat
from operator import attrgetter
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from covsim.events import Event

EventType = TypeVar("EventType", bound=Event)

_CHUNK = 4096


class Columns(Sequence[EventType], Generic[EventType]):
    """Events in the order in which they were appended.

    Args:
        kind: of all of them; it has more than one field.
    """

    def __init__(self, kind: type[EventType]) -> None:
        self._kind = kind
        self._names = tuple(item.name for item in fields(kind))
        self._values = attrgetter(*self._names)
        self._chunks: list[tuple[Sequence[Any], ...]] = []
        self._starts: list[int] = []  # of each chunk
        self._num_packed = 0
        self._latest: list[EventType] = []

    def append(self, event: EventType) -> None:
        """Take one more."""
        self._latest.append(event)
        if len(self._latest) == _CHUNK:
            self._pack()

    def extend(self, columns: Sequence[tuple[Any, ...]]) -> None:
        """Take some more, given by their fields."""
        self._pack()
        self._keep(columns)

    def _pack(self) -> None:
        """Keep the latest by their fields, too."""
        if self._latest:
            self._keep(list(zip(*map(self._values, self._latest), strict=True)))
            self._latest.clear()

    def _keep(self, columns: Sequence[tuple[Any, ...]]) -> None:
        self._starts.append(self._num_packed)
        self._chunks.append(tuple(map(_column, columns)))
        self._num_packed += len(columns[0])

    def __len__(self) -> int:
        return self._num_packed + len(self._latest)

    def __iter__(self) -> Iterator[EventType]:
        for chunk in self._chunks:
            yield from map(self._kind, *chunk)
        yield from self._latest

    @overload
    def __getitem__(self, place: int) -> EventType: ...
    @overload
    def __getitem__(self, place: slice) -> list[EventType]: ...
    def __getitem__(self, place: int | slice) -> EventType | list[EventType]:
        if isinstance(place, slice):
            return list(self)[place]
        place = range(len(self))[place]
        if place >= self._num_packed:
            return self._latest[place - self._num_packed]
        chunk = bisect_right(self._starts, place) - 1
        return self._kind(*(column[place - self._starts[chunk]] for column in self._chunks[chunk]))

    def array(self, name: str) -> NDArray[Any] | list[Any]:
        """One field of all of them, as numbers side by side if they are of one type."""
        at = self._names.index(name)
        chunks = [chunk[at] for chunk in self._chunks]
        kinds = {type(chunk[0]) for chunk in chunks}
        if self._latest or kinds not in ({float}, {int}) or any(isinstance(chunk, tuple) for chunk in chunks):
            return self.column(name)
        return np.concatenate([np.full(len(c), c[0]) if isinstance(c, _Same) else np.asarray(c) for c in chunks])

    def column(self, name: str) -> list[Any]:
        """One field of all of them."""
        at, get = self._names.index(name), attrgetter(name)
        values: list[Any] = []
        for chunk in self._chunks:
            values += chunk[at]
        return values + [get(event) for event in self._latest]


def values(events: Iterable[Event], *names: str) -> Iterator[tuple[Any, ...]]:
    """Some fields of each event, one or more; of events in columns without making the events again."""
    if isinstance(events, Columns):
        return zip(*map(events.column, names), strict=True)
    get = attrgetter(*names)
    return map(get, events) if len(names) > 1 else ((get(event),) for event in events)


class _Same(Sequence[Any]):
    """A column with one value in all rows."""

    def __init__(self, value: Any, num: int) -> None:
        self._value, self._num = value, num

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[Any]:
        return repeat(self._value, self._num)

    def __getitem__(self, place: Any) -> Any:
        return self._value


def _column(values: tuple[Any, ...]) -> Sequence[Any]:
    """A column as tight as its values allow."""
    kinds = set(map(type, values))
    letter = {float: "d", int: "q"}.get(kinds.pop()) if len(kinds) == 1 else None
    if len(set(values if letter else map(id, values))) == 1:
        return _Same(values[0], len(values))
    return array(letter, values) if letter else values
