"""Copies: levels of overlap, what each costs, and whom it excludes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gauntlet_windows import SETTINGS, asked_in_vain, eligible, established, fired, gathered, judged, seen

from covsim.gauntlet.evidence import Evidence, newcomer
from covsim.gauntlet.settings import GauntletSettings

PEER = established()


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


@pytest.mark.parametrize(
    ("off", "rule"),
    [
        (("overlap_exclude",), "overlap_reset"),
        (("overlap_reset",), "overlap_exclude"),
        (("overlap_reset", "overlap_exclude"), "overlap_halve"),
        (("overlap_halve", "overlap_reset", "overlap_exclude"), None),
    ],
)
def test_a_copy_meets_the_highest_level_that_is_not_off(off: tuple[str, ...], rule: str | None) -> None:
    judgement = judged(copied(0, 1.0), peers={0: PEER}, settings=GauntletSettings(off=off))
    assert fired(judgement) == ({} if rule is None else {rule: 1})


def test_a_reset_raises_no_negative_score() -> None:
    judgement = judged(copied(0, 0.9), peers={0: established(final_score=-2.0)})
    assert judgement.standings.peers[0].final_score == -2
    assert judgement.standings.peers[0].excluded_until == 51
    assert fired(judgement) == {"overlap_exclude": 1, "no_improvement": 1}
