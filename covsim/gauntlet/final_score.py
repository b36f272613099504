"""The final score: computed anew for the peers of a match, then cut, then held down where nothing was achieved.

Final score = rating x indicator average x sync score, each as `ScoreRules` says. Source: the Gauntlet paper
(arXiv 2505.21684) for the product of the first two, `templar` v2.1.28 for all three. What counts of the indicator
average is never negative as deployed; the paper's counts with its sign, so two negatives make a reward
(one-covenant/templar issue 108).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from covsim.gauntlet.evidence import Evidence, Finding, Ruling, Standing, Standings, Window, gradient_score
from covsim.gauntlet.rating import match_scores
from covsim.gauntlet.settings import GauntletSettings
from covsim.gauntlet.sync import sync_score


def score(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Compute rating x indicator average for the peers in the match; a lone peer had no match and keeps its score.

    The finding is the threshold: from `indicator_grace_windows` rounds on, an average from 0 up to it counts as 0.
    """
    players = _players(settings, standings, window)
    in_force = window.round >= settings.indicator_grace_windows and settings.acts("indicator_threshold")
    threshold = settings.indicator_threshold if in_force else 0.0
    notes = {uid: _scored(settings, standings.peers[uid], threshold) for uid in players}
    below = [
        Finding(uid, f"indicator average {peer.indicator_average:.3f} < {threshold:.2f}", peer)
        for uid, peer in notes.items()
        if 0 < peer.indicator_average < threshold and settings.acts("indicator")
    ]
    return Ruling("indicator_threshold", len(players) if in_force else 0, tuple(below), notes)


def fall_behind(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Multiply what was computed by the sync score; without a sample that is 0.

    A peer of the match that was not measured has its factor from its sample of this window, too; the code takes the one
    of its last evaluation.
    """
    if not settings.score.sync:
        return Ruling("sync_score", 0)
    players, findings = _players(settings, standings, window), []
    for uid in players:
        peer, behind = standings.peers[uid], window.evidence[uid].steps_behind
        factor = sync_score(settings.sync, behind)
        if factor < 1:
            distance = f"{behind:.3g} steps behind" if behind >= 0 else "no sync sample"
            after = replace(peer, final_score=peer.final_score * factor + 0.0)  # + 0.0: no negative zero
            findings.append(Finding(uid, f"{distance}, x {factor:.3g}", after))
    return Ruling("sync_score", len(players), tuple(findings))


def keep_slashes(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Without `quirks.slash_overwritten`: let this window's slashes on the final score act on the one computed in it.

    A reset is no factor: a peer that starts over scores from scratch in the same window.
    """
    if settings.quirks.slash_overwritten:
        return Ruling("slash_kept", 0)
    players = _players(settings, standings, window)
    findings = []
    for uid in players:
        peer = standings.peers[uid]
        if peer.cut < 1 and peer.final_score > 0:
            rest = peer.final_score * peer.cut
            rest = rest if rest >= settings.slashing.zero_below else 0.0
            findings.append(Finding(uid, f"slashed in this window, x {peer.cut:.3g}", replace(peer, final_score=rest)))
    return Ruling("slash_kept", len(players), tuple(findings))


def hold_down(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """No final score rises above that of the round before without a finite measurement in this one.

    Nor, without `quirks.rank_without_improvement`, if what was measured is no improvement: a rating is relative, so who
    does less harm than others rises with it. The code has neither guard: there a missing submission can raise a score,
    because a match sharpens a rating, a sync score recovers, and a slash is overwritten. A reset raises no negative
    score to 0 either.
    """
    idle = {}
    for uid, peer in standings.peers.items():
        row = window.evidence.get(uid)
        if row is None or not _may_rise(settings, row):
            idle[uid] = (peer, row)
    findings = []
    for uid, (peer, row) in idle.items():
        most = _most(settings, window.before[uid].final_score, peer)
        if peer.final_score > most:
            findings.append(Finding(uid, _what_is_missing(row), replace(peer, final_score=most)))
    return Ruling("no_improvement", len(idle), tuple(findings))


def _players(settings: GauntletSettings, standings: Standings, window: Window) -> Collection[int]:
    """Whose final scores are computed in this window: those in the match, if there are two."""
    players = match_scores(settings, standings, window)
    return players.keys() if len(players) > 1 else ()


def _scored(settings: GauntletSettings, peer: Standing, threshold: float) -> Standing:
    rating = {"ordinal": peer.ordinal, "mu": peer.mu, "gradient": peer.gradient_average}[settings.score.rating]
    average = _counted(settings, peer.indicator_average, threshold) if settings.acts("indicator") else 1.0
    return replace(peer, final_score=rating * average + 0.0)  # + 0.0: no negative zero


def _counted(settings: GauntletSettings, average: float, threshold: float) -> float:
    """What an indicator average counts as: 0 below the threshold, a negative one 0 or itself."""
    if average < 0:
        return average if settings.score.indicator == "signed" else 0.0
    return average if average >= threshold else 0.0


def _may_rise(settings: GauntletSettings, row: Evidence) -> bool:
    return row.measured and (settings.quirks.rank_without_improvement or gradient_score(row) > 0)


def _most(settings: GauntletSettings, before: float, peer: Standing) -> float:
    """The final score that an idle peer may have: that of the round before, or a negative one that a slash raises."""
    return before * peer.cut if before < 0 and settings.past.slash_raises_negative else before


def _what_is_missing(row: Evidence | None) -> str:
    if row is None or not row.measured:
        return "nothing was measured"
    return f"random data improved by {gradient_score(row):.3g}"
