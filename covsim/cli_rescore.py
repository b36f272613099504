"""What `covsim rescore` does: judge recorded evidence by other rules, and show who would have profited."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from covsim.record.evidence_file import BadEvidence
from covsim.record.files import write_text
from covsim.record.rescore import OPEN_LOOP, CannotRescore, Case, compared, open_case, outcome, with_rules
from covsim.report.rescoring import cohort_table, peer_table
from covsim.scenario import ScenarioError

OK, BAD_INPUT = 0, 2


def rescore(path: Path, overrides: list[str], out: Path | None) -> int:
    """Score a run's folder or an evidence file again; returns an exit code."""
    try:
        case = open_case(path)
        rules = with_rules(case.scenario, overrides)
        before = case.recorded or outcome(case, case.scenario)
        frame = compared(case, before, outcome(case, rules))
    except (CannotRescore, BadEvidence, ScenarioError) as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    if out is not None:
        try:
            write_text(out, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
        except OSError as error:
            print(f"{error.filename or out}: cannot be written: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
    _show(case, frame)
    if any(text.lstrip("+").startswith("gauntlet.preset=") for text in overrides):
        print("of the preset, what decides which evidence there is stays as recorded (docs/evidence.md)")
    if out is not None:
        print(f"per peer: {out}")
    return OK


def _show(case: Case, frame: pd.DataFrame) -> None:
    console = Console()
    print(OPEN_LOOP)
    print("before: as recorded" if case.recorded else "before: the default rules, validators of equal stake")
    console.print(cohort_table(frame))
    peers = peer_table(frame)
    if peers is None:
        print("nobody's tokens or profit change")
    else:
        console.print(peers)
