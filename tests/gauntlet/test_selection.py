"""Whom to gather and whom to evaluate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from gauntlet_windows import SETTINGS, established
from pydantic import ValidationError

from covsim.gauntlet.evidence import Standing, Standings, newcomer
from covsim.gauntlet.selection import (
    AllSelection,
    Choice,
    FixedSelection,
    GauntletSelection,
    RandomSelection,
    selections,
    whom_to_evaluate,
)
from covsim.gauntlet.settings import GauntletSettings

ACTIVE = range(40)
NOBODY = Standings()


def weighted(weights: dict[int, float], **more: object) -> Standings:
    return Standings({uid: established(weight=weight, **more) for uid, weight in weights.items()})


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# The gather list ------------------------------------------------------------------------------------------------------


def test_the_heaviest_are_gathered_and_the_next_stand_by() -> None:
    standings = weighted({uid: (uid * 7 % 40 + 1) / 1000 for uid in ACTIVE})
    choice = GauntletSelection(gather=5, reserve=3).choose(standings, ACTIVE, 9, draw(0))
    ranked = sorted(ACTIVE, key=lambda uid: -(uid * 7 % 40))
    assert choice == Choice(tuple(ranked[:5]), tuple(ranked[5:8]))


@pytest.mark.parametrize("selection", [GauntletSelection(), RandomSelection()])
def test_at_the_start_the_list_is_luck(selection: GauntletSelection | RandomSelection) -> None:
    """Every peer equally often: 20 of 40 places, over 400 windows 200 times each, standard deviation 10."""
    lists = [selection.choose(NOBODY, ACTIVE, 0, draw(seed)) for seed in range(400)]
    assert all(len(choice.selected) == 20 and len(choice.reserve) == 10 for choice in lists)
    assert all(len({*choice.selected, *choice.reserve}) == 30 for choice in lists)
    counts = Counter(uid for choice in lists for uid in choice.selected)
    assert min(counts[uid] for uid in ACTIVE) > 150
    first = Counter(choice.selected[0] for choice in lists)
    assert max(first.values()) < 30  # 10 expected


def test_peers_without_weight_fill_up_by_luck() -> None:
    standings = weighted({7: 0.2, 31: 0.3, 3: 0.0})
    selected = [GauntletSelection().choose(standings, ACTIVE, 5, draw(seed)).selected for seed in range(200)]
    assert {choice[:2] for choice in selected} == {(31, 7)}
    assert len({choice[2] for choice in selected}) > 30


@pytest.mark.parametrize("kind", ["gauntlet", "random", "all"])
def test_listing_order_decides_nothing(kind: str) -> None:
    selection = selections[kind]()
    standings = weighted({uid: uid % 3 / 100 for uid in ACTIVE})
    backwards = Standings(dict(reversed(standings.peers.items())))
    assert selection.choose(standings, list(ACTIVE), 4, draw(1)) == selection.choose(
        backwards, list(reversed(ACTIVE)), 4, draw(1)
    )


def test_excluded_and_benched_peers_are_not_listed() -> None:
    """The list made after round 30 is for later rounds, so an exclusion up to 31 is over and one up to 32 is not."""
    peers = {uid: established(weight=0.1) for uid in range(6)}
    peers[1] = replace(peers[1], excluded_until=31)
    peers[2] = replace(peers[2], excluded_until=32)
    peers[3] = replace(peers[3], benched=True)
    choice = GauntletSelection().choose(Standings(peers), range(6), 30, draw(0))
    assert set(choice.selected) == {0, 1, 4, 5}
    assert choice.reserve == ()


def test_gauntlet_off_ignores_exclusions() -> None:
    standings = Standings({0: established(excluded_until=99), 1: established(benched=True)})
    assert set(RandomSelection().choose(standings, range(2), 30, draw(0)).selected) == {0, 1}
    assert set(AllSelection().choose(standings, range(2), 30, draw(0)).selected) == {0, 1}


def test_only_active_peers_are_listed() -> None:
    standings = weighted(dict.fromkeys(range(10), 0.1))
    for selection in (GauntletSelection(), RandomSelection(), AllSelection()):
        assert set(selection.choose(standings, {2, 5}, 3, draw(0)).selected) == {2, 5}


def test_all_and_fixed_have_their_own_places() -> None:
    everybody = AllSelection().choose(NOBODY, ACTIVE, 0, draw(0))
    assert sorted(everybody.selected) == list(ACTIVE)
    assert everybody.reserve == ()
    assert AllSelection().places(40) == (40, 0)
    fixed = FixedSelection(uids=(9, 4))
    assert fixed.choose(NOBODY, ACTIVE, 0, draw(0)) == Choice((9, 4), ())
    assert fixed.places(40) == (2, 0)
    assert GauntletSelection(gather=8, reserve=2).places(40) == (8, 2)
    assert RandomSelection(gather=8, reserve=2).places(40) == (8, 2)


@pytest.mark.parametrize("uids", [(), (1, 1), (-1, 2)])
def test_fixed_uids_must_make_sense(uids: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        FixedSelection(uids=uids)


def test_a_list_is_due_every_second_window() -> None:
    selection = GauntletSelection(refresh_windows=2)
    assert selection.due(0, None)
    assert not selection.due(1, 0)
    assert selection.due(2, 0)


def test_without_failover_only_the_first_leads() -> None:
    selection = GauntletSelection()
    assert selection.leads(0, 0)
    assert selection.leads(0, 10_000)
    assert not any(selection.leads(rank, overdue) for rank in (1, 2) for overdue in (0, 1, 10_000))


def test_the_next_stands_in_after_so_many_windows() -> None:
    selection = RandomSelection(failover_windows=3)
    leaders = {overdue: [rank for rank in range(4) if selection.leads(rank, overdue)] for overdue in (0, 2, 3, 5, 6, 9)}
    assert leaders == {0: [0], 2: [0], 3: [0, 1], 5: [0, 1], 6: [0, 1, 2], 9: [0, 1, 2, 3]}


@pytest.mark.parametrize("windows", [0, -1, "never"])
def test_failover_takes_a_window_or_more(windows: object) -> None:
    with pytest.raises(ValidationError):
        GauntletSelection.model_validate({"failover_windows": windows})


def test_the_registry_knows_them_all() -> None:
    assert list(selections) == ["all", "fixed", "gauntlet", "random"]


# Evaluation -----------------------------------------------------------------------------------------------------------


def waiting(rounds_ago: dict[int, int], now: int = 50) -> Standings:
    return Standings({uid: established(last_evaluated=now - wait) for uid, wait in rounds_ago.items()})


def test_a_draw_is_without_replacement_and_limited() -> None:
    for seed in range(20):
        drawn = whom_to_evaluate(SETTINGS, NOBODY, ACTIVE, 0, draw(seed))
        assert len(drawn) == len(set(drawn)) == 20
        assert set(drawn) <= set(ACTIVE)
    assert sorted(whom_to_evaluate(SETTINGS, NOBODY, range(7), 0, draw(0))) == list(range(7))
    assert whom_to_evaluate(SETTINGS, NOBODY, (), 0, draw(0)) == ()


def test_weight_is_the_windows_since_the_last_evaluation() -> None:
    """Draws without replacement: the first of two is uid u with probability w_u / sum w, the second likewise anew."""
    few = GauntletSettings(evaluated_per_window=2)
    standings = waiting({0: 1, 1: 2, 2: 5})
    drawn = [whom_to_evaluate(few, standings, range(3), 50, draw(seed)) for seed in range(3000)]
    first = Counter(pair[0] for pair in drawn)
    assert [first[uid] / 3000 for uid in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    after_two = Counter(pair[1] for pair in drawn if pair[0] == 2)
    assert after_two[1] / sum(after_two.values()) == pytest.approx(2 / 3, abs=0.04)


def test_a_newcomer_waits_like_one_evaluated_just_now() -> None:
    one = GauntletSettings(evaluated_per_window=1)
    standings = waiting({0: 1, 1: 2})
    first = Counter(whom_to_evaluate(one, standings, range(3), 50, draw(seed))[0] for seed in range(3000))
    assert first[2] / 3000 == pytest.approx(1 / 4, abs=0.03)
    assert newcomer(SETTINGS, 50).last_evaluated == 49


def test_excluded_peers_are_not_evaluated() -> None:
    standings = Standings({0: established(excluded_until=51), 1: established(excluded_until=50)})
    assert whom_to_evaluate(SETTINGS, standings, {0, 1}, 50, draw(0)) == (1,)


def rated(count: int) -> dict[int, Standing]:
    """Peers whose rating falls with (uid * 17 mod count)."""
    return {uid: established(mu=60.0 - (uid * 17 % count), last_evaluated=40) for uid in range(count)}


def test_from_a_hundred_on_one_bin_of_neighbors_in_rating_is_drawn() -> None:
    peers, bins = rated(103), Counter[int]()
    for seed in range(200):
        ranks = sorted(uid * 17 % 103 for uid in whom_to_evaluate(SETTINGS, Standings(peers), peers, 50, draw(seed)))
        assert len(ranks) == 20
        assert ranks[-1] - ranks[0] <= 20
        bins[ranks[0] // 20] += 1
    assert len(bins) == 5
    assert min(bins.values()) > 20  # 40 expected of each


def test_with_fewer_there_is_one_bin() -> None:
    peers = rated(99)
    ranks = [uid * 17 % 99 for uid in whom_to_evaluate(SETTINGS, Standings(peers), peers, 50, draw(0))]
    assert max(ranks) - min(ranks) > 60


def test_equal_ratings_are_binned_by_luck() -> None:
    drawn = Counter(uid for seed in range(300) for uid in whom_to_evaluate(SETTINGS, NOBODY, range(100), 0, draw(seed)))
    assert min(drawn[uid] for uid in range(100)) > 30  # 60 expected of each, standard deviation 7
