"""What the assertions of `covsim.testing` have in common: what is asked, checked before anything runs, and told."""

from __future__ import annotations

import logging
import math
import unittest
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypedDict

from covsim.behaviors.offline import Offline
from covsim.scenario import Scenario, with_seed
from covsim.scenario.overrides import Overrides
from covsim.scenario.sizes import cohort_sizes
from covsim.scenario.twins import Clean, cheaters, clean_twin
from covsim.sweep.finding import Finding, Outcome, worst
from covsim.sweep.local import JOBS
from covsim.sweep.named import Named, named
from covsim.sweep.trials import Derive, Trial, trials
from covsim.units import parse_duration

ScenarioLike = str | Path | Scenario
"""A scenario file, the name of one that ships with covsim, or a `Scenario`."""

OnInconclusive = Literal["fail", "skip", "warn"]

_log = logging.getLogger("covsim.testing")


class Options(TypedDict, total=False):
    """What every assertion takes beside its own arguments.

    * `overrides`: `["a.b=c"]` or `{"a.b": c}`, laid over a file or a shipped scenario.
    * `twin`: cheaters are `honest` in the clean twin (default), or `absent`.
    * `cheaters`: the cohorts that this is about; by default all whose script is not the honest one.
    * `out`: the folder of all results; by default `results`, as for `covsim run`.
    * `jobs`: processes of one torch thread; 2 by default, with 0 everything happens in this one.
    * `inconclusive`: raise `Inconclusive` (`fail`, the default), skip the test (`skip`), or `warn` and return.
    """

    overrides: Overrides
    twin: Clean
    cheaters: Collection[str] | None
    out: str | Path | None
    jobs: int
    inconclusive: OnInconclusive


@dataclass(frozen=True)
class Report:
    """What an assertion found; as text, all that a failed test has to say."""

    title: str
    seeds: tuple[int, ...]
    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...]
    commands: tuple[str, ...]
    compared_with: str = ""

    @property
    def outcome(self) -> Outcome:
        """Pass if every claim does, fail if one fails, otherwise inconclusive."""
        return worst(self.findings)

    def __str__(self) -> str:
        """Claim by claim: expected, seen, seed by seed, and the commands that make the runs again."""
        lines = [f"{self.title}, seeds {', '.join(map(str, self.seeds))}: {self.outcome}"]
        if self.compared_with:
            lines.append(f"  compared with: {self.compared_with}")
        for finding in self.findings:
            lines += [f"  {finding.outcome}: {finding.claim}"]
            lines += [f"    expected  {finding.expected}", f"    seen      {finding.seen}"]
            lines += [f"    note      {finding.note}"] if finding.note else []
            lines += [f"    seed {seed}: {shown}" for seed, shown in zip(self.seeds, finding.shown, strict=True)]
        lines.append("  the same again:")
        lines += [f"    {command}" for command in self.commands]
        lines += [f"    compared: {trial.twin.folder}" for trial in self.trials if trial.twin is not None]
        return "\n".join(lines)


class ClaimFailed(AssertionError):
    """A claim does not hold; `report` has the figures."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


class Inconclusive(AssertionError):
    """So many seeds cannot tell whether a claim holds; `report` has the figures."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


class Asked:
    """What a test asked for, checked before anything is run."""

    def __init__(
        self,
        scenario: ScenarioLike,
        seeds: int | Sequence[int],
        confidence: float,
        *,
        overrides: Overrides = (),
        twin: Clean = "honest",
        cheaters: Collection[str] | None = None,
        out: str | Path | None = None,
        jobs: int = JOBS,
        inconclusive: OnInconclusive = "fail",
    ) -> None:
        if not 0.5 < confidence < 1:
            raise ValueError(f"confidence lies between 0.5 and 1, such as 0.95; not {confidence}")
        if twin not in ("honest", "absent"):
            raise ValueError(f"cheaters of a twin are 'honest' or 'absent', not {twin!r}")
        if inconclusive not in ("fail", "skip", "warn"):
            raise ValueError(f"inconclusive is 'fail', 'skip' or 'warn', not {inconclusive!r}")
        if isinstance(cheaters, str):
            raise ValueError(f"cheaters is a list of cohorts: [{cheaters!r}]")
        self._named: Named = named(scenario, overrides)
        self.scenario = self._named.scenario
        self.sizes = cohort_sizes(self.scenario.peers, self.scenario.cohorts)
        self._seeds = _seeds(self.scenario, seeds)
        self._twin: Clean = twin
        self._cheaters = cheaters
        self._out = None if out is None else Path(out)
        self._jobs = jobs
        self._on_inconclusive = inconclusive
        self._compared_with = ""
        clean_twin(self.scenario, twin, cheaters)  # names that do not exist are an error now

    def last_round(self, within: int | str | None) -> int | float | None:
        """The last round that counts, or the simulated second (a float) until which rounds do; None for the end."""
        if within is None:
            return None
        if isinstance(within, str):
            return float(parse_duration(within))
        if within < 1:
            raise ValueError(f"within is rounds, 1 or more, not {within}")
        self.must_have(within - 1)
        return within - 1

    def after(self, round: int | None) -> int:
        """The round in which all faults are over, unless the test says which."""
        if round is None:
            return faults_over(self.scenario)
        if round < 1:
            raise ValueError(f"after is a round, 1 or more, not {round}")
        return round

    def must_have(self, round: int) -> None:
        """Refuse a round that the scenario never gets to."""
        if round >= self.scenario.planned_rounds:
            raise ValueError(f"the run ends after {self.scenario.planned_rounds} rounds, before round {round}")

    def need_honest_twin(self, cohort: str) -> None:
        """Refuse a comparison with the same peers honest where the twin would not have them so."""
        chosen = cheaters(self.scenario) if self._cheaters is None else self._cheaters
        if self._twin != "honest" or cohort not in chosen:
            raise ValueError(f"in the clean twin the peers of {cohort!r} would not be made honest")

    def run(self, versus: Literal["clean"] | ScenarioLike | None) -> list[Trial]:
        """Run all seeds, each beside what it is compared with."""
        twin_of: Derive | None = None
        if versus is not None:
            twin_of, self._compared_with = self._other(versus)
        return trials(self.scenario, self._seeds, twin_of, jobs=self._jobs, out=self._out, say=_log.info)

    def conclude(self, what: str, findings: Sequence[Finding], done: Sequence[Trial]) -> Report:
        """The report of what was found; raises unless it is a pass."""
        __tracebackhide__ = True
        commands = [self._named.command(trial.run, trial.seed, self._out) for trial in done]
        title = f"{self._named.label}: {what}"
        report = Report(title, tuple(self._seeds), tuple(findings), tuple(done), tuple(commands), self._compared_with)
        if report.outcome == "fail":
            raise ClaimFailed(report)
        if report.outcome == "inconclusive":
            self._not_told(report)
        return report

    def _not_told(self, report: Report) -> None:
        __tracebackhide__ = True
        if self._on_inconclusive == "fail":
            raise Inconclusive(report)
        if self._on_inconclusive == "skip":
            _skip(report)
        warnings.warn(f"inconclusive: {report}", stacklevel=4)

    def _other(self, versus: Literal["clean"] | ScenarioLike) -> tuple[Callable[[Scenario], Scenario], str]:
        """How a scenario's other run is made, and that in words."""
        if versus != "clean":
            other = named(versus)
            if other.scenario.planned_rounds != self.scenario.planned_rounds:
                raise ValueError(
                    f"{other.label} ends after {other.scenario.planned_rounds} rounds, "
                    f"{self._named.label} after {self.scenario.planned_rounds}: their losses do not compare"
                )
            return (lambda scenario: with_seed(other.scenario, scenario.seed)), other.label
        chosen = sorted(cheaters(self.scenario) if self._cheaters is None else self._cheaters)
        who = f"{', '.join(chosen)} {self._twin}" if chosen else "everybody honest already"
        if not _differs(self.scenario, clean_twin(self.scenario, self._twin, self._cheaters)):
            raise ValueError("nobody cheats in it and nothing fails: its clean twin is itself, and proves nothing")
        told = f"its clean twin: {who}, validators as the rules say, no churn, faults, stalls or outages"
        return (lambda scenario: clean_twin(scenario, self._twin, self._cheaters)), told


def _seeds(scenario: Scenario, seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        if seeds < 1:
            raise ValueError(f"seeds is 1 or more, not {seeds}")
        return list(range(scenario.seed, scenario.seed + seeds))
    chosen = list(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds must be some that differ, not {chosen}")
    return [with_seed(scenario, seed).seed for seed in chosen]


def faults_over(scenario: Scenario) -> int:
    """The first round in which no fault, stall, outage or validator's absence of the scenario is there any more.

    Seconds count as so many whole windows; where the chain stalls, windows open later, and this is a round too late.

    Raises:
        ValueError: nothing fails in it, or a fault has no end.
    """
    seconds = [pause.ends_s for pause in (*scenario.timeline.stalls, *scenario.store.outages)]
    seconds += [fault.at + fault.lasts for fault in scenario.faults if fault.at is not None and fault.lasts is not None]
    if seconds and not scenario.timeline.foresees:
        raise ValueError("in which round a second falls is not known before the run; say after= which round")
    ends = [ends_s / scenario.window_s for ends_s in seconds]
    for fault in scenario.faults:
        if fault.to_round is not None:
            ends.append(fault.to_round)
        elif fault.at is None or fault.lasts is None:
            raise ValueError(f"{fault.kind} at a rate has no end; say after= which round it should be over")
    offline = [each.behavior for each in scenario.validators.values()]
    ends += [behavior.to_round for behavior in offline if isinstance(behavior, Offline)]
    if not ends:
        raise ValueError("nothing fails in it for a while; say after= which round the loss should be back")
    return max(1, math.ceil(max(ends)))


def _differs(scenario: Scenario, twin: Scenario) -> bool:
    """False for a twin that is the scenario under another name."""
    renamed: dict[str, Any] = {"name": twin.name, "expect": twin.expect}
    return scenario.model_copy(update=renamed) != twin


def _skip(report: Report) -> NoReturn:
    """What pytest and unittest both take for a skipped test."""
    raise unittest.SkipTest(f"inconclusive: {report}")
