"""Every rule of the slashing table: what it cuts, by how much, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gauntlet_windows import SETTINGS, asked_in_vain, eligible, established, fired, gathered, judged, seen

from covsim.gauntlet.evidence import Evidence, Judgement, newcomer
from covsim.gauntlet.settings import GauntletSettings


def alone(uid: int, judgement: Judgement) -> tuple[float, float]:
    """Final score and indicator average."""
    peer = judgement.standings.peers[uid]
    return peer.final_score, peer.indicator_average


PEER = established()
LASTING = GauntletSettings.model_validate({"quirks": {"slash_overwritten": False}})
LASTING_FROM_THE_START = LASTING.model_copy(update={"indicator_threshold": 0.0})
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
    row = Evidence(uid=0, status="invalid", evaluated=True, steps_behind=0.0)
    peer = judged(row, seen(1, gain=0.1), peers={0: established(final_score=20.0)}).standings.peers[0]
    assert peer.mu < PEER.mu
    assert peer.final_score == pytest.approx(peer.ordinal * 0.5)
    assert peer.final_score > 3


def test_without_the_quirk_what_was_slashed_stays_slashed() -> None:
    """All factors of the window meet the score computed in it, and the next window forgets them."""
    row = replace(seen(0, gain=0.2), steps_behind=2.5, on_gather_list=True)  # late for the gather, and out of sync
    for rules, kept in ((SETTINGS, 1.0), (LASTING, 0.75 * 0.75)):
        judgement = judged(row, seen(5, gain=0.1), *OTHERS, peers={0: PEER}, settings=rules)
        peer = judgement.standings.peers[0]
        average = 0.95 * 0.5 * 0.75 * 0.75 + 0.05
        assert peer.indicator_average == pytest.approx(average)
        assert peer.final_score == pytest.approx(peer.ordinal * average * (1 / 6) ** 2.5 * kept)
        assert fired(judgement).get("slash_kept", 0) == (kept < 1)
        assert peer.cut == 1
        again = judged(seen(0, gain=0.2), seen(1, gain=0.1), peers={0: peer}, settings=rules).standings.peers[0]
        assert again.final_score == pytest.approx(again.ordinal * again.indicator_average)


def test_without_the_quirk_an_invalid_payload_leaves_nothing() -> None:
    row = Evidence(uid=0, status="invalid", evaluated=True, steps_behind=0.0)
    judgement = judged(row, seen(1, gain=0.1), peers={0: PEER}, settings=LASTING)
    assert alone(0, judgement) == (0, 0.5)


def test_without_the_quirk_a_slash_meets_a_score_that_was_not_positive_before() -> None:
    """There was nothing to cut when the rule acted; the score computed in the same window is cut all the same."""
    row = replace(seen(0, gain=0.2, gathered=True, on_gather_list=True), overlap=0.45, overlap_with=1)
    fresh = established(final_score=0.0)
    whole, halved = (
        alone(0, judged(row, seen(5, gain=0.1), *OTHERS, peers={0: fresh}, settings=rules))
        for rules in (SETTINGS, LASTING)
    )
    assert whole[1] == halved[1] == pytest.approx(0.525)
    assert halved[0] == pytest.approx(whole[0] / 2)


def test_without_the_quirk_a_reset_is_no_factor() -> None:
    row = replace(seen(0, gain=0.3), overlap=0.55, overlap_with=7)
    first, second = (
        judged(row, seen(1, gain=0.1), peers={0: PEER}, settings=rules, round=20).standings.peers[0]
        for rules in (SETTINGS.model_copy(update={"indicator_threshold": 0.0}), LASTING_FROM_THE_START)
    )
    assert first.final_score > 0
    assert second.final_score == first.final_score


def test_what_a_kept_slash_leaves_also_vanishes_below_the_floor() -> None:
    rules = GauntletSettings.model_validate(
        {"quirks": {"slash_overwritten": False}, "slashing": {"evaluated_missing": 1e-6}}
    )
    row = Evidence(uid=0, status="late", evaluated=True, steps_behind=0.0)
    judgement = judged(row, seen(1, gain=0.1), peers={0: PEER}, settings=rules)
    assert judgement.standings.peers[0].final_score == 0


# Sync -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behind", "why"),
    [
        (0.0, None),
        (2.0, None),
        (2.001, "2 steps behind > 2, x 0.75"),
        (math.inf, "inf steps behind > 2, x 0.75"),
        (math.nan, "no sync sample, x 0.75"),
        (-1.0, "no sync sample, x 0.75"),
    ],
)
def test_a_listed_peer_out_of_sync_loses_a_quarter(behind: float, why: str | None) -> None:
    judgement = judged(gathered(0, steps_behind=behind), peers={0: PEER})
    if why is None:
        assert alone(0, judgement) == (3, 0.5)
        assert judgement.verdicts[0].reasons == ()
    else:
        assert alone(0, judgement) == pytest.approx((2.25, 0.375))
        assert judgement.verdicts[0].reasons == (
            f"sync_behind: {why}: final score 3 -> 2.25, indicator average 0.5 -> 0.375",
        )


def test_only_listed_peers_are_slashed_for_being_out_of_sync() -> None:
    """Reserves and those who were only evaluated are not; whether a listed one submitted does not matter."""
    rows = [
        Evidence(uid=0, status="ok", asked_as_reserve=True, gathered=True),
        Evidence(uid=1, status="unseen", evaluated=True),
        gathered(2, steps_behind=math.nan),
        asked_in_vain(3, steps_behind=9.0),
    ]
    judgement = judged(*rows, peers={uid: established() for uid in range(4)})
    assert eligible(judgement, "sync_behind") == 2
    assert fired(judgement)["sync_behind"] == 2
    assert [alone(uid, judgement)[1] for uid in range(4)] == pytest.approx([0.5, 0.5, 0.375, 0.375 * 0.75])


def test_the_sync_slash_is_a_setting() -> None:
    rules = GauntletSettings.model_validate({"sync": {"max_behind": 1, "slash": "40 %"}})
    assert alone(0, judged(gathered(0, steps_behind=1.5), peers={0: PEER}, settings=rules)) == pytest.approx((1.2, 0.2))
    assert alone(0, judged(gathered(0, steps_behind=1.0), peers={0: PEER}, settings=rules)) == (3, 0.5)


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
