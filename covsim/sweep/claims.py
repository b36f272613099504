"""A scenario file as a test: its claims one by one, over runs that are made once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from covsim.scenario import Scenario, clean_twin, load, seeds
from covsim.scenario.sections import Claim
from covsim.sweep import expect
from covsim.sweep.local import JOBS
from covsim.sweep.named import Named, named
from covsim.sweep.trials import Trial, trials


def with_claims(path: Path) -> Scenario | None:
    """The scenario in a file, or None if it claims nothing. Raises ScenarioError."""
    scenario = load(path)
    return None if scenario.expect is None else scenario


class Claims:
    """The claims of a scenario, judged when they are asked for.

    Args:
        path: the scenario's file; it has an `expect` section.
        out: the folder of all results; `results` if not given.
        jobs: processes; with 0 everything happens in this one.
    """

    def __init__(self, path: Path, out: Path | None = None, jobs: int = JOBS) -> None:
        self._named: Named = named(path)
        self._out, self._jobs = out, jobs
        self._trouble: Exception | None = None

    @property
    def all(self) -> Sequence[Claim]:
        """In the order of the file."""
        expected = self._named.scenario.expect
        assert expected is not None, "files without claims are no tests"
        return expected.claims

    def ruling(self, claim: Claim) -> expect.Ruling:
        """What becomes of a claim, whether or not it is known to fail.

        Raises:
            FailedRuns: a run ended with an error; the same again for every claim, without running it again.
            ValueError: the summary has no such metric.
        """
        done = self._trials(claim)
        twins = [trial.twin.summary for trial in done if trial.twin is not None]
        plain = claim.model_copy(update={"xfail": None})
        (ruling,) = expect.judge([plain], [trial.run.summary for trial in done], twins)
        return replace(ruling, claim=claim)

    def told(self, ruling: expect.Ruling) -> str:
        """A ruling in words: expected, seen, seed by seed, and the commands that make the runs again."""
        scenario, claim, done = self._named.scenario, ruling.claim, self._trials(ruling.claim)
        lines = [
            f"{scenario.name}, seeds {', '.join(str(trial.seed) for trial in done)}: {ruling.outcome}",
            f"  expected  {expect.wording(claim)}",
            f"  seen      {expect.shown(ruling)}",
            *([f"  note      {ruling.note}"] if ruling.note else []),
        ]
        for trial in done:
            clean = "" if trial.twin is None else f", clean {expect.lookup(trial.twin.summary, claim.metric):.4g}"
            own = expect.lookup(trial.run.summary, claim.metric)
            lines.append(f"  seed {trial.seed}: {own:.4g}{clean}   {trial.run.folder}")
        lines.append("  the same again:")
        lines += [f"    {self._named.command(trial.run, trial.seed, self._out)}" for trial in done]
        return "\n".join(lines)

    def _trials(self, claim: Claim) -> list[Trial]:
        """The runs that a claim is about; one failure is the failure of all that is asked later."""
        if self._trouble is not None:
            raise self._trouble
        try:
            return self._beside_twins if claim.versus == "clean" else self._alone
        except Exception as trouble:
            self._trouble = trouble
            raise

    @cached_property
    def _alone(self) -> list[Trial]:
        return self._run(None)

    @cached_property
    def _beside_twins(self) -> list[Trial]:
        return self._run(clean_twin)

    def _run(self, twin_of: Callable[[Scenario], Scenario] | None) -> list[Trial]:
        scenario = self._named.scenario
        return trials(scenario, seeds(scenario), twin_of, jobs=self._jobs, out=self._out)
