"""What is made of the values of each coordinate in their order: median, trimmed mean, mean around the median.

Columns are sorted as rows of memory, where numpy's vectorized sort is fastest. A coordinate that m of n payloads hold
tolerates at most floor((m - 1) / 2) of them: one that a single peer sent is that peer's to decide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covsim.protocol.aggregators.columns import columnwise
from covsim.protocol.aggregators.rows import Rows, Unsent

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

Reduce = Callable[[Floats, Ints], Floats]
"""From values in rising order [C, R], of which the first m count, and these numbers m [C], to one number each [C]."""


def reduce_sorted(rows: Rows, unsent: Unsent, reduce: Reduce) -> Tensor:
    """One number per column [M] from its sorted values; what does not count stands behind, as infinity."""
    whole = unsent == "zero_filled" or rows.whole

    def of_block(block: slice) -> Tensor:
        values, sent = rows.values[:, block], rows.sent[:, block]
        held = torch.full((values.shape[1],), len(rows)) if whole else sent.sum(dim=0)
        ordered = (values if whole else torch.where(sent, values, torch.inf)).T.contiguous().numpy()
        return torch.from_numpy(reduce(np.sort(ordered, axis=1), held.numpy()))

    return columnwise(of_block, len(rows.columns))


def median_of(ordered: Floats, held: Ints) -> Floats:
    """The middle value, or the mean of the two [C]."""
    low, high = _at(ordered, (held - 1) // 2), _at(ordered, held // 2)
    middle: Floats = low + (high - low) * np.float32(0.5)
    return middle


def trimmed_mean_of(ordered: Floats, held: Ints, f: int) -> Floats:
    """The mean without the f lowest and the f highest [C]; with fewer of them where a coordinate allows no more."""
    cut = np.minimum(f, (held - 1) // 2)
    if (held == held[0]).all():
        inner: Floats = ordered[:, cut[0] : held[0] - cut[0]].mean(axis=1)
        return inner
    place = np.arange(ordered.shape[1])
    kept = (place >= cut[:, None]) & (place < (held - cut)[:, None])
    mean: Floats = np.where(kept, ordered, 0).sum(axis=1) / (held - 2 * cut).astype(np.float32)
    return mean


def mean_around_median_of(ordered: Floats, held: Ints, f: int) -> Floats:
    """The mean of all but the f values that lie farthest from the median [C].

    Those that stay are neighbors in the order, so only f + 1 windows are looked at; equally good ones share.
    """
    cut = np.minimum(f, (held - 1) // 2)
    size = (held - cut)[:, None]
    first = np.arange(int(cut.max()) + 1)[None, :]
    possible = first <= cut[:, None]
    last = np.minimum(first + size, held[:, None]) - 1
    middle = median_of(ordered, held)[:, None]
    low = np.take_along_axis(ordered, np.broadcast_to(first, last.shape), axis=1)
    high = np.take_along_axis(ordered, last, axis=1)
    reach = np.where(possible, np.maximum(middle - low, high - middle), np.inf)
    sums = np.zeros((len(ordered), ordered.shape[1] + 1))
    np.cumsum(np.where(np.isinf(ordered), 0, ordered), axis=1, dtype=np.float64, out=sums[:, 1:])
    means = (np.take_along_axis(sums, last + 1, axis=1) - sums[:, : first.shape[1]]) / size
    best = reach == reach.min(axis=1, keepdims=True)
    chosen: Floats = (np.where(best, means, 0).sum(axis=1) / best.sum(axis=1)).astype(np.float32)
    return chosen


def _at(ordered: Floats, place: Ints) -> Floats:
    taken: Floats = np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
    return taken
