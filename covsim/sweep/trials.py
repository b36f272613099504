"""A scenario over seeds, each run beside the one it is compared with: found, resumed or run, and their losses read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from covsim.record.lock import FolderInUse
from covsim.record.runner import Run
from covsim.scenario import Scenario, with_seed
from covsim.sweep.local import JOBS, FailedRuns, Say, run_all

LONGEST_WAIT_S = 6 * 3600.0
"""How long runs that another process has begun are waited for."""

_LOOKS_EVERY_S = 0.5

Derive = Callable[[Scenario], Scenario]


@dataclass(frozen=True)
class Trial:
    """One seed: the run, and the one that it is compared with, if any."""

    seed: int
    scenario: Scenario
    run: Run
    twin: Run | None = None


def trials(
    scenario: Scenario,
    seeds: Sequence[int],
    twin_of: Derive | None = None,
    *,
    jobs: int = JOBS,
    out: Path | None = None,
    say: Say = lambda line: None,
) -> list[Trial]:
    """Run a scenario under every seed, and beside each run its twin; runs that are there already are not run again.

    Args:
        scenario: what to run.
        seeds: in the order of the result.
        twin_of: makes of the scenario under a seed the one that it is compared with, under the same seed.
        jobs: processes; with 0 everything happens in this one.
        out: the folder of all results; `results` if not given.
        say: gets a line for each run that ends.

    Raises:
        FailedRuns: when all others are done.
    """
    own = [with_seed(scenario, seed) for seed in seeds]
    twins = [] if twin_of is None else [twin_of(each) for each in own]
    done = run_patiently([*own, *twins], jobs, out, say)
    runs = done[: len(own)]
    compared: Sequence[Run | None] = done[len(own) :] or [None] * len(own)
    return [Trial(*each) for each in zip(seeds, own, runs, compared, strict=True)]


def run_patiently(
    scenarios: Sequence[Scenario], jobs: int = JOBS, out: Path | None = None, say: Say = lambda line: None
) -> list[Run]:
    """`run_all`, which waits for what another process is running: two tests may ask for the same twin at a time."""
    until = time.monotonic() + LONGEST_WAIT_S
    while True:
        try:
            return run_all(scenarios, jobs, out, say)
        except FailedRuns as failed:
            elsewhere = all(line.startswith(f"{FolderInUse.__name__}:") for line in failed.failures.values())
            if not elsewhere or time.monotonic() > until:
                raise
        time.sleep(_LOOKS_EVERY_S)


@dataclass(frozen=True)
class Losses:
    """Held-out losses of a run, by round: on the lead validator's theta, or the highest of all histories."""

    by_round: pd.Series[float]
    seconds: pd.Series[float]

    def around(self, last: int, first: int = 0, most: int = 3) -> float:
        """Mean of the last up to `most` losses of the rounds from `first` to `last`; NaN if one of them is missing."""
        rounds = range(max(first, last - most + 1), last + 1)
        return float(self.by_round.reindex(rounds).mean(skipna=False))

    def last_round(self, seconds: float) -> int:
        """The last round whose loss was measured by a simulated time; -1 if none was."""
        measured = self.seconds[self.seconds <= seconds]
        return -1 if measured.empty else int(measured.index[-1])


def losses(run: Run, column: str = "loss") -> Losses:
    """The held-out losses of a finished run; `loss` or `loss_highest` of its rounds.parquet."""
    table = pd.read_parquet(run.folder / "rounds.parquet").set_index("round")
    return Losses(table[column].astype(float), table["simulated_s"].astype(float))
