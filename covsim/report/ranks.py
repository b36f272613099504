"""Where peers came in a validator's match of a round, read off the verdicts: the score rank among those rated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_PENALTY = re.compile(r"(?:^|; )penalty_score: \w+, scores ([^\s:;]+)")
_EXCLUDED = re.compile(r"(?:^|; )(?:overlap_exclude|gather_absence): ")
"""Rules that exclude a peer at once, so that it plays no match of that round, though its rating begins anew."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Place 1 is that of the best score; `equals` others have the same score."""

    place: int
    players: int
    equals: int

    def __str__(self) -> str:
        others = f", equal with {self.equals} other{'s' if self.equals > 1 else ''}" if self.equals else ""
        return f"{self.place} of {self.players}{others}"


def ranks(verdicts: Iterable[Mapping[str, Any]]) -> dict[int, Rank]:
    """By uid, the places in the match of one validator's round, in which there is one; who played none has none.

    A match moves the rating of all who play it. A gradient score alone does not tell: who is excluded is measured, too.

    Args:
        verdicts: all of that validator in that round, rows of verdicts.parquet; what is not known is None.
    """
    scores = {row["uid"]: score for row in verdicts if (score := _score(row)) is not None}
    values = list(scores.values())
    return {
        uid: Rank(1 + sum(other > score for other in values), len(values), values.count(score) - 1)
        for uid, score in scores.items()
    }


def _score(row: Mapping[str, Any]) -> float | None:
    """What a peer played with; None if it did not play."""
    reasons = row["reasons"] or ""
    if _EXCLUDED.search(reasons) or (row["mu"], row["sigma"]) == (row["mu_before"], row["sigma_before"]):
        return None
    if row["gradient_score"] is not None:
        return float(row["gradient_score"])
    penalty = _PENALTY.search(reasons)
    return None if penalty is None else float(penalty[1])
