"""`python -m covsim.sweep.papers c1 c2 --jobs 2`, or `all`: run studies and publish what they show."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from covsim.sweep.local import JOBS, FailedRuns
from covsim.sweep.papers import ALL, FORMULAS, Places, Verdict, publish, publish_formulas, run_studies

OK, NOT_REPRODUCED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_COMMAND = "python -m covsim.sweep.papers"


def main(arguments: Sequence[str]) -> int:
    """Do as asked; returns an exit code as the command line has them.

    A gate that is not reproduced is a finding and no failure, unless `--strict` is given.
    """
    asked = _parser().parse_args(arguments)
    names = [*FORMULAS, *ALL] if "all" in asked.studies else asked.studies
    studies = [name for name in names if name not in FORMULAS]
    verdicts: list[Verdict] = []
    try:
        for name in (name for name in names if name in FORMULAS):
            verdicts += publish_formulas(name, Places())
        if asked.tables:
            verdicts += [verdict for name in studies for verdict in publish(ALL[name], Places())]
        elif studies:
            verdicts += run_studies(studies, jobs=asked.jobs)
    except KeyboardInterrupt:
        return _complain(f"interrupted; go on with: {' '.join((_COMMAND, *arguments))}", INTERRUPTED)
    except FailedRuns as failed:
        return _complain(failed, NOT_REPRODUCED)
    except FileNotFoundError as missing:
        return _complain(f"{missing.filename}: is not there; run the study without --tables", BAD_INPUT)
    except ValueError as refusal:
        return _complain(refusal, BAD_INPUT)
    for verdict in verdicts:
        print(f"{verdict.id:4} {verdict.kind:6} {verdict.status:14} {verdict.claim}: {verdict.ours}")
    return NOT_REPRODUCED if asked.strict and _missed(verdicts) else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Run the studies of published claims.")
    parser.add_argument("studies", nargs="+", choices=[*ALL, *FORMULAS, "all"], help="which, or all")
    parser.add_argument("--jobs", type=int, default=JOBS, help="processes of one torch thread each")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a gate is not reproduced")
    parser.add_argument("--tables", action="store_true", help="run nothing, work from the published tables")
    return parser


def _missed(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.kind == "gate" and verdict.status != "reproduced" for verdict in verdicts)


def _complain(message: object, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
