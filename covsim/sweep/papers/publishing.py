"""From runs to published files: tables, figure, rows of the claims.

<published>/papers/c1.csv               a row per arm and seed; all that follows is worked out from it
<published>/papers/c1-means.csv         means with 95 % intervals
<published>/papers/c1-differences.csv   arms against their baselines, paired by seed
<published>/papers/c1.png
<published>/papers.csv                  a row per claim
<published>/papers/a14.csv              a row per cell of a published table, where a claim has many
<page>                                  the same as a table

A study of the scoring has tables of its own beside `<name>.csv`; what follows from them is worked out likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from covsim.record.files import write_text
from covsim.record.runner import RESULTS
from covsim.report import style
from covsim.sweep.local import JOBS, Say, run_all
from covsim.sweep.papers import (
    centralized,
    copies,
    density,
    error_feedback,
    four_bits,
    model_size,
    noise,
    participation,
    ratings,
    replicas,
    scoring_formulas,
    sizes,
    tables,
    timing,
    verdicts,
)
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables
from covsim.sweep.papers.study import FULL, LOSS, RunAll, Scale, Study
from covsim.sweep.papers.verdicts import Verdict

_LEARNING = (error_feedback, replicas, model_size, four_bits, density, centralized)
STUDIES: Mapping[str, Study] = {module.STUDY.name: module.STUDY for module in _LEARNING}
"""C1 to C6, by name."""

SCORING: Mapping[str, ScoringStudy] = {
    module.STUDY.name: module.STUDY for module in (ratings, copies, participation, noise)
}
"""D1, D3, D8 and the noise of scores, by name."""

ALL: Mapping[str, Study | ScoringStudy] = {**STUDIES, **SCORING}


@dataclass(frozen=True)
class Places:
    """Where things lie: runs, published files, and the page with the table of claims."""

    runs: Path = RESULTS
    published: Path = RESULTS / "published"
    page: Path = Path("docs/validation.md")

    def table(self, study: Study | ScoringStudy, suffix: str = ".csv") -> Path:
        """A file of a study."""
        return self.published / "papers" / f"{study.name}{suffix}"


FORMULAS: Mapping[str, tuple[Sequence[str], Callable[[], list[Verdict]]]] = {
    "sizes": (sizes.TARGETS, sizes.judge),
    "scoring": (scoring_formulas.TARGETS, scoring_formulas.judge),
    "timing": (timing.TARGETS, timing.judge),
}
"""Rows that no study over seeds is needed for, by name: their targets, and what works them out."""

CELLS: Mapping[str, Callable[[], Tables]] = {"timing": timing.tables}
"""Tables that stand behind such rows, by the file's name."""


def publish_formulas(name: str, places: Places) -> list[Verdict]:
    """Work out rows that need no study, and write them, with the tables behind them."""
    targets, judge = FORMULAS[name]
    found = judge()
    for file, table in CELLS[name]().items() if name in CELLS else ():
        text = table.to_csv(index=False, float_format="%.8g", lineterminator="\n")
        write_text(places.published / "papers" / f"{file}.csv", text)
    verdicts.document(verdicts.save(found, targets, places.published / "papers.csv"), places.page)
    return found


def run_studies(
    names: Sequence[str], places: Places = Places(), jobs: int = JOBS, say: Say = print, scale: Scale = FULL
) -> list[Verdict]:
    """Run studies, publish each as soon as it is done, and return what became of their claims.

    Runs that are there already are not run again, and one that was cut is resumed.

    Raises:
        FailedRuns: some runs of a study failed, so that it is not published; those before it are.
        KeyboardInterrupt: the user pressed Ctrl-C; the same call goes on from there.
    """
    rows: list[Verdict] = []
    for study in (ALL[name] for name in names):
        say(f"{study.name}: over the seeds {study.seeds[0]} to {study.seeds[-1]}")
        for suffix, table in _measured(study, _runner(study, places, jobs, say), scale).items():
            text = table.to_csv(index=False, float_format="%.8g", lineterminator="\n")
            write_text(places.table(study, f"{suffix}.csv"), text)
        rows += publish(study, places)
    return rows


def publish(study: Study | ScoringStudy, places: Places) -> list[Verdict]:
    """Work out everything that follows from a study's published tables, and write it. Runs nothing.

    Raises:
        FileNotFoundError: the study has not been run.
    """
    found = _publish_scoring(study, places) if isinstance(study, ScoringStudy) else _publish_learning(study, places)
    rows = verdicts.save(found, {study.name}, places.published / "papers.csv")
    verdicts.document(rows, places.page)
    return found


def _runner(study: Study | ScoringStudy, places: Places, jobs: int, say: Say) -> RunAll:
    keep_tapes = isinstance(study, ScoringStudy) and study.needs_tapes
    return lambda scenarios: run_all(scenarios, jobs, places.runs, say, keep_tapes)


def _measured(study: Study | ScoringStudy, runner: RunAll, scale: Scale) -> Tables:
    return study.measure(runner, scale) if isinstance(study, ScoringStudy) else {"": study.measure(runner, scale)}


def _publish_learning(study: Study, places: Places) -> list[Verdict]:
    table = pd.read_csv(places.table(study))
    found = study.judge(table)
    means = tables.means(table, (LOSS, "bits_per_byte.last", *study.metrics))
    differences = tables.differences(table, study.baselines(table))
    _write(study, places, {"-means": means, "-differences": differences}, lambda: {"": study.draw(table, found)})
    return found


def _publish_scoring(study: ScoringStudy, places: Places) -> list[Verdict]:
    read = {suffix: pd.read_csv(places.table(study, f"{suffix}.csv")) for suffix in study.suffixes}
    found = study.judge(read)
    _write(study, places, study.derive(read), lambda: study.draw(read, found))
    return found


def _write(
    study: Study | ScoringStudy, places: Places, derived: Tables, draw: Callable[[], Mapping[str, Figure]]
) -> None:
    """Write what was worked out, and draw the figures in the house's look."""
    for suffix, frame in derived.items():
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(places.table(study, f"{suffix}.csv"), text)
    with style.house_style():
        for suffix, figure in draw().items():
            style.save(figure, places.table(study, f"{suffix}.png"))
