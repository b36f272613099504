"""What runs over seeds say of a claim with one side: pass, fail or inconclusive, and in words a person can act on.

A claim is 'the mean over seeds of some number is at most a bound'. It passes when the upper confidence bound of the
mean is at most that, fails when the lower one is above it, and is inconclusive otherwise. Both bounds are one-sided:
with 95 %, a claim that is false by a hair passes in 1 of 20 tests. A single seed has no spread and is taken at its
word. A number that is missing, because a loss is no number or nobody was paid, fails the claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from covsim.sweep.student import t_quantile

Outcome = Literal["pass", "fail", "inconclusive"]
_WORST_FIRST: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it.

    Args:
        claim: in words, without its bound.
        bound: what the mean may at most be.
        values: what is bounded, by seed.
        shown: what was seen, by seed, in words.
        confidence: of each of the two bounds.
        percent: whether numbers are shares, to be shown as such.
    """

    claim: str
    bound: float
    values: tuple[float, ...]
    shown: tuple[str, ...]
    confidence: float
    percent: bool = False

    @property
    def missing(self) -> int:
        """In how many seeds there is no number."""
        return sum(not math.isfinite(value) for value in self.values)

    @property
    def mean(self) -> float:
        """Over the seeds; NaN if a number is missing."""
        return math.nan if self.missing else math.fsum(self.values) / len(self.values)

    @property
    def reach(self) -> float:
        """How far the one-sided confidence bounds are from the mean; also the smallest effect that can be shown."""
        count = len(self.values)
        if self.missing or count == 1:
            return 0.0
        variance = math.fsum((value - self.mean) ** 2 for value in self.values) / (count - 1)
        return t_quantile(self.confidence, count - 1) * math.sqrt(variance / count)

    @property
    def outcome(self) -> Outcome:
        """What became of the claim."""
        if self.missing or self.mean - self.reach > self.bound:
            return "fail"
        return "pass" if self.mean + self.reach <= self.bound else "inconclusive"

    @property
    def expected(self) -> str:
        """'at most 5 %'."""
        return f"at most {self.number(self.bound)}"

    @property
    def seen(self) -> str:
        """'6.1 % (one-sided 95 % bounds 4.8 % and 7.4 %)'."""
        if self.missing:
            return f"no number in {self.missing} of {len(self.values)} runs"
        if len(self.values) == 1:
            return f"{self.number(self.mean)} (one seed: no interval)"
        low, high = self.number(self.mean - self.reach), self.number(self.mean + self.reach)
        return f"{self.number(self.mean)} (one-sided {100 * self.confidence:.4g} % bounds {low} and {high})"

    @property
    def note(self) -> str:
        """What would help where the seeds cannot tell."""
        if self.outcome != "inconclusive":
            return ""
        return f"{len(self.values)} seeds can show effects from {self.number(self.reach)} on: take more seeds"

    def number(self, value: float) -> str:
        """A value as the claim counts it."""
        return f"{100 * value:.3g} %" if self.percent else f"{value:.4g}"


def worst(findings: Sequence[Finding]) -> Outcome:
    """The outcome of claims that must all hold."""
    outcomes = {finding.outcome for finding in findings}
    return next(outcome for outcome in _WORST_FIRST if outcome in outcomes)
