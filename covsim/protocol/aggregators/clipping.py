"""Limits on the norms of payloads: down to a limit and never up, one tensor at a time or a payload as a whole.

Clipping to the median takes one parameter tensor at a time: with n_r the norm of what peer r sends for it and M the
median of the n_r, peer r's values are multiplied by min(1, M / (n_r + 1e-8)) (templar, `batch_decompress`). The others
limit whole payloads, as ByzFL does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.aggregators.columns import by_blocks
from covsim.protocol.aggregators.pre import PreAggregator, pre_aggregators
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.base import Decoded, Layout


def median_norms(payloads: Sequence[Decoded]) -> Tensor:
    """Lower median of each tensor's norm, float64 [T], over the payloads that hold it; no limit where none does."""
    norms = torch.stack([payload.norms for payload in payloads])
    for row, payload in zip(norms, payloads, strict=True):
        row[list(payload.missing)] = torch.nan
    medians = norms.nanmedian(dim=0).values
    return torch.where(medians.isnan(), torch.inf, medians)


def clipped(payload: Decoded, limits: Tensor) -> Decoded:
    """A payload with norms limited to `limits`, float64: each tensor's [T], or that of the whole payload []."""
    if limits.dim():
        return payload.scaled((limits / (payload.norms + 1e-8)).clamp(max=1.0))
    factor = float((limits / (payload.norms.norm() + 1e-8)).clamp(max=1.0))
    return payload if factor == 1.0 else replace(payload, value=payload.value * factor, norms=payload.norms * factor)


def all_clipped(payloads: Sequence[Decoded], limits: Tensor) -> Sequence[Decoded]:
    """All payloads, each limited, side by side."""
    parts = by_blocks(lambda part: [clipped(each, limits) for each in payloads[part]], len(payloads), _AT_A_TIME)
    return [each for part in parts for each in part]


_AT_A_TIME = 4


def whole_norms(payloads: Sequence[Decoded]) -> Tensor:
    """Euclidean norms of payloads [R], float64."""
    return torch.stack([payload.norms.norm() for payload in payloads])


@pre_aggregators.register
class MedianNorm(PreAggregator):
    """Limit each tensor of a payload to the median norm, as deployed.

    Source: `templar` v2.1.28, `batch_decompress`; SparseLoCo (arXiv 2508.15706).
    """

    kind: Literal["median_norm"] = "median_norm"

    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """All payloads, limited."""
        return all_clipped(payloads, median_norms(payloads))

    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The median norms."""
        return median_norms(payloads)

    def num_left(self, num: int) -> int:
        """All of them."""
        return num


@pre_aggregators.register
class NormClip(PreAggregator):
    """Limit the norm of every payload to a constant.

    Source: static clipping, `Clipping` of ByzFL 0.0.11.
    """

    kind: Literal["norm_clip"] = "norm_clip"
    norm: float = Field(default=2.0, gt=0, le=1e30, description="the longest a payload may be, as a whole")

    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """All payloads, limited."""
        return all_clipped(payloads, self._limit)

    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The constant."""
        return self._limit

    def num_left(self, num: int) -> int:
        """All of them."""
        return num

    @property
    def _limit(self) -> Tensor:
        return torch.tensor(self.norm, dtype=torch.float64)


@pre_aggregators.register
class Arc(PreAggregator):
    """Limit the longest payloads to the norm of the longest that is left: floor(2 f (n - f) / n) of n payloads.

    With f above n / 2 it acts as with floor(n / 2).

    Source: adaptive robust clipping (Allouah et al., ICLR 2025); `ARC` of ByzFL 0.0.11.
    """

    kind: Literal["arc"] = "arc"
    f: Tolerated = DEFAULT_TOLERATED

    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """All payloads, limited."""
        return all_clipped(payloads, self._limit(payloads))

    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The norm of the longest payload that is left as it is."""
        return self._limit(payloads)

    def num_left(self, num: int) -> int:
        """All of them."""
        return num

    def tolerated(self, num: int) -> int:
        """At most half of them."""
        return min(wished(self.f, num), num // 2)

    def _limit(self, payloads: Sequence[Decoded]) -> Tensor:
        num = len(payloads)
        f = self.tolerated(num)
        num_clipped = 2 * f * (num - f) // num
        return whole_norms(payloads).sort().values[num - num_clipped - 1]
