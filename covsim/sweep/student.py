"""Student's t distribution at any confidence, for claims that have one side."""

from __future__ import annotations

import math
from functools import cache

_SMALLEST = 1e-300
_PRECISION = 1e-14
_MOST_TERMS = 10_000


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """The value below which a t-distributed variable lies with a probability of at least 1/2.

    Args:
        probability: in [0.5, 1).
        degrees: of freedom, 1 or more.

    Source: the distribution function by the incomplete beta function (Abramowitz and Stegun 26.7.1), inverted by
    bisection to 12 digits.
    """
    assert 0.5 <= probability < 1, "the other half is its mirror image"
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if t_probability(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_probability(value: float, degrees: int) -> float:
    """The probability of values below one that is 0 or more."""
    assert value >= 0, "the other half is its mirror image"
    return 0.5 + _incomplete_beta(value * value / (degrees + value * value), 0.5, degrees / 2) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the continued fraction converges fast on one side only
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _continued_fraction(x, a, b))


def _continued_fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) with the coefficients of Abramowitz and Stegun 26.5.8, by Lentz's method."""
    value, above, below = 1.0, 1.0, 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below = 1 / _away_from_zero(1 + coefficient * below)
        above = _away_from_zero(1 + coefficient / above)
        value *= above * below
        if abs(above * below - 1) < _PRECISION:
            return value
    raise AssertionError(f"the incomplete beta function does not converge at {x}, {a}, {b}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _SMALLEST else _SMALLEST
