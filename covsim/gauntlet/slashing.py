"""The rules that cut what a peer has earned by absence, misses and invalid payloads: one function each, in their order.

Those for copies stand in `overlap`, those for harmful payloads in `negatives`. Each takes the window and the standings
as the rules before it left them, and returns a `Ruling`: on how many peers it could have acted, and whom it hit and
why. Source: `templar` v2.1.28. Settled here, where sources leave it open:

* A slash with a factor acts on final score **and** indicator average, and only while the final score is positive: a
  factor would raise a negative one (as in the code; older code is `past.slash_raises_negative`).
* A slash on the final score is overwritten when the peer is in this window's match, because the final score is then
  computed anew; the cut indicator average and the penalty score in the match persist (`quirks.slash_overwritten`). What
  the slashes left is remembered as `Standing.cut`, also where there was nothing to cut yet.
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

from collections.abc import Callable
from dataclasses import replace

from covsim.gauntlet.evidence import Evidence, Finding, Ruling, Standing, Standings, Window, newcomer
from covsim.gauntlet.rating import taking_part
from covsim.gauntlet.settings import GauntletSettings, SlashingRules, SyncRules

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
        if peer.final_score > 0 or (peer.final_score < 0 and settings.past.slash_raises_negative):
            factor = settings.slashing.inactive_factor
            score = _floored(peer.final_score * factor, settings.slashing)
            why = f"absent since round {absent.inactive_since}"
            findings.append(Finding(uid, why, replace(absent, final_score=score, cut=peer.cut * factor)))
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


def sync_behind(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A listed peer whose theta lies too far from the validator's, or is not shown, loses a quarter of both.

    Reserves are spared, as in the code, and so is who lies exactly `max_behind` steps behind. Whether it submitted
    anything does not matter.
    """
    rules = settings.sync
    rows = [row for row in taking_part(standings, window) if row.on_gather_list]
    findings = [
        Finding(row.uid, why, slashed(standings.peers[row.uid], rules.slash, settings))
        for row in rows
        if (why := _out_of_sync(row, rules))
    ]
    return Ruling("sync_behind", len(rows), tuple(findings))


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

    When nothing entered, that is everybody who was asked. Success counts every payload that entered, also those of
    reserves, over the listed peers.
    """
    rows = list(taking_part(standings, window))
    missing = [row for row in rows if row.missed_gather]
    share = _gather_success(window)
    findings = [
        Finding(
            row.uid,
            f"asked in vain ({row.status}), {share:.0%} of the gather succeeded < {settings.slashing.quorum:.0%}",
            slashed(standings.peers[row.uid], 0.0, settings),
        )
        for row in missing
        if share < settings.slashing.quorum
    ]
    return Ruling("gather_quorum", len(missing), tuple(findings))


def gather_miss(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """A peer that the gather asked in vain loses more with every miss in a row."""
    rules = settings.slashing
    rows = [row for row in taking_part(standings, window) if row.missed_gather or row.gathered]
    if settings.acts("gather_quorum") and _gather_success(window) < rules.quorum:
        return Ruling("gather_miss", len(rows))
    findings = []
    for row in rows:
        if row.missed_gather:
            peer = standings.peers[row.uid]
            factor = rules.misses[min(peer.misses_in_a_row, len(rules.misses)) - 1]
            why = f"asked in vain ({row.status}), miss {peer.misses_in_a_row} in a row, x {factor:g}"
            findings.append(Finding(row.uid, why, slashed(peer, factor, settings)))
    return Ruling("gather_miss", len(rows), tuple(findings))


def evaluated_missing(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """An evaluated peer without a submission inside the put window loses a quarter of both."""
    rules = settings.slashing
    rows = [row for row in taking_part(standings, window) if row.evaluated and row.status != "unseen"]
    findings = [
        Finding(
            row.uid,
            f"{row.status}, x {rules.evaluated_missing:g}",
            slashed(standings.peers[row.uid], rules.evaluated_missing, settings),
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
            after = replace(peer, final_score=min(peer.final_score, 0.0), cut=0.0)
            findings.append(Finding(row.uid, row.problem, after))
    return Ruling("evaluated_invalid", len(rows), tuple(findings))


def slashed(peer: Standing, factor: float, settings: GauntletSettings) -> Standing:
    """The standing with final score and indicator average times `factor`, if the final score is positive.

    The factor also enters `cut`, whatever the final score is: where slashes persist, it meets the score computed next.
    Of the past: `slash_raises_negative` multiplies a negative score, `slash_spares_average` the score only.
    """
    past, peer = settings.past, replace(peer, cut=peer.cut * factor)
    if peer.final_score == 0 or (peer.final_score < 0 and not past.slash_raises_negative):
        return peer
    average = peer.indicator_average if past.slash_spares_average else peer.indicator_average * factor
    return replace(peer, final_score=_floored(peer.final_score * factor, settings.slashing), indicator_average=average)


def reset(settings: GauntletSettings, peer: Standing, round: int) -> Standing:
    """A newcomer's standing; only a running exclusion outlives it."""
    return replace(newcomer(settings, round), excluded_until=peer.excluded_until)


def excluded(settings: GauntletSettings, round: int) -> Standing:
    """A newcomer's standing, excluded from the next windows."""
    return replace(newcomer(settings, round), excluded_until=round + 1 + settings.slashing.excluded_windows)


def _out_of_sync(row: Evidence, rules: SyncRules) -> str:
    """Why a listed peer is slashed for its sync sample; empty if it is not."""
    if not row.steps_behind >= 0:
        return f"no sync sample, x {rules.slash:g}"
    if row.steps_behind > rules.max_behind:
        return f"{row.steps_behind:.3g} steps behind > {rules.max_behind:g}, x {rules.slash:g}"
    return ""


def _floored(score: float, rules: SlashingRules) -> float:
    return score + 0.0 if abs(score) >= rules.zero_below else 0.0  # + 0.0: no negative zero


def _has_a_past(peer: Standing) -> bool:
    """False for a peer that was reset since it went away."""
    return peer.enrolled_round <= peer.inactive_since


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
