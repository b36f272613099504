"""The bin-mean quantizer: edges, extremes, and its error on known distributions."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from covsim.protocol.quantize import MAX_SCALE, MIN_SCALE, group_sum, quantize
from covsim.protocol.values import Fp4, Sign, Uniform


def test_hand_computed_group() -> None:
    """v = -3 -1 1 3: mean 0, s = sqrt(20 / 3), scale = 1.5 s = 3.873; c / scale + 2 = 1.23 1.74 2.26 2.77."""
    quantized = quantize(torch.tensor([[[-3.0, -1.0], [1.0, 3.0]]]), bits=2)
    assert quantized.mean.tolist() == [0.0]
    assert quantized.scale.item() == pytest.approx(1.5 * math.sqrt(20 / 3))
    assert quantized.code.flatten().tolist() == [1, 2, 2, 3]
    assert quantized.table.tolist() == [[0.0, -3.0, 0.0, 3.0]]
    assert quantized.decoded.flatten().tolist() == [-3.0, 0.0, 0.0, 3.0]


def test_edges_lie_at_minus_225_minus_075_and_075_deviations() -> None:
    spread = torch.linspace(-4, 4, 2001)
    values = torch.cat([spread, torch.randn(200_000, generator=torch.Generator().manual_seed(1))])[None, None]
    quantized = quantize(values, bits=2)
    deviations = (spread - quantized.mean) / (quantized.scale / 1.5)
    codes = quantized.code.flatten()[: len(spread)]
    expected = (deviations > -2.25).int() + (deviations > -0.75).int() + (deviations > 0.75).int()
    assert torch.equal(codes.int(), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_decoding_keeps_the_mean_and_lowers_the_error_with_the_bits(bits: int) -> None:
    values = torch.randn(3, 50, 64, generator=torch.Generator().manual_seed(2))
    quantized = quantize(values, bits)
    assert torch.allclose(quantized.decoded.mean((1, 2)), values.mean((1, 2)), atol=1e-6)
    assert int(quantized.code.max()) == 2**bits - 1
    error = (quantized.decoded - values).norm() / values.norm()
    assert error < {2: 0.45, 4: 0.12, 8: 0.02}[bits]


@pytest.mark.parametrize("value", [0.0, -0.37, 5e-324, 1e-30, 1e30])
def test_equal_values_have_scale_1_or_the_rounding_of_their_mean(value: float) -> None:
    """No spread: code 2 decodes to the mean exactly."""
    quantized = quantize(torch.full((1, 3, 64), value), bits=2)
    assert quantized.scale.tolist() == [1.0]
    assert (quantized.code == 2).all()
    assert (quantized.decoded == torch.tensor(value)).all()


def test_one_value_survives() -> None:
    assert quantize(torch.tensor([[[0.125]]]), bits=2).decoded.item() == 0.125


@pytest.mark.parametrize(("size", "limit"), [(1e-20, MIN_SCALE), (1e20, MAX_SCALE)])
def test_scale_is_clamped_to_what_decoders_accept(size: float, limit: float) -> None:
    values = size * torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(3))
    quantized = quantize(values, bits=2)
    assert quantized.scale.item() == np.float32(limit)
    assert quantized.decoded.isfinite().all()


def _relative_error(draw: NDArray[np.float64]) -> float:
    """Of the top 64 of each of many chunks of 4096 [C, 4096]."""
    kept = np.take_along_axis(draw, np.argsort(-np.abs(draw), axis=1)[:, :64], axis=1)
    values = torch.from_numpy(kept.astype(np.float32))[None]
    return float((quantize(values, bits=2).decoded - values).norm() / values.norm())


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"), [("normal", 0.11, 0.01), ("laplace", 0.19, 0.015), ("t4", 0.48, 0.06)]
)
def test_error_of_the_largest_64_of_4096(name: str, expected: float, tolerance: float) -> None:
    """The figures that the protocol's description gives for known distributions."""
    generator = np.random.default_rng(4)
    shape = (400, 4096)
    draw = {
        "normal": lambda: generator.standard_normal(shape),
        "laplace": lambda: generator.laplace(size=shape),
        "t4": lambda: generator.standard_t(4, size=shape),
    }[name]()
    assert _relative_error(draw) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_groups_do_not_see_each_other(bits: int) -> None:
    values = torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(5))
    together = quantize(values, bits)
    for row in range(5):
        mean, scale, table, codes = naive.quantize(list(values[row].flatten().numpy()), bits)
        assert together.mean[row].item() == mean
        assert together.scale[row].item() == scale
        assert together.table[row].tolist() == table
        assert together.code[row].flatten().tolist() == codes


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_do_not_depend_on_who_shares_the_batch_or_on_threads(threads: int) -> None:
    """The values cancel, so that the mean is what rounding leaves: any other order of summing would give another."""
    draw = torch.Generator().manual_seed(6)
    size = torch.randn(8 * 4096, generator=draw) * torch.randn(8 * 4096, generator=draw).mul(15).exp()
    values = torch.cat([size, -size])[torch.randperm(16 * 4096, generator=draw)].view(1, 16, 4096)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone, together = quantize(values, bits=2), quantize(values.repeat(3, 1, 1), bits=2)
    finally:
        torch.set_num_threads(before)
    assert alone.mean.item() != 0
    for row in range(3):
        assert torch.equal(together.mean[row], alone.mean[0])
        assert torch.equal(together.table[row], alone.table[0])


@pytest.mark.parametrize("shape", [(1, 40_000, 1), (1, 1, 65_536), (1, 3, 20_000)])
def test_long_groups_do_not_depend_on_threads_or_company(shape: tuple[int, ...], threads: None) -> None:
    """More values than torch sums on one thread, as chunks of one element or as one long row."""
    draw = torch.Generator().manual_seed(7)
    values = torch.randn(shape, generator=draw, dtype=torch.float64).mul(15).exp()
    values *= torch.randn(shape, generator=draw).sign()
    sums = set()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        sums |= {group_sum(values).item(), *group_sum(values.repeat(3, 1, 1)).tolist()}
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(math.fsum(values.flatten().tolist()), rel=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_unused_values_take_no_part(bits: int) -> None:
    values = torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(8))
    used = torch.rand(values.shape, generator=torch.Generator().manual_seed(9)) < 0.4
    used[3] = False
    padded = quantize(torch.where(used, values, 0.0), bits, used)
    for group in range(3):
        mean, scale, table, codes = naive.quantize(list(values[group][used[group]].numpy()), bits)
        assert padded.mean[group].item() == mean
        assert padded.scale[group].item() == scale
        assert padded.table[group].tolist() == table
        assert padded.code[group][used[group]].tolist() == codes
    assert (padded.mean[3], padded.scale[3], padded.table[3].count_nonzero()) == (0, 1, 0)


def test_uniform_bins_decode_to_their_centers() -> None:
    """v = -3 -1 1 3 has bins of 3.873 around 0: codes 1 2 2 3 stand for -3.873, 0, 0, 3.873."""
    encoded = Uniform(bits=2).encode(torch.tensor([[[-3.0, -1.0], [1.0, 3.0]]]))
    width = 1.5 * math.sqrt(20 / 3)
    assert encoded.code.flatten().tolist() == [1, 2, 2, 3]
    assert encoded.decoded.flatten().tolist() == pytest.approx([-width, 0, 0, width])


def test_signs_have_the_mean_size_of_their_group() -> None:
    encoded = Sign().encode(torch.tensor([[[-3.0, 1.0]], [[0.0, -0.0]], [[5.0, -7.0]]]))
    assert encoded.decoded.tolist() == [[[-2.0, 2.0]], [[0.0, 0.0]], [[6.0, -6.0]]]
    assert encoded.code.tolist() == [[[1, 0]], [[0, 0]], [[0, 1]]]


def test_fp4_takes_the_nearest_power_of_two() -> None:
    """E3M0 times the largest: 0 and 2^-6 ... 1, so edges at 3/4 of each power, and at 2^-7 above 0."""
    values = torch.tensor([8.0, -8.0, 6.0, 5.99, -4.5, 8 / 64, 8 * 0.75 / 64, 8 / 128, 8 / 129, -8 / 129, 0.0])
    decoded = Fp4().encode(values[None, None]).decoded.flatten()
    assert decoded.tolist() == [8, -8, 8, 4, -4, 8 / 64, 8 / 64, 8 / 64, 0, 0, 0]
    levels = 8 * torch.tensor([0, *(2.0 ** -torch.arange(7))])
    spread = torch.linspace(0, 8, 5001)
    nearest = (spread[:, None] - levels).abs().min(dim=1).values
    assert torch.allclose((Fp4().encode(spread[None, None]).decoded.flatten() - spread).abs(), nearest)
