"""The public boards: gather and reserve lists by the window they take force in, and peers' sync samples by round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from covsim.protocol.lineage import Lineage


@dataclass(frozen=True)
class GatherList:
    """Whom to gather, best first, and who stands by; and what they were worth to who published it."""

    effective_window: int
    selected: tuple[int, ...]
    reserve: tuple[int, ...]
    weights: Mapping[int, float] = field(default_factory=dict)


class Board:
    """Keeps what was published. If the leader stops, the last list stays in force, as on the live network."""

    def __init__(self) -> None:
        self._lists: list[GatherList] = []
        self.last_round: int | None = None

    def publish(self, published: GatherList, round: int) -> None:
        """Put up a list, made after `round`; a later one for the same window replaces it."""
        assert not self._lists or published.effective_window >= self._lists[-1].effective_window
        self._lists.append(published)
        self.last_round = round

    def in_force(self, window: int) -> GatherList:
        """The newest list whose time has come in `window`."""
        for published in reversed(self._lists):
            if published.effective_window <= window:
                return published
        raise AssertionError(f"no gather list was published for window {window}")


@dataclass(frozen=True, slots=True)
class SyncSample:
    """Some elements of the theta from which a peer trains a round; its lineage stands for them."""

    published_s: float
    lineage: Lineage
    earlier: SyncSample | None = None  # of the same round, which it replaces


class SyncSamples:
    """What peers published of their theta; readable by all, as on the live network, so one can pass for one's own."""

    def __init__(self) -> None:
        self._samples: dict[tuple[int, int], SyncSample] = {}

    def publish(self, round: int, uid: int, sample: SyncSample) -> None:
        """Put up a peer's sample for a round; a later one replaces it."""
        before = self._samples.get((round, uid))
        self._samples[round, uid] = sample if before is None else replace(sample, earlier=before)

    def of(self, round: int, uid: int, by_s: float = math.inf) -> SyncSample | None:
        """A peer's sample for a round that is there by a time, or None."""
        sample = self._samples.get((round, uid))
        while sample is not None and sample.published_s > by_s:
            sample = sample.earlier
        return sample

    def forget_before(self, round: int) -> None:
        """Drop the samples of earlier rounds."""
        self._samples = {key: sample for key, sample in self._samples.items() if key[0] >= round}
