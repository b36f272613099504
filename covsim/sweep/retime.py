"""A grid of link speeds, machines and stores over one scenario, trained only where the schedule changes.

Bandwidth reaches learning through who trained how much and who was gathered, and through nothing else. So the base
is trained, and every point is first run by looking up what it asks for; where it asks for what was never
computed, because somebody missed a window or another peer was drawn, it is trained like any other run.
A row says which.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from covsim.nodes.formula import Incomparable
from covsim.record.retiming import Answers, CannotRetime, ScheduleChanged, answers_of, retime
from covsim.record.runner import Run, run_or_resume
from covsim.scenario import Scenario
from covsim.scenario.loading import variations
from covsim.scenario.resolve import resolved_text

__all__ = ["grid"]

Result = TypeVar("Result")

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
        A row per point: the settings, `learning` (`retimed` or `trained`), `why` it was trained, `cpu_s`, the processor
        time that the row took here, and the numbers of the summary. `wall.total_s` is that of the lookup, or of the
        training when it was done.

    Raises:
        ScenarioError: a point is no valid scenario.
        ValueError: a run cannot be begun.
    """
    base = run_or_resume(scenario, out)
    return over(base, scenario, settings, out)


def over(base: Run, scenario: Scenario, settings: Mapping[str, Sequence[Any]], out: Path | None = None) -> pd.DataFrame:
    """The same from a finished run of the scenario."""
    changed = variations(resolved_text(scenario), "the grid")
    # All of them first: who misspells the last one learns it before anything is trained.
    points = [(values, *_timed(partial(changed, _overrides(values)))) for values in _points(settings)]
    known, rows = Lookups(scenario, base), []
    for values, point, reading_s in points:
        (found, why), running_s = _timed(partial(_row, known, point, out))
        numbers = {name: value for name, value in found.items() if not isinstance(value, dict)}
        learning, cpu_s = "trained" if why else "retimed", reading_s + running_s
        rows.append({**values, "learning": learning, "why": why, "cpu_s": cpu_s, **numbers})
    return pd.DataFrame(rows)


def _timed(act: Callable[[], Result]) -> tuple[Result, float]:
    """What something comes to, and the processor time of this process that it took, in seconds."""
    began_s = time.process_time()
    return act(), time.process_time() - began_s


def _row(known: Lookups, point: Scenario, out: Path | None) -> tuple[Mapping[str, Any], str]:
    """The summary of a point, and why it had to be trained; empty if it had not."""
    found, why = known.find(point)
    if found is not None:
        return found, ""
    trained = run_or_resume(point, out)
    known.add(point, trained)
    return trained.summary, why


class Lookups:
    """What rows are looked up in: the answers of the base, and those of rows that had to be trained before them.

    Args:
        scenario: of the base.
        base: its run.
    """

    def __init__(self, scenario: Scenario, base: Run) -> None:
        self._scenario = scenario
        self._answers: Answers | None = None
        self._refusal = ""
        self._unheard: list[Run] = []  # rows of which nobody has wanted to know anything yet
        try:
            self._answers = answers_of(base.folder, _digests(base))
        except CannotRetime as problem:
            self._refusal = str(problem)

    def find(self, point: Scenario) -> tuple[dict[str, Any] | None, str]:
        """The summary of a point without training; or None, and why it must be trained."""
        if self._answers is None:
            return None, self._refusal
        if (changed := _reaches_learning(self._scenario, point)) is not None:
            return None, f"{changed} reaches learning"
        while True:
            try:
                return _plain(retime(point, self._answers)), ""
            except (Incomparable, ScheduleChanged) as change:
                if not self._unheard:
                    return None, f"first change: {change}"
                self._answers = self._joined(self._answers, self._unheard.pop())

    def add(self, point: Scenario, trained: Run) -> None:
        """A row had to be trained: what it computed may be asked for again."""
        if self._answers is not None and _reaches_learning(self._scenario, point) is None:
            self._unheard.append(trained)

    def _joined(self, answers: Answers, row: Run) -> Answers:
        try:
            return answers_of(row.folder, _digests(row), answers)
        except CannotRetime:  # then later rows are trained where they need it, as this one was
            return answers


def _digests(run: Run) -> tuple[str, str]:
    return run.summary["digest.clock"], run.summary["digest.learning"]


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as its file has it: what is not finite is None."""
    return {name: None if _is_unknown(value) else value for name, value in summary.items()}


def _is_unknown(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _points(settings: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*settings.values()):
        yield dict(zip(settings, values, strict=True))


def _overrides(values: Mapping[str, Any]) -> list[str]:
    return [f"{path}={value}" for path, value in values.items()]


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
