"""The mean of payloads, clipped to the median norm or not: all count alike, by tokens, or by their peers' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.clipping import all_clipped, median_norms
from covsim.protocol.aggregators.columns import columnwise, one_thread
from covsim.protocol.aggregators.rows import Rows
from covsim.protocol.base import Decoded, Layout

Over = Literal["senders", "all"]
Clip = Literal["median_norm", "none"]


@aggregators.register
class Mean(Aggregator):
    """The mean per coordinate, over those who sent it (as deployed) or over all (as in the paper).

    At 1.56 % density these differ a lot: over senders, a coordinate that one peer sent moves by that peer's full value.
    """

    kind: Literal["mean"] = "mean"
    over: Over = Field(default="senders", description="whom a coordinate's sum is divided by")
    clip: Clip = Field(default="median_norm", description="limit per tensor before the mean")
    weights: Literal["equal", "tokens"] = Field(
        default="equal", description="each payload counts once, or by the tokens that it claims to have trained on"
    )

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The combined pseudo-gradient [N]; coordinates that nobody sent get 0."""
        assert payloads, "nothing to combine"
        limits = self.clip_norms(payloads)
        if limits is not None:
            payloads = all_clipped(payloads, limits)
        weights = [1] * len(payloads) if self.weights == "equal" else [payload.claims.tokens for payload in payloads]
        return weighted_mean(payloads, weights, layout, self.over)

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The median norms of these payloads, if there are any and the mean clips."""
        return median_norms(payloads) if payloads and self.clip == "median_norm" else None


@aggregators.register
class GauntletWeighted(Aggregator):
    """The mean weighted by what the peers on the gather list in force were worth when it was published.

    Who had no weight then counts for nothing, unless that goes for all who were gathered: then they count alike.

    Source: Gauntlet (arXiv 2505.21684), where the aggregate is weighted by the incentives.
    """

    kind: Literal["gauntlet_weighted"] = "gauntlet_weighted"
    reads_weights: ClassVar[bool] = True
    over: Over = Field(default="senders", description="whose weights a coordinate's sum is divided by")
    clip: Clip = Field(default="median_norm", description="limit per tensor before the mean")

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The combined pseudo-gradient [N]; coordinates that nobody of any weight sent get 0."""
        assert payloads, "nothing to combine"
        limits = self.clip_norms(payloads)
        if limits is not None:
            payloads = all_clipped(payloads, limits)
        weights = [payload.weight for payload in payloads]
        total = sum(weights)
        shares = [weight / total for weight in weights] if total > 0 else [1 / len(payloads)] * len(payloads)
        return weighted_mean(payloads, shares, layout, self.over)

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The median norms of these payloads, if there are any and the mean clips."""
        return median_norms(payloads) if payloads and self.clip == "median_norm" else None


def weighted_mean(
    payloads: Sequence[Decoded], weights: Sequence[int] | Sequence[float], layout: Layout, over: Over
) -> Tensor:
    """Sum of weighted values by coordinate [N], over the weight of its senders or of all; 0 where that is 0."""
    if isinstance(payloads, Rows) and payloads.whole and sum(weights) > 0:
        if len(set(weights)) == 1:
            return payloads.spread(payloads.even_mean())
        return payloads.spread(payloads.mean(torch.tensor(weights, dtype=torch.float64), "zero_filled"))
    everything = torch.arange(layout.num_parameters)
    if all(len(each.index) == len(everything) and torch.equal(each.index, everything) for each in payloads):
        return columnwise(lambda block: _sum_of_whole(payloads, weights, block), len(everything)) / (sum(weights) or 1)
    with one_thread():
        total = torch.zeros(len(everything))
        for payload, weight in zip(payloads, weights, strict=True):
            total.index_add_(0, payload.index, payload.value, alpha=weight)
        if over == "all":
            return total / (sum(weights) or 1)
        return total / _weight_sent(payloads, weights, layout.num_parameters)


def _sum_of_whole(payloads: Sequence[Decoded], weights: Sequence[int] | Sequence[float], block: slice) -> Tensor:
    """Sum of weighted values in a block of coordinates that all have sent; the same bits as by their indices."""
    total = torch.zeros(block.stop - block.start)
    for payload, weight in zip(payloads, weights, strict=True):
        total += payload.value[block] * weight
    return total


def _weight_sent(payloads: Sequence[Decoded], weights: Sequence[int] | Sequence[float], num_parameters: int) -> Tensor:
    """Weight of those who sent each coordinate [N], 1 where nobody of any weight did."""
    weight = torch.zeros(num_parameters, dtype=torch.float64)
    for payload, each in zip(payloads, weights, strict=True):
        weight.index_add_(0, payload.index, torch.full((len(payload.index),), float(each), dtype=torch.float64))
    return torch.where(weight > 0, weight, 1.0).float()
