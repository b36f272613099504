"""The bin-mean quantizer: edges, extremes, and its error on known distributions."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from covsim.protocol.quantize import quantize
from covsim.protocol.wire import MAX_SCALE, MIN_SCALE


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


def test_groups_do_not_see_each_other() -> None:
    values = torch.randn(5, 7, 64, generator=torch.Generator().manual_seed(5))
    together = quantize(values, bits=2)
    for row in range(5):
        mean, scale, table, codes = naive.quantize(list(values[row].flatten().numpy()))
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
