"""Judges a scenario's claims over seeds: each ends as pass, fail or inconclusive.

A claim passes when the 95 % confidence interval of the mean over seeds lies inside what it allows, fails when the
interval lies outside, and is inconclusive when it reaches over the border: then `smallest_effect` says how far from the
border the mean would have to be for so many seeds to show it. A single seed has no interval and is taken at its word.

`versus: clean` compares each run with its clean twin, the run of the same seed in which all peers are honest and
nothing fails (`scenario.twins`): how much worse it is, relative to that run. For losses, times and bytes more is worse;
for utilization, participation and compression less is; for any other metric every difference counts. A claim with
`xfail` names a known hole and is strict: it is a failure when it passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from covsim.registry import did_you_mean
from covsim.scenario.sections import Claim
from covsim.sweep.interval import Interval, interval

Summary = Mapping[str, Any]
Outcome = Literal["pass", "fail", "inconclusive", "xfail", "xpass"]

_MORE_IS_WORSE = (
    "loss.",
    "bits_per_byte.",
    "time_to_loss.",
    "bytes_to_loss.",
    "network.bytes_",
    "network.payload_bytes",
    "time.simulated_s",
    "time.communication_s_per_round",
    "late_share",
    "honest_earning_zero",
    "lineages.",
    "wall.",
)
_LESS_IS_WORSE = ("time.compute_", "network.compression_ratio", "participation.", "rounds")
_STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "xfail": "green", "xpass": "bold red"}


@dataclass(frozen=True)
class Ruling:
    """What became of one claim. `measured` is of the metric, or of how much worse than clean it is."""

    claim: Claim
    outcome: Outcome
    measured: Interval
    num_seeds: int
    note: str

    @property
    def failed(self) -> bool:
        """True when the scenario, as a test, fails by this claim."""
        return self.outcome in ("fail", "xpass")

    @property
    def smallest_effect(self) -> float:
        """How far from the border the mean must lie for so many seeds, with this spread, to show it."""
        return self.measured.half_width


def judge(claims: Sequence[Claim], runs: Sequence[Summary], twins: Sequence[Summary] = ()) -> list[Ruling]:
    """Judge every claim.

    Args:
        claims: of the scenario's `expect` section.
        runs: one summary per seed.
        twins: the summaries of the clean twins, in the order of the same seeds; needed by claims `versus: clean`.

    Raises:
        ValueError: a claim names a metric that the summaries do not have.
    """
    assert runs, "claims are judged over at least one run"
    return [_judge(claim, runs, twins) for claim in claims]


def lookup(summary: Summary, metric: str) -> float:
    """A number of a summary by its key, also inside `rules` and `diagnostics`; NaN where it is null.

    Raises:
        ValueError: there is no such key, or no number behind it.
    """
    flat = dict(_flatten(summary))
    if metric not in flat:
        raise ValueError(f"expect: the summary has no metric {metric!r}{did_you_mean(metric, flat)}")
    value = flat[metric]
    if value is None:
        return math.nan
    if isinstance(value, str):
        raise ValueError(f"expect: metric {metric!r} is the text {value!r}, not a number")
    return float(value)


def table(rulings: Sequence[Ruling]) -> Table:
    """The rulings as a table for a terminal."""
    lines = Table(title="expect", title_justify="left")
    for column in ("claim", "measured", "outcome", "note"):
        lines.add_column(column)
    for ruling in rulings:
        color = _STYLES[ruling.outcome]
        lines.add_row(wording(ruling.claim), shown(ruling), f"[{color}]{ruling.outcome}[/{color}]", ruling.note)
    return lines


def shown(ruling: Ruling) -> str:
    """What was measured, with its interval: '2.51 ± 0.04'."""
    measured = ruling.measured
    if math.isnan(measured.mean):
        return "n/a"
    return f"{measured.mean:.4g}" + (f" ± {measured.half_width:.2g}" if ruling.num_seeds > 1 else "")


def wording(claim: Claim) -> str:
    """The claim in words: 'loss.final at most 2 % worse than clean'."""
    if claim.margin is not None:
        return f"{claim.metric} {_direction(claim.metric)} clean by at most {claim.margin:.3g}"
    bounds = [("at least", claim.at_least), ("at most", claim.at_most)]
    return f"{claim.metric} " + " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def _judge(claim: Claim, runs: Sequence[Summary], twins: Sequence[Summary]) -> Ruling:
    values = [lookup(run, claim.metric) for run in runs]
    if claim.versus == "clean":
        assert len(twins) == len(runs), "every run needs its clean twin"
        values = [
            worse_by(claim.metric, own, lookup(twin, claim.metric)) for own, twin in zip(values, twins, strict=True)
        ]
    low = -math.inf if claim.at_least is None else claim.at_least
    high = math.inf if claim.at_most is None else claim.at_most
    if claim.margin is not None:
        high = claim.margin
    missing = sum(math.isnan(value) for value in values)
    if missing:
        note = f"no number in {missing} of {len(values)} runs"
        return _ruling(claim, "fail", Interval(math.nan, math.nan), len(runs), note)
    measured = interval(values)
    outcome = _compare(measured, low, high)
    note = "one seed: no interval" if len(runs) == 1 else ""
    if outcome == "inconclusive":
        note = f"{len(runs)} seeds can show effects from {measured.half_width:.2g} on"
    return _ruling(claim, outcome, measured, len(runs), note)


def _compare(measured: Interval, low: float, high: float) -> Literal["pass", "fail", "inconclusive"]:
    if low <= measured.low and measured.high <= high:
        return "pass"
    return "fail" if measured.high < low or measured.low > high else "inconclusive"


def _ruling(
    claim: Claim, outcome: Literal["pass", "fail", "inconclusive"], measured: Interval, num_seeds: int, note: str
) -> Ruling:
    """Turn the outcome of a claim that is known not to hold around."""
    if claim.xfail is None or outcome == "inconclusive":
        return Ruling(claim, outcome, measured, num_seeds, note)
    known = "; ".join(part for part in (note, f"known: {claim.xfail}") if part)
    return Ruling(claim, "xfail" if outcome == "fail" else "xpass", measured, num_seeds, known)


def worse_by(metric: str, own: float, clean: float) -> float:
    """How much worse `own` is than `clean`, relative to it: 0.02 is 2 %. NaN where clean is 0 and the other is not."""
    if own == clean:
        return 0.0
    difference = (own - clean) / abs(clean) if clean else math.nan
    word = _direction(metric)
    return difference if word == "above" else -difference if word == "below" else abs(difference)


def _direction(metric: str) -> str:
    if metric.startswith(_MORE_IS_WORSE):
        return "above"
    return "below" if metric.startswith(_LESS_IS_WORSE) else "apart from"


def _flatten(summary: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in summary.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value))
    return flat
