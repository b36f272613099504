"""The 95 % confidence interval of a mean over few runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)  # of Student's t, 1 to 9 degrees


@dataclass(frozen=True)
class Interval:
    """A mean over n runs and half the width of its 95 % confidence interval; a single run has width 0."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean. One value is taken at its word: nothing is known of its spread."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Interval(mean, t_quantile(count - 1) * math.sqrt(variance / count))


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t distribution, to three digits after the point.

    From 10 degrees of freedom on by the expansion around the normal quantile (Abramowitz and Stegun 26.7.5).
    """
    if degrees < 10:
        return _T[degrees - 1]
    z, n = _Z, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
