"""From a matrix's table to files: cells and heat maps. All of it follows from the tidy table and the matrix file.

<folder>/<name>.csv                       a row per run
<folder>/<name>-cells.csv                 a row per cell: means, 95 % intervals, what became of it
<folder>/<name>-<selection>-<share>.png   loss against the clean twin, and pay of an attacker
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from covsim.record.files import write_text
from covsim.report import style
from covsim.report.matrix import heat_maps
from covsim.sweep.matrix.judging import judge_cells
from covsim.sweep.matrix.rows import FAILED
from covsim.sweep.matrix.settings import CLEAN, Matrix
from covsim.units import format_share


@dataclass(frozen=True)
class Published:
    """Where the files of a matrix lie."""

    folder: Path
    name: str

    @property
    def runs(self) -> Path:
        """A row per run."""
        return self.folder / f"{self.name}.csv"

    @property
    def cells(self) -> Path:
        """A row per cell."""
        return self.folder / f"{self.name}-cells.csv"

    def figure(self, selection: str, share: float) -> Path:
        """The heat maps of a selection and a share."""
        percent = format_share(share).replace(" %", "").replace(".", "_")
        return self.folder / f"{self.name}-{selection}-{percent}.png"


def save_runs(table: pd.DataFrame, matrix: Matrix, folder: Path) -> None:
    """Write the tidy table."""
    _write(table, Published(folder, matrix.name).runs, "%.8g")


def publish(matrix: Matrix, folder: Path) -> Iterator[Path]:
    """Work out everything that follows from the tidy table in a folder, and write it; yields each file. Runs nothing.

    Raises:
        FileNotFoundError: there is no table.
    """
    places, seeds = Published(folder, matrix.name), matrix.seeds
    table = pd.read_csv(places.runs)
    screened = range(seeds.first, seeds.first + seeds.screen)
    cells = judge_cells(table, matrix.interesting, screened)
    _write(cells, places.cells, "%.5g")
    yield places.cells
    for selection, share in product(matrix.selections, matrix.shares):
        part = cells[(cells["selection"] == selection) & (cells["share"] == share) & (cells["behavior"] != CLEAN)]
        with style.house_style():
            figure = heat_maps(part, list(matrix.behaviors), list(matrix.aggregators), _title(selection, share))
            style.save(figure, places.figure(selection, share))
        yield places.figure(selection, share)


def failed_runs(matrix: Matrix, folder: Path) -> int:
    """How many runs of the table in a folder failed."""
    return int((pd.read_csv(Published(folder, matrix.name).runs)["outcome"] == FAILED).sum())


def _title(selection: str, share: float) -> str:
    return f"Who beats what: selection {selection}, {format_share(share)} of the peers attack"


def _write(table: pd.DataFrame, path: Path, digits: str) -> None:
    write_text(path, table.to_csv(index=False, float_format=digits, lineterminator="\n"))
