"""Harmful payloads: what evaluations below 0 cost, and what a window that is bad for all spares."""

from __future__ import annotations

import pytest
from gauntlet_windows import eligible, established, fired, judged, seen

from covsim.gauntlet.evidence import Evidence, Standing
from covsim.gauntlet.settings import GauntletSettings


def history(*negatives: bool) -> Standing:
    return established(negatives=negatives, negatives_in_a_row=0)


GUARDED = GauntletSettings.model_validate({"quirks": {"benched_in_bad_windows": False}})
GOOD_WINDOW = [seen(uid, gain=0.01 * uid) for uid in range(1, 7)]
BAD_WINDOW = [seen(uid, gain=0.01 * (4.5 - uid)) for uid in range(1, 7)]  # the fifth best is negative


def test_mostly_negative_peers_lose_three_quarters_in_every_window() -> None:
    peer = history(True, True, True, True, True, False, False, False)
    for factor in (0.25, 0.0625):
        judgement = judged(*GOOD_WINDOW, peers={0: peer})
        peer = judgement.standings.peers[0]
        assert (peer.final_score, peer.indicator_average) == pytest.approx((3 * factor, 0.5 * factor))
        assert fired(judgement)["mostly_negative"] == 1
    assert judgement.verdicts[0].evidence.status == "unseen"  # it was not looked at, yet it has a verdict


def test_four_negatives_of_eight_or_five_of_seven_are_spared() -> None:
    for negatives in ((True,) * 4 + (False,) * 4, (True,) * 5 + (False,) * 2):
        assert "mostly_negative" not in fired(judged(*GOOD_WINDOW, peers={0: history(*negatives)}))


def test_where_nothing_is_left_nothing_is_slashed() -> None:
    poor = established(negatives=(True,) * 8, final_score=0.0)
    judgement = judged(*GOOD_WINDOW, peers={0: poor})
    assert "mostly_negative" not in fired(judgement)
    assert eligible(judgement, "mostly_negative") == 1


def test_this_window_counts() -> None:
    peer = history(False, True, True, True, True, False, False, False)
    judgement = judged(seen(0, gain=-0.01), *GOOD_WINDOW, peers={0: peer})
    assert judgement.standings.peers[0].negatives == (True, True, True, True, False, False, False, True)
    assert fired(judgement)["mostly_negative"] == 1


def test_a_streak_benches_until_a_positive_evaluation() -> None:
    peer = established()
    benched = []
    for now, gain in enumerate((-0.01, -0.02, -0.03, -0.01, 0.0)):
        peer = judged(seen(0, gain=gain), *GOOD_WINDOW, peers={0: peer}, round=now).standings.peers[0]
        benched.append(peer.benched)
    assert benched == [False, False, True, True, False]
    assert peer.negatives_in_a_row == 0


def test_a_bad_window_spares_them_all_until_the_next_good_one() -> None:
    peer = established(negatives=(True,) * 8, negatives_in_a_row=8)
    spared = judged(*BAD_WINDOW, peers={0: peer}, settings=GUARDED)
    assert fired(spared)["bad_window"] == 1
    assert spared.verdicts[0].reasons == ("bad_window: score of rank 5 is negative",)
    assert "mostly_negative" not in fired(spared)
    assert not spared.standings.peers[0].benched
    hit = judged(*GOOD_WINDOW, peers={0: spared.standings.peers[0]}, settings=GUARDED)
    assert hit.standings.peers[0].benched
    assert hit.standings.peers[0].final_score == pytest.approx(0.75)
    assert eligible(hit, "bad_window") == 1
    assert "bad_window" not in fired(hit)


def test_the_quirk_benches_in_bad_windows_too() -> None:
    """Nobody is told that the guard spared a peer from what it did not spare it from."""
    streak = established(negatives_in_a_row=3)
    benched = judged(*BAD_WINDOW, peers={0: streak})
    assert benched.standings.peers[0].benched
    assert "bad_window" not in fired(benched)
    assert eligible(benched, "bad_window") == 0
    spared = judged(*BAD_WINDOW, peers={0: streak}, settings=GUARDED)
    assert not spared.standings.peers[0].benched
    assert eligible(spared, "bad_window") == 1
    mostly = judged(*BAD_WINDOW, peers={0: established(negatives=(True,) * 8)})
    assert fired(mostly)["bad_window"] == 1  # what it costs in score is guarded all the same


def test_without_the_guard_every_window_is_good() -> None:
    rules = GauntletSettings(off=("bad_window",))
    peer = established(negatives=(True,) * 8, negatives_in_a_row=8)
    hit = judged(*BAD_WINDOW, peers={0: peer}, settings=rules).standings.peers[0]
    assert hit.benched
    assert hit.final_score == pytest.approx(0.75)


def test_penalties_count_towards_a_bad_window() -> None:
    peer = established(negatives=(True,) * 8)
    rows = [*GOOD_WINDOW[:4], Evidence(uid=9, status="missing", evaluated=True)]
    assert fired(judged(*rows, peers={0: peer}))["bad_window"] == 1


def test_a_window_whose_fifth_best_is_nil_is_not_bad() -> None:
    peer = established(negatives=(True,) * 8)
    rows = [seen(uid, gain=0.01 * (5 - uid)) for uid in range(1, 7)]
    assert "mostly_negative" in fired(judged(*rows, peers={0: peer}))


def test_in_a_small_window_the_lowest_score_tells() -> None:
    peer = established(negatives=(True,) * 8)
    assert "mostly_negative" in fired(judged(*GOOD_WINDOW[:2], peers={0: peer}))
    assert "bad_window" in fired(judged(seen(1, gain=0.1), seen(2, gain=-0.1), peers={0: peer}))
    assert "mostly_negative" in fired(judged(peers={0: peer}))  # without a match there is no bad window
