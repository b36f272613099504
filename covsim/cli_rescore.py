"""What `covsim rescore` does: judge recorded evidence by other rules, and show who would have profited."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from covsim.record.evidence_file import BadEvidence
from covsim.record.files import write_text
from covsim.record.rescore import OPEN_LOOP, CannotRescore, Case, Outcome, compared, open_case, outcome, with_rules
from covsim.report.rescoring import cohort_table, peer_table
from covsim.scenario import ScenarioError

OK, BAD_INPUT = 0, 2


def rescore(path: Path, overrides: list[str], out: Path | None) -> int:
    """Score a run's folder or an evidence file again; returns an exit code."""
    try:
        case = open_case(path)
        rules = with_rules(case.scenario, overrides)
        before = case.recorded or outcome(case, case.scenario)
        _show(case, before, outcome(case, rules), out)
    except (CannotRescore, BadEvidence, ScenarioError) as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    return OK


def _show(case: Case, before: Outcome, after: Outcome, out: Path | None) -> None:
    frame, console = compared(case, before, after), Console()
    print(OPEN_LOOP)
    print("before: as recorded" if case.recorded else "before: the default rules, validators of equal stake")
    console.print(cohort_table(frame))
    peers = peer_table(frame)
    if peers is None:
        print("nobody's tokens change")
    else:
        console.print(peers)
    if out is not None:
        write_text(out, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
        print(f"per peer: {out}")
