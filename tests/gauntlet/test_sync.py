"""How far behind a peer is, and what that makes of its score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gauntlet_windows import judged, seen
from hypothesis import given
from hypothesis import strategies as st

from covsim.gauntlet.settings import GauntletSettings, SyncRules
from covsim.gauntlet.sync import sample_positions, steps_behind, sync_score

FINITE = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("cap", "expected"), [(3.0, (1.0, 0.363, 0.064, 0.0)), (5.0, (1.0, 0.572, 0.279, 0.101))], ids=["final", "earlier"]
)
def test_the_published_curve(cap: float, expected: tuple[float, ...]) -> None:
    """Target D2, at 0, 1, 2 and 3 steps behind."""
    rules = SyncRules(cap=cap)
    assert [sync_score(rules, float(x)) for x in range(4)] == pytest.approx(expected, abs=5e-4)


@given(behind=st.floats(allow_nan=True, allow_infinity=True), cap=st.floats(0.1, 10), exponent=st.floats(0, 5))
def test_a_sync_score_is_a_share_and_never_rises_with_the_distance(behind: float, cap: float, exponent: float) -> None:
    rules = SyncRules(cap=cap, exponent=exponent)
    score = sync_score(rules, behind)
    assert 0 <= score <= 1
    assert sync_score(rules, abs(behind) + 1) <= sync_score(rules, abs(behind)) or math.isnan(behind)


@pytest.mark.parametrize("behind", [math.nan, -0.5, -math.inf, math.inf])
def test_no_sample_or_an_impossible_one_scores_nothing(behind: float) -> None:
    assert sync_score(SyncRules(), behind) == 0


def test_steps_are_counted_in_average_steps() -> None:
    own = np.array([1.0, -2.0, 0.5, 0.0])
    average_step = np.array([0.1, 0.2, 0.1, 0.4])
    assert steps_behind(own, own, average_step) == 0
    assert steps_behind(own + 1.5 * average_step, own, average_step) == pytest.approx(1.5)
    assert steps_behind(own - 1.5 * average_step, own, average_step) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),  # no value lies between the quartiles 1.5 and 2.5
        ([1.0, 1.0], 1.0),
        ([0.0, 2.0, 9.0], 2.0),
        ([0.0, 1.0, 3.0, 50.0], 2.0),  # quartiles 0.75 and 14.75
        ([0.0, 1.0, 2.0, 6.0, 99.0], 3.0),  # the quartiles are values themselves and count
        ([4.0] * 9, 4.0),
        ([5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0], 3.5),
    ],
)
def test_the_mean_is_between_the_quartiles(distances: list[float], expected: float) -> None:
    zeros, ones = np.zeros(len(distances)), np.ones(len(distances))
    assert steps_behind(distances, zeros, ones) == pytest.approx(expected, abs=1e-12)
    assert steps_behind(distances[::-1], zeros, ones) == pytest.approx(expected, abs=1e-12)


def test_an_element_that_does_not_move_still_has_a_unit() -> None:
    assert steps_behind([2e-9], [0.0], [0.0]) == pytest.approx(2.0)
    assert steps_behind([1.0], [1.0], [0.0]) == 0.0


@pytest.mark.parametrize("lie", [math.nan, math.inf, -math.inf, 1e308])
def test_numbers_that_are_none_are_no_sample(lie: float) -> None:
    """One such element among many is enough, so it cannot be hidden in the quarters that are cut."""
    theirs = np.zeros(40)
    theirs[7] = lie
    assert math.isnan(steps_behind(theirs, np.zeros(40), np.zeros(40)))
    assert sync_score(SyncRules(), steps_behind(theirs, np.zeros(40), np.zeros(40))) == 0


def test_torch_and_numpy_give_the_same_in_double_precision() -> None:
    luck = torch.Generator().manual_seed(0)
    theirs, own = (torch.randn(101, dtype=torch.float64, generator=luck) for _ in range(2))
    step = torch.rand(101, dtype=torch.float64, generator=luck)
    distance = (theirs - own).abs() / step.clamp(min=1e-9)
    low, high = distance.quantile(0.25), distance.quantile(0.75)
    expected = float(distance[(distance >= low) & (distance <= high)].mean())
    assert steps_behind(theirs, own, step) == pytest.approx(expected, rel=1e-12)
    assert steps_behind(theirs.numpy(), own.numpy(), step.numpy()) == steps_behind(theirs, own, step)


@given(values=st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=30))
def test_steps_behind_lie_between_the_smallest_and_the_largest(values: list[tuple[float, float]]) -> None:
    theirs, own = (np.array(column) for column in zip(*values, strict=True))
    distance = np.abs(theirs - own)
    behind = steps_behind(theirs, own, np.ones(len(values)))
    assert distance.min() - 1e-6 <= behind <= distance.max() + 1e-6


def test_some_of_each_tensor_are_sampled() -> None:
    shapes = [(64, 3), (1,), (2, 2), (50,)]
    starts = np.cumsum([0, 192, 1, 4, 50])
    positions = sample_positions(shapes, 2, np.random.default_rng(0))
    assert positions.dtype == np.int64
    per_tensor = np.histogram(positions, bins=starts)[0]
    assert per_tensor.tolist() == [2, 1, 2, 2]
    assert (np.diff(positions) > 0).all()
    again, other = (sample_positions(shapes, 2, np.random.default_rng(seed)) for seed in (0, 1))
    assert positions.tolist() == again.tolist() != other.tolist()


def test_every_element_of_a_tensor_may_be_sampled() -> None:
    drawn = {int(p) for seed in range(200) for p in sample_positions([(9,), (9,)], 1, np.random.default_rng(seed))}
    assert drawn == set(range(18))


def test_without_tensors_nothing_is_sampled() -> None:
    assert sample_positions([], 2, np.random.default_rng(0)).tolist() == []


# In the final score ---------------------------------------------------------------------------------------------------


def test_the_sync_score_is_a_factor_of_the_final_score() -> None:
    rows = [seen(0, gain=0.02), seen(1, gain=0.02, steps_behind=1.0), seen(2, gain=0.02, steps_behind=math.nan)]
    judgement = judged(*rows, round=3)
    whole, behind, silent = (judgement.standings.peers[uid].final_score for uid in range(3))
    assert whole > 0
    assert behind == pytest.approx(whole * (2 / 3) ** 2.5)
    assert silent == 0
    assert judgement.verdicts[0].reasons == ()
    assert judgement.verdicts[1].reasons[0].startswith("sync_score: 1 steps behind, x 0.363: final score ")
    assert judgement.verdicts[2].reasons[0].startswith("sync_score: no sync sample, x 0: final score ")


@pytest.mark.parametrize("section", [{"score": {"sync": False}}, {"off": ["sync_score"]}])
def test_without_it_nobody_is_behind(section: dict[str, object]) -> None:
    rows = [seen(0, gain=0.02), seen(1, gain=0.02, steps_behind=1.0), seen(2, gain=0.02, steps_behind=math.nan)]
    judgement = judged(*rows, round=3, settings=GauntletSettings.model_validate(section))
    scores = [judgement.standings.peers[uid].final_score for uid in range(3)]
    assert scores[0] == scores[1] == scores[2] > 0
    assert next(entry.eligible for entry in judgement.coverage if entry.rule == "sync_score") == 0
