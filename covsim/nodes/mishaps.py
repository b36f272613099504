"""What spoils a peer's training without its script knowing: a batch that gives NaN, a shard that is the wrong one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

Mishap = Literal["nan", "wrong_shard"]


class Mishaps:
    """Whose training is spoiled now, and how."""

    def __init__(self) -> None:
        self._going_on: list[tuple[frozenset[int], Mishap]] = []

    def spoils(self, uid: int, round: int) -> Mishap | None:
        """What happens to the training that this peer begins now, for this round; of several mishaps the first."""
        return next((mishap for uids, mishap in self._going_on if uid in uids), None)

    @contextmanager
    def spoiling(self, uids: Collection[int], mishap: Mishap) -> Iterator[None]:
        """Spoil what these peers begin to train inside the block."""
        entry = (frozenset(uids), mishap)
        self._going_on.append(entry)
        try:
            yield
        finally:
            self._going_on.remove(entry)
