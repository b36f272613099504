"""What `covsim emulate` and `covsim compare` do: start, watch, show; and remove what an earlier run has left behind."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from covsim.cli_progress import watching
from covsim.record.runner import RESULTS
from covsim.report import figures, headline
from covsim.scenario import Scenario, warnings

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def emulate(scenario: Scenario, source_text: str, out: Path | None, quiet: bool) -> int:
    """Emulate a scenario; returns an exit code."""
    from covsim.emulation.emulate import CannotEmulate
    from covsim.emulation.emulate import emulate as run
    from covsim.emulation.supervisor import Failed

    console = Console()
    for warning in warnings(scenario):
        _complain(f"warning: {warning}")
    try:
        with watching(f"{scenario.name}, emulated", scenario.planned_rounds, console, quiet) as observers:
            done = run(scenario, source_text, out or RESULTS, observers)
    except CannotEmulate as refusal:
        return _complain(refusal, BAD_INPUT)
    except Failed as failure:
        return _complain(failure, FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; what was recorded until then is in the folder", INTERRUPTED)
    except OSError as error:
        return _complain(f"{error.filename or out}: {error.strerror}", BAD_INPUT)
    figures.draw_all(done.folder)
    for remark in done.summary["emulation.remarks"]:
        _complain(f"remark: {remark}")
    if quiet:
        console.print(str(done.folder), soft_wrap=True)
    else:
        console.print(headline.table(done.summary, done.folder))
    return OK


def clean() -> int:
    """Remove what runs that were killed have left behind, and say what; returns an exit code."""
    from covsim.emulation.cleaning import clean as cleaned

    print("\n".join(cleaned() or ["nothing was left behind"]))
    return OK


def compare(simulated: Path, emulated: Path, out: Path | None, calibrate: Path | None) -> int:
    """Hold a simulation and an emulation against each other; returns an exit code."""
    from covsim.emulation import comparison
    from covsim.emulation.calibration import write_calibrated
    from covsim.emulation.compare import CannotCompare, Pair

    console = Console()
    try:
        pair = Pair.of(simulated, emulated)
        found, folder = comparison.compare(pair, out)
        console.print(comparison.table(found))
        console.print(f"tables: {folder}", soft_wrap=True)
        if calibrate is not None:
            write_calibrated(pair, calibrate)
            console.print(f"fitted scenario: {calibrate}", soft_wrap=True)
    except CannotCompare as refusal:
        return _complain(refusal, BAD_INPUT)
    except OSError as error:
        return _complain(f"{error.filename or out}: cannot be written: {error.strerror}", BAD_INPUT)
    return OK


def _complain(message: object, code: int = OK) -> int:
    print(message, file=sys.stderr)
    return code
