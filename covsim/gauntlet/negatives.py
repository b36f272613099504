"""The rules for payloads that do harm: whose gradient score is negative, again and again.

A window that was bad for all spares everybody whom they would hit. Source: `templar` v2.1.28.
"""

from __future__ import annotations

from dataclasses import replace

from covsim.gauntlet.evidence import Finding, Ruling, Standing, Standings, Window
from covsim.gauntlet.rating import match_scores
from covsim.gauntlet.settings import GauntletSettings
from covsim.gauntlet.slashing import slashed


def bad_window(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """The guard of the next two rules: whom a window bad for all spares. Changes nobody.

    With `quirks.benched_in_bad_windows` it guards the first of them alone; a rule that is off needs no guard.
    """
    guards_scores = settings.acts("mostly_negative")
    guards_places = settings.acts("negative_streak") and not settings.quirks.benched_in_bad_windows
    at_risk = {
        uid: peer
        for uid, peer in standings.peers.items()
        if (guards_scores and _is_mostly_negative(settings, peer))
        or (guards_places and _is_to_be_benched(settings, peer))
    }
    spared = at_risk if is_bad_window(settings, standings, window) else {}
    why = f"score of rank {settings.slashing.bad_window_rank} is negative"
    return Ruling("bad_window", len(at_risk), tuple(Finding(uid, why, peer) for uid, peer in spared.items()))


def mostly_negative(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer most of whose last evaluations were negative loses three quarters of both, every window while that is so.

    It need not be evaluated in this window. Skipped in a window that was bad for all.
    """
    rules, bad = settings.slashing, is_bad_window(settings, standings, window)
    long_known = {uid: peer for uid, peer in standings.peers.items() if len(peer.negatives) == rules.negative_window}
    findings = [
        Finding(
            uid,
            f"{sum(peer.negatives)} of {len(peer.negatives)} evaluations negative, x {rules.negative_factor:g}",
            slashed(peer, rules.negative_factor, settings),
        )
        for uid, peer in long_known.items()
        if _is_mostly_negative(settings, peer) and not bad
    ]
    return Ruling("mostly_negative", len(long_known), tuple(findings))


def negative_streak(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A streak of negative evaluations keeps a peer off the gather list until a positive one.

    The deployed code means to skip this in a window that was bad for all, but makes its list after it has forgotten the
    scores that tell one, so the guard holds in its bookkeeping only: `quirks.benched_in_bad_windows`. Without the quirk
    the next window that is not bad benches the peer, evaluated in it or not.
    """
    streak = settings.slashing.negative_streak
    spared = is_bad_window(settings, standings, window) and not settings.quirks.benched_in_bad_windows
    known = {uid: peer for uid, peer in standings.peers.items() if peer.evaluations >= streak}
    findings = [
        Finding(uid, f"{peer.negatives_in_a_row} negative evaluations in a row", replace(peer, benched=True))
        for uid, peer in known.items()
        if _is_to_be_benched(settings, peer) and not spared
    ]
    return Ruling("negative_streak", len(known), tuple(findings))


def is_bad_window(settings: GauntletSettings, standings: Standings, window: Window) -> bool:
    """True when the score of rank `bad_window_rank`, or the lowest of fewer, is negative; penalties count as scores.

    Never with `bad_window` off.
    """
    if not settings.acts("bad_window"):
        return False
    scores = sorted(match_scores(settings, standings, window).values(), reverse=True)
    return bool(scores) and scores[min(settings.slashing.bad_window_rank, len(scores)) - 1] < 0


def _is_mostly_negative(settings: GauntletSettings, peer: Standing) -> bool:
    """True while the negative evaluations are too many and there is something to slash."""
    rules = settings.slashing
    remembered = len(peer.negatives) == rules.negative_window
    return remembered and sum(peer.negatives) > rules.negative_limit and peer.final_score > 0


def _is_to_be_benched(settings: GauntletSettings, peer: Standing) -> bool:
    return peer.negatives_in_a_row >= settings.slashing.negative_streak and not peer.benched
