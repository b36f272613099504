"""Many payloads to one step: clip each, then average.

Clipping takes one parameter tensor at a time: with n_r the norm of what peer r sends for it and M the median of the
n_r, peer r's values are multiplied by min(1, M / (n_r + 1e-8)), never up (templar, `batch_decompress`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.base import Decoded, Layout
from covsim.registry import Part, Registry


class Aggregator(Part):
    """A way to combine the payloads of a round."""

    @abstractmethod
    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The combined pseudo-gradient [N] of one or more payloads; their order may touch the last bit."""

    @abstractmethod
    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The norm to which a payload beside these would be limited, float64 [T]; None where nothing is limited."""


aggregators: Registry[Aggregator] = Registry("aggregator")


@aggregators.register
class Mean(Aggregator):
    """The mean per coordinate, over those who sent it (as deployed) or over all (as in the paper).

    At 1.56 % density these differ a lot: over senders, a coordinate that one peer sent moves by that peer's full value.
    """

    kind: Literal["mean"] = "mean"
    over: Literal["senders", "all"] = Field(default="senders", description="whom a coordinate's sum is divided by")
    clip: Literal["median_norm", "none"] = Field(default="median_norm", description="limit per tensor before the mean")
    weights: Literal["equal", "tokens"] = Field(
        default="equal", description="each payload counts once, or by the tokens that it claims to have trained on"
    )

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The combined pseudo-gradient [N]; coordinates that nobody sent get 0."""
        assert payloads, "nothing to combine"
        limits = self.clip_norms(payloads)
        if limits is not None:
            payloads = [clipped(payload, limits) for payload in payloads]
        weights = [1] * len(payloads) if self.weights == "equal" else [payload.claims.tokens for payload in payloads]
        total = torch.zeros(layout.num_parameters)
        for payload, weight in zip(payloads, weights, strict=True):
            total.index_add_(0, payload.index, payload.value, alpha=weight)
        if self.over == "all":
            return total / max(1, sum(weights))
        return total / _weight_sent(payloads, weights, layout.num_parameters)

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The median norms of these payloads, if there are any and the mean clips."""
        return median_norms(payloads) if payloads and self.clip == "median_norm" else None


def _weight_sent(payloads: Sequence[Decoded], weights: Sequence[int], num_parameters: int) -> Tensor:
    """Weight of those who sent each coordinate [N], 1 where nobody of any weight did."""
    weight = torch.zeros(num_parameters, dtype=torch.float64)
    for payload, each in zip(payloads, weights, strict=True):
        weight.index_add_(0, payload.index, torch.full((len(payload.index),), float(each), dtype=torch.float64))
    return weight.clamp_(min=1).float()


def median_norms(payloads: Sequence[Decoded]) -> Tensor:
    """Lower median of each tensor's norm, float64 [T], over the payloads that hold it; no limit where none does."""
    norms = torch.stack([payload.norms for payload in payloads])
    for row, payload in zip(norms, payloads, strict=True):
        row[list(payload.missing)] = torch.nan
    medians = norms.nanmedian(dim=0).values
    return torch.where(medians.isnan(), torch.inf, medians)


def clipped(payload: Decoded, limits: Tensor) -> Decoded:
    """A payload with each tensor's norm limited to `limits`, float64 [T]."""
    return payload.scaled((limits / (payload.norms + 1e-8)).clamp(max=1.0))
