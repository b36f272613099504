"""Whom to gather, and whom to evaluate.

The gather list of the live network is published by one leader, refreshed every 2 windows and in force one window later.
Nobody stands in for a leader that is away (`failover_windows: none`).
`selection:` also spells out what "Gauntlet off" means: random, all, or fixed peers. Ties, and the many peers without
weight at the start, are put in an order drawn from the caller's generator (one named stream per window), never by uid
or listing order: listed in order, the first peers would hold the list by luck alone. The deployed code takes them in
the order of a Python set, which is to say unspecified.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from covsim.gauntlet.evidence import Standings, newcomer
from covsim.gauntlet.settings import GauntletSettings
from covsim.registry import Part, Registry
from covsim.units import Share


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to gather, best first, and who stands by, in the order in which they are asked."""

    selected: tuple[int, ...]
    reserve: tuple[int, ...]


FailoverWindows = Annotated[int, Field(ge=1, le=100_000)]


class Selection(Part):
    """How the leader chooses the gather list."""

    refresh_windows: int = Field(default=2, ge=1, le=100_000, description="windows between two lists")
    delay_windows: int = Field(default=1, ge=0, le=1_000, description="windows from publishing a list to its force")
    failover_windows: FailoverWindows | Literal["none"] = Field(
        default="none",
        description="windows without a due list until the validator of the next highest stake publishes it",
    )

    quorum: Share = Field(
        default=0.0, description="share of the listed places that must be filled, or a gather moves no theta"
    )

    @abstractmethod
    def places(self, num_active: int) -> tuple[int, int]:
        """How many the gather list and the reserve list hold; the pay ramp has the same places."""

    @abstractmethod
    def choose(
        self, standings: Standings, active: Collection[int], round: int, generator: np.random.Generator
    ) -> Choice:
        """The lists to publish after `round` was judged; `standings` are empty before the first one."""

    def due(self, round: int, last_published: int | None) -> bool:
        """True when a list is to be published after `round`, the last one having been published after another."""
        return last_published is None or round - last_published >= self.refresh_windows

    def leads(self, rank: int, windows_overdue: int) -> bool:
        """True for the validator who publishes a list that is due, and for those who stand in for the ones before it.

        Args:
            rank: the validator's place by stake, 0 for the highest, who always leads.
            windows_overdue: windows since the list was due; 0 in the window in which it is.
        """
        if rank == 0:
            return True
        return self.failover_windows != "none" and windows_overdue >= rank * self.failover_windows


selections: Registry[Selection] = Registry("selection")

GatherPlaces = Annotated[int, Field(ge=1, le=100_000, description="peers on the gather list")]
ReservePlaces = Annotated[int, Field(ge=0, le=100_000, description="peers who stand by")]


@selections.register
class GauntletSelection(Selection):
    """By weight: active, not excluded, not benched; the heaviest first, then the others in drawn order."""

    kind: Literal["gauntlet"] = "gauntlet"
    gather: GatherPlaces = 20
    reserve: ReservePlaces = 10

    def places(self, num_active: int) -> tuple[int, int]:
        """As set."""
        return self.gather, self.reserve

    def choose(
        self, standings: Standings, active: Collection[int], round: int, generator: np.random.Generator
    ) -> Choice:
        """The heaviest peers that may be listed.

        Whoever is excluded in the next round, which the list is for at the earliest, or is benched, is left out, even
        if the list stays short.
        """
        peers = standings.peers
        listable = [
            uid for uid in shuffled(active, generator) if uid not in peers or not _barred(standings, uid, round + 1)
        ]
        by_weight = sorted(listable, key=lambda uid: -peers[uid].weight if uid in peers else 0.0)
        return _cut(by_weight, self.gather, self.reserve)


@selections.register
class RandomSelection(Selection):
    """Peers drawn anew for each list from all that are active, whatever their scores."""

    kind: Literal["random"] = "random"
    gather: GatherPlaces = 20
    reserve: ReservePlaces = 10

    def places(self, num_active: int) -> tuple[int, int]:
        """As set."""
        return self.gather, self.reserve

    def choose(
        self, standings: Standings, active: Collection[int], round: int, generator: np.random.Generator
    ) -> Choice:
        """A draw without replacement."""
        return _cut(shuffled(active, generator), self.gather, self.reserve)


@selections.register
class AllSelection(Selection):
    """Every active peer, and no reserve."""

    kind: Literal["all"] = "all"

    def places(self, num_active: int) -> tuple[int, int]:
        """A place for everybody."""
        return num_active, 0

    def choose(
        self, standings: Standings, active: Collection[int], round: int, generator: np.random.Generator
    ) -> Choice:
        """Everybody, in drawn order."""
        return _cut(shuffled(active, generator), len(active), 0)


@selections.register
class FixedSelection(Selection):
    """The named peers, and no reserve."""

    kind: Literal["fixed"] = "fixed"
    uids: tuple[int, ...] = Field(min_length=1, max_length=100_000, description="whom to gather, always")

    @model_validator(mode="after")
    def _uids_are_distinct(self) -> Self:
        if len(set(self.uids)) < len(self.uids) or min(self.uids) < 0:
            raise ValueError("uids must be different numbers from 0 up")
        return self

    def places(self, num_active: int) -> tuple[int, int]:
        """A place for each of them."""
        return len(self.uids), 0

    def choose(
        self, standings: Standings, active: Collection[int], round: int, generator: np.random.Generator
    ) -> Choice:
        """The same every time, whether they are active or not."""
        return Choice(self.uids, ())


def whom_to_evaluate(
    settings: GauntletSettings,
    standings: Standings,
    active: Collection[int],
    round: int,
    generator: np.random.Generator,
) -> tuple[int, ...]:
    """Draw up to `evaluated_per_window` active, not excluded peers; weight: windows since last drawn.

    With enough candidates to fill an evaluation from each bin (100 as deployed: 5 bins of 20), they are sorted by
    rating ordinal into bins and one bin is picked uniformly. A newcomer has weight 1. Returns uids in the order drawn.
    A validator that needs longer than a window falls behind; nobody is dropped. Source: `templar` v2.1.28,
    `bin_evaluation_peers` and the two functions after it.
    """
    unknown = newcomer(settings, round)
    peers = {uid: standings.peers.get(uid, unknown) for uid in shuffled(active, generator)}
    candidates = [uid for uid, peer in peers.items() if not peer.excluded(round)]
    if len(candidates) >= settings.bins * settings.evaluated_per_window:
        candidates.sort(key=lambda uid: -peers[uid].ordinal)
        edges = np.linspace(0, len(candidates), settings.bins + 1).round().astype(int)
        chosen = int(generator.integers(settings.bins))
        candidates = candidates[edges[chosen] : edges[chosen + 1]]
    waits = np.array([round - peers[uid].last_evaluated for uid in candidates], dtype=np.float64)
    assert (waits > 0).all(), "a peer was evaluated in a round that has not come"
    # The smallest of exponential clocks of these rates: successive draws without replacement.
    clocks = generator.exponential(size=len(candidates)) / waits
    return tuple(candidates[i] for i in np.argsort(clocks, kind="stable")[: settings.evaluated_per_window])


def shuffled(uids: Collection[int], generator: np.random.Generator) -> list[int]:
    """The uids in drawn order, whatever order they come in."""
    return [int(uid) for uid in generator.permutation(np.array(sorted(uids), dtype=np.int64))]


def _barred(standings: Standings, uid: int, round: int) -> bool:
    peer = standings.peers[uid]
    return peer.benched or peer.excluded(round)


def _cut(ranked: list[int], gather: int, reserve: int) -> Choice:
    return Choice(tuple(ranked[:gather]), tuple(ranked[gather : gather + reserve]))
