"""Methods that look at one coordinate at a time: coordinate median, trimmed mean, mean around the median.

`unsent` decides what they can do at all on sparse payloads. Zero-filled, a coordinate that less than half of the
payloads hold has the median 0, and at 1.56 % density that is nearly every one; over senders, a coordinate that one or
two payloads hold has nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.aggregators.sorted_columns import (
    mean_around_median_of,
    median_of,
    reduce_sorted,
    trimmed_mean_of,
)
from covsim.protocol.aggregators.tolerance import DEFAULT_TOLERATED, Tolerated, wished
from covsim.protocol.base import Decoded, Layout


@aggregators.register
class Median(Aggregator):
    """The middle value of every coordinate, or the mean of the two in the middle.

    Source: coordinate-wise median (Yin et al., ICML 2018); `Median` of ByzFL 0.0.11.
    """

    kind: Literal["median"] = "median"
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The medians [N]."""
        rows = Rows.of(payloads, layout)
        return rows.spread(reduce_sorted(rows, self.unsent, median_of))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None


@aggregators.register
class TrimmedMean(Aggregator):
    """The mean of every coordinate without its f lowest and f highest values.

    Needs 2 f < n; with fewer, f is the most that n allows. Over senders the same holds for each coordinate.

    Source: Yin et al. (ICML 2018); `TrMean` of ByzFL 0.0.11.
    """

    kind: Literal["trimmed_mean"] = "trimmed_mean"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The trimmed means [N]."""
        rows = Rows.of(payloads, layout)
        reduce = partial(trimmed_mean_of, f=self.tolerated(len(rows)))
        return rows.spread(reduce_sorted(rows, self.unsent, reduce))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them."""
        return min(wished(self.f, num), (num - 1) // 2)


@aggregators.register
class Meamed(Aggregator):
    """The mean of every coordinate over the n - f values nearest to its median.

    Needs 2 f < n; with fewer, f is the most that n allows. Over senders the same holds for each coordinate.

    Source: mean around median (Xie et al., 2018, arXiv 1802.10116); `Meamed` of ByzFL 0.0.11.
    """

    kind: Literal["meamed"] = "meamed"
    f: Tolerated = DEFAULT_TOLERATED
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The means around the medians [N]."""
        rows = Rows.of(payloads, layout)
        reduce = partial(mean_around_median_of, f=self.tolerated(len(rows)))
        return rows.spread(reduce_sorted(rows, self.unsent, reduce))

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None

    def tolerated(self, num: int) -> int:
        """Less than half of them."""
        return min(wished(self.f, num), (num - 1) // 2)
