"""The events of a run on disk as they come in, for the case that nobody lives to write the tables."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

from covsim.events import Event

NAME = "events.part"
FLUSH_S = 0.5


class Journal:
    """Keeps events beside the results until these are written.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file = self._path.open("wb")
        self._flushed_s = time.monotonic()

    def add(self, event: Event) -> None:
        """Keep an event; it is on its way to the disk half a second later."""
        pickle.dump(event, self._file)
        if time.monotonic() - self._flushed_s > FLUSH_S:
            self._file.flush()
            self._flushed_s = time.monotonic()

    def close(self) -> None:
        """Keep no more."""
        self._file.close()


def kept_events(folder: Path) -> list[Event]:
    """The events in a journal, by time; the last may be cut off and is left out."""
    events: list[Event] = []
    path = folder / NAME
    if not path.is_file():
        return events
    with path.open("rb") as file:
        while True:
            try:
                events.append(pickle.load(file))
            except (EOFError, pickle.UnpicklingError):
                return in_order(events)


def in_order(events: list[Event]) -> list[Event]:
    """Events by their times; those of one instant as they came in."""
    return sorted(events, key=lambda event: event.time_s)
