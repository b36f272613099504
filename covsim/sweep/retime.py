"""A grid of link speeds, machines and stores over one scenario, trained only where the schedule changes.

Bandwidth reaches learning through who trained how much and who was gathered, and through nothing else. So the base
is trained, and every point is first run by looking up what it asks for; where it asks for what was never
computed, because somebody missed a window or another peer was drawn, it is trained like any other run.
A row says which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.nodes.formula import Incomparable
from covsim.record.retiming import Answers, CannotRetime, ScheduleChanged, answers_of, retime
from covsim.record.runner import Run, run_or_resume
from covsim.scenario import Scenario
from covsim.scenario.loading import loads
from covsim.scenario.resolve import resolved_text

__all__ = ["grid"]

OF_THE_CLOCK = frozenset(
    {"network", "store", "timeline", "deployment", "checkpoints", "economics", "record", "description", "name"}
)
"""Sections that reach learning through the schedule alone."""

OF_A_NODE = frozenset(
    {
        "uplink",
        "downlink",
        "uplink_varies",
        "downlink_varies",
        "region",
        "speed",
        "step_noise",
        "slowdowns",
        "preemption",
        "when_slow",
    }
)
"""The same of a cohort or a validator."""


def grid(scenario: Scenario, settings: Mapping[str, Sequence[Any]], out: Path | None = None) -> pd.DataFrame:
    """Run a scenario at every point of a grid, each by lookups if its schedule allows.

    Args:
        scenario: the base, which is trained unless its run lies there already.
        settings: values by path, `{"cohorts.honest.uplink": ["110 Mb/s", "1 Gb/s"]}`.
        out: the folder of all results; `results` if not given.

    Returns:
        A row per point: the settings, `learning` (`retimed` or `trained`), `why` it was trained, and the numbers of the
        summary. `wall.total_s` is that of the lookup, or of the training when it was done.

    Raises:
        ScenarioError: a point is no valid scenario.
        ValueError: a run cannot be begun.
    """
    base = run_or_resume(scenario, out)
    return over(base, scenario, settings, out)


def over(base: Run, scenario: Scenario, settings: Mapping[str, Sequence[Any]], out: Path | None = None) -> pd.DataFrame:
    """The same from a finished run of the scenario."""
    points = [(values, _changed(scenario, values)) for values in _points(settings)]
    answers, refusal = _answers(base)
    rows = []
    for values, point in points:
        found, why = _looked_up(scenario, point, answers, refusal)
        if found is None:
            found = run_or_resume(point, out).summary
        numbers = {name: value for name, value in found.items() if not isinstance(value, dict)}
        rows.append({**values, "learning": "trained" if why else "retimed", "why": why, **numbers})
    return pd.DataFrame(rows)


def _answers(base: Run) -> tuple[Answers | None, str]:
    try:
        return answers_of(base.folder, (base.summary["digest.clock"], base.summary["digest.learning"])), ""
    except CannotRetime as problem:
        return None, str(problem)


def _looked_up(
    scenario: Scenario, point: Scenario, answers: Answers | None, refusal: str
) -> tuple[dict[str, Any] | None, str]:
    """The summary of a point without training; or None, and why it must be trained."""
    if answers is None:
        return None, refusal
    if (changed := _reaches_learning(scenario, point)) is not None:
        return None, f"{changed} reaches learning"
    try:
        return _plain(retime(point, answers)), ""
    except (Incomparable, ScheduleChanged) as change:
        return None, f"first change: {change}"


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as its file has it: what is not finite is None."""
    return {name: None if _is_unknown(value) else value for name, value in summary.items()}


def _is_unknown(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _points(settings: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*settings.values()):
        yield dict(zip(settings, values, strict=True))


def _changed(scenario: Scenario, values: Mapping[str, Any]) -> Scenario:
    overrides = [f"{path}={value}" for path, value in values.items()]
    return loads(resolved_text(scenario), "the grid", overrides)


def _reaches_learning(scenario: Scenario, point: Scenario) -> str | None:
    """The first setting that differs and may change learning on another way than by the schedule; None if none does."""
    if scenario.planned_rounds != point.planned_rounds:
        return "the number of planned rounds"
    before, after = (_reaching(each.model_dump(mode="json")) for each in (scenario, point))
    return next((name for name in sorted({*before, *after}) if before.get(name) != after.get(name)), None)


def _reaching(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in OF_THE_CLOCK}
    for group in ("cohorts", "validators"):
        kept[group] = {
            name: {key: value for key, value in node.items() if key not in OF_A_NODE}
            for name, node in settings[group].items()
        }
    return kept
