"""Krum and its kin: payloads are judged by how near others are, and the most central ones make up the step.

Distances are between zero-filled payloads: who sends other coordinates is far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.columns import one_thread
from covsim.protocol.aggregators.distances import lowest, of_mean, squared_distances
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.base import Decoded, Layout


@aggregators.register
class Krum(Aggregator):
    """The one payload whose n - f - 1 nearest others are nearest; the mean of those that tie for it.

    Needs n >= 2 f + 3; with fewer, f is the most that n allows. The paper adds up n - f - 2 distances, ByzFL one more.

    Source: Blanchard et al. (NeurIPS 2017); `Krum` of ByzFL 0.0.11.
    """

    kind: Literal["krum"] = "krum"
    f: Tolerated = DEFAULT_TOLERATED

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The chosen payload [N]; 0 where it sent nothing."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            chosen = lowest(krum_scores(gram, self.tolerated(len(rows))), 1)
        return rows.spread(rows.mean(chosen, "zero_filled"))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Fewer than half less one."""
        return most_of_krum(self.f, num)


@aggregators.register
class MultiKrum(Aggregator):
    """The mean of the n - f payloads whose n - f - 1 nearest others are nearest.

    Needs n >= 2 f + 3; with fewer, f is the most that n allows.

    Source: Blanchard et al. (NeurIPS 2017); `MultiKrum` of ByzFL 0.0.11.
    """

    kind: Literal["multi_krum"] = "multi_krum"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The mean [N] of the chosen."""
        rows = Rows.of(payloads, layout)
        gram, f = rows.gram(), self.tolerated(len(rows))
        with one_thread():
            chosen = lowest(krum_scores(gram, f), len(rows) - f)
        return rows.spread(rows.mean(chosen, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Fewer than half less one."""
        return most_of_krum(self.f, num)


@aggregators.register
class Monna(Aggregator):
    """The mean of the n - f payloads nearest to a trusted one: that of the heaviest peer on the gather list in force.

    Where nobody has weight, or several have the most, the nearest to their mean are taken. Needs 2 f < n; with fewer,
    f is the most that n allows. In ByzFL each node trusts itself; then no two would have the same theta.

    Source: nearest-neighbor averaging (Farhadkhani et al., ICML 2023); `MoNNA` of ByzFL 0.0.11.
    """

    kind: Literal["monna"] = "monna"
    reads_weights: ClassVar[bool] = True
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The mean [N] of the chosen."""
        rows = Rows.of(payloads, layout)
        gram, weights = rows.gram(), torch.tensor([header.weight for header in rows.headers], dtype=torch.float64)
        with one_thread():
            chosen = nearest_to(gram, weights == weights.max(), len(rows) - self.tolerated(len(rows)))
        return rows.spread(rows.mean(chosen, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them."""
        return min(wished(self.f, num), (num - 1) // 2)


def most_of_krum(f: int | float, num: int) -> int:
    """The most that a setting asks for and n >= 2 f + 3 allows; 0 for fewer than three payloads."""
    return max(0, min(wished(f, num), (num - 3) // 2))


def krum_scores(gram: Tensor, f: int) -> Tensor:
    """Mean squared distance of each payload to its n - f - 1 nearest others [R]; 0 where there is none."""
    ordered = squared_distances(gram).sort(dim=1).values[:, 1 : len(gram) - f]
    return ordered.mean(dim=1) if ordered.shape[1] else ordered.new_zeros(len(gram))


def nearest_to(gram: Tensor, trusted: Tensor, num: int) -> Tensor:
    """Weights [R] of the `num` payloads nearest to the mean of those that are trusted, bool [R]."""
    return lowest(of_mean(gram, trusted.double() / trusted.sum()), num)
