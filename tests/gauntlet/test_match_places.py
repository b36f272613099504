"""The places in a match that are read off verdicts are those of the scores with which it was played."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from gauntlet_windows import SETTINGS, asked_in_vain, established, gathered, lots, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.gauntlet import gauntlet
from covsim.gauntlet.evidence import Evidence, Standings, Verdict
from covsim.report.ranks import Rank, ranks

ROUND = 30
KINDS = ("seen", "missing", "in vain", "late", "gathered", "copy", "excluded", "often missing")
GAINS = st.sampled_from([-0.02, 0.0, 0.01, 0.01, 0.03])


def row_of(verdict: Verdict) -> dict[str, Any]:
    """As it stands in verdicts.parquet; None where nothing is known."""
    before, after, score = verdict.before, verdict.standing, verdict.gradient_score
    return {
        "uid": verdict.evidence.uid,
        "gradient_score": None if math.isnan(score) else score,
        "mu": after.mu,
        "sigma": after.sigma,
        "mu_before": before.mu,
        "sigma_before": before.sigma,
        "reasons": "; ".join(verdict.reasons) or None,
    }


def evidence(uid: int, kind: str, gain: float) -> Evidence:
    rows = {
        "missing": lambda: Evidence(uid=uid, status="missing", evaluated=True),
        "in vain": lambda: asked_in_vain(uid),
        "often missing": lambda: asked_in_vain(uid),
        "late": lambda: Evidence(uid=uid, status="late", stored_s=9.0, evaluated=True),
        "gathered": lambda: gathered(uid),
        "copy": lambda: seen(uid, gain, overlap=1.0, overlap_with=99, overlap_stored_s=0.5),
    }
    return rows.get(kind, lambda: seen(uid, gain))()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), GAINS), min_size=1, max_size=9))
def test_places_are_those_of_the_match_that_was_played(peers: list[tuple[str, float]]) -> None:
    """Against the scores that the Gauntlet gives its match, for whatever mixture of misses, copies and exclusions.

    Catches a player that is overlooked, and one that was excluded, was measured all the same, and is counted.
    """
    more: dict[str, dict[str, Any]] = {
        "excluded": {"excluded_until": ROUND + 5},
        "often missing": {"misses": (True,) * 10},
    }
    known = {uid: established(**more.get(kind, {})) for uid, (kind, _) in enumerate(peers)}
    rows = [evidence(uid, kind, gain) for uid, (kind, gain) in enumerate(peers)]
    played: dict[int, float] = {}
    original = gauntlet.rate_match

    def spied(rules: Any, ratings: Any, scores: Mapping[int, float], lots: Any) -> Any:
        played.update(scores)
        return original(rules, ratings, scores, lots)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gauntlet, "rate_match", spied)
        judgement = gauntlet.judge(
            SETTINGS, Standings(known), rows, round=ROUND, active=set(known), places=(20, 10), lots=lots()
        )
    values = list(played.values())
    expected = {
        uid: Rank(1 + sum(other > score for other in values), len(values), values.count(score) - 1)
        for uid, score in played.items()
    }
    found = ranks([row_of(verdict) for verdict in judgement.verdicts])
    assert found == (expected if len(values) > 1 else {}), "a lone peer has no match"


def test_it_says_so_in_words() -> None:
    assert [str(Rank(1, 1, 0)), str(Rank(3, 18, 1)), str(Rank(4, 9, 2))] == [
        "1 of 1",
        "3 of 18, equal with 1 other",
        "4 of 9, equal with 2 others",
    ]
