"""What `covsim retime` does: a grid of links over a finished run, trained only where the schedule changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from covsim.record.files import write_text
from covsim.record.runner import REFUSALS, CannotResume, run_or_resume, scenario_of
from covsim.scenario import ScenarioError
from covsim.sweep.retime import over

OK, BAD_INPUT = 0, 2
SHOWN = (
    "learning",
    "cpu_s",
    "loss.final",
    "time.compute_utilization",
    "time.communication_s_per_round",
    "late_share",
    "why",
)


def retime(folder: Path, settings: list[str], out: Path | None) -> int:
    """Run the grid of `a.b=v1,v2` settings over a run's folder; returns an exit code."""
    try:
        axes = dict(map(_axis, settings))
        scenario = scenario_of(folder)
        results = folder.resolve().parent.parent
        frame = over(run_or_resume(scenario, results), scenario, axes, results)
        if out is not None:
            write_text(out, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    except (CannotResume, ScenarioError, *REFUSALS, ValueError) as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"{error.filename or out}: cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    _show(frame, list(axes))
    return OK


def _axis(text: str) -> tuple[str, list[str]]:
    """`a.b=v1,v2` as a path and its values; brackets keep their commas. Raises ValueError."""
    path, equals, values = text.partition("=")
    if not (path and equals and values):
        raise ValueError(f"{text!r} is no setting; write a.b=v1,v2")
    parts, depth, begun = [], 0, 0
    for place, letter in enumerate(values):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append(values[begun:place])
            begun = place + 1
    return path, [part.strip() for part in (*parts, values[begun:])]


def _show(frame: pd.DataFrame, axes: list[str]) -> None:
    table = Table(*axes, *SHOWN)
    for row in frame[[*axes, *SHOWN]].itertuples(index=False, name=None):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
    retimed = int((frame["learning"] == "retimed").sum())
    print(f"{retimed} of {len(frame)} points by lookups, {len(frame) - retimed} trained")
