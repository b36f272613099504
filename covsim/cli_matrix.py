"""What `covsim matrix` does: say what it costs, run it, and write tables and heat maps."""

from __future__ import annotations

import sys
from pathlib import Path

from covsim.record.runner import REFUSALS, RESULTS
from covsim.scenario import ScenarioError
from covsim.sweep.local import JOBS
from covsim.sweep.matrix import (
    Grid,
    Matrix,
    MatrixRuns,
    Published,
    failed_runs,
    find_matrix,
    publish,
    read_matrix,
    save_runs,
)

OK, FAILED_RUNS, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def matrix(
    file: str,
    overrides: list[str],
    jobs: int | None,
    out: Path | None,
    tables: Path | None,
    *,
    estimate: bool,
    redraw: bool,
) -> int:
    """Run a matrix, or only estimate it or draw it again; returns an exit code."""
    path = find_matrix(file)
    try:
        settings = read_matrix(path, overrides)
        runs_folder = out or RESULTS / settings.name
        tables_folder = tables or RESULTS / settings.name
        if not redraw:
            runs = MatrixRuns(Grid(settings, path), runs_folder, JOBS if jobs is None else jobs)
            print(runs.estimate(), flush=True)
            if estimate:
                return OK
            save_runs(runs.measure(), settings, tables_folder)
        return _publish(settings, tables_folder)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on where it was", INTERRUPTED)
    except FileNotFoundError as missing:
        return _complain(f"{missing.filename}: is not there; run the matrix without --redraw", BAD_INPUT)
    except OSError as error:
        return _complain(f"{error.filename or tables_folder}: cannot be written: {error.strerror}", BAD_INPUT)
    except (ScenarioError, ValueError, *REFUSALS) as refusal:
        return _complain(refusal, BAD_INPUT)


def _publish(settings: Matrix, folder: Path) -> int:
    """Write what follows from the table in a folder; runs that failed are in it, and are said here too."""
    for written in publish(settings, folder):
        print(written)
    num_failed = failed_runs(settings, folder)
    if num_failed:
        where = Published(folder, settings.name).runs
        return _complain(
            f"{num_failed} runs failed; {where} says why, and the same command tries them again", FAILED_RUNS
        )
    return OK


def _complain(message: object, code: int) -> int:
    print(message, file=sys.stderr)
    return code
