"""One-sided claims over seeds: pass, fail or inconclusive, against scipy and against repeated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from covsim.sweep.finding import Finding, worst
from covsim.sweep.student import t_probability, t_quantile


def finding(*values: float, bound: float = 0.0, confidence: float = 0.95, percent: bool = False) -> Finding:
    return Finding("x", bound, values, tuple(map(str, values)), confidence, percent)


@pytest.mark.parametrize("degrees", [*range(1, 12), 30, 99, 999])
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.95, 0.975, 0.99, 0.9999])
def test_t_quantile_equals_scipy_at_any_confidence(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 4.3, 100.0])
def test_t_probability_equals_scipy(value: float) -> None:
    for degrees in (1, 2, 5, 40):
        assert t_probability(value, degrees) == pytest.approx(stats.t.cdf(value, degrees), abs=1e-12)


@pytest.mark.parametrize("value", [1e-9, 1e-6, 0.1, 1.0, 1e3])
def test_t_probability_with_one_degree_is_the_arcus_tangent(value: float) -> None:
    assert t_probability(value, 1) == pytest.approx(0.5 + math.atan(value) / math.pi, abs=1e-14)


def test_bounds_are_one_sided() -> None:
    """A two-sided interval of the same confidence would reach further."""
    values = (2.0, 3.0, 7.0)
    reach = stats.t.ppf(0.95, 2) * stats.sem(values)
    assert finding(*values).reach == pytest.approx(reach, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((-1.0, -1.1, -0.9), "pass"),
        ((1.0, 1.1, 0.9), "fail"),
        ((-0.1, 0.1, 0.2), "inconclusive"),
        ((-1.0, 3.0), "inconclusive"),
        ((0.0, 0.0), "pass"),
        ((-0.001,), "pass"),
        ((0.001,), "fail"),
        ((math.nan, -1.0, -1.0), "fail"),
        ((-math.inf, -1.0), "fail"),
    ],
)
def test_outcomes(values: tuple[float, ...], outcome: str) -> None:
    """The border is allowed, one seed is taken at its word, and what is no number proves nothing."""
    assert finding(*values).outcome == outcome


def test_a_claim_that_is_false_by_a_hair_passes_in_one_of_twenty_tests() -> None:
    luck = np.random.default_rng(0)
    outcomes = [finding(*luck.normal(size=4)).outcome for _ in range(4000)]
    assert outcomes.count("pass") / 4000 == pytest.approx(0.05, abs=0.012)
    assert outcomes.count("fail") / 4000 == pytest.approx(0.05, abs=0.012)


def test_inconclusive_says_what_could_be_shown() -> None:
    one = finding(-0.1, 0.1, 0.2)
    assert f"3 seeds can show effects from {one.reach:.4g} on" in one.note
    far = [value - 0.0667 - 1.01 * one.reach for value in one.values]
    assert finding(*far).outcome == "pass"


def test_shares_are_shown_as_such() -> None:
    one = finding(0.612, 0.58, bound=0.05, percent=True)
    assert one.expected == "at most 5 %"
    assert one.seen.startswith("59.6 % (one-sided 95 % bounds 49.5 % and 69.7 %)")
    assert finding(math.nan, 1.0).seen == "no number in 1 of 2 runs"
    assert finding(1.0).seen == "1 (one seed: no interval)"


def test_the_worst_of_several_counts() -> None:
    passed, failed, untold = finding(-1.0), finding(1.0), finding(-1.0, 3.0)
    assert worst([passed, passed]) == "pass"
    assert worst([passed, untold]) == "inconclusive"
    assert worst([untold, failed, passed]) == "fail"
