"""A filter that needs no bound on how honest payloads differ: who stands out in the widest direction loses weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.columns import one_thread
from covsim.protocol.aggregators.distances import centered, evenly
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.base import Decoded, Layout


@aggregators.register
class Caf(Aggregator):
    """The weighted mean at which the weighted covariance is narrowest, while outliers lose weight one after the other.

    Weights shrink along the widest direction until 2 f of them are gone. Needs 2 f < n; with fewer, f is the most that
    n allows. ByzFL takes that direction from one power iteration with a random start; here it is exact.

    Source: covariance-bound agnostic filter (Allouah et al., ICML 2025); `CAF` of ByzFL 0.0.11.
    """

    kind: Literal["caf"] = "caf"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT
    scale: Literal["weighted", "all"] = Field(
        default="weighted",
        description="who sets the scale by which weights shrink: those that have some left, or all, as in ByzFL, where "
        "one payload far out keeps the others from losing theirs; it looks 1,000 times at most",
    )

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The weighted mean [N]."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            weights = filtered(gram, self.tolerated(len(rows)), self.scale)
        return rows.spread(rows.mean(weights, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them."""
        return min(wished(self.f, num), (num - 1) // 2)


def filtered(gram: Tensor, f: int, scale: Literal["weighted", "all"] = "weighted") -> Tensor:
    """Weights [R] that sum to 1, from inner products [R, R]."""
    num = len(gram)
    kept, best, narrowest = torch.ones(num, dtype=torch.float64), evenly(num), torch.inf
    for _ in range(MOST_LOOKS):
        if kept.sum() <= num - 2 * f:
            break
        weights = kept / kept.sum()
        around = centered(gram, weights)
        roots = weights.sqrt()
        values, directions = torch.linalg.eigh(roots[:, None] * around * roots[None, :])
        width = float(values[-1])
        if width < narrowest:
            narrowest, best = width, weights
        along = (around @ (roots * directions[:, -1])).square()
        if width <= _NO_WIDTH * float(gram.diagonal()[kept > 0].max()):
            break
        kept = kept * (1 - along / (along if scale == "all" else along[kept > 0]).max()).clamp(min=0)
    return best


MOST_LOOKS = 1000
"""Where all set the scale, weights may shrink by next to nothing each time; the best seen by then is taken."""

_NO_WIDTH = 1e-14
"""Relative to the longest payload, squared: what is left of payloads that agree is rounding."""
