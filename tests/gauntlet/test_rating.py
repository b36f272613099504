"""The PlackettLuce match."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gauntlet_windows import SETTINGS, established, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from openskill.models import PlackettLuce

from covsim.gauntlet.evidence import Evidence, Standings, Window
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.rating import Rating, dense_ranks, drawn_ranks, match_scores, rate_match
from covsim.gauntlet.settings import GauntletSettings

RATINGS = st.lists(st.tuples(st.floats(-20, 60), st.floats(0.5, 9)), min_size=2, max_size=12)


def textbook(ratings: list[Rating], scores: list[float], beta: float, tau: float) -> list[Rating]:
    """Algorithm 4 of Weng and Lin (2011) for teams of one, with openskill's gamma = sigma / c and tau."""
    mu = np.array([rating[0] for rating in ratings])
    variance = np.array([rating[1] for rating in ratings]) ** 2 + tau**2
    c = math.sqrt((variance + beta**2).sum())
    strength = np.exp(mu / c)
    after = []
    for i in range(len(mu)):
        omega = delta = 0.0
        for q in range(len(mu)):
            if scores[q] >= scores[i]:
                share = strength[i] / strength[[s for s in range(len(mu)) if scores[s] <= scores[q]]].sum()
                ties = sum(score == scores[q] for score in scores)
                omega += ((i == q) - share) / ties
                delta += share * (1 - share) / ties
        sigma = math.sqrt(variance[i])
        shrink = max(1 - (sigma / c) * (variance[i] / c**2) * delta, 1e-4)
        after.append((mu[i] + variance[i] / c * omega, sigma * math.sqrt(shrink)))
    return after


@settings(max_examples=60)
@given(ratings=RATINGS, data=st.data())
def test_a_match_follows_the_textbook(ratings: list[Rating], data: st.DataObject) -> None:
    """Ties, which small whole numbers make likely, included."""
    scores = [float(data.draw(st.integers(-2, 2))) for _ in ratings]
    rated = rate_match(SETTINGS, dict(enumerate(ratings)), dict(enumerate(scores)))
    expected = textbook(ratings, scores, beta=7.0, tau=0.1)
    assert np.array([rated[uid] for uid in rated]) == pytest.approx(np.array(expected), rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(ratings=RATINGS, data=st.data())
def test_a_match_is_what_openskill_makes_of_the_raw_scores(ratings: list[Rating], data: st.DataObject) -> None:
    """Target D4; scores so close that ranks truncated to whole numbers would tie."""
    scores = [data.draw(st.sampled_from([-99.0, -0.001, 0.0, 0.001, 0.002, 0.5, 0.9])) for _ in ratings]
    model = PlackettLuce(beta=7.0, tau=0.1)
    teams = [[model.rating(mu=mu, sigma=sigma)] for mu, sigma in ratings]
    expected = [(team[0].mu, team[0].sigma) for team in model.rate(teams, scores=scores)]
    rated = rate_match(SETTINGS, dict(enumerate(ratings)), dict(enumerate(scores)))
    assert np.array([rated[uid] for uid in rated]) == pytest.approx(np.array(expected), rel=1e-12, abs=1e-12)


def test_tau_zero_is_obeyed() -> None:
    calm = rate_match(GauntletSettings(tau=0), {0: (25.0, 1.0), 1: (25.0, 1.0)}, {0: 1.0, 1: 0.0})
    restless = rate_match(GauntletSettings(tau=5), {0: (25.0, 1.0), 1: (25.0, 1.0)}, {0: 1.0, 1: 0.0})
    assert calm[0][1] < 1.0 < restless[0][1]


def test_a_lone_peer_has_no_match() -> None:
    assert rate_match(SETTINGS, {3: (30.0, 2.0)}, {3: -99.0}) == {3: (30.0, 2.0)}
    assert rate_match(SETTINGS, {}, {}) == {}


def test_names_decide_nothing() -> None:
    ratings = {1: (20.0, 3.0), 2: (30.0, 2.0), 3: (25.0, 8.0)}
    scores = {1: 0.1, 2: 0.1, 3: -99.0}
    rated = rate_match(SETTINGS, ratings, scores)
    renamed = rate_match(SETTINGS, {9 - uid: ratings[uid] for uid in ratings}, {9 - uid: scores[uid] for uid in scores})
    for uid in ratings:
        assert renamed[9 - uid] == pytest.approx(rated[uid], rel=1e-12)


def test_a_score_that_is_not_a_number_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="finite"):
        rate_match(SETTINGS, {0: (25.0, 8.0), 1: (25.0, 8.0)}, {0: math.nan, 1: 0.0})


def test_ranks_are_dense_and_start_with_the_best() -> None:
    assert dense_ranks([0.25, -99.0, 0.5, 0.25, 0.2500001]) == [2.0, 3.0, 0.0, 2.0, 1.0]


def test_who_plays_and_for_what() -> None:
    rows = [
        seen(0, gain=0.02),
        Evidence(uid=1, status="missing", evaluated=True),
        Evidence(uid=2, status="late", on_gather_list=True),
        seen(3, gain=-0.03, on_gather_list=True),  # read too late for the gather, but measured
        Evidence(uid=4, status="ok", gathered=True, on_gather_list=True),  # not drawn
        Evidence(uid=5, status="unseen", evaluated=True),  # could not be read: not to blame
        Evidence(uid=6, status="invalid", asked_as_reserve=True),
        seen(7, gain=0.5),  # excluded
    ]
    peers = {row.uid: established(excluded_until=31 if row.uid == 7 else -1) for row in rows}
    window = Window(30, {row.uid: row for row in rows}, frozenset(peers))
    scores = match_scores(SETTINGS, Standings(peers), window)
    assert scores == pytest.approx({0: 0.02, 1: -99, 2: -99, 3: -0.03, 6: -99})


def many_matches(settings: GauntletSettings, twins: bool, seed: int) -> list[float]:
    """Final mu of 60 equal peers after 30 matches; with `twins`, peers 0 and 1 always score the same."""
    luck = np.random.default_rng(seed)
    ratings: dict[int, Rating] = dict.fromkeys(range(60), (settings.mu, settings.sigma))
    for _ in range(30):
        scores = dict(enumerate(luck.normal(size=60).tolist()))
        if twins:
            scores[1] = scores[0]
        ratings = rate_match(settings, ratings, scores, dict(enumerate(luck.random(60).tolist())))
    return [ratings[uid][0] for uid in range(60)]


def test_a_shared_rank_costs_both_who_share_it() -> None:
    """openskill splits the credit of one place: a peer that is copied to the last bit falls with its copy."""
    shared = np.array([many_matches(GauntletSettings(), True, seed) for seed in range(12)])
    alone = np.array([many_matches(GauntletSettings(), False, seed) for seed in range(12)])
    assert shared[:, 0] == pytest.approx(shared[:, 1])
    loss = alone[:, 0].mean() - shared[:, 0].mean()
    spread = np.hypot(alone[:, 0].std(ddof=1), shared[:, 0].std(ddof=1)) / np.sqrt(12)
    assert loss > 5
    assert loss > 3 * spread


def test_drawn_ties_cost_nothing() -> None:
    drawn = np.array([many_matches(GauntletSettings(ties="drawn"), True, seed)[:2] for seed in range(12)])
    assert abs(drawn.mean() - 25) < 3 * drawn.std(ddof=1) / np.sqrt(12)


def test_lots_order_equals_and_nothing_else() -> None:
    assert drawn_ranks([1.0, 3.0, 1.0, 2.0], [0.5, 0.0, 0.4, 0.9]) == [3.0, 0.0, 2.0, 1.0]


def test_drawn_ties_follow_the_lots_of_the_window() -> None:
    """Of two exact copies the one with the lower lot wins, whoever is listed first."""
    rules = GauntletSettings(ties="drawn")
    for winner in (0, 1):
        standings = judge(
            rules,
            Standings(),
            [seen(uid, gain=0.1) for uid in (0, 1)],
            round=0,
            active=(0, 1),
            places=(1, 1),
            lots=lambda uid, winner=winner: 0.1 if uid == winner else 0.7,  # type: ignore[misc]
        ).standings.peers
        assert standings[winner].mu > 25 > standings[1 - winner].mu
