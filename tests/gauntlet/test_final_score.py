"""What the final score is made of, and what holds it down."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gauntlet_windows import asked_in_vain, eligible, established, fired, gathered, judged, seen

from covsim.gauntlet.evidence import Evidence, Standing
from covsim.gauntlet.settings import GauntletSettings

STRICT = GauntletSettings.model_validate({"quirks": {"rank_without_improvement": False}})


def rules(**score: object) -> GauntletSettings:
    return GauntletSettings.model_validate({"score": score})


def after(settings: GauntletSettings, peer: Standing, average: float, now: int = 3) -> Standing:
    """The peer after a match that it loses, when its indicator average before was such that it now is `average`."""
    start = replace(peer, indicator_average=(average + 0.05) / 0.95)
    row = seen(0, gain=0.01, own_gain=0.005)
    return judged(row, seen(1, gain=0.02), peers={0: start}, round=now, settings=settings).standings.peers[0]


@pytest.mark.parametrize("rating", ["ordinal", "mu"])
def test_the_rating_is_the_ordinal_or_mu(rating: str) -> None:
    peer = after(rules(rating=rating), established(), 0.4)
    assert peer.final_score == pytest.approx(0.4 * (peer.mu if rating == "mu" else peer.mu - 3 * peer.sigma))


@pytest.mark.parametrize(("indicator", "counts"), [("positive", 0.0), ("signed", -0.4)])
def test_a_negative_average_counts_as_nothing_or_with_its_sign(indicator: str, counts: float) -> None:
    good, poor = established(), established(mu=1.0, final_score=0.0)
    for peer in (after(rules(indicator=indicator), start, -0.4) for start in (good, poor)):
        assert peer.indicator_average == pytest.approx(-0.4)
        assert peer.final_score == pytest.approx(peer.ordinal * counts)


@pytest.mark.parametrize("indicator", ["positive", "signed"])
def test_the_threshold_is_about_averages_that_are_not_negative(indicator: str) -> None:
    settings = rules(indicator=indicator)
    low, under, over = (after(settings, established(), average, now=10) for average in (-0.05, 0.05, 0.15))
    assert (low.final_score < 0) is (indicator == "signed")
    assert under.final_score == 0
    assert over.final_score > 0


def test_without_its_rule_there_is_no_threshold() -> None:
    assert after(GauntletSettings(off=("indicator_threshold",)), established(), 0.05, now=10).final_score > 0


# What holds it down ---------------------------------------------------------------------------------------------------


def test_a_missing_submission_raises_no_score() -> None:
    """Its score was cut in an earlier window; the code would compute it from the average and the rating again."""
    cut = established(final_score=0.5)
    for row in (
        asked_in_vain(0),
        Evidence(uid=0, status="late", evaluated=True, steps_behind=0.0),
        Evidence(uid=0, status="invalid", evaluated=True, steps_behind=0.0),
    ):
        judgement = judged(row, seen(1, gain=0.1), gathered(2), peers={0: cut})
        peer = judgement.standings.peers[0]
        assert peer.ordinal * peer.indicator_average > 0.5
        assert peer.final_score == 0.5
        assert judgement.verdicts[0].reasons[-1].startswith("no_improvement: nothing was measured: final score ")


def test_many_missing_submissions_share_a_match_and_none_rises() -> None:
    """They tie at the penalty, which sharpens their ratings: ordinals rise, final scores do not."""
    peers = {uid: established(sigma=8.0, mu=30.0, final_score=0.5) for uid in range(12)}
    rows = [Evidence(uid=uid, status="missing", evaluated=True, steps_behind=0.0) for uid in range(12)]
    judgement = judged(*rows, peers=peers)
    assert all(judgement.standings.peers[uid].ordinal > peers[uid].ordinal for uid in range(12))
    assert all(judgement.standings.peers[uid].final_score <= 0.5 for uid in range(12))


def test_doing_less_harm_than_others_raises_a_score_by_a_quirk() -> None:
    """The counterexample: a payload that makes the model worse raises its sender, because others did worse still."""
    rows = [seen(0, gain=-0.01, own_gain=0.0), *(seen(uid, gain=-0.1 * uid) for uid in range(1, 6))]
    before = established()
    risen = judged(*rows, peers={0: before})
    assert risen.verdicts[0].gradient_score < 0
    assert risen.standings.peers[0].ordinal > before.ordinal
    assert risen.standings.peers[0].final_score > before.final_score
    held = judged(*rows, peers={0: before}, settings=STRICT)
    assert held.standings.peers[0].ordinal == risen.standings.peers[0].ordinal
    assert held.standings.peers[0].final_score == before.final_score
    assert held.verdicts[0].reasons[-1].startswith("no_improvement: random data improved by -0.01: final score ")
    assert held.verdicts[0].reasons[-1].endswith(" -> 3")


@pytest.mark.parametrize("gain", [0.0, -1e-9])
def test_no_improvement_is_none(gain: float) -> None:
    rows = [seen(0, gain=gain, own_gain=0.1), seen(1, gain=-0.5)]
    assert judged(*rows, peers={0: established()}, settings=STRICT).standings.peers[0].final_score == 3
    assert judged(*rows, peers={0: established()}).standings.peers[0].final_score > 3


def test_an_improvement_may_raise_a_score() -> None:
    rows = [seen(0, gain=1e-9, own_gain=0.1), seen(1, gain=-0.5)]
    judgement = judged(*rows, peers={0: established()}, settings=STRICT)
    assert judgement.standings.peers[0].final_score > 3
    assert fired(judgement).get("no_improvement", 0) == 0
    assert eligible(judgement, "no_improvement") == 1  # the other one


def test_what_holds_a_score_down_lets_it_fall() -> None:
    rows = [seen(0, gain=-0.1), seen(1, gain=0.1)]
    peer = judged(*rows, peers={0: established(final_score=100.0)}, settings=STRICT).standings.peers[0]
    assert peer.final_score == pytest.approx(peer.ordinal * peer.indicator_average)


def test_a_negative_score_is_not_raised_to_nothing() -> None:
    """Neither by a factor, nor by a reset, nor by a sync score of 0."""
    poor = established(mu=1.0, final_score=-2.0, indicator_average=0.5)
    silent = Evidence(uid=0, status="missing", evaluated=True, steps_behind=math.nan)
    assert judged(silent, seen(1, gain=0.1), peers={0: poor}).standings.peers[0].final_score == -2
    gone = judged(peers={0: replace(poor, inactive_since=1)}, active=set()).standings.peers[0]
    assert gone.final_score == -2
    assert gone.mu == 25  # it did start over
