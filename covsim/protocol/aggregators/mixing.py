"""Payloads are mixed with each other before they are combined: nearest neighbors, or buckets drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.aggregators.columns import one_thread
from covsim.protocol.aggregators.distances import lowest, squared_distances
from covsim.protocol.aggregators.pre import PreAggregator, pre_aggregators
from covsim.protocol.aggregators.rows import UNSENT, Header, Rows, Unsent
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.base import Decoded, Layout


@pre_aggregators.register
class Nnm(PreAggregator):
    """Each payload becomes the mean of the n - f nearest to it, itself included.

    One matrix of inner products gives the distances, one product of matrices all means. Needs f < n; with fewer, f is
    n - 1. A mix claims what its payload claimed.

    Source: nearest neighbor mixing (Allouah et al., AISTATS 2023); `NNM` of ByzFL 0.0.11.
    """

    kind: Literal["nnm"] = "nnm"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """As many mixes as there were payloads."""
        rows = Rows.of(payloads, layout)
        gram = rows.gram()
        with one_thread():
            mixing = lowest(squared_distances(gram), len(rows) - self.tolerated(len(rows)))
        return rows.mixed(mixing, self.unsent, rows.headers)

    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: mixes are nobody's own."""
        return None

    def num_left(self, num: int) -> int:
        """All of them."""
        return num

    def tolerated(self, num: int) -> int:
        """All but one."""
        return min(wished(self.f, num), num - 1)


@pre_aggregators.register
class Bucketing(PreAggregator):
    """Payloads are dealt into buckets of `size` at random, and the buckets' means are combined.

    What is left over makes a smaller bucket. A bucket claims the tokens of all in it, and has their mean weight. An `f`
    that comes after it counts buckets.

    Source: Karimireddy et al. (ICLR 2022); `Bucketing` of ByzFL 0.0.11.
    """

    kind: Literal["bucketing"] = "bucketing"
    size: int = Field(default=2, ge=1, le=100_000, description="payloads in a bucket")
    unsent: Unsent = UNSENT

    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """The means, as payloads."""
        rows = Rows.of(payloads, layout)
        dealt = draw.permutation(len(rows))
        buckets = [dealt[start : start + self.size].tolist() for start in range(0, len(rows), self.size)]
        mixing = torch.zeros(len(buckets), len(rows), dtype=torch.float64)
        for row, bucket in zip(mixing, buckets, strict=True):
            row[bucket] = 1
        return rows.mixed(mixing, self.unsent, [_together([rows.headers[each] for each in one]) for one in buckets])

    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: mixes are nobody's own."""
        return None

    def num_left(self, num: int) -> int:
        """One for each bucket."""
        return -(-num // self.size)


def _together(headers: Sequence[Header]) -> Header:
    """What a bucket claims: base and seed are those of its first."""
    tokens = sum(header.claims.tokens for header in headers)
    weight = sum(header.weight for header in headers) / len(headers)
    return Header(headers[0].claims._replace(tokens=tokens), weight)
