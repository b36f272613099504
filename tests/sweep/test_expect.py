"""Claims over seeds end as pass, fail or inconclusive, and known holes are strict."""

import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from covsim.scenario.sections import Claim
from covsim.sweep import expect
from covsim.sweep.interval import interval, t_quantile


def claim(metric: str = "x", **values: Any) -> Claim:
    return Claim(metric=metric, **values)


def ruling(a_claim: Claim, values: list[float | None], clean: list[float] | None = None) -> expect.Ruling:
    runs = [{a_claim.metric: value} for value in values]
    twins = [{a_claim.metric: value} for value in clean or []]
    (one,) = expect.judge([a_claim], runs, twins)
    return one


@pytest.mark.parametrize("degrees", [*range(1, 40), 100, 999])
def test_t_quantile_equals_scipy(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=5e-4)


def test_interval_equals_scipy() -> None:
    values = [2.0, 3.0, 7.0]
    expected = stats.t.interval(0.95, 2, loc=4.0, scale=stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-4)


def test_interval_covers_the_truth_in_19_of_20_cases() -> None:
    luck = np.random.default_rng(0)
    covered = [abs(one.mean) <= one.half_width for one in (interval(luck.normal(size=4).tolist()) for _ in range(2000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([1.0, 1.1, 0.9], "pass"),
        ([3.0, 3.1, 2.9], "fail"),
        ([1.9, 2.1, 1.8], "inconclusive"),
        ([1.0, 3.2], "inconclusive"),
    ],
)
def test_at_most(values: list[float], outcome: str) -> None:
    assert ruling(claim(at_most=2.0), list(values)).outcome == outcome


def test_at_least_is_the_mirror_image() -> None:
    assert ruling(claim(at_least=2.0), [3.0, 3.1, 2.9]).outcome == "pass"
    assert ruling(claim(at_least=2.0), [1.0, 1.1, 0.9]).outcome == "fail"


def test_both_bounds_must_hold() -> None:
    both = claim(at_least=1.0, at_most=2.0)
    assert ruling(both, [1.5, 1.51, 1.49]).outcome == "pass"
    assert ruling(both, [0.5, 0.51, 0.49]).outcome == "fail"
    assert ruling(both, [2.5, 2.51, 2.49]).outcome == "fail"
    assert ruling(both, [0.5, 2.5, 1.5]).outcome == "inconclusive"


def test_border_itself_is_allowed() -> None:
    assert ruling(claim(at_least=1.0), [1.0]).outcome == "pass"
    assert ruling(claim(at_most=0.0), [0.0, 0.0, 0.0]).outcome == "pass"


def test_single_seed_is_taken_at_its_word() -> None:
    assert ruling(claim(at_most=2.0), [1.999]).outcome == "pass"
    failed = ruling(claim(at_most=2.0), [2.001])
    assert failed.outcome == "fail"
    assert failed.note == "one seed: no interval"


def test_inconclusive_says_what_could_be_shown() -> None:
    one = ruling(claim(at_most=2.0), [1.5, 2.5, 2.0])
    assert one.outcome == "inconclusive"
    assert one.smallest_effect == pytest.approx(4.3027 * 0.5 / math.sqrt(3), rel=1e-4)
    assert f"3 seeds can show effects from {one.smallest_effect:.2g} on" in one.note
    far = [value - 1.01 * one.smallest_effect for value in (1.5, 2.5, 2.0)]
    assert ruling(claim(at_most=2.0), far).outcome == "pass"


def test_versus_clean_is_paired_by_seed() -> None:
    """Seeds differ by far more than the attack does; pairing removes what they share."""
    clean = [2.0, 3.0, 4.0]
    paired = [2.02, 3.03, 4.04]
    against = claim("loss.final", versus="clean", margin=0.02)
    one = ruling(against, paired, clean)
    assert one.outcome == "pass"
    assert one.measured.mean == pytest.approx(0.01)
    assert ruling(against, [3.03, 4.04, 2.02], clean).outcome == "inconclusive"
    assert ruling(against, [2.2, 3.3, 4.4], clean).outcome == "fail"


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [
        ("loss.final", 1.5, 0.5),
        ("time_to_loss.3", 1.5, 0.5),
        ("late_share", 1.5, 0.5),
        ("time.compute_utilization", 0.5, 1.5),
        ("participation.mean_contributing", 0.5, 1.5),
        ("network.compression_ratio", 0.5, 1.5),
    ],
)
def test_margin_bounds_what_is_worse(metric: str, worse: float, better: float) -> None:
    against = claim(metric, versus="clean", margin=0.1)
    assert ruling(against, [worse], [1.0]).outcome == "fail"
    assert ruling(against, [better], [1.0]).outcome == "pass"


def test_any_difference_counts_where_nothing_is_worse() -> None:
    against = claim("pay_per_peer.lazy", versus="clean", margin=0.1)
    assert [ruling(against, [x], [1.0]).outcome for x in (0.5, 1.05, 1.5)] == ["fail", "pass", "fail"]


def test_relative_to_nothing_is_no_number() -> None:
    against = claim("late_share", versus="clean", margin=0.1)
    assert ruling(against, [0.0], [0.0]).outcome == "pass"
    assert ruling(against, [0.1], [0.0]).outcome == "fail"


def test_what_was_not_measured_fails() -> None:
    one = ruling(claim("time_to_loss.2", at_most=1e9), [None, 5.0])
    assert one.outcome == "fail"
    assert one.note == "no number in 1 of 2 runs"


def test_known_hole_is_strict() -> None:
    hole = claim(at_most=2.0, xfail="copycats out-earn")
    known = ruling(hole, [3.0])
    assert (known.outcome, known.failed) == ("xfail", False)
    assert "known: copycats out-earn" in known.note
    closed = ruling(hole, [1.0])
    assert (closed.outcome, closed.failed) == ("xpass", True)
    assert ruling(hole, [1.5, 2.5, 2.0]).outcome == "inconclusive"


def test_only_failures_fail() -> None:
    outcomes = {
        "pass": ruling(claim(at_most=2.0), [1.0]),
        "fail": ruling(claim(at_most=2.0), [3.0]),
        "inconclusive": ruling(claim(at_most=2.0), [1.5, 2.5, 2.0]),
    }
    assert {name: one.failed for name, one in outcomes.items()} == {"pass": False, "fail": True, "inconclusive": False}


def test_metrics_reach_into_rules_and_diagnostics() -> None:
    summary = {"rules": {"overlap": {"fired": 3}}, "diagnostics": {"honest_cosine": 0.25}, "loss.final": None}
    assert expect.lookup(summary, "rules.overlap.fired") == 3
    assert expect.lookup(summary, "diagnostics.honest_cosine") == 0.25
    assert math.isnan(expect.lookup(summary, "loss.final"))


def test_unknown_metric_is_the_users_mistake() -> None:
    with pytest.raises(ValueError, match=r"no metric 'loss.finel' \(did you mean 'loss.final'\?\)"):
        expect.judge([claim("loss.finel", at_most=1.0)], [{"loss.final": 1.0}])


def test_text_is_no_metric() -> None:
    with pytest.raises(ValueError, match="not a number"):
        expect.judge([claim("scenario", at_most=1.0)], [{"scenario": "quickstart"}])


def test_table_shows_every_claim() -> None:
    rulings = [
        ruling(claim("loss.final", at_most=2.0), [1.0, 1.2, 1.1]),
        ruling(claim("loss.final", versus="clean", margin=0.02), [1.0], [0.5]),
        ruling(claim("time_to_loss.2", at_most=2.0), [None]),
    ]
    console = Console(width=160)
    with console.capture() as captured:
        console.print(expect.table(rulings))
    text = captured.get()
    for part in ("loss.final at most 2", "1.1 ± 0.25", "loss.final above clean by at most 0.02", "n/a", "fail", "pass"):
        assert part in text, part
