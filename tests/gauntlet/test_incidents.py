"""What went wrong on the live network, under the rules as they were and as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gauntlet_windows import established, judged, seen

from covsim.gauntlet.evidence import Evidence, Standing, newcomer
from covsim.gauntlet.settings import GauntletSettings

PAPER = GauntletSettings(preset="paper")
NOW = GauntletSettings()


def a_cheat_that_ignores_its_data(settings: GauntletSettings, rounds: int = 40) -> list[Standing]:
    """The last of six in every match, whose own data improve no more than random data; how it stands after each."""
    peers = {uid: newcomer(settings, 0) for uid in range(6)}
    history = []
    for now in range(rounds):
        rows = [seen(0, gain=-0.01, own_gain=-0.02), *(seen(uid, gain=0.01 * uid) for uid in range(1, 6))]
        peers = dict(judged(*rows, peers=peers, round=now, settings=settings).standings.peers)
        history.append(peers[0])
    return history


def test_two_negatives_multiply_into_a_reward() -> None:
    """Issue 108: a negative rating times a negative indicator average is a positive score, and it is paid."""
    cheat = a_cheat_that_ignores_its_data(PAPER)
    assert cheat[-1].ordinal < 0
    assert cheat[-1].indicator_average < -0.5
    assert cheat[-1].final_score == pytest.approx(cheat[-1].ordinal * cheat[-1].indicator_average)
    assert cheat[-1].final_score > 3
    assert [peer.final_score for peer in cheat] == sorted(peer.final_score for peer in cheat)
    assert cheat[-1].weight > 0.01


@pytest.mark.parametrize("fix", [{"score": {"indicator": "positive", "sync": False}}, {"preset": "v0.2"}])
def test_the_positive_part_ends_it(fix: dict[str, object]) -> None:
    """The fix alone, under rules that else are the paper's but for pay from 0 on; and the first version with it."""
    rules = GauntletSettings.model_validate({"preset": "paper", "weights": {"floor": "zero"}, **fix})
    cheat = a_cheat_that_ignores_its_data(rules)
    assert cheat[-1].ordinal < 0
    assert all(peer.final_score == 0 and peer.weight == 0 for peer in cheat)


@pytest.mark.parametrize("status", ["missing", "late"])
def test_who_stops_submitting_keeps_its_score_in_the_paper_and_loses_it_now(status: str) -> None:
    """Issue 51."""
    row = Evidence(uid=0, status=status, evaluated=True, steps_behind=0.0)  # type: ignore[arg-type]
    left = {}
    for name, rules in (("paper", PAPER), ("now", NOW)):
        peer = established()
        for now in range(30, 36):
            rows = [row, seen(1, gain=0.1), seen(2, gain=0.2)]
            peer = judged(*rows, peers={0: peer}, round=now, active={0, 1, 2}, settings=rules).standings.peers[0]
        left[name] = peer.final_score
    assert left["paper"] == 3
    assert left["now"] < 0.6


def test_slashing_a_negative_score_raises_it_no_more() -> None:
    """Issues 45 and 51: under every preset a factor leaves a negative score alone."""
    for preset in ("paper", "v0.2", "v1.0", "v2.1.0", "v2.1.28"):
        rules = GauntletSettings.model_validate({"preset": preset, "off": []})
        poor = established(final_score=-2.0, mu=1.0)
        row = Evidence(uid=0, status="late", evaluated=True, on_gather_list=True)
        gone = judged(row, peers={0: poor}, active=set(), settings=rules).standings.peers[0]
        assert gone.final_score == -2


def test_infinitesimal_scores_stayed_paid() -> None:
    """Fixed by a floor below which a slashed score vanishes (592)."""
    row = Evidence(uid=0, status="late", evaluated=True, steps_behind=0.0)
    for preset, paid in (("v1.0", True), ("v2.1.28", False)):
        rules = GauntletSettings.model_validate({"preset": preset})
        judgement = judged(row, peers={0: established(final_score=1e-4)}, settings=rules)
        assert (judgement.standings.peers[0].weight > 0) is paid


def test_partial_absence_was_cheap() -> None:
    """Missing three gathers in a row cost little more than half in v1.0 and costs everything now."""
    left = {}
    for preset in ("v1.0", "v2.1.28"):
        peer = established()
        for now in range(3):
            rows = [
                Evidence(uid=0, status="missing", on_gather_list=True, steps_behind=0.0),
                replace(seen(1, gain=0.1), on_gather_list=True, gathered=True, evaluated=False),
            ]
            rules = GauntletSettings.model_validate({"preset": preset})
            peer = judged(*rows, peers={0: peer}, round=now, settings=rules).standings.peers[0]
        left[preset] = peer.final_score
    assert left["v1.0"] == pytest.approx(3 * 0.75**3)
    assert left["v2.1.28"] == 0
