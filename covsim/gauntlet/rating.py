"""The rating: one PlackettLuce match per window, of all peers scored in it, each a team of one.

openskill does the arithmetic; what is carried between windows is two floats per peer. Its traps, all avoided here:
float ranks are truncated to int, a NaN score is ranked by list order, `rate(tau=0)` is ignored, a rating object gets a
random id, and a match needs two teams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from openskill.models import PlackettLuce

from covsim.gauntlet.evidence import Evidence, Standings, Window, gradient_score
from covsim.gauntlet.settings import GauntletSettings

Rating = tuple[float, float]
"""(mu, sigma)."""


def match_scores(settings: GauntletSettings, standings: Standings, window: Window) -> dict[int, float]:
    """What each peer of this window's match scored: its gradient score, or the penalty.

    The penalty is for a submission missing, late, early or invalid in the evaluation, and for a gather that asked in
    vain, unless the peer was measured all the same: then what was measured counts. With `penalty_score` off, only
    measured peers play.
    """
    scores, penalize = {}, settings.acts("penalty_score")
    for row in taking_part(standings, window):
        if row.measured:
            scores[row.uid] = gradient_score(row)
        elif penalize and (row.missed_gather or (row.evaluated and row.status != "unseen")):
            scores[row.uid] = settings.slashing.penalty_score
    return scores


def taking_part(standings: Standings, window: Window) -> Iterator[Evidence]:
    """The evidence on all peers that are not excluded in this round, be it since just now."""
    for uid, row in window.evidence.items():
        if not standings.peers[uid].excluded(window.round):
            yield row


def rate_match(
    settings: GauntletSettings,
    ratings: Mapping[int, Rating],
    scores: Mapping[int, float],
    lots: Mapping[int, float] | None = None,
) -> dict[int, Rating]:
    """The ratings after a match, for the peers in it.

    With `ties: shared` equal scores share a rank, and openskill then splits the credit of one place among them: an
    exact copy drags its victim down (`tests/gauntlet/test_rating.py` measures by how much). Whether losses on the live
    network's GPUs come out equal to the last bit is not known; `drawn` is what the least noise would make of them.

    A lone peer keeps its rating: there is nobody to compare it with (the deployed code then carries its score over into
    the next window's match).

    Args:
        ratings: of at least the peers in the match.
        scores: by uid, higher is better; finite.
        lots: a number per peer that orders equal scores; needed where ties are drawn.
    """
    assert all(math.isfinite(score) for score in scores.values()), "a match needs finite scores"
    uids = sorted(scores)
    if len(uids) < 2:
        return {uid: ratings[uid] for uid in uids}
    model = PlackettLuce(mu=settings.mu, sigma=settings.sigma, beta=settings.beta, tau=settings.tau)
    teams = [[model.create_rating([*ratings[uid]])] for uid in uids]
    values = [scores[uid] for uid in uids]
    if settings.ties == "shared":
        ranks = dense_ranks(values)
    else:
        assert lots is not None, "drawn ties need lots"
        ranks = drawn_ranks(values, [lots[uid] for uid in uids])
    rated = model.rate(teams, ranks=ranks)
    return {uid: (team[0].mu, team[0].sigma) for uid, team in zip(uids, rated, strict=True)}


def dense_ranks(scores: list[float]) -> list[float]:
    """0 for the best, 1 for the next smaller value and so on; whole numbers."""
    place = {score: float(rank) for rank, score in enumerate(sorted(set(scores), reverse=True))}
    return [place[score] for score in scores]


def drawn_ranks(scores: list[float], lots: list[float]) -> list[float]:
    """Whole numbers from 0 for the best; no two alike, for equal scores go by their lots, lowest first."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], lots[i]))
    place = {i: float(rank) for rank, i in enumerate(order)}
    return [place[i] for i in range(len(scores))]
