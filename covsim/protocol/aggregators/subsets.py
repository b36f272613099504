"""Means over the best subset of n - f payloads: the one of least diameter, or of least variance in any direction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.columns import one_thread
from covsim.protocol.aggregators.distances import TIE, squared_distances
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.aggregators.vertex_cover import coverable
from covsim.protocol.base import Decoded, Layout

MOST_SUBSETS = 50_000
"""Subsets that SMEA looks at in a round; with more to look at it tolerates fewer."""

_BATCH = 4096


@aggregators.register
class Mda(Aggregator):
    """The mean of the n - f payloads among which the largest distance is least.

    Needs 2 f < n; with fewer, f is the most that n allows. The subset is found exactly: payloads too far apart are
    joined in a graph, and f of them must touch all its edges. Of several such subsets the more central payloads make
    up the one that is taken. A search that grows too long (`vertex_cover.MOST_BRANCHES`) settles for a larger diameter.

    Source: minimum diameter averaging (El Mhamdi et al., ICML 2018); `MDA` of ByzFL 0.0.11, which looks at all subsets.
    """

    kind: Literal["mda"] = "mda"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The mean [N] of the subset."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            chosen = least_diameter(squared_distances(gram), len(rows) - self.tolerated(len(rows)))
        return rows.spread(rows.mean(chosen, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them."""
        return min(wished(self.f, num), (num - 1) // 2)


@aggregators.register
class Smea(Aggregator):
    """The mean of the n - f payloads whose covariance has the smallest largest eigenvalue; of those that tie.

    Needs 2 f < n, and no more than `MOST_SUBSETS` subsets; otherwise f is the most that both allow. ByzFL estimates
    the eigenvalue by one power iteration from a random start; here it is exact.

    Source: smallest maximum eigenvalue averaging (Allouah et al., ICML 2023); `SMEA` of ByzFL 0.0.11.
    """

    kind: Literal["smea"] = "smea"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The mean [N] of the subset."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            chosen = least_eigenvalue(gram, len(rows) - self.tolerated(len(rows)))
        return rows.spread(rows.mean(chosen, self.unsent))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them, and as many as can be looked at."""
        f = min(wished(self.f, num), (num - 1) // 2)
        while math.comb(num, f) > MOST_SUBSETS:
            f -= 1
        return f


def least_diameter(distances: Tensor, num: int) -> Tensor:
    """Weights [R], 1 for `num` payloads whose largest distance [R, R] is least; central ones go first."""
    by_centrality = distances.sum(dim=1).argsort(stable=True).tolist()
    levels = sorted(set(distances.flatten().tolist()))
    low, high = 0, len(levels) - 1
    while low < high:  # the smallest level at which leaving out the rest leaves nobody too far apart
        middle = (low + high) // 2
        if coverable(too_far_apart(distances, levels[middle]), len(distances) - num):
            high = middle
        else:
            low = middle + 1
    left_out = _leave_out(too_far_apart(distances, levels[low]), by_centrality, len(distances) - num)
    return torch.tensor([float(place not in left_out) for place in range(len(distances))], dtype=torch.float64)


def too_far_apart(distances: Tensor, level: float) -> list[int]:
    """The graph that joins payloads farther apart than a level."""
    joined = (distances > level * (1 + TIE)).tolist()
    return [sum(1 << other for other, edge in enumerate(row) if edge) for row in joined]


def _leave_out(graph: list[int], by_centrality: Sequence[int], budget: int) -> set[int]:
    """`budget` payloads that touch all edges, the least central ones where there is a choice."""
    left_out: set[int] = set()
    for place in reversed(by_centrality):
        if len(left_out) == budget:
            break
        without = [0 if other == place else neighbors & ~(1 << place) for other, neighbors in enumerate(graph)]
        if coverable(without, budget - len(left_out) - 1):
            left_out.add(place)
            graph = without
    return left_out


def least_eigenvalue(gram: Tensor, num: int) -> Tensor:
    """Weights [R] of the subset of `num` rows whose covariance has the least largest eigenvalue; ties share."""
    subsets = torch.tensor(list(itertools.combinations(range(len(gram)), num)))
    largest = torch.cat([_largest_eigenvalues(gram, part) for part in torch.split(subsets, _BATCH)])
    best = subsets[largest <= largest.min() * (1 + TIE)]
    return torch.bincount(best.flatten(), minlength=len(gram)).double()


def _largest_eigenvalues(gram: Tensor, subsets: Tensor) -> Tensor:
    """Of the covariance of each subset [S, k] of rows, times k [S]."""
    inner = gram[subsets[:, :, None], subsets[:, None, :]]
    means = inner.mean(dim=2, keepdim=True)
    centered = inner - means - means.transpose(1, 2) + means.mean(dim=1, keepdim=True)
    values: Tensor = torch.linalg.eigvalsh(centered)
    return values[:, -1].clamp(min=0)
