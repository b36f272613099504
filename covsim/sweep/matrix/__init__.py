"""Who beats what: behaviors x aggregators x selections x shares of attackers, each cell against its clean twin.

    covsim matrix matrix.yaml

* `settings`: the matrix file
* `grid`: its cells, and the scenario of each
* `running`: screening and confirming, and what that costs
* `rows`: a run to a row of the tidy table
* `judging`: rows to cells
* `publishing`: tables and heat maps

Only `running` runs anything; all that follows is worked out from the tidy table.
"""

from covsim.sweep.matrix.grid import Cell, Grid
from covsim.sweep.matrix.publishing import Published, failed_runs, publish, save_runs
from covsim.sweep.matrix.running import Cost, MatrixRuns
from covsim.sweep.matrix.settings import CLEAN, Matrix, find_matrix, read_matrix

__all__ = [
    "CLEAN",
    "Cell",
    "Cost",
    "Grid",
    "Matrix",
    "MatrixRuns",
    "Published",
    "failed_runs",
    "find_matrix",
    "publish",
    "read_matrix",
    "save_runs",
]
