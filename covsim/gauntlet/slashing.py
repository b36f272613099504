"""The rules that cut what a peer has earned: one function each, in the order in which they act.

Each takes the window and the standings as the rules before it left them, and returns a `Ruling`: on how many peers it
could have acted, and whom it hit and why. Source: `templar` v2.1.28. Settled here, where sources leave it open:

* A slash with a factor acts on final score **and** indicator average, and only while the final score is positive: a
  factor would raise a negative one (as in the code).
* A slash on the final score is overwritten when the peer is in this window's match, because the final score is then
  computed anew; the cut indicator average and the penalty score in the match persist (a quirk of the code, kept).
* A peer that was asked in the gather *and* drawn for evaluation, and sent nothing, is slashed twice, as in the code.
* A reserve that was asked to stand in and could not is treated like a listed peer, as in the code.
* A listed peer whose payload this validator could not read has missed the gather all the same, as in the code; a failed
  read in the evaluation harms nobody.
* While excluded, be it since just now, a peer is touched by no rule but the overlap rule, which renews the exclusion,
  and plays no match. The code instead resets it again every window; what is left of it at the end is the same.
* An exclusion lasts `excluded_windows` full windows after this one. The code counts this one too for overlap (19 more)
  but not for missed gathers (20 more).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from covsim.gauntlet.evidence import Evidence, Finding, Ruling, Standing, Standings, Window, newcomer
from covsim.gauntlet.rating import match_scores, taking_part
from covsim.gauntlet.settings import GauntletSettings, SlashingRules

Rule = Callable[[GauntletSettings, Standings, Window], Ruling]


def inactive(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer that is not active loses a quarter of its final score per window.

    Its indicator average is left alone. `inactive_since` is set at the first such window and cleared on return.
    """
    findings, notes = [], {}
    for uid, peer in standings.peers.items():
        if uid in window.active:
            if peer.inactive_since >= 0:
                notes[uid] = replace(peer, inactive_since=-1)
            continue
        absent = replace(peer, inactive_since=peer.inactive_since if peer.inactive_since >= 0 else window.round)
        notes[uid] = absent
        if peer.final_score > 0:
            score = _floored(peer.final_score * settings.slashing.inactive_factor, settings.slashing)
            why = f"absent since round {absent.inactive_since}"
            findings.append(Finding(uid, why, replace(absent, final_score=score)))
    return Ruling("inactive", len(standings.peers), tuple(findings), notes)


def long_inactive(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer that was slashed for inactivity in `inactive_windows` windows starts over in the next."""
    limit = settings.slashing.inactive_windows
    absent = {uid: peer for uid, peer in standings.peers.items() if peer.inactive_since >= 0}
    findings = [
        Finding(
            uid,
            f"absent for more than {limit} windows",
            replace(newcomer(settings, window.round), inactive_since=peer.inactive_since),
        )
        for uid, peer in absent.items()
        if window.round - peer.inactive_since >= limit and _has_a_past(peer)
    ]
    return Ruling("long_inactive", len(absent), tuple(findings))


def overlap_halve(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, lowest level: half of final score and indicator average."""
    levels = settings.overlap
    compared = list(_compared(settings, window))
    findings = [
        Finding(row.uid, _in_common(row, levels.halve), slashed(standings.peers[row.uid], 0.5, settings.slashing))
        for row in compared
        if levels.halve <= row.overlap < levels.reset
    ]
    return Ruling("overlap_halve", len(compared), tuple(findings))


def overlap_reset(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, middle level: the peer starts over."""
    levels = settings.overlap
    compared = list(_compared(settings, window))
    findings = [
        Finding(row.uid, _in_common(row, levels.reset), reset(settings, standings.peers[row.uid], window.round))
        for row in compared
        if levels.reset <= row.overlap < levels.exclude
    ]
    return Ruling("overlap_reset", len(compared), tuple(findings))


def overlap_exclude(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Indices in common with an earlier payload, highest level: the peer starts over and is excluded."""
    level = settings.overlap.exclude
    compared = list(_compared(settings, window))
    findings = [
        Finding(row.uid, _in_common(row, level), excluded(settings, window.round))
        for row in compared
        if row.overlap >= level
    ]
    return Ruling("overlap_exclude", len(compared), tuple(findings))


def gather_absence(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer that missed half of its last gathers starts over and is excluded.

    Only a miss can trigger it. The code leaves a peer with a final score of 0 its rating until the next window; here
    whoever is excluded starts over at once. `notes` remember this window's gather for every peer that was asked.
    """
    rules = settings.slashing
    asked = {row.uid: row for row in taking_part(standings, window) if row.missed_gather or row.gathered}
    notes = {uid: _remember_gather(standings.peers[uid], row.missed_gather, rules) for uid, row in asked.items()}
    long_known = {uid: peer for uid, peer in notes.items() if len(peer.misses) == rules.absence_window}
    findings = [
        Finding(
            uid, f"missed {sum(peer.misses)} of the last {len(peer.misses)} gathers", excluded(settings, window.round)
        )
        for uid, peer in long_known.items()
        if peer.misses[-1] and sum(peer.misses) >= rules.absence_share * len(peer.misses)
    ]
    return Ruling("gather_absence", len(long_known), tuple(findings), notes)


def gather_quorum(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """When less than `quorum` of the gather succeeded, who missed it loses final score and indicator average.

    Success counts every payload that entered, also those of reserves, over the listed peers.
    """
    rows = list(taking_part(standings, window))
    missing = [row for row in rows if row.missed_gather]
    share = _gather_success(window)
    findings = [
        Finding(
            row.uid,
            f"asked in vain ({row.status}), {share:.0%} of the gather succeeded < {settings.slashing.quorum:.0%}",
            slashed(standings.peers[row.uid], 0.0, settings.slashing),
        )
        for row in missing
        if share < settings.slashing.quorum
    ]
    return Ruling("gather_quorum", len(missing), tuple(findings))


def gather_miss(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer that the gather asked in vain loses more with every miss in a row."""
    rules = settings.slashing
    rows = [row for row in taking_part(standings, window) if row.missed_gather or row.gathered]
    if _gather_success(window) < rules.quorum:
        return Ruling("gather_miss", len(rows))
    findings = []
    for row in rows:
        if row.missed_gather:
            peer = standings.peers[row.uid]
            factor = rules.misses[min(peer.misses_in_a_row, len(rules.misses)) - 1]
            why = f"asked in vain ({row.status}), miss {peer.misses_in_a_row} in a row, x {factor:g}"
            findings.append(Finding(row.uid, why, slashed(peer, factor, rules)))
    return Ruling("gather_miss", len(rows), tuple(findings))


def evaluated_missing(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """An evaluated peer without a submission inside the put window loses a quarter of both."""
    rules = settings.slashing
    rows = [row for row in taking_part(standings, window) if row.evaluated and row.status != "unseen"]
    findings = [
        Finding(
            row.uid,
            f"{row.status}, x {rules.evaluated_missing:g}",
            slashed(standings.peers[row.uid], rules.evaluated_missing, rules),
        )
        for row in rows
        if row.status in ("missing", "late", "early")
    ]
    return Ruling("evaluated_missing", len(rows), tuple(findings))


def evaluated_invalid(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """An evaluated peer with an invalid payload loses its final score; its indicator average is left alone."""
    rows = [row for row in taking_part(standings, window) if row.evaluated and row.status in ("ok", "invalid")]
    findings = []
    for row in rows:
        if row.status == "invalid":
            peer = standings.peers[row.uid]
            findings.append(Finding(row.uid, row.problem, replace(peer, final_score=min(peer.final_score, 0.0))))
    return Ruling("evaluated_invalid", len(rows), tuple(findings))


def bad_window(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """The guard of the next two rules: whom a window bad for all spares. Changes nobody."""
    at_risk = {
        uid: peer
        for uid, peer in standings.peers.items()
        if _is_mostly_negative(settings, peer) or _is_to_be_benched(settings, peer)
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
            slashed(peer, rules.negative_factor, rules),
        )
        for uid, peer in long_known.items()
        if _is_mostly_negative(settings, peer) and not bad
    ]
    return Ruling("mostly_negative", len(long_known), tuple(findings))


def negative_streak(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A streak of negative evaluations keeps a peer off the gather list until a positive one.

    Skipped in a window that was bad for all; the next one that is not benches the peer, evaluated in it or not. (The
    deployed code makes its list after it has forgotten the scores that tell a bad window, so there the guard holds in
    its bookkeeping only.)
    """
    streak, bad = settings.slashing.negative_streak, is_bad_window(settings, standings, window)
    known = {uid: peer for uid, peer in standings.peers.items() if peer.evaluations >= streak}
    findings = [
        Finding(uid, f"{peer.negatives_in_a_row} negative evaluations in a row", replace(peer, benched=True))
        for uid, peer in known.items()
        if _is_to_be_benched(settings, peer) and not bad
    ]
    return Ruling("negative_streak", len(known), tuple(findings))


def is_bad_window(settings: GauntletSettings, standings: Standings, window: Window) -> bool:
    """True when the score of rank `bad_window_rank`, or the lowest of fewer, is negative; penalties count as scores."""
    scores = sorted(match_scores(settings, standings, window).values(), reverse=True)
    return bool(scores) and scores[min(settings.slashing.bad_window_rank, len(scores)) - 1] < 0


def slashed(peer: Standing, factor: float, rules: SlashingRules) -> Standing:
    """The standing with final score and indicator average times `factor`, if the final score is positive."""
    if peer.final_score <= 0:
        return peer
    score = _floored(peer.final_score * factor, rules)
    return replace(peer, final_score=score, indicator_average=peer.indicator_average * factor)


def reset(settings: GauntletSettings, peer: Standing, round: int) -> Standing:
    """A newcomer's standing; only a running exclusion outlives it."""
    return replace(newcomer(settings, round), excluded_until=peer.excluded_until)


def excluded(settings: GauntletSettings, round: int) -> Standing:
    """A newcomer's standing, excluded from the next windows."""
    return replace(newcomer(settings, round), excluded_until=round + 1 + settings.slashing.excluded_windows)


def _is_mostly_negative(settings: GauntletSettings, peer: Standing) -> bool:
    """True while the negative evaluations are too many and there is something to slash."""
    rules = settings.slashing
    remembered = len(peer.negatives) == rules.negative_window
    return remembered and sum(peer.negatives) > rules.negative_limit and peer.final_score > 0


def _is_to_be_benched(settings: GauntletSettings, peer: Standing) -> bool:
    return peer.negatives_in_a_row >= settings.slashing.negative_streak and not peer.benched


def _floored(score: float, rules: SlashingRules) -> float:
    return score if score >= rules.zero_below else 0.0


def _has_a_past(peer: Standing) -> bool:
    """False for a peer that was reset since it went away."""
    return peer.enrolled_round <= peer.inactive_since


def _compared(settings: GauntletSettings, window: Window) -> Iterator[Evidence]:
    """The evidence with a measured overlap, from the round on in which the rule acts."""
    for row in window.evidence.values():
        if window.round >= settings.overlap.from_round and not math.isnan(row.overlap):
            yield row


def _in_common(row: Evidence, level: float) -> str:
    return f"overlap {row.overlap:.2f} with uid {row.overlap_with} >= {level:.2f}"


def _remember_gather(peer: Standing, missed: bool, rules: SlashingRules) -> Standing:
    return replace(
        peer,
        misses=(*peer.misses, missed)[-rules.absence_window :],
        misses_in_a_row=peer.misses_in_a_row + 1 if missed else 0,
    )


def _gather_success(window: Window) -> float:
    """Payloads that entered over listed peers; 1 when nobody was listed."""
    listed = sum(row.on_gather_list for row in window.evidence.values())
    return sum(row.gathered for row in window.evidence.values()) / listed if listed else 1.0
