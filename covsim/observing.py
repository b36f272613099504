"""Who sees which events: every observer is asked once for each type of event, not for each event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from covsim.events import Event


@runtime_checkable
class Sorted(Protocol):
    """An observer that knows beforehand what it does with events of a type."""

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What is called with every event of this type, in order; empty if it wants none of them."""


Observer: TypeAlias = Callable[[Event], None]
"""Is called with every event of a run, in their order."""


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

    def _sort(self, kind: type[Event]) -> tuple[Callable[[Any], None], ...]:
        takers: list[Callable[[Any], None]] = []
        for observer in self._observers:
            takers += observer.takers(kind) if isinstance(observer, Sorted) else [observer]
        self._takers[kind] = tuple(takers)
        return self._takers[kind]
