"""What a run that was killed has left behind, and its removal: processes, links, a secret, and results half written."""

from __future__ import annotations

from pathlib import Path

from covsim.emulation.journal import NAME
from covsim.emulation.links import Links
from covsim.emulation.processes import Known, left_behind
from covsim.emulation.results import write_partial
from covsim.scenario import ScenarioError, load


def clean() -> list[str]:
    """Remove what dead runs of this user left on this machine; says what, a line each. Living runs are not touched."""
    lines = []
    for path, record in left_behind():
        for pid, began in record["processes"]:
            process = Known(pid, began)
            if process.is_alive:
                process.kill()
                lines.append(f"process {pid}: killed")
        folder = Path(record["folder"])
        (folder / "control.key").unlink(missing_ok=True)
        lines += _saved(folder)
        path.unlink(missing_ok=True)
    return [*lines, *Links.clean()]


def _saved(folder: Path) -> list[str]:
    """Make tables of what was kept of a run."""
    if not (folder / NAME).is_file():
        return []
    try:
        scenario = load(folder / "resolved.yaml")
    except ScenarioError as problem:
        return [f"{folder}: {problem.problems[0]}"]
    num_events, until_s = write_partial(scenario, folder)
    return [f"{folder}: a partial result of {num_events} events, until {until_s:.0f} simulated s"]
