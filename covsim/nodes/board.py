"""The public board: the gather and reserve lists that the leader published, by the window they take force in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GatherList:
    """Whom to gather, best first, and who stands by."""

    effective_window: int
    selected: tuple[int, ...]
    reserve: tuple[int, ...]


class Board:
    """Keeps what was published. If the leader stops, the last list stays in force, as on the live network."""

    def __init__(self) -> None:
        self._lists: list[GatherList] = []

    def publish(self, published: GatherList) -> None:
        """Put up a list; a later one for the same window replaces it."""
        assert not self._lists or published.effective_window >= self._lists[-1].effective_window
        self._lists.append(published)

    def in_force(self, window: int) -> GatherList:
        """The newest list whose time has come in `window`."""
        for published in reversed(self._lists):
            if published.effective_window <= window:
                return published
        raise AssertionError(f"no gather list was published for window {window}")
