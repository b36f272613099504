"""One window from evidence to judgement: the stages in the order in which they act.

    settle      losses that are not finite become a status
    enroll      peers never seen before get a newcomer's standing
    slash       inactivity, overlap, missed gathers, missing and invalid submissions
    remember    own-against-random indicator, and whether the gradient score was negative
    slash       the mostly negative; bench a streak; neither in a window that was bad for all
    rate        one PlackettLuce match of all who were scored, the missing and invalid at -99
    score       final score = ordinal x indicator average, for the peers of the match
    weigh       ramp, reserve, burn

This is the order of `templar` v2.1.28. The sync score, a third factor of the final score there, takes its place beside
the indicator average.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from covsim.gauntlet import slashing
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
    newcomer,
)
from covsim.gauntlet.loss_score import gradient_score, indicator
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
    generator: np.random.Generator,
) -> Judgement:
    """Judge one window. A window whose gather was aborted is not judged, as on the live network.

    Args:
        standings: as the last judgement left them; empty before the first.
        evidence: one row per peer that this validator gathered, asked in vain, or evaluated.
        round: the round judged, counted from 0.
        active: peers that count as taking part in the run; the others are slashed for inactivity.
        places: on the gather and the reserve list; the pay ramp has the same.
        generator: orders equal final scores and, where the settings want it, equal scores in the match.
    """
    rows = {row.uid: settle(row) for row in sorted(evidence, key=lambda row: row.uid)}
    assert len(rows) == len(evidence), "one row of evidence per peer"
    everybody = sorted(standings.peers.keys() | set(active) | rows.keys())
    lots = dict(zip(everybody, generator.permutation(len(everybody)).tolist(), strict=True))
    window = Window(round, rows, frozenset(active), lots)
    docket = Docket(enroll(settings, standings, window))
    for stage in STAGES:
        docket.enter(stage(settings, docket.standings, window))
    final_scores = {uid: peer.final_score for uid, peer in docket.peers.items()}
    weights = weigh(settings.weights, final_scores, places, generator)
    docket.peers = {uid: replace(peer, weight=weights.shares.get(uid, 0.0)) for uid, peer in docket.peers.items()}
    return Judgement(
        standings=docket.standings,
        verdicts=docket.verdicts(window),
        weights=tuple(sorted(weights.shares.items())),
        burned=weights.burned,
        coverage=tuple(docket.coverage),
    )


def enroll(settings: GauntletSettings, standings: Standings, window: Window) -> dict[int, Standing]:
    """Everybody known, active or in evidence, by uid."""
    everybody = sorted(standings.peers.keys() | window.active | window.evidence.keys())
    stranger = newcomer(settings, window.round)
    return {uid: standings.peers.get(uid, stranger) for uid in everybody}


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
    return replace(
        peer,
        evaluations=peer.evaluations + 1,
        indicator_average=decay * peer.indicator_average + (1 - decay) * indicator(row),
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


def score(settings: GauntletSettings, standings: Standings, window: Window) -> Ruling:
    """Compute the final scores of the peers in the match anew; a lone peer had no match and keeps its own.

    The finding is the threshold: from `indicator_grace_windows` rounds on, a positive indicator average below it counts
    as 0.
    """
    players = match_scores(settings, standings, window)
    if len(players) < 2:
        return Ruling("indicator_threshold", 0)
    in_force = window.round >= settings.indicator_grace_windows
    threshold = settings.indicator_threshold if in_force else 0.0
    notes = {uid: _scored(standings.peers[uid], threshold) for uid in players}
    below = [
        Finding(uid, f"indicator average {peer.indicator_average:.3f} < {threshold:.2f}", peer)
        for uid, peer in notes.items()
        if 0 < peer.indicator_average < threshold
    ]
    return Ruling("indicator_threshold", len(players) if in_force else 0, tuple(below), notes)


def _scored(peer: Standing, threshold: float) -> Standing:
    """F = ordinal x indicator average; an average below the threshold, which is never negative, counts as 0."""
    average = peer.indicator_average if peer.indicator_average >= threshold else 0.0
    return replace(peer, final_score=peer.ordinal * average + 0.0)  # + 0.0: no negative zero


STAGES: tuple[slashing.Rule, ...] = (
    slashing.inactive,
    slashing.long_inactive,
    slashing.overlap_halve,
    slashing.overlap_reset,
    slashing.overlap_exclude,
    slashing.gather_absence,
    slashing.gather_quorum,
    slashing.gather_miss,
    slashing.evaluated_missing,
    slashing.evaluated_invalid,
    remember,
    slashing.bad_window,
    slashing.mostly_negative,
    slashing.negative_streak,
    rate,
    score,
)


class Docket:
    """Collects what the stages did to each peer, why, and how often they could have."""

    def __init__(self, peers: Mapping[int, Standing]) -> None:
        self.peers = dict(peers)
        self.coverage: list[Coverage] = []
        self._reasons: dict[int, list[str]] = {}

    @property
    def standings(self) -> Standings:
        """The peers as the last stage left them."""
        return Standings(self.peers)

    def enter(self, ruling: Ruling) -> None:
        """Take over what a stage changed, and its reasons."""
        before = self.peers
        findings = {finding.uid: finding.after for finding in ruling.findings}
        self.peers = {**before, **ruling.notes, **findings}
        for finding in ruling.findings:
            reason = _reason(ruling.rule, finding, before[finding.uid])
            self._reasons.setdefault(finding.uid, []).append(reason)
        self.coverage.append(Coverage(ruling.rule, ruling.eligible, len(ruling.findings)))

    def verdicts(self, window: Window) -> tuple[Verdict, ...]:
        """One verdict per peer in evidence or hit by a rule, by uid."""
        return tuple(
            self._verdict(window.evidence.get(uid, Evidence(uid=uid, status="unseen")))
            for uid in sorted(window.evidence.keys() | self._reasons.keys())
        )

    def _verdict(self, row: Evidence) -> Verdict:
        return Verdict(
            evidence=row,
            gradient_score=gradient_score(row) if row.measured else math.nan,
            indicator=indicator(row) if row.measured else math.nan,
            standing=self.peers[row.uid],
            reasons=tuple(self._reasons.get(row.uid, ())),
        )


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
