"""Kept values to a few bits: bins of equal width around the mean, each decoded as the mean of what fell into it.

The values of one whole parameter tensor are one group. With n values v and b bits (templar, `_quantize_values`):

    m = mean(v);  c = v - m;  s = ||c|| / sqrt(n - 1);  scale = 6 s / 2^b
    code = clamp(round(c / scale + 2^(b-1)), 0, 2^b - 1)
    table[j] = mean of the c whose code is j, 0 if there are none
    decoded value = table[code] + m

Sums are taken in float64 and in an order that does not depend on how many rows share the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from covsim.protocol.wire import MAX_SCALE, MIN_SCALE


class Quantized(NamedTuple):
    """R groups of C x k values: per group mean, scale and table of 2^b entries, per value a code, all of the wire."""

    mean: Tensor  # [R] float32
    scale: Tensor  # [R] float32
    table: Tensor  # [R, 2^b] float32
    code: Tensor  # [R, C, k] uint8
    decoded: Tensor  # [R, C, k] float32, bit for bit what a receiver computes


def quantize(values: Tensor, bits: int) -> Quantized:
    """Quantize R groups of values [R, C, k], float32.

    A group that is not finite gets a table that is not finite, and every decoder refuses it, as in the live network.
    """
    num_values = values.shape[1] * values.shape[2]
    mean = (_group_sum(values.double()) / num_values).float()
    centered = values - mean[:, None, None]
    scale = _scale(centered, bits)
    code = _codes(centered, scale, bits)
    table = _bin_means(centered, code, bits)
    levels = table + mean[:, None]
    decoded = levels.gather(1, code.flatten(1)).view_as(values)
    return Quantized(mean, scale, table, code.to(torch.uint8), decoded)


def _group_sum(values: Tensor) -> Tensor:
    """Sum of each group [R, C, k] -> [R], in two steps, so that no group is ever split over threads."""
    return values.sum(-1).sum(-1)


def _scale(centered: Tensor, bits: int) -> Tensor:
    """Bin width [R]: six standard deviations over all bins; 1 if that is no width at all.

    The live encoder sends a width outside the accepted range and has its payload refused; here it is clamped, which
    is what a peer would do who knows the check.
    """
    freedom = centered.shape[1] * centered.shape[2] - 1
    spread = (_group_sum(centered.double().square()) / freedom).sqrt()
    scale = (6 * spread / 2**bits).float()
    unusable = (scale == 0) | ~scale.isfinite()
    return torch.where(unusable, 1.0, scale.clamp(MIN_SCALE, MAX_SCALE))


def _codes(centered: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Bin of each value [R, C, k], int64; values beyond the outer edges fall into the outer bins."""
    place = (centered / scale[:, None, None]).add_(2 ** (bits - 1)).round_()
    return place.clamp_(0, 2**bits - 1).nan_to_num_(0.0).long()


def _bin_means(centered: Tensor, code: Tensor, bits: int) -> Tensor:
    """Mean of the centered values of each bin [R, 2^b], 0 for an empty bin."""
    wide = centered.double()
    means = []
    for bin_code in range(2**bits):
        inside = code == bin_code
        total = _group_sum(torch.where(inside, wide, 0.0))
        means.append(total / _group_sum(inside).clamp(min=1))
    return torch.stack(means, dim=1).float()
