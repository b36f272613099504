"""The arithmetic of attacks without a body: against tables, definitions, direct searches and ByzFL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from byzfl_parts import byzfl
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from covsim.behaviors import alie, colluders, copycat, ipm, min_max, min_sum, norm_stuffing
from covsim.behaviors.spread import Direction, deviation, perturbation
from covsim.protocol.aggregators import Mean
from covsim.protocol.base import Decoded, Layout

DIRECTIONS: tuple[Direction, ...] = ("unit", "std", "sign")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# A little is enough.


@pytest.mark.parametrize(
    ("n", "m", "z"),
    [
        (20, 2, 0.00),
        (20, 4, 0.157),
        (20, 6, 0.366),
        (20, 8, 0.674),
        (20, 9, 0.908),
        (50, 12, 0.336),
        (50, 24, 1.426),
        (70, 14, 0.272),
        (70, 28, 0.876),
    ],
)
def test_alie_shifts_by_what_the_paper_tolerates(n: int, m: int, z: float) -> None:
    """A slip in floor(n / 2 + 1), or quantiles of another tail, would show in the third decimal."""
    assert alie.tolerated_z(n, m) == pytest.approx(z, abs=0.002)


@given(st.integers(1, 200), st.integers(1, 200))
def test_alie_has_a_finite_answer_for_any_crowd(honest: int, attackers: int) -> None:
    """The formula is undefined for a majority of attackers and for one honest peer, and a round never raises."""
    z = alie.tolerated_z(honest + attackers, attackers)
    assert 0 <= z < 4
    assert z <= alie.tolerated_z(honest + attackers + 1, attackers + 1)


def test_alie_of_one_update_is_that_update() -> None:
    """A deviation over K - 1 would be NaN for one."""
    row = normal(1, 7)
    assert torch.equal(alie.shifted(row, 1.5), row[0])


# Inner product manipulation.


def aggregate(rows: Tensor) -> Tensor:
    """What the protocol's plain mean over all makes of updates [K, N] that are sent whole."""
    n = rows.shape[1]
    where, tensor_of, kept = torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.ones(n)
    payloads = [Decoded(where, row, (0, n), tensor_of, row.double().norm()[None], kept) for row in rows]
    return Mean(over="all", clip="none").combine(payloads, Layout.of([(n,)]))


@pytest.mark.parametrize(("epsilon", "reverses"), [(0.5, False), (3.9, False), (4.1, True), (10.0, True)])
def test_ipm_turns_a_plain_mean_around_beyond_its_turning_point_only(epsilon: float, reverses: bool) -> None:
    """16 honest, 4 attackers: (16 - 4 epsilon) / 20 of the honest mean is left."""
    honest = normal(16, 400) + 0.5
    attackers = (-epsilon * honest.mean(0)).expand(4, -1)
    left = aggregate(torch.cat([honest, attackers])) @ honest.mean(0)
    assert bool(left < 0) is reverses
    assert ipm.turning_point(20, 4) == 4


# Min-max and min-sum.


def squared_distances(stack: Tensor, point: Tensor) -> Tensor:
    return (stack - point).square().sum(1)


def within_max(stack: Tensor, point: Tensor) -> bool:
    """The condition of min-max, as the paper states it."""
    apart = max(float(squared_distances(stack, row).max()) for row in stack)
    return float(squared_distances(stack, point).max()) <= apart


def within_sum(stack: Tensor, point: Tensor) -> bool:
    """The condition of min-sum, as the paper states it."""
    most = max(float(squared_distances(stack, row).sum()) for row in stack)
    return float(squared_distances(stack, point).sum()) <= most


def searched(stack: Tensor, towards: Tensor, within: Callable[[Tensor, Tensor], bool]) -> float:
    """The largest gamma by doubling and 60 bisections."""
    low, high, mean = 0.0, 1.0, stack.mean(0)
    while within(stack, mean + high * towards):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(stack, mean + middle * towards) else (low, middle)
    return low


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("attack", "within"), [(min_max, within_max), (min_sum, within_sum)], ids=["max", "sum"])
@pytest.mark.parametrize("seed", range(5))
def test_gamma_is_that_of_a_direct_search(attack: Any, within: Any, direction: Direction, seed: int) -> None:
    """To 1e-9: the closed form is exact, and the paper's bisection would stop at its tolerance."""
    stack = normal(3 + seed, 50, seed=seed, dtype=torch.float64) * (1 + seed) + 0.3
    towards = perturbation(stack, direction)
    assert attack.largest_gamma(stack, towards) == pytest.approx(searched(stack, towards, within), rel=1e-9)


@pytest.mark.parametrize("attack", [min_max, min_sum], ids=["max", "sum"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gamma_is_good_to_five_digits_in_single_precision(attack: Any, direction: Direction) -> None:
    stack = normal(20, 5000, seed=4) * 1e-3 + 5e-3
    towards = perturbation(stack, direction)
    exact = attack.largest_gamma(stack.double(), towards.double())
    assert attack.largest_gamma(stack, towards) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("attack", [min_max, min_sum], ids=["max", "sum"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "stack", [torch.zeros(4, 3), torch.ones(1, 3), torch.ones(4, 3)], ids=["zeros", "one", "alike"]
)
def test_where_nobody_differs_nobody_strays(attack: Any, direction: Direction, stack: Tensor) -> None:
    """No division by a direction of length 0, and no room where all are alike."""
    torch.testing.assert_close(attack.strayed(stack, direction), stack[0])


def test_directions_point_away_from_the_mean() -> None:
    """Pseudo-gradients are subtracted like gradients, so against the mean is the harmful way."""
    stack = torch.tensor([[3.0, -4.0], [3.0, -4.0]])
    assert perturbation(stack, "unit").tolist() == pytest.approx([-0.6, 0.8])
    assert perturbation(stack, "sign").tolist() == [-1, 1]
    assert (perturbation(normal(5, 4), "std") <= 0).all()


# Against ByzFL.


@pytest.mark.parametrize("num", [2, 3, 20])
@pytest.mark.parametrize("z", [0.0, 0.3, 1.5])
def test_alie_is_that_of_byzfl(num: int, z: float) -> None:
    """Its deviation is over K - 1 too, and its tau is -z."""
    honest = normal(num, 300, seed=num)
    torch.testing.assert_close(alie.shifted(honest, z), byzfl("attacks.attacks").ALittleIsEnough(tau=-z)(honest))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 7.0])
def test_ipm_is_that_of_byzfl(epsilon: float) -> None:
    honest = normal(9, 300)
    torch.testing.assert_close(
        -epsilon * honest.mean(0), byzfl("attacks.attacks").InnerProductManipulation(tau=epsilon)(honest)
    )


@pytest.mark.parametrize("victim", [0, 4])
def test_mimic_is_that_of_byzfl(victim: int) -> None:
    honest = normal(9, 30)
    assert torch.equal(honest[victim % len(honest)], byzfl("attacks.attacks").Mimic(epsilon=victim)(honest))


# Those that rearrange one update.


@given(st.integers(1, 40), st.integers(1, 60), st.floats(0.1, 10))
def test_stuffing_keeps_the_length_and_takes_other_coordinates(n: int, num: int, size: float) -> None:
    update = size * normal(n, seed=n)
    blow = norm_stuffing.stuffed(update, num)
    hit = blow.nonzero()[:, 0]
    assert len(hit) == min(n, num)
    torch.testing.assert_close(blow.norm(), update.norm())
    assert (blow[hit] * update[hit] <= 0).all()
    spared = update[blow == 0].abs()
    assert not len(spared) or update[hit].abs().max() <= spared.min()


def test_stuffing_hits_what_is_zero_downward_and_from_the_front() -> None:
    """Their sign says nothing, so a sign function would stuff nothing at all."""
    assert norm_stuffing.stuffed(torch.tensor([0.0, 2.0, 0.0, 0.0]), 2).tolist() == pytest.approx(
        [-(2**0.5), 0, -(2**0.5), 0]
    )


@given(st.integers(1, 12), st.integers(0, 60))
def test_slices_are_disjoint_and_add_up(num: int, n: int) -> None:
    update = normal(n, seed=3)
    slices = torch.stack([colluders.slice_of(update, place, num) for place in range(num)])
    assert torch.equal(slices.sum(0), update)
    assert ((slices != 0).sum(0) <= 1).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_shuffle_moves_that_share_of_the_values_anywhere(share: float) -> None:
    """An order taken from the same dice as the choice would crowd all that moves into the first coordinates."""
    n, sent = 100_000, 2000
    update = torch.zeros(n)
    update[:: n // sent] = 1.0
    moved = copycat.shuffled(update, normal(n, seed=1), normal(n, seed=2), share)
    assert moved.sum() == sent
    assert float((moved[update > 0] >= 1).sum()) == pytest.approx(sent * (1 - share), abs=4 * sent**0.5)
    elsewhere = moved[update == 0].nonzero()[:, 0].float()
    assert float(elsewhere.mean()) == pytest.approx(n / 2, rel=0.15)


def test_blur_has_the_asked_length() -> None:
    update = normal(500, seed=5)
    blurred = copycat.blurred(update, normal(500, seed=6), 0.25)
    torch.testing.assert_close((blurred - update).norm(), 0.25 * update.norm())


def test_deviation_is_over_one_less() -> None:
    assert deviation(torch.tensor([[0.0], [2.0]])).item() == pytest.approx(2**0.5)
