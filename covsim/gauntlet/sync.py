"""How far a peer's theta lies from the validator's, told by a few elements of it that the peer publishes.

Source: `templar` v2.1.28. The unit is an outer step: what the validator's own elements move in one, on average. Samples
are world-readable, and a peer that copies another's is believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covsim.gauntlet.settings import SyncRules

LEAST_STEP = 1e-9
"""An average step below this counts as this: elements that hardly move tell a lot."""


def sync_score(rules: SyncRules, steps_behind: float) -> float:
    """S = max(0, (1 - min(x, cap) / cap) ^ exponent), in [0, 1]; 0 for a missing sample (NaN) or an impossible one."""
    if not steps_behind >= 0:
        return 0.0
    return float((1.0 - min(steps_behind, rules.cap) / rules.cap) ** rules.exponent)


def steps_behind(theirs: ArrayLike, own: ArrayLike, average_step: ArrayLike) -> float:
    """The inter-quartile mean of |theirs - own| / max(average step, 1e-9) over the sampled elements, in float64.

    The quartiles q1 and q3 are interpolated linearly between the sorted values, at 0.25 and 0.75 of S - 1; the mean is
    over the values v with q1 <= v <= q3, both ends included, as in the code: the middle two of four, three of five.
    Two different values have none between their quartiles, and then both count. NaN, which stands for no sample, if a
    number is not finite, so that nobody gains by publishing one.

    Args:
        theirs, own: the elements of the peer's and the validator's theta [S], S > 0.
        average_step: what the validator's elements move in an outer step, on average [S], >= 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.abs(_float64(theirs) - _float64(own)) / np.maximum(_float64(average_step), LEAST_STEP)
    assert distance.ndim == 1
    assert distance.size, "steps behind need one sample or more"
    if not np.isfinite(distance).all():
        return math.nan
    low, high = np.quantile(distance, [0.25, 0.75])
    middle = distance[(distance >= low) & (distance <= high)]
    return math.fsum(middle if middle.size else distance) / (middle.size or distance.size)


def sample_positions(
    shapes: Sequence[Sequence[int]], per_tensor: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Positions in the flat theta of the elements that peers publish [S], rising: some of each tensor, drawn once.

    A tensor with fewer elements gives all it has. The deployed code takes the last two of each tensor; drawn ones say
    the same and favor no part of a tensor.

    Args:
        shapes: of the tensors, in the order in which the flat theta holds them.
    """
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    drawn = [
        start + generator.choice(end - start, size=min(per_tensor, end - start), replace=False)
        for start, end in pairwise(starts)
    ]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *drawn])).astype(np.int64)


def _float64(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
