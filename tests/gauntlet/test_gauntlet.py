"""A window judged as a whole: order of the stages, scores, verdicts, and rules that are off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gauntlet_windows import SETTINGS, asked_in_vain, eligible, established, fired, gathered, judged, lots, seen

from covsim.gauntlet.evidence import Evidence, Standing, newcomer
from covsim.gauntlet.gauntlet import STAGES
from covsim.gauntlet.rating import rate_match
from covsim.gauntlet.settings import ALWAYS_ON, RULES, GauntletSettings
from covsim.gauntlet.weights import weigh


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
    assert all(peer.cut == 1 for peer in judgement.standings.peers.values())


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
    assert tuple(rules) == RULES
    assert len(RULES) == len(set(RULES)) == len(STAGES)
    assert rules.index("overlap_exclude") < rules.index("sync_behind") < rules.index("gather_miss")
    assert rules.index("evaluated_invalid") < rules.index("indicator") < rules.index("mostly_negative")
    assert rules[-5:] == ["penalty_score", "indicator_threshold", "sync_score", "slash_kept", "no_improvement"]


def test_reasons_name_rule_number_and_change() -> None:
    late = asked_in_vain(1, status="late", stored_s=9.0, evaluated=True, steps_behind=0.5)
    rows = [seen(0, gain=0.02, gathered=True, on_gather_list=True), late]
    judgement = judged(*rows, peers={1: established()})
    assert judgement.verdicts[1].reasons[:2] == (
        "gather_miss: asked in vain (late), miss 1 in a row, x 0.75: "
        "final score 3 -> 2.25, indicator average 0.5 -> 0.375",
        "evaluated_missing: late, x 0.75: final score 2.25 -> 1.688, indicator average 0.375 -> 0.2812",
    )
    penalty, sync, held = judgement.verdicts[1].reasons[2:]
    assert penalty.startswith("penalty_score: late, scores -99: ordinal 24 -> ")
    assert sync.startswith("sync_score: 0.5 steps behind, x 0.634: final score 6.")
    assert held.startswith("no_improvement: nothing was measured: final score 4.")
    assert held.endswith(" -> 3")
    assert math.isnan(judgement.verdicts[1].gradient_score)


def test_a_verdict_says_what_was_before() -> None:
    """What moved is in it even if no rule hit the peer."""
    known, rows = established(), (seen(0, gain=0.02), seen(1, gain=0.01))
    judgement = judged(*rows, peers={0: known}, round=5)
    first, second = judgement.verdicts
    assert first.reasons == second.reasons == ()
    assert first.before == known
    assert second.before == newcomer(SETTINGS, 5)
    assert first.standing == judgement.standings.peers[0]
    assert first.standing.mu > first.before.mu
    assert first.standing.indicator_average > first.before.indicator_average
    assert first.standing.final_score > first.before.final_score


def test_who_is_active_is_the_callers_to_say() -> None:
    rows = [seen(0, gain=0.02, active=False), seen(1, gain=0.01)]
    judgement = judged(*rows, peers={2: established()}, active={0})
    assert {verdict.evidence.uid: verdict.evidence.active for verdict in judgement.verdicts} == {
        0: True,
        1: False,
        2: False,
    }
    assert fired(judgement)["inactive"] == 1


def test_weights_follow_from_final_scores_places_and_lots() -> None:
    """Whoever reads those from a ledger computes the very same weights; ties included."""
    peers = {uid: established(final_score=float(uid % 3)) for uid in range(12)}
    judgement = judged(seen(0, gain=0.02), seen(1, gain=0.01), peers=peers, places=(4, 3))
    final_scores = {uid: peer.final_score for uid, peer in judgement.standings.peers.items()}
    again = weigh(SETTINGS.weights, final_scores, (4, 3), lots(30))
    assert tuple(sorted(again.shares.items())) == judgement.weights
    assert again.burned == judgement.burned
    other = weigh(SETTINGS.weights, final_scores, (4, 3), lots(32))
    assert other.shares != again.shares  # the lots did decide


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in ALWAYS_ON])
def test_a_rule_that_is_off_finds_nobody_and_could_have_found_nobody(rule: str) -> None:
    """In a window in which nearly every rule hits somebody; most others still do when one is off."""
    peers, rows, active = everything_at_once()
    quirks = {"slash_overwritten": False}
    on = judged(*rows, peers=peers, active=active, settings=GauntletSettings.model_validate({"quirks": quirks}))
    rules = GauntletSettings.model_validate({"quirks": quirks, "off": [rule]})
    off = judged(*rows, peers=peers, active=active, settings=rules)
    assert eligible(on, rule) > 0
    assert (rule in fired(on)) is (rule not in ("bad_window", "gather_quorum"))
    assert eligible(off, rule) == 0
    assert rule not in fired(off)
    assert not any(reason.startswith(rule + ":") for verdict in off.verdicts for reason in verdict.reasons)
    assert len(fired(off)) >= 12
    if rule == "gather_miss":  # what is remembered does not depend on it
        assert off.standings.peers[7].misses == on.standings.peers[7].misses == (True,)


def everything_at_once() -> tuple[dict[int, Standing], list[Evidence], set[int]]:
    """Peers, evidence and the active, such that all rules but quorum and guard find somebody."""
    often = (True,) * 8
    peers = {uid: established() for uid in range(40)} | {
        2: established(inactive_since=20),
        8: established(misses=often[:7]),
        11: established(negatives=often[:7]),
        12: established(negatives=often, negatives_in_a_row=7),
        13: established(indicator_average=0.02, final_score=0.0),
    }
    copies = {3: 0.45, 4: 0.55, 5: 0.65}
    rows = [
        *(gathered(uid, overlap=share, overlap_with=20) for uid, share in copies.items()),
        gathered(6, steps_behind=2.5),
        *(asked_in_vain(uid) for uid in (7, 8)),
        Evidence(uid=9, status="missing", evaluated=True, steps_behind=0.0),
        Evidence(uid=10, status="invalid", evaluated=True, problem="too short", steps_behind=0.5),
        seen(11, gain=-0.01),
        seen(13, gain=0.01, own_gain=0.02),
        seen(14, gain=0.02, own_gain=0.01),
        *(seen(uid, gain=0.001 * uid, gathered=uid < 24, on_gather_list=uid < 24) for uid in range(20, 30)),
    ]
    return peers, rows, {*peers} - {1, 2}


def test_what_is_off_still_remembers() -> None:
    rules = GauntletSettings(off=("inactive", "gather_absence", "indicator"))
    peers = {0: established(), 1: established(misses=(True,) * 7), 2: established()}
    judgement = judged(asked_in_vain(1), gathered(3), seen(2, gain=0.1), peers=peers, active={1, 2, 3}, settings=rules)
    after = judgement.standings.peers
    assert after[0].inactive_since == 30
    assert after[0].final_score == 3
    assert after[1].misses == (True,) * 8
    assert after[1].excluded_until == -1
    assert after[2].indicator_average == pytest.approx(0.525)


def test_without_the_indicator_the_rating_alone_counts() -> None:
    rules = GauntletSettings(off=("indicator",))
    rows = [seen(0, gain=0.02, own_gain=0.01), seen(1, gain=0.01)]
    peer = judged(*rows, peers={0: established()}, settings=rules).standings.peers[0]
    assert peer.indicator_average == pytest.approx(0.425)
    assert peer.final_score == pytest.approx(peer.ordinal)


def test_without_the_penalty_who_sends_nothing_plays_no_match() -> None:
    rules = GauntletSettings(off=("penalty_score", "evaluated_missing"))
    rows = [Evidence(uid=0, status="missing", evaluated=True), seen(1, gain=0.1), seen(2, gain=0.2)]
    peer = judged(*rows, peers={0: established()}, settings=rules).standings.peers[0]
    assert (peer.mu, peer.sigma, peer.final_score) == (30, 2, 3)


def test_without_the_quorum_rule_misses_in_a_row_count_in_any_gather() -> None:
    rules = GauntletSettings(off=("gather_quorum",))
    judgement = judged(asked_in_vain(0), peers={0: established()}, settings=rules)
    assert fired(judgement)["gather_miss"] == 1
    assert judgement.standings.peers[0].final_score == pytest.approx(2.25)


def test_a_gather_that_brought_nothing_zeroes_all_who_were_asked() -> None:
    """The share of a gather without a payload is 0, also for one lone peer."""
    peers = {uid: established() for uid in range(4)}
    judgement = judged(*(asked_in_vain(uid) for uid in range(3)), peers=peers)
    assert fired(judgement)["gather_quorum"] == 3
    assert [judgement.standings.peers[uid].indicator_average for uid in range(4)] == [0, 0, 0, 0.5]
    assert dict(judgement.weights) == {3: 0.5}
    lone = judged(asked_in_vain(0), peers={0: established()})
    assert lone.standings.peers[0].final_score == 0
    assert judged(peers={0: established()}).standings.peers[0].final_score == 3  # nobody was asked
