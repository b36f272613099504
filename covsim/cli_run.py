"""What `covsim run` does: warn, run, draw, show, and judge what the scenario expects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from covsim.cli_progress import watching
from covsim.record.runner import REFUSALS, Interrupted, Run, resume, run, scenario_of
from covsim.report import figures, headline
from covsim.scenario import Scenario, clean_twin, resolved_text, seeds, warnings, with_seed
from covsim.scenario.sections import Claim
from covsim.sweep import expect

OK = 0
EXPECTATION_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class Runner:
    """Runs scenarios for the command line and returns exit codes.

    Args:
        out: the folder of all results; `results` if None.
        force: run again what lies there already.
        quiet: print nothing but where the results are, and the claims that failed.
    """

    def __init__(self, out: Path | None, force: bool, quiet: bool) -> None:
        self._out, self._force, self._quiet = out, force, quiet
        self._console = Console()

    def run(self, scenario: Scenario, source_text: str) -> int:
        """Run a scenario; if it expects anything, under all of its seeds."""
        for warning in warnings(scenario):
            _complain(f"warning: {warning}")
        work = self._judged if scenario.expect is not None else self._single
        return _exit_code(lambda: work(scenario, source_text))

    def resume(self, folder: Path) -> int:
        """Go on with the interrupted run in a folder."""
        return _exit_code(lambda: self._resumed(folder))

    def _single(self, scenario: Scenario, source_text: str) -> int:
        self._show(self._execute(scenario, source_text, scenario.name))
        return OK

    def _judged(self, scenario: Scenario, source_text: str) -> int:
        """Every seed, and its clean twin where a claim compares with it; then the claims."""
        assert scenario.expect is not None, "there is something to judge"
        claims = scenario.expect.claims
        needs_twins = any(claim.versus == "clean" for claim in claims)
        runs, twins = [], []
        for seed in seeds(scenario):
            own = with_seed(scenario, seed)
            runs.append(self._execute(own, source_text, f"{scenario.name} seed {seed}"))
            if needs_twins:
                twin = clean_twin(own)
                twins.append(self._execute(twin, resolved_text(twin), f"{twin.name} seed {seed}"))
        self._show(runs[0])
        return self._judge(claims, runs, twins)

    def _judge(self, claims: Sequence[Claim], runs: Sequence[Run], twins: Sequence[Run]) -> int:
        try:
            rulings = expect.judge(claims, [run.summary for run in runs], [twin.summary for twin in twins])
        except ValueError as error:
            return _complain(error, BAD_INPUT)
        failed = any(ruling.failed for ruling in rulings)
        if failed or not self._quiet:
            self._console.print(expect.table(rulings))
        return EXPECTATION_FAILED if failed else OK

    def _resumed(self, folder: Path) -> int:
        """Resume; if the run was one of several, the claims wait for all of them."""
        scenario = scenario_of(folder)
        with watching(scenario.name, scenario.planned_rounds, self._console, self._quiet) as observers:
            done = resume(folder, observers)
        self._finish(done)
        self._show(done)
        if scenario.expect is not None:
            self._console.print("claims are judged when the command that was interrupted is given again")
        return OK

    def _execute(self, scenario: Scenario, source_text: str, title: str) -> Run:
        with watching(title, scenario.planned_rounds, self._console, self._quiet) as observers:
            done = run(scenario, source_text, out=self._out, force=self._force, observers=observers)
        return self._finish(done)

    def _finish(self, done: Run) -> Run:
        """Draw the figures that are not there: of a new run all, and of an old one what an interruption left out."""
        if done.skipped:
            self._console.print(f"{done.folder}: this very run is there already; --force runs it again", soft_wrap=True)
        if not figures.all_drawn(done.folder):
            figures.draw_all(done.folder)
        return done

    def _show(self, done: Run) -> None:
        if self._quiet:
            self._console.print(str(done.folder), soft_wrap=True)
        else:
            self._console.print(headline.table(done.summary, done.folder))


def _exit_code(work: Callable[[], int]) -> int:
    """Do the work; what stops it is one line and an exit code, except our own mistakes."""
    try:
        return work()
    except Interrupted as interruption:
        return _complain(interruption, INTERRUPTED)
    except KeyboardInterrupt:  # between two runs, or while figures are drawn
        return _complain("interrupted; the same command goes on where it was", INTERRUPTED)
    except REFUSALS as refusal:
        return _complain(refusal, BAD_INPUT)


def _complain(message: object, code: int = OK) -> int:
    """Say what is wrong, and hand back the exit code that goes with it."""
    print(message, file=sys.stderr)
    return code
