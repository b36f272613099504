"""Who each uid is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from covsim.scenario import Scenario, load, loads, population, resolved_text, with_seed

BASE = Path(__file__).parent / "base.yaml"


def reordered(scenario: Scenario) -> Scenario:
    """The same scenario with its cohorts listed the other way round."""
    return scenario.model_copy(update={"cohorts": dict(reversed(scenario.cohorts.items()))})


def test_every_uid_has_a_cohort() -> None:
    peers = population(load(BASE))
    assert [peer.uid for peer in peers] == list(range(24))
    assert Counter(peer.cohort for peer in peers) == {"honest": 18, "lazy": 3, "flippers": 2, "copycats": 1}
    assert {peer.cohort: peer.behavior.kind for peer in peers}["flippers"] == "sign_flip"


def test_listing_cohorts_in_another_order_changes_nothing() -> None:
    scenario = load(BASE)
    assert list(reordered(scenario).cohorts) != list(scenario.cohorts)
    assert population(reordered(scenario)) == population(scenario)


def test_the_seed_deals_anew() -> None:
    first, second = (population(load(BASE, {"seed": seed})) for seed in (1, 2))
    assert [peer.cohort for peer in first] != [peer.cohort for peer in second]
    assert population(load(BASE, {"seed": 1})) == first


def test_uids_are_not_dealt_in_blocks() -> None:
    """Over many seeds each uid is as often a cheater as any other."""
    scenario = load(BASE)
    runs = [population(with_seed(scenario, seed)) for seed in range(400)]
    cheats = Counter(peer.uid for peers in runs for peer in peers if peer.cohort != "honest")
    expected = 400 * 6 / 24
    assert all(abs(cheats[uid] - expected) < 5 * (expected * 0.75) ** 0.5 for uid in range(24))


def test_a_uid_keeps_its_links_when_others_join() -> None:
    """Draws are keyed by uid: as long as the cohort is the same kind of peer, its luck is too."""
    few, many = load(BASE, ["peers=24"]), load(BASE, ["peers=60"])
    both_honest = [
        (old, new)
        for old, new in zip(population(few), population(many), strict=False)
        if old.cohort == new.cohort == "honest"
    ]
    assert len(both_honest) > 5
    assert all(old.uplink_bits_per_s == new.uplink_bits_per_s and old.speed == new.speed for old, new in both_honest)


def test_links_differ_where_a_distribution_says_so() -> None:
    peers = population(load(BASE))
    honest = {peer.uplink_bits_per_s for peer in peers if peer.cohort == "honest"}
    assert len(honest) == 18
    assert {peer.uplink_bits_per_s for peer in peers if peer.cohort == "lazy"} == {110e6}
    assert len({peer.speed for peer in peers if peer.cohort == "honest"}) == 18


@pytest.mark.parametrize("change", ["cohorts.lazy.count=0", "peers=7"])
def test_empty_cohorts_are_allowed(change: str) -> None:
    assert len(population(load(BASE, [change]))) in (24, 7)


def test_the_resolved_text_has_the_same_population() -> None:
    scenario = load(BASE)
    assert population(loads(resolved_text(scenario))) == population(scenario)
