"""From runs to published files: tables, figure, rows of the claims.

<published>/papers/c1.csv               a row per arm and seed; all that follows is worked out from it
<published>/papers/c1-means.csv         means with 95 % intervals
<published>/papers/c1-differences.csv   arms against their baselines, paired by seed
<published>/papers/c1.png
<published>/papers.csv                  a row per claim
<page>                                  the same as a table
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from covsim.record.files import write_text
from covsim.record.runner import RESULTS
from covsim.report import style
from covsim.sweep.local import JOBS, Say, run_all
from covsim.sweep.papers import (
    centralized,
    density,
    error_feedback,
    four_bits,
    model_size,
    replicas,
    sizes,
    tables,
    verdicts,
)
from covsim.sweep.papers.study import FULL, LOSS, Scale, Study
from covsim.sweep.papers.verdicts import Verdict

_ALL = (error_feedback, replicas, model_size, four_bits, density, centralized)
STUDIES: Mapping[str, Study] = {module.STUDY.name: module.STUDY for module in _ALL}
"""C1 to C6, by name."""


@dataclass(frozen=True)
class Places:
    """Where things lie: runs, published files, and the page with the table of claims."""

    runs: Path = RESULTS
    published: Path = RESULTS / "published"
    page: Path = Path("docs/validation.md")

    def table(self, study: Study, suffix: str = ".csv") -> Path:
        """A file of a study."""
        return self.published / "papers" / f"{study.name}{suffix}"


SIZES = "sizes"
"""The rows about payload sizes, which follow from formulas."""


def publish_sizes(places: Places) -> list[Verdict]:
    """Work out the rows about payload sizes, and write them."""
    found = sizes.judge()
    verdicts.document(verdicts.save(found, sizes.TARGETS, places.published / "papers.csv"), places.page)
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
    for study in (STUDIES[name] for name in names):
        say(f"{study.name}: over the seeds {study.seeds[0]} to {study.seeds[-1]}")
        table = study.measure(lambda scenarios: run_all(scenarios, jobs, places.runs, say, keep_tapes=False), scale)
        write_text(places.table(study), table.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
        rows += publish(study, places)
    return rows


def publish(study: Study, places: Places) -> list[Verdict]:
    """Work out everything that follows from a study's published table, and write it. Runs nothing.

    Raises:
        FileNotFoundError: the study has not been run.
    """
    table = pd.read_csv(places.table(study))
    found = study.judge(table)
    means = tables.means(table, (LOSS, "bits_per_byte.last", *study.metrics))
    differences = tables.differences(table, study.baselines(table))
    for suffix, frame in (("-means.csv", means), ("-differences.csv", differences)):
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(places.table(study, suffix), text)
    with style.house_style():
        style.save(study.draw(table, found), places.table(study, ".png"))
    rows = verdicts.save(found, {study.name}, places.published / "papers.csv")
    verdicts.document(rows, places.page)
    return found
