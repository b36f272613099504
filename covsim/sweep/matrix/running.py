"""Runs a matrix in two stages, screening and confirming, and says beforehand what it will cost.

Runs that lie there already are not run again and one that was cut is resumed, so a matrix that was stopped goes on
where it was. A run that failed is tried again by the next call; until it is done it stands in the table as failed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.scenario import Scenario, run_id
from covsim.sweep.local import JOBS, FailedRuns, Say, run_all
from covsim.sweep.matrix.grid import Cell, Grid
from covsim.sweep.matrix.judging import interesting_places
from covsim.sweep.matrix.rows import row_of, row_of_failure, table_of
from covsim.sweep.matrix.settings import CLEAN


@dataclass(frozen=True)
class Task:
    """A cell under a seed, and where its run lies."""

    cell: Cell
    seed: int
    scenario: Scenario
    folder: Path

    def summary(self) -> dict[str, Any] | None:
        """What the run amounts to, if it is whole."""
        file = self.folder / "summary.json"
        found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        return found


@dataclass(frozen=True)
class Cost:
    """What a matrix takes: runs of the screening, how many of them are left, and at most how many are added to them."""

    screening: int
    left: int
    confirming: int
    run_s: float
    jobs: int

    def __str__(self) -> str:
        screening, confirming = (self._minutes(num_runs) for num_runs in (self.left, self.confirming))
        there = f", {self.left} of them left" if self.left < self.screening else ""
        return (
            f"screening: {self.screening} runs{there}, about {screening} on {_processes(self.jobs)} "
            f"at {self.run_s:.1f} s a run; "
            f"confirming adds at most {self.confirming} runs, about {confirming}"
        )

    def _minutes(self, num_runs: int) -> str:
        minutes = num_runs * self.run_s / max(1, self.jobs) / 60
        return "an unknown time" if math.isnan(minutes) else f"{math.ceil(minutes)} min"


class MatrixRuns:
    """The runs of a matrix.

    Args:
        grid: the matrix, laid out.
        out: where its runs go.
        jobs: processes of one torch thread each; with 0 all happens in this one.
        say: gets a line for each run that ends.
    """

    def __init__(self, grid: Grid, out: Path, jobs: int = JOBS, say: Say = print) -> None:
        self._grid, self._out, self._jobs, self._say = grid, out, jobs, say
        seeds = grid.matrix.seeds
        self.screened = range(seeds.first, seeds.first + seeds.screen)
        self._added = range(seeds.first + seeds.screen, seeds.first + seeds.confirm)
        cells = (*grid.twins(), *grid.cells())
        self._screening = [self._task(cell, seed) for cell in cells for seed in self.screened]

    def estimate(self) -> Cost:
        """What is ahead, from the median time of runs that are there; if there are none, one is run to time it."""
        tasks = self._screening
        walls = self._walls()
        if not walls:
            self._say("timing one run")
            self._run(tasks[:1])
            walls = self._walls()
        run_s = statistics.median(walls) if walls else math.nan
        most_added = len({task.cell for task in tasks}) * len(self._added)
        return Cost(len(tasks), len(tasks) - len(walls), most_added, run_s, self._jobs)

    def measure(self) -> pd.DataFrame:
        """Screen, confirm, and return the tidy table.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C; the same call goes on from there.
        """
        screened = self._rows(self._screening)
        places = interesting_places(table_of(screened), self._grid.matrix.interesting, self.screened)
        self._say(f"{len(places)} of {len(list(self._grid.cells()))} cells are interesting and run over more seeds")
        return table_of(screened + self._rows(self._confirming(places)))

    def _confirming(self, places: set[tuple[Any, ...]]) -> list[Task]:
        """Interesting cells over the seeds that they have not had, and the twins that they are held against."""
        cells = [cell for cell in self._grid.cells() if _place(cell) in places]
        twins = dict.fromkeys(cell.twin for cell in cells)
        return [self._task(cell, seed) for cell in (*twins, *cells) for seed in self._added]

    def _task(self, cell: Cell, seed: int) -> Task:
        scenario = self._grid.scenario(cell, seed)
        return Task(cell, seed, scenario, self._out / scenario.name / run_id(scenario))

    def _run(self, tasks: Sequence[Task]) -> Mapping[Path, str]:
        """Run them; returns a line for each that failed, by its folder."""
        try:
            run_all([task.scenario for task in tasks], self._jobs, self._out, self._say, keep_tapes=False)
        except FailedRuns as failed:
            return failed.failures
        return {}

    def _rows(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        failures = self._run(tasks)
        return [self._row(task, failures.get(task.folder, "")) for task in tasks]

    def _row(self, task: Task, error: str) -> dict[str, Any]:
        matrix, attackers, run = self._grid.matrix, self._grid.attackers(task.cell.share), task.folder.name
        summary = task.summary()
        if summary is None:
            return row_of_failure(task.cell, attackers, task.seed, run, error)
        rules = [] if task.cell.behavior == CLEAN else matrix.behaviors[task.cell.behavior].rules
        return row_of(task.cell, attackers, task.seed, run, matrix.cohort, rules, summary)

    def _walls(self) -> list[float]:
        return [summary["wall.total_s"] for task in self._screening if (summary := task.summary()) is not None]


def _place(cell: Cell) -> tuple[Any, ...]:
    return (cell.behavior, cell.aggregator, cell.selection, cell.share)


def _processes(jobs: int) -> str:
    return "1 process" if jobs <= 1 else f"{jobs} processes"
