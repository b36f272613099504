"""The identity of an execution: two running hashes over its events, by their canonical bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from covsim.events import Event
from covsim.observing import Stretch
from covsim.packing import Rows


class Digest:
    """The two running hashes over a run's events: what the clock saw, and what was learned."""

    def __init__(self) -> None:
        self._clock = hashlib.sha256()
        self._learning = hashlib.sha256()
        self._packers, self._rows = _PACKERS, _ROW_PACKERS
        self._waiting: list[Event] = []  # hashed in one go, which changes no digest
        self._num_hashed = 0

    def add(self, event: Event) -> None:
        """Fold one event into both hashes."""
        self._waiting.append(event)
        if len(self._waiting) >= _BATCH:
            self._hash()

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What folds events of a type into the hashes."""
        return [self.add]

    def take(self, stretch: Stretch) -> None:
        """Fold a stretch of events and rows into both hashes, in their order."""
        self._hash()
        clock, learning = self._packed(stretch.events)
        for kind, columns in stretch.columns.items():
            decided, came = self._rows_of(kind)
            clock += decided(columns)
            learning += came(columns)
        order = stretch.order
        self._clock.update(b"".join([clock[place] for place in order]))
        self._learning.update(b"".join([learning[place] for place in order]))
        self._num_hashed += len(order)

    @property
    def num_events(self) -> int:
        """How many there were."""
        return self._num_hashed + len(self._waiting)

    def _rows_of(self, kind: type[Event]) -> tuple[_PackAll, _PackAll]:
        """What packs rows of a kind, given by their fields, for either digest."""
        if kind not in self._rows:
            self._rows[kind] = _rows_packer(kind, learned=False), _rows_packer(kind, learned=True)
        return self._rows[kind]

    def _hash(self) -> None:
        clock, learning = self._packed(self._waiting)
        self._clock.update(b"".join(clock))
        self._learning.update(b"".join(learning))
        self._num_hashed += len(self._waiting)
        self._waiting.clear()

    def _packed(self, events: Sequence[Event]) -> tuple[list[bytes], list[bytes]]:
        """What each event brings to either hash."""
        clock, learning, packers = [], [], self._packers
        for event in events:
            packer = packers.get(type(event))
            if packer is None:
                packer = packers[type(event)] = _packer(type(event), False), _packer(type(event), True)
            decided, came = packer
            clock.append(decided(event) if decided else b"")
            learning.append(came(event) if came else b"")
        return clock, learning

    def add_final(self, theta: bytes) -> None:
        """Fold the final parameters (little-endian float32) into the learning hash."""
        self._hash()
        self._learning.update(theta)

    @property
    def clock(self) -> str:
        """Hex digest of all that the clock decided."""
        self._hash()
        return self._clock.hexdigest()

    @property
    def learning(self) -> str:
        """Hex digest of all that came from tensors."""
        self._hash()
        return self._learning.hexdigest()


_Pack = Callable[[Any], bytes] | None
_PackAll = Callable[[Sequence[Sequence[Any]]], list[bytes]]
_BATCH = 1024
_PACKERS: dict[type[Event], tuple[_Pack, _Pack]] = {}  # of events, by type; compiled once for all digests
_ROW_PACKERS: dict[type[Event], tuple[_PackAll, _PackAll]] = {}  # the same for rows


def _places(kind: type[Event], learned: bool) -> list[int]:
    """Which fields of an event came from tensors, or which the clock decided."""
    return [place for place, item in enumerate(fields(kind)) if item.metadata.get("learned", False) == learned]


def _packer(kind: type[Event], learned: bool) -> _Pack:
    """What packs the fields of one digest, under the name of the kind of event; None where there are none."""
    names = [fields(kind)[place].name for place in _places(kind, learned)]
    if not names:
        return None
    pack, get = Rows(kind.__name__.encode()).pack, attrgetter(*names)
    return (lambda event: pack(get(event))) if len(names) > 1 else (lambda event: pack((get(event),)))


def _rows_packer(kind: type[Event], learned: bool) -> _PackAll:
    """The same for many events, given by all their fields; empty bytes where there is nothing of it."""
    places, pack_all = _places(kind, learned), Rows(kind.__name__.encode()).pack_all
    if not places:
        return lambda columns: [b""] * len(columns[0])
    return lambda columns: pack_all([columns[place] for place in places])
