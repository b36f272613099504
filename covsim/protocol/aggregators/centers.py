"""Centers that are found step by step: the geometric median and centered clipping.

Each point on the way is a weighted sum of payloads, so the steps work on the weights, and theta's length plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.columns import one_thread
from covsim.protocol.aggregators.distances import evenly, of_mean
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.base import Decoded, Layout


@aggregators.register
class GeometricMedian(Aggregator):
    """The point whose distances to all payloads sum to the least, by smoothed Weiszfeld steps.

    Distances are between zero-filled payloads; those below `nu` count as `nu`. ByzFL takes 3 steps from zero with
    nu 0.1, which is a plain mean wherever pseudo-gradients are shorter than that.

    Source: Pillutla et al. (2022, arXiv 1912.13445); `GeometricMedian` of ByzFL 0.0.11.
    """

    kind: Literal["geometric_median"] = "geometric_median"
    nu: float = Field(default=1e-6, gt=0, le=1e9, description="shortest distance that is told apart")
    iterations: int = Field(default=16, ge=1, le=1_000, description="steps")
    start: Literal["mean", "zero"] = Field(default="mean", description="where the first step begins")
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The median [N]; over senders, its weights are those of each coordinate's senders."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            weights = weiszfeld(gram, self.nu, self.iterations, self.start)
        return rows.spread(rows.mean(weights, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None


@aggregators.register
class CenteredClipping(Aggregator):
    """From zero, step by step: the mean of how far payloads lie from the center, each distance limited to `tau`.

    Payloads are zero-filled. With `tau: median` the limit is the lower median of the distances at each step, so that
    nobody's unit is preferred. The original and ByzFL begin at the aggregate of the round before; one step from zero
    clips payloads and takes the mean.

    Source: Karimireddy et al. (ICML 2021); `CenteredClipping` of ByzFL 0.0.11 in its first round.
    """

    kind: Literal["centered_clipping"] = "centered_clipping"
    tau: Annotated[float, Field(gt=0, le=1e30)] | Literal["median"] = Field(
        default="median", description="the longest distance from the center that counts in full"
    )
    iterations: int = Field(default=3, ge=1, le=1_000, description="steps")

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The last center [N]."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            weights = clipped_center(gram, self.tau, self.iterations)
        return rows.spread(rows.sum(weights))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """What the first step limits payloads to, as a whole."""
        if not payloads:
            return None
        if self.tau != "median":
            return torch.tensor(self.tau, dtype=torch.float64)
        return torch.stack([payload.norms.norm() for payload in payloads]).median()


def weiszfeld(gram: Tensor, nu: float, iterations: int, start: Literal["mean", "zero"]) -> Tensor:
    """Weights [R] of the geometric median, summing to 1."""
    weights = evenly(len(gram)) if start == "mean" else torch.zeros(len(gram), dtype=torch.float64)
    for _ in range(iterations):
        inverse = 1 / of_mean(gram, weights).sqrt().clamp(min=nu)
        weights = inverse / inverse.sum()
    return weights


def clipped_center(gram: Tensor, tau: float | Literal["median"], iterations: int) -> Tensor:
    """Weights [R] whose weighted sum of rows is the center; they sum to 1 or less."""
    weights = torch.zeros(len(gram), dtype=torch.float64)
    for _ in range(iterations):
        distances = of_mean(gram, weights).sqrt()
        limit = distances.median() if tau == "median" else tau
        factors = torch.where(distances > limit, limit / distances, 1.0) / len(gram)
        weights = weights * (1 - factors.sum()) + factors
    return weights
