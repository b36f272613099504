"""D2, D4, D7: the scoring's formulas against published figures and against openskill. Nothing is run."""

from __future__ import annotations

import numpy as np
from openskill.models import PlackettLuce

from covsim.gauntlet.rating import rate_match
from covsim.gauntlet.settings import GauntletSettings, SyncRules
from covsim.gauntlet.sync import sync_score
from covsim.gauntlet.weights import Ramp, weigh
from covsim.randomness import Streams
from covsim.sweep.papers.verdicts import Verdict, ruled

TARGETS = ("D2", "D4", "D7")

SYNC_SCORES = {3.0: (1.0, 0.363, 0.064, 0.0), 5.0: (1.0, 0.572, 0.279, 0.101)}
"""By the cap, at 0, 1, 2 and 3 steps behind: of the final rules and of earlier ones."""

SHARES = {1: 3.2, 20: 1.6, 21: 0.81, 30: 0.002}
"""Percent of all pay by place, of 30 peers with a positive score."""

MATCHES, PLAYERS = 200, 20
_HALF_A_DIGIT = {1: 0.05, 20: 0.05, 21: 0.005, 30: 0.0005}


def judge() -> list[Verdict]:
    """A row per target."""
    return [_sync(), _rating(), _weights()]


def _sync() -> Verdict:
    ours = {cap: [sync_score(SyncRules(cap=cap), float(x)) for x in range(4)] for cap in SYNC_SCORES}
    worst = max(float(np.abs(np.subtract(ours[cap], published)).max()) for cap, published in SYNC_SCORES.items())
    return Verdict(
        id="D2",
        kind="gate",
        claim="sync score at 0, 1, 2, 3 steps behind; final rules, and earlier ones",
        source="code",
        expected="; ".join(", ".join(f"{score:g}" for score in scores) for scores in SYNC_SCORES.values()),
        rule="each to the third digit behind the point",
        ours="; ".join(", ".join(f"{score:.3f}" for score in ours[cap]) for cap in SYNC_SCORES),
        error=f"{worst:.1e} at worst",
        status=ruled(worst <= 5e-4, worst > 5e-4),
    )


def _rating() -> Verdict:
    """Matches of random ratings and scores, one after the other, here and in openskill alone."""
    settings, generator = GauntletSettings(), Streams(0).numpy("matches")
    model = PlackettLuce(beta=settings.beta, tau=settings.tau)
    theirs = [[model.rating(mu=settings.mu, sigma=settings.sigma)] for _ in range(PLAYERS)]
    ours, worst = dict.fromkeys(range(PLAYERS), (settings.mu, settings.sigma)), 0.0
    for _ in range(MATCHES):
        scores = generator.normal(size=PLAYERS).round(1).tolist()  # rounded, so that some are equal
        ours = rate_match(settings, ours, dict(enumerate(scores)))
        theirs = model.rate(theirs, scores=scores)
        worst = max(
            worst, *(abs(ours[i][0] - team[0].mu) + abs(ours[i][1] - team[0].sigma) for i, team in enumerate(theirs))
        )
    return Verdict(
        id="D4",
        kind="gate",
        claim=f"PlackettLuce, beta {settings.beta:g}, tau {settings.tau:g}, ties shared",
        source="openskill",
        expected="as openskill itself",
        rule=f"mu and sigma of {PLAYERS} peers after each of {MATCHES} matches in a row within 1e-9 of openskill's",
        ours=f"largest difference {worst:.1e}",
        error="-",
        status=ruled(worst <= 1e-9, worst > 1e-9),
    )


def _weights() -> Verdict:
    num_peers = 30
    scores = {uid: float(num_peers - uid) for uid in range(num_peers)}
    weights = weigh(Ramp(burn=0.5), scores, (20, 10), lots=lambda _: 0.0)
    ours = {place: 100 * weights.shares[place - 1] for place in SHARES}
    good = all(abs(ours[place] - published) <= _HALF_A_DIGIT[place] for place, published in SHARES.items())
    return Verdict(
        id="D7",
        kind="gate",
        claim="weights of 30 peers with positive scores, half burned: best, 20th, first and last in reserve",
        source="code",
        expected=", ".join(f"{share:g}" for share in SHARES.values()) + " % of all",
        rule="each to its last digit",
        ours=", ".join(f"{share:.2g}" for share in ours.values()) + f" %; burned {100 * weights.burned:g} %",
        error="-",
        status=ruled(good and weights.burned == 0.5, not good or weights.burned != 0.5),
    )
