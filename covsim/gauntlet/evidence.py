"""What a validator saw of a peer in one round, what it remembers of it, and what it decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from covsim.gauntlet.settings import GauntletSettings

Status = Literal["ok", "missing", "late", "early", "invalid", "unseen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One peer in one round, as one validator saw it. Losses are nats per token, NaN where nothing was measured.

    Attributes:
        status: the submission; `unseen` when this validator did not look for it, or failed to read what the store
            holds, or could not measure it for reasons of its own: then the peer is not to blame.
        evaluated: the validator drew this peer.
        stored_s, previous_stored_s: the store's stamp of its payload, and of the one of the round before; NaN if none.
        active: the peer counts as taking part in the run.
        on_gather_list: one of the selected whom this validator's gather asked.
        asked_as_reserve: a reserve whom this validator's gather asked to stand in.
        gathered: its payload entered this validator's gather.
        overlap: largest share of top-k indices in common with somebody who was not later; NaN if not compared.
        overlap_with: that peer, or -1. `overlap_stored_s`: its stamp.
        steps_behind: how far its published theta lies from the validator's, in outer steps; NaN without a sample.
    """

    uid: int
    status: Status
    problem: str = ""
    stored_s: float = math.nan
    previous_stored_s: float = math.nan
    active: bool = True
    evaluated: bool = False
    on_gather_list: bool = False
    asked_as_reserve: bool = False
    gathered: bool = False
    own_before: float = math.nan
    own_after: float = math.nan
    random_before: float = math.nan
    random_after: float = math.nan
    overlap: float = math.nan
    overlap_with: int = -1
    overlap_stored_s: float = math.nan
    steps_behind: float = math.nan

    @property
    def missed_gather(self) -> bool:
        """True when the gather asked this peer in vain."""
        return (self.on_gather_list or self.asked_as_reserve) and not self.gathered

    @property
    def measured(self) -> bool:
        """True when losses before and after its trial step are known."""
        return self.evaluated and self.status == "ok"


def gradient_score(evidence: Evidence) -> float:
    """Relative improvement on random data: (before - after) / before."""
    return (evidence.random_before - evidence.random_after) / evidence.random_before


def own_improvement(evidence: Evidence) -> float:
    """Relative improvement on the peer's own data."""
    return (evidence.own_before - evidence.own_after) / evidence.own_before


def indicator(evidence: Evidence) -> float:
    """+1 if the relative improvement on own data exceeds that on random data, else -1 (also when they are equal)."""
    return 1.0 if own_improvement(evidence) > gradient_score(evidence) else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one validator remembers of one peer. Rounds count from 0.

    Attributes:
        enrolled_round: when this memory began; a reset begins it anew.
        mu, sigma: the PlackettLuce rating.
        indicator_average: moving average of the own-against-random indicator, in [-1, 1].
        gradient_average: moving average of gradient scores, from 0; nothing but `score.rating: gradient` asks for it.
        final_score: what weights are computed from.
        weight: share of all pay, as of the last window judged.
        evaluations: how often it was measured.
        last_evaluated: last round in which it was drawn, or the one before it was enrolled.
        negatives: per remembered evaluation, oldest first, whether the gradient score was below 0.
        benched: kept off the gather list by a streak of negative evaluations.
        misses: per remembered gather that asked it, oldest first, whether it was missed.
        inactive_since: first round of the present absence, or -1.
        excluded_until: first round in which it takes part again.
        cut: what this window's slashes left of a final score of 1; 1 again when the window is over.
    """

    enrolled_round: int
    mu: float
    sigma: float
    indicator_average: float = 0.0
    gradient_average: float = 0.0
    final_score: float = 0.0
    weight: float = 0.0
    evaluations: int = 0
    last_evaluated: int
    negatives: tuple[bool, ...] = ()
    negatives_in_a_row: int = 0
    benched: bool = False
    misses: tuple[bool, ...] = ()
    misses_in_a_row: int = 0
    inactive_since: int = -1
    excluded_until: int = -1
    cut: float = 1.0

    @property
    def ordinal(self) -> float:
        """The rating that is very likely not undercut: mu - 3 sigma."""
        return self.mu - 3 * self.sigma

    def excluded(self, round: int) -> bool:
        """True while the peer is neither evaluated nor listed."""
        return round < self.excluded_until


def newcomer(settings: GauntletSettings, round: int) -> Standing:
    """A peer of whom nothing is known yet; also what a full reset leaves."""
    return Standing(
        enrolled_round=round,
        mu=settings.mu,
        sigma=settings.sigma,
        indicator_average=settings.indicator_start,
        last_evaluated=round - 1,
    )


@dataclass(frozen=True, slots=True)
class Standings:
    """All that one validator remembers, by uid. A value: judging returns a new one."""

    peers: Mapping[int, Standing] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Window:
    """The round to be judged: its evidence by uid, the peers that count as active, and lots that order equals.

    `before` are the standings that the round before left, newcomers' for those who were not known.
    """

    round: int
    evidence: Mapping[int, Evidence]
    active: frozenset[int]
    lots: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    before: Mapping[int, Standing] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule acted on a peer: why, and what it leaves of the peer's standing."""

    uid: int
    why: str
    after: Standing


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule did in one window: on how many it could have acted, and what it found.

    `notes` are changes of memory that are no punishment (a counter, a history); they leave no reason behind.
    """

    rule: str
    eligible: int
    findings: tuple[Finding, ...] = ()
    notes: Mapping[int, Standing] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often a rule could have acted in a window, and how often it did."""

    rule: str
    eligible: int
    fired: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The evidence on one peer and what followed; scores are NaN where nothing was measured.

    Attributes:
        before: the peer's standing before this window; a newcomer's if it was not known.
        standing: the one after it.
        reasons: what each rule that hit it did, in the order of the rules.
    """

    evidence: Evidence
    gradient_score: float
    indicator: float
    before: Standing
    standing: Standing
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A window judged: verdicts by uid, weights (uid, share of all pay) by uid, and the burned share."""

    standings: Standings
    verdicts: tuple[Verdict, ...]
    weights: tuple[tuple[int, float], ...]
    burned: float
    coverage: tuple[Coverage, ...]
