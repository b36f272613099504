"""One window from evidence to judgement: the stages in the order in which they act.

    settle      losses that are not finite become a status
    enroll      peers never seen before get a newcomer's standing
    slash       inactivity, overlap, peers out of sync, missed gathers, missing and invalid submissions
    remember    own-against-random indicator, and whether the gradient score was negative
    slash       the mostly negative; bench a streak; neither in a window that was bad for all
    rate        one PlackettLuce match of all who were scored, the missing and invalid at -99
    score       final score = rating x indicator average x sync score, for the peers of the match
    hold down   nobody's final score rises without a measurement
    weigh       a rule's shares, and a burn

This is the order of `templar` v2.1.28. A rule that is `off` finds nobody; what it remembers is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from covsim.gauntlet import final_score, negatives, overlap, slashing
from covsim.gauntlet.checks import settle
from covsim.gauntlet.evidence import (
    Coverage,
    Evidence,
    Finding,
    Judgement,
    Ruling,
    Standing,
    Standings,
    Verdict,
    Window,
    gradient_score,
    indicator,
    newcomer,
)
from covsim.gauntlet.rating import match_scores, rate_match, taking_part
from covsim.gauntlet.settings import GauntletSettings
from covsim.gauntlet.weights import weigh

__all__ = ["Evidence", "GauntletSettings", "Judgement", "Standing", "Standings", "Verdict", "judge"]


def judge(
    settings: GauntletSettings,
    standings: Standings,
    evidence: Sequence[Evidence],
    *,
    round: int,
    active: Collection[int],
    places: tuple[int, int],
    lots: Callable[[int], float],
) -> Judgement:
    """Judge one window. A window whose gather was aborted is not judged, as on the live network.

    Args:
        standings: as the last judgement left them; empty before the first.
        evidence: one row per peer that this validator gathered, asked in vain, or evaluated; its `active` is set here.
        round: the round judged, counted from 0.
        active: peers that count as taking part in the run; the others are slashed for inactivity.
        places: on the gather and the reserve list; the pay ramp has the same.
        lots: a number per uid, the same whenever asked, that orders equal final scores and, where the settings want it,
            equal scores in the match; lowest first.
    """
    present = frozenset(active)
    rows = {row.uid: settle(replace(row, active=row.uid in present)) for row in sorted(evidence, key=_uid)}
    assert len(rows) == len(evidence), "one row of evidence per peer"
    before = enroll(settings, standings, round, present | rows.keys())
    window = Window(round, rows, present, {uid: lots(uid) for uid in before}, before)
    docket = Docket(window, settings)
    for stage in STAGES:
        docket.enter(stage(settings, docket.standings, window))
    final_scores = {uid: peer.final_score for uid, peer in docket.peers.items()}
    weights = weigh(settings.weights, final_scores, places, lots)
    docket.close(weights.shares)
    return Judgement(
        standings=docket.standings,
        verdicts=docket.verdicts(),
        weights=tuple(sorted(weights.shares.items())),
        burned=weights.burned,
        coverage=tuple(docket.coverage),
    )


def enroll(settings: GauntletSettings, standings: Standings, round: int, seen: Collection[int]) -> dict[int, Standing]:
    """Everybody known or seen, by uid."""
    stranger = newcomer(settings, round)
    return {uid: standings.peers.get(uid, stranger) for uid in sorted({*standings.peers, *seen})}


def remember(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Fold this window's measurements into indicator averages and histories.

    The average is BMA <- 0.95 BMA + 0.05 b, from 0. Peers drawn but not measured keep it. A gradient score of 0 or more
    ends a streak and unbenches.
    """
    notes, measured, against = {}, 0, []
    for row in taking_part(standings, window):
        peer = standings.peers[row.uid]
        if row.evaluated:
            peer = replace(peer, last_evaluated=window.round)
        if row.measured:
            measured += 1
            peer = _remember_measured(settings, peer, row)
            if indicator(row) < 0:
                against.append(Finding(row.uid, "own data improved no more than random data", peer))
        notes[row.uid] = peer
    return Ruling("indicator", measured, tuple(against), notes)


def _remember_measured(settings: GauntletSettings, peer: Standing, row: Evidence) -> Standing:
    decay, negative = settings.indicator_decay, gradient_score(row) < 0
    cap, kept = settings.score.gradient_cap, settings.score.gradient_decay
    counted = gradient_score(row) if cap is None else min(gradient_score(row), cap)
    return replace(
        peer,
        evaluations=peer.evaluations + 1,
        indicator_average=decay * peer.indicator_average + (1 - decay) * indicator(row),
        gradient_average=kept * peer.gradient_average + (1 - kept) * counted,
        negatives=(*peer.negatives, negative)[-settings.slashing.negative_window :],
        negatives_in_a_row=peer.negatives_in_a_row + 1 if negative else 0,
        benched=peer.benched and negative,
    )


def rate(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Play this window's match; the findings are the penalties in it."""
    peers, scores = standings.peers, match_scores(settings, standings, window)
    ratings = rate_match(settings, {uid: (peers[uid].mu, peers[uid].sigma) for uid in scores}, scores, window.lots)
    notes = {uid: replace(peers[uid], mu=mu, sigma=sigma) for uid, (mu, sigma) in ratings.items()}
    penalized = [
        Finding(row.uid, f"{row.status}, scores {settings.slashing.penalty_score:g}", notes[row.uid])
        for row in window.evidence.values()
        if row.uid in scores and not row.measured
    ]
    return Ruling("penalty_score", len(scores), tuple(penalized), notes)


STAGES: tuple[slashing.Rule, ...] = (
    slashing.inactive,
    slashing.long_inactive,
    overlap.overlap_halve,
    overlap.overlap_reset,
    overlap.overlap_exclude,
    slashing.sync_behind,
    slashing.gather_absence,
    slashing.gather_quorum,
    slashing.gather_miss,
    slashing.evaluated_missing,
    slashing.evaluated_invalid,
    remember,
    negatives.bad_window,
    negatives.mostly_negative,
    negatives.negative_streak,
    rate,
    final_score.score,
    final_score.fall_behind,
    final_score.keep_slashes,
    final_score.hold_down,
)
"""The rules of `settings.RULES`, in that order."""


class Docket:
    """Collects what the stages did to each peer, why, and how often they could have."""

    def __init__(self, window: Window, settings: GauntletSettings) -> None:
        self.peers = dict(window.before)
        self.coverage: list[Coverage] = []
        self._window = window
        self._settings = settings
        self._reasons: dict[int, list[str]] = {}

    @property
    def standings(self) -> Standings:
        """The peers as the last stage left them."""
        return Standings(self.peers)

    def enter(self, ruling: Ruling) -> None:
        """Take over what a stage changed, and its reasons; of a rule that is off, only what it remembers."""
        before = self.peers
        acts = self._settings.acts(ruling.rule)
        findings = ruling.findings if acts else ()
        if ruling.notes or findings:  # most stages leave most windows as they are
            self.peers = {**before, **ruling.notes, **{finding.uid: finding.after for finding in findings}}
        for finding in findings:
            reason = _reason(ruling.rule, finding, before[finding.uid])
            self._reasons.setdefault(finding.uid, []).append(reason)
        self.coverage.append(Coverage(ruling.rule, ruling.eligible if acts else 0, len(findings)))

    def close(self, shares: Mapping[int, float]) -> None:
        """Note what everybody is paid; what is remembered for one window only is forgotten."""
        self.peers = {uid: _closed(peer, shares.get(uid, 0.0)) for uid, peer in self.peers.items()}

    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per peer in evidence or hit by a rule, by uid."""
        evidence = self._window.evidence
        return tuple(
            self._verdict(evidence[uid] if uid in evidence else self._unseen(uid))
            for uid in sorted(evidence.keys() | self._reasons.keys())
        )

    def _unseen(self, uid: int) -> Evidence:
        return Evidence(uid=uid, status="unseen", active=uid in self._window.active)

    def _verdict(self, row: Evidence) -> Verdict:
        return Verdict(
            evidence=row,
            gradient_score=gradient_score(row) if row.measured else math.nan,
            indicator=indicator(row) if row.measured else math.nan,
            before=self._window.before[row.uid],
            standing=self.peers[row.uid],
            reasons=tuple(self._reasons.get(row.uid, ())),
        )


def _uid(row: Evidence) -> int:
    return row.uid


def _reason(rule: str, finding: Finding, before: Standing) -> str:
    """'gather_miss: asked in vain (late), miss 1 in a row, x 0.75: final score 3.2 -> 2.4', for example."""
    after = finding.after
    numbers = [
        ("final score", before.final_score, after.final_score),
        ("indicator average", before.indicator_average, after.indicator_average),
        ("ordinal", before.ordinal, after.ordinal),
    ]
    changes = [f"{name} {old:.4g} -> {new:.4g}" for name, old, new in numbers if old != new]
    if after.excluded_until > before.excluded_until:
        changes.append(f"excluded until round {after.excluded_until}")
    if after.benched and not before.benched:
        changes.append("off the gather list")
    return ": ".join([rule, finding.why, ", ".join(changes)] if changes else [rule, finding.why])


def _closed(peer: Standing, weight: float) -> Standing:
    """A standing at the end of a window; most earn nothing, and stay as they were."""
    return peer if peer.weight == weight and peer.cut == 1.0 else replace(peer, weight=weight, cut=1.0)
