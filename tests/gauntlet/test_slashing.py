"""Every rule of the slashing table: what it cuts, by how much, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gauntlet_windows import SETTINGS, eligible, established, fired, judged, seen

from covsim.gauntlet.evidence import Evidence, Judgement, Standing, newcomer
from covsim.gauntlet.settings import GauntletSettings, OverlapRules


def alone(uid: int, judgement: Judgement) -> tuple[float, float]:
    """Final score and indicator average."""
    peer = judgement.standings.peers[uid]
    return peer.final_score, peer.indicator_average


def asked_in_vain(uid: int, **more: object) -> Evidence:
    return Evidence(uid=uid, status="missing", on_gather_list=True, **more)  # type: ignore[arg-type]


def gathered(uid: int, **more: object) -> Evidence:
    return Evidence(uid=uid, status="ok", stored_s=1.0, on_gather_list=True, gathered=True, **more)  # type: ignore[arg-type]


PEER = established()
OTHERS = [gathered(uid) for uid in (1, 2)]  # they keep the gather above its quorum and play no match


# Missing, late, invalid -----------------------------------------------------------------------------------------------


def test_misses_in_a_row_cut_deeper_and_a_success_forgives() -> None:
    peer, scores = PEER, []
    for now in range(4):
        judgement = judged(asked_in_vain(0), *OTHERS, peers={0: peer}, round=now)
        peer = judgement.standings.peers[0]
        scores.append((peer.final_score, peer.indicator_average, peer.misses_in_a_row))
    assert scores == [(2.25, 0.375, 1), (1.125, 0.1875, 2), (0, 0, 3), (0, 0, 4)]
    judgement = judged(gathered(0), *OTHERS, peers={0: peer}, round=4)
    assert judgement.standings.peers[0].misses_in_a_row == 0
    assert judgement.standings.peers[0].misses == (True, True, True, True, False)


@pytest.mark.parametrize("status", ["missing", "late", "early", "invalid", "unseen"])
def test_whatever_kept_a_listed_payload_out_is_a_miss(status: str) -> None:
    row = replace(asked_in_vain(0), status=status)  # type: ignore[arg-type]
    judgement = judged(row, *OTHERS, peers={0: PEER})
    assert alone(0, judgement) == pytest.approx((2.25, 0.375))
    assert fired(judgement) == {"gather_miss": 1, "penalty_score": 1}


def test_a_reserve_that_cannot_stand_in_is_a_miss_too() -> None:
    row = Evidence(uid=0, status="missing", asked_as_reserve=True)
    assert alone(0, judged(row, *OTHERS, peers={0: PEER})) == pytest.approx((2.25, 0.375))


def test_a_failed_quorum_zeroes_who_missed_it() -> None:
    rows = [asked_in_vain(uid) for uid in range(4)] + [gathered(4), gathered(5)]  # 33 % < 40 %
    judgement = judged(*rows, peers={uid: established() for uid in range(6)})
    # Two or more missing peers play a match, so their final scores are computed anew, from averages that are now 0.
    assert [alone(uid, judgement) for uid in range(6)] == [(0, 0)] * 4 + [(3, 0.5)] * 2
    assert fired(judgement)["gather_quorum"] == 4
    assert "gather_miss" not in fired(judgement)


def test_reserves_count_towards_the_quorum() -> None:
    rows = [asked_in_vain(0), asked_in_vain(1), gathered(2)]
    stand_in = Evidence(uid=9, status="ok", asked_as_reserve=True, gathered=True)
    assert "gather_quorum" in fired(judged(*rows, peers={}))
    assert "gather_quorum" not in fired(judged(*rows, stand_in, peers={}))  # 2 of 3 listed


def test_a_quorum_just_met_is_met() -> None:
    rows = [asked_in_vain(uid) for uid in range(3)] + [gathered(3), gathered(4)]  # 40 %
    assert fired(judged(*rows))["gather_miss"] == 3
    assert "gather_quorum" not in fired(judged(*rows))


def test_four_misses_of_eight_exclude() -> None:
    almost = replace(PEER, misses=(True, False, True, False, True, False, False))
    judgement = judged(asked_in_vain(0), *OTHERS, peers={0: almost}, round=30)
    peer = judgement.standings.peers[0]
    assert peer == replace(newcomer(SETTINGS, 30), excluded_until=51)
    assert peer.excluded(50)
    assert not peer.excluded(51)
    assert fired(judgement) == {"gather_absence": 1}  # no other cut, and out of the match
    assert (
        judgement.verdicts[0].reasons[0].startswith("gather_absence: missed 4 of the last 8 gathers: final score 3 ->")
    )


def test_half_of_a_short_history_does_not_exclude() -> None:
    short = replace(PEER, misses=(True, True, True, False, False, False))
    assert fired(judged(asked_in_vain(0), *OTHERS, peers={0: short})) == {"gather_miss": 1, "penalty_score": 1}


def test_an_old_absence_does_not_exclude_who_is_back() -> None:
    back = replace(PEER, misses=(True, True, True, True, True, False, False))
    assert fired(judged(gathered(0), *OTHERS, peers={0: back})) == {}


@pytest.mark.parametrize("status", ["missing", "late", "early"])
def test_evaluated_without_a_submission_in_time(status: str) -> None:
    row = Evidence(uid=0, status=status, evaluated=True)  # type: ignore[arg-type]
    judgement = judged(row, peers={0: PEER})
    assert alone(0, judgement) == pytest.approx((2.25, 0.375))
    assert judgement.verdicts[0].reasons[0] == (
        f"evaluated_missing: {status}, x 0.75: final score 3 -> 2.25, indicator average 0.5 -> 0.375"
    )


def test_asked_in_vain_and_evaluated_is_slashed_twice() -> None:
    judgement = judged(asked_in_vain(0, evaluated=True), *OTHERS, peers={0: PEER})
    assert alone(0, judgement) == pytest.approx((3 * 0.75 * 0.75, 0.5 * 0.75 * 0.75))


def test_an_invalid_payload_costs_the_final_score_and_not_the_average() -> None:
    row = Evidence(uid=0, status="invalid", problem="scale is nan", evaluated=True)
    judgement = judged(row, peers={0: PEER})
    assert alone(0, judgement) == (0, 0.5)
    assert judgement.verdicts[0].reasons[0] == "evaluated_invalid: scale is nan: final score 3 -> 0"


def test_a_failed_read_in_the_evaluation_harms_nobody() -> None:
    judgement = judged(Evidence(uid=0, status="unseen", evaluated=True), peers={0: PEER})
    assert alone(0, judgement) == (3, 0.5)
    assert fired(judgement) == {}
    assert judgement.standings.peers[0].last_evaluated == 30  # its turn is over all the same


@pytest.mark.parametrize("score", [0.0, -2.0])
def test_a_score_that_is_not_positive_cannot_be_slashed(score: float) -> None:
    """A factor would raise a negative one."""
    poor = established(final_score=score)
    rows = [asked_in_vain(0, evaluated=True), Evidence(uid=0, status="invalid", evaluated=True)]
    for row in rows:
        assert alone(0, judged(row, *OTHERS, peers={0: poor})) == (score, 0.5)


def test_what_is_left_of_a_slashed_score_vanishes_below_the_floor() -> None:
    tiny = established(final_score=1.2e-4)
    assert alone(0, judged(asked_in_vain(0), *OTHERS, peers={0: tiny})) == pytest.approx((0, 0.375))


def test_a_slash_on_the_final_score_is_overwritten_by_the_match() -> None:
    """The quirk: with a match to play, only the cut average and the penalty persist."""
    judgement = judged(Evidence(uid=0, status="invalid", evaluated=True), seen(1, gain=0.1), peers={0: PEER})
    peer = judgement.standings.peers[0]
    assert peer.mu < PEER.mu
    assert peer.final_score == pytest.approx(peer.ordinal * 0.5)
    assert peer.final_score > 3


# Overlap --------------------------------------------------------------------------------------------------------------


def copied(uid: int, share: float) -> Evidence:
    return gathered(uid, overlap=share, overlap_with=7, overlap_stored_s=0.5)


@pytest.mark.parametrize(
    ("share", "rule"),
    [
        (0.39, None),
        (0.4, "overlap_halve"),
        (0.49, "overlap_halve"),
        (0.5, "overlap_reset"),
        (0.59, "overlap_reset"),
        (0.6, "overlap_exclude"),
        (1.0, "overlap_exclude"),
    ],
)
def test_levels_of_overlap(share: float, rule: str | None) -> None:
    judgement = judged(copied(0, share), peers={0: PEER}, round=20)
    left = {
        None: replace(PEER, misses=(False,)),
        "overlap_halve": replace(PEER, misses=(False,), final_score=1.5, indicator_average=0.25),
        "overlap_reset": replace(newcomer(SETTINGS, 20), misses=(False,)),
        "overlap_exclude": replace(newcomer(SETTINGS, 20), excluded_until=41),
    }
    assert fired(judgement) == ({} if rule is None else {rule: 1})
    assert replace(judgement.standings.peers[0], weight=0) == left[rule]


def test_the_overlap_rule_waits_for_its_round() -> None:
    early, later = (judged(copied(0, 1.0), peers={0: PEER}, round=now) for now in (19, 20))
    assert fired(early) == {}
    assert eligible(early, "overlap_exclude") == 0
    assert fired(later) == {"overlap_exclude": 1}
    assert later.verdicts[0].reasons == (
        "overlap_exclude: overlap 1.00 with uid 7 >= 0.60: final score 3 -> 0, indicator average 0.5 -> 0, "
        "ordinal 24 -> 0, excluded until round 41",
    )


def test_excluded_peers_are_out_of_everything_but_the_overlap_rule() -> None:
    out = replace(newcomer(SETTINGS, 20), excluded_until=41)
    rows = [asked_in_vain(0, evaluated=True), replace(seen(0, gain=0.3), on_gather_list=True, gathered=True)]
    for row in rows:
        judgement = judged(row, seen(1, gain=0.1), peers={0: out}, round=40)
        assert judgement.standings.peers[0] == out
    renewed = judged(copied(0, 0.9), peers={0: out}, round=22)
    assert renewed.standings.peers[0].excluded_until == 43


def test_a_reset_does_not_end_an_exclusion() -> None:
    out = replace(newcomer(SETTINGS, 20), excluded_until=41)
    assert judged(copied(0, 0.5), peers={0: out}, round=22).standings.peers[0].excluded_until == 41


def test_a_reset_peer_still_plays_and_starts_from_scratch() -> None:
    row = replace(seen(0, gain=0.3), overlap=0.55, overlap_with=7)
    peer = judged(row, seen(1, gain=0.1), peers={0: established()}).standings.peers[0]
    assert peer.indicator_average == pytest.approx(0.05)
    assert peer.evaluations == 1
    assert 25 < peer.mu < 30


# Negative evaluations -------------------------------------------------------------------------------------------------


def history(*negatives: bool) -> Standing:
    return established(negatives=negatives, negatives_in_a_row=0)


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
    spared = judged(*BAD_WINDOW, peers={0: peer})
    assert fired(spared)["bad_window"] == 1
    assert "mostly_negative" not in fired(spared)
    assert not spared.standings.peers[0].benched
    hit = judged(*GOOD_WINDOW, peers={0: spared.standings.peers[0]})
    assert hit.standings.peers[0].benched
    assert hit.standings.peers[0].final_score == pytest.approx(0.75)
    assert eligible(hit, "bad_window") == 1
    assert "bad_window" not in fired(hit)


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


# Inactivity -----------------------------------------------------------------------------------------------------------


def test_inactive_peers_fade_and_then_start_over() -> None:
    peer, left = established(), []
    for now in range(30, 35):
        judgement = judged(peers={0: peer}, active=set(), round=now)
        peer = judgement.standings.peers[0]
        left.append((peer.final_score, peer.indicator_average))
    assert left == [(3 * 0.75**n, 0.5) for n in (1, 2, 3)] + [(0, 0)] * 2
    assert fired(judgement) == {}  # it starts over once
    assert peer.inactive_since == 30
    assert judged(peers={0: peer}, active={0}, round=35).standings.peers[0].inactive_since == -1


def test_who_comes_back_in_time_keeps_the_rest() -> None:
    gone = judged(peers={0: established()}, active=set(), round=30).standings.peers[0]
    back = judged(peers={0: gone}, active={0}, round=31).standings.peers[0]
    assert (back.final_score, back.inactive_since) == (2.25, -1)


# Settings -------------------------------------------------------------------------------------------------------------


def test_every_constant_is_a_setting() -> None:
    milder = GauntletSettings.model_validate({"slashing": {"misses": ["90 %", 0.8], "evaluated_missing": 1}})
    peer = established()
    for expected in (2.7, 2.7 * 0.8, 2.7 * 0.8 * 0.8):
        peer = judged(asked_in_vain(0), *OTHERS, peers={0: peer}, settings=milder).standings.peers[0]
        assert peer.final_score == pytest.approx(expected)


@pytest.mark.parametrize("levels", [{"halve": 0.7}, {"reset": 0.3}, {"exclude": 0.45}, {"halve": 0}])
def test_overlap_levels_must_rise(levels: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="overlap levels must rise"):
        OverlapRules(**levels)


@pytest.mark.parametrize(
    "section",
    [
        {"beta": 0},
        {"beta": math.nan},
        {"mu": math.inf},
        {"indicator_decay": 1.5},
        {"evaluated_per_window": 0},
        {"preset": "v9"},
        {"slashing": {"misses": []}},
        {"weights": {"gather_share": 0}},
        {"betta": 7},
    ],
)
def test_absurd_settings_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        GauntletSettings.model_validate(section)


def test_settings_survive_being_written_down() -> None:
    changed = GauntletSettings.model_validate({"beta": 20, "slashing": {"misses": [0.9]}, "overlap": {"halve": "45 %"}})
    for written in (SETTINGS, changed):
        text = written.model_dump(mode="json")
        assert GauntletSettings.model_validate(text).model_dump(mode="json") == text
