"""A window judged as a whole: order of the stages, scores, and what can never earn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from gauntlet_windows import SETTINGS, eligible, established, fired, judged, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.gauntlet.evidence import Evidence, Judgement, Standing, Standings, newcomer
from covsim.gauntlet.gauntlet import STAGES, judge
from covsim.gauntlet.rating import rate_match
from covsim.gauntlet.settings import GauntletSettings


def test_a_measured_window_by_hand() -> None:
    """Ratings from one match, averages one step from 0, final score = ordinal x average, weights by final score."""
    rows = [seen(0, gain=0.02), seen(1, gain=0.03), seen(2, gain=0.01, own_gain=0.005)]
    judgement = judged(*rows, round=3)
    ratings = rate_match(SETTINGS, dict.fromkeys(range(3), (25.0, 25 / 3)), {0: 0.02, 1: 0.03, 2: 0.01})
    for uid, average in ((0, 0.05), (1, 0.05), (2, -0.05)):
        peer = judgement.standings.peers[uid]
        assert (peer.mu, peer.sigma) == pytest.approx(ratings[uid])
        assert peer.indicator_average == pytest.approx(average)
        assert peer.final_score == pytest.approx((peer.mu - 3 * peer.sigma) * max(0.0, average))
        assert (peer.evaluations, peer.last_evaluated, peer.enrolled_round) == (1, 3, 3)
    assert [uid for uid, _ in judgement.weights] == [0, 1]
    assert dict(judgement.weights) == pytest.approx({1: 0.5 * 2 / 3, 0: 0.5 / 3})
    assert judgement.burned == 0.5
    assert [verdict.indicator for verdict in judgement.verdicts] == [1, 1, -1]
    assert [verdict.gradient_score for verdict in judgement.verdicts] == pytest.approx([0.02, 0.03, 0.01])
    assert fired(judgement) == {"indicator": 1}


def test_the_average_moves_by_a_twentieth() -> None:
    peer, expected = newcomer(SETTINGS, 0), 0.0
    for sign in (1, 1, -1, 1):
        row = seen(0, gain=0.01, own_gain=0.01 + 0.01 * sign)
        peer = judged(row, peers={0: peer}, round=3).standings.peers[0]
        expected = 0.95 * expected + 0.05 * sign
        assert peer.indicator_average == pytest.approx(expected)


@pytest.mark.parametrize(("now", "counts"), [(9, True), (10, False)])
def test_the_threshold_acts_after_its_grace(now: int, counts: bool) -> None:
    low = established(indicator_average=0.05)
    judgement = judged(seen(0, gain=0.02), seen(1, gain=0.01), peers={0: low}, round=now)
    average = 0.95 * 0.05 + 0.05
    assert judgement.standings.peers[0].indicator_average == pytest.approx(average)
    assert (judgement.standings.peers[0].final_score > 0) is counts
    assert eligible(judgement, "indicator_threshold") == (0 if counts else 2)


def test_at_the_threshold_an_average_counts() -> None:
    """0.95 a + 0.05 = 0.10 for a = 0.05 / 0.95; a bit more, so that rounding does not decide."""
    for start, counts in ((0.05 / 0.95 + 1e-9, True), (0.05 / 0.95 - 1e-9, False)):
        peers = {0: established(indicator_average=start)}
        judgement = judged(seen(0, gain=0.02), seen(1, gain=0.01), peers=peers)
        assert (judgement.standings.peers[0].final_score > 0) is counts


@pytest.mark.parametrize("now", [3, 30])
def test_a_negative_average_never_counts(now: int) -> None:
    """Also not times a negative ordinal: two negatives once made a reward."""
    poor = established(mu=1.0, indicator_average=-0.5)
    judgement = judged(seen(0, gain=0.01), seen(1, gain=0.02), peers={0: poor}, round=now)
    assert judgement.standings.peers[0].ordinal < 0
    assert judgement.standings.peers[0].final_score == 0


def test_only_the_match_changes_final_scores_and_ratings() -> None:
    bystander = established()
    judgement = judged(seen(0, gain=0.02), seen(1, gain=0.01), peers={5: bystander})
    assert replace(judgement.standings.peers[5], weight=0) == bystander
    assert judgement.standings.peers[5].weight > 0  # and yet it is paid for what it earned before


def test_a_lone_peer_has_no_match_and_keeps_its_final_score() -> None:
    judgement = judged(seen(0, gain=0.02), peers={0: established()})
    peer = judgement.standings.peers[0]
    assert (peer.mu, peer.sigma, peer.final_score) == (30, 2, 3)
    assert peer.indicator_average == pytest.approx(0.525)


def test_everybody_active_is_enrolled() -> None:
    judgement = judged(seen(3, gain=0.1), active=range(6), round=7)
    assert list(judgement.standings.peers) == list(range(6))
    assert judgement.standings.peers[5] == newcomer(SETTINGS, 7)
    assert [verdict.evidence.uid for verdict in judgement.verdicts] == [3]


def test_a_judgement_leaves_its_input_alone() -> None:
    peers = {0: established(), 1: established()}
    before = dict(peers)
    judged(seen(0, gain=0.02), Evidence(uid=1, status="invalid", evaluated=True), peers=peers)
    assert peers == before


def test_every_stage_reports_its_coverage_in_order() -> None:
    rules = [entry.rule for entry in judged(seen(0, gain=0.02)).coverage]
    assert len(rules) == len(set(rules)) == len(STAGES)
    assert rules.index("overlap_exclude") < rules.index("gather_miss") < rules.index("evaluated_invalid")
    assert rules.index("indicator") < rules.index("mostly_negative") < rules.index("penalty_score")
    assert rules[-1] == "indicator_threshold"


def test_reasons_name_rule_number_and_change() -> None:
    late = Evidence(uid=1, status="late", stored_s=9.0, evaluated=True, on_gather_list=True)
    rows = [seen(0, gain=0.02, gathered=True, on_gather_list=True), late]
    judgement = judged(*rows, peers={1: established()})
    assert judgement.verdicts[1].reasons[:2] == (
        "gather_miss: asked in vain (late), miss 1 in a row, x 0.75: "
        "final score 3 -> 2.25, indicator average 0.5 -> 0.375",
        "evaluated_missing: late, x 0.75: final score 2.25 -> 1.688, indicator average 0.375 -> 0.2812",
    )
    assert judgement.verdicts[1].reasons[2].startswith("penalty_score: late, scores -99: ordinal 24 -> ")
    assert math.isnan(judgement.verdicts[1].gradient_score)


# What can never earn --------------------------------------------------------------------------------------------------

ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
BAD_STATUS = st.sampled_from(["missing", "late", "early", "invalid", "unseen"])


@st.composite
def worthless(draw: st.DrawFn, uid: int) -> Evidence:
    """A submission without a finite measured loss: missing, invalid, or exploding."""
    role = {name: draw(st.booleans()) for name in ("evaluated", "on_gather_list", "gathered")}
    losses = {name: draw(ANYTHING) for name in ("own_before", "own_after", "random_before", "random_after")}
    if draw(st.booleans()):
        return Evidence(uid=uid, status=draw(BAD_STATUS), **role, **losses)
    losses[draw(st.sampled_from(sorted(losses)))] = draw(NOT_FINITE)
    return Evidence(uid=uid, status="ok", **role, **losses)


@st.composite
def anything(draw: st.DrawFn, uid: int) -> Evidence:
    """Whatever a validator may ever hand in, absurd numbers included."""
    role = {name: draw(st.booleans()) for name in ("evaluated", "on_gather_list", "asked_as_reserve", "gathered")}
    losses = {name: draw(ANYTHING) for name in ("own_before", "own_after", "random_before", "random_after")}
    overlap = draw(st.one_of(st.just(math.nan), st.floats(0, 1)))
    return Evidence(uid=uid, status=draw(st.one_of(st.just("ok"), BAD_STATUS)), **role, **losses, overlap=overlap)


def play(windows: list[list[Evidence]], rules: GauntletSettings = SETTINGS) -> list[Judgement]:
    """Several windows one after the other, everybody active."""
    judgements, standings = [], Standings()
    for now, rows in enumerate(windows):
        judgement = judge(
            rules,
            standings,
            rows,
            round=now,
            active=range(8),
            places=(3, 2),
            generator=np.random.default_rng(now),
        )
        judgements.append(judgement)
        standings = judgement.standings
    return judgements


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_without_a_finite_measurement_nobody_ever_earns(data: st.DataObject) -> None:
    windows = [
        [*(data.draw(worthless(uid)) for uid in range(4)), *(seen(uid, gain=0.01 * uid) for uid in range(4, 8))]
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    for judgement in play(windows):
        assert all(judgement.standings.peers[uid].final_score <= 0 for uid in range(4))
        assert not {uid for uid, _ in judgement.weights} & set(range(4))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_handed_in_the_books_stay_sound(data: st.DataObject) -> None:
    rules = GauntletSettings.model_validate({"overlap": {"from_round": 1}, "indicator_grace_windows": 2})
    windows = [[data.draw(anything(uid)) for uid in range(8)] for _ in range(data.draw(st.integers(1, 6)))]
    for judgement in play(windows, rules):
        assert sum(weight for _, weight in judgement.weights) + judgement.burned == pytest.approx(1)
        assert all(0 <= weight <= 1 for _, weight in judgement.weights)
        for peer in judgement.standings.peers.values():
            assert all(map(math.isfinite, (peer.mu, peer.sigma, peer.final_score, peer.weight)))
            assert -1 <= peer.indicator_average <= 1
            assert peer.sigma > 0
        for entry in judgement.coverage:
            assert 0 <= entry.fired <= entry.eligible
        assert [verdict.evidence.uid for verdict in judgement.verdicts] == list(range(8))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_names_and_listing_order_decide_nothing(data: st.DataObject) -> None:
    """The same evidence under permuted uids, handed in in another order, gives the same fates."""
    names = data.draw(st.permutations(range(8)))
    windows = [[data.draw(anything(uid)) for uid in range(8)] for _ in range(3)]
    renamed = [list(reversed([replace(row, uid=names[row.uid]) for row in rows])) for rows in windows]
    for first, second in zip(play(windows), play(renamed), strict=True):
        for uid in range(8):
            ours, theirs = first.standings.peers[uid], second.standings.peers[names[uid]]
            assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=1e-9, abs=1e-9)


def _numbers(peer: Standing) -> list[float]:
    return [peer.mu, peer.sigma, peer.final_score, peer.indicator_average, peer.misses_in_a_row, peer.excluded_until]
