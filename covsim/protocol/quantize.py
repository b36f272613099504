"""Kept values to a few bits: bins of equal width around the mean, each decoded as the mean of what fell into it.

The values of one whole parameter tensor, or of one chunk, are one group. With n values v and b bits (templar,
`_quantize_values`):

    m = mean(v);  c = v - m;  s = ||c|| / sqrt(n - 1);  scale = 6 s / 2^b
    code = clamp(round(c / scale + 2^(b-1)), 0, 2^b - 1)
    table[j] = mean of the c whose code is j, 0 if there are none
    decoded value = table[code] + m

Sums are taken in float64 and in an order that does not depend on how many rows share the batch, or on threads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIN_SCALE, MAX_SCALE = 1e-12, 1e4  # a scale outside is refused by every decoder

_PIECE = 2**14  # numbers summed at once: torch splits a sum over threads from 2^15 on
_FEW_BITS = 2  # up to here, bins are summed one after the other over all values


class Quantized(NamedTuple):
    """R groups of C x k values: per group mean, scale and table of 2^b entries, per value a code, all of the wire."""

    mean: Tensor  # [R] float32
    scale: Tensor  # [R] float32
    table: Tensor  # [R, 2^b] float32
    code: Tensor  # [R, C, k] uint8
    decoded: Tensor  # [R, C, k] float32, bit for bit what a receiver computes


class Binned(NamedTuple):
    """R groups of C x k values in bins of equal width: mean and bin width per group, a bin per value."""

    mean: Tensor  # [R] float32
    scale: Tensor  # [R] float32
    centered: Tensor  # [R, C, k] float32, values without their mean; 0 where unused
    code: Tensor  # [R, C, k] int64


def quantize(values: Tensor, bits: int, used: Tensor | None = None) -> Quantized:
    """Quantize R groups of values [R, C, k], float32, to the means of their bins.

    Values that are not `used` (bool [R, C, k]; by default all are) must be 0 and take no part; a group without values
    has mean 0, scale 1 and a table of zeros. A group that is not finite gets a table that is not finite, and every
    decoder refuses it, as in the live network.
    """
    mean, scale, centered, code = binned(values, bits, used)
    table = _bin_means(centered, code, bits, used)
    decoded = (table + mean[:, None]).gather(1, code.flatten(1)).view_as(values)
    return Quantized(mean, scale, table, code.to(torch.uint8), decoded)


def binned(values: Tensor, bits: int, used: Tensor | None = None) -> Binned:
    """Put R groups of values [R, C, k] in 2^bits bins of equal width around their means."""
    num = group_count(values, used)
    mean = (group_sum(values.double()) / num.clamp(min=1)).float()
    centered = values - mean[:, None, None]
    if used is not None:
        centered = torch.where(used, centered, 0.0)
    scale = _scale(centered, num, bits)
    return Binned(mean, scale, centered, _codes(centered, scale, bits))


def group_sum(values: Tensor) -> Tensor:
    """Sum of each group [R, C, k] -> [R]: over chunks, then over groups, in pieces that threads never split."""
    return _sum_last(_sum_last(values))


def group_count(values: Tensor, used: Tensor | None) -> Tensor:
    """Values used in each group [R, C, k] -> [R], int64."""
    if used is None:
        return torch.full((len(values),), values.shape[1] * values.shape[2], device=values.device)
    return group_sum(used)


def _sum_last(values: Tensor) -> Tensor:
    """Sum over the last dimension."""
    while values.shape[-1] > _PIECE:
        padded = torch.nn.functional.pad(values, (0, -values.shape[-1] % _PIECE))
        values = padded.view(*padded.shape[:-1], -1, _PIECE).sum(-1)
    return values.sum(-1)


def _scale(centered: Tensor, num: Tensor, bits: int) -> Tensor:
    """Bin width [R]: six standard deviations over all bins; 1 if that is no width at all.

    The live encoder sends a width outside the accepted range and has its payload refused; here it is clamped, which
    is what a peer would do who knows the check.
    """
    spread = (group_sum(centered.double().square()) / (num - 1)).sqrt()
    scale = (6 * spread / 2**bits).float()
    unusable = (scale == 0) | ~scale.isfinite()
    return torch.where(unusable, 1.0, scale.clamp(MIN_SCALE, MAX_SCALE))


def _codes(centered: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Bin of each value [R, C, k], int64; values beyond the outer edges fall into the outer bins."""
    place = (centered / scale[:, None, None]).add_(2 ** (bits - 1)).round_()
    return place.clamp_(0, 2**bits - 1).nan_to_num_(0.0).long()


def _bin_means(centered: Tensor, code: Tensor, bits: int, used: Tensor | None) -> Tensor:
    """Mean of the centered values of each bin [R, 2^b], 0 for an empty bin."""
    wide = centered.double()
    if bits > _FEW_BITS:
        return _means_of_many_bins(wide, code, 2**bits, used)
    means = []
    for bin_code in range(2**bits):
        inside = code == bin_code if used is None else used & (code == bin_code)
        total = group_sum(torch.where(inside, wide, 0.0))
        means.append(total / group_sum(inside).clamp(min=1))
    return torch.stack(means, dim=1).float()


def _means_of_many_bins(wide: Tensor, code: Tensor, num_bins: int, used: Tensor | None) -> Tensor:
    """The same in one pass: each bin of each group sums its values in their order."""
    num_groups = len(wide)
    place = (code + torch.arange(0, num_groups * num_bins, num_bins, device=code.device)[:, None, None]).flatten()
    weights = None if used is None else used.flatten().double()
    total = torch.bincount(place, wide.flatten(), num_groups * num_bins)
    num = torch.bincount(place, weights, num_groups * num_bins)
    return (total / num.clamp(min=1)).float().view(num_groups, num_bins)
