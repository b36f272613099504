"""What a study is: arms that differ in named settings, each run over seeds on equally many tokens, and one tidy table.

Everything that is said of a study (verdicts, intervals, figure) is worked out from that table alone, so it can be
worked out again from the published file without running anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from covsim.record.runner import Run
from covsim.report.run_tables import read_run
from covsim.scenario import Scenario, load, with_seed
from covsim.sweep.expect import lookup
from covsim.sweep.papers.verdicts import Verdict

LOSS = "loss.last"
"""Held-out nats per token after the last outer step: what arms are compared by. `loss.final` of the summary is a mean
over three rounds, and so over more tokens the longer a round is."""

RunAll = Callable[[Sequence[Scenario]], list[Run]]


@dataclass(frozen=True)
class Scale:
    """How much smaller than published a study is done; tests do.

    Attributes:
        num_seeds: at most so many seeds.
        grid: at most so many values of whatever is tuned.
        shorter: what the inner steps between two exchanges are divided by.
        overrides: of every scenario.
    """

    num_seeds: int | None = None
    grid: int | None = None
    shorter: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def few(self, values: Sequence[float]) -> Sequence[float]:
        """The values of a grid that are tried."""
        return values[: self.grid]


FULL = Scale()


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: what the tables call it.
        base: the scenario that it changes.
        overrides: what it changes.
        labels: further columns of the table, for finding the arm.
    """

    name: str
    base: str
    overrides: Mapping[str, Any]
    labels: Mapping[str, Any]


Stage = Callable[[pd.DataFrame, Scale], list[Arm]]
"""Arms that are run side by side, given the table of all that ran before."""


@dataclass(frozen=True)
class Study:
    """A claim of a paper, or several, and the runs that it is judged by.

    Attributes:
        name: `c1`, as in the table of targets.
        seeds: of every arm.
        stages: one after the other, since a later one may use what an earlier one has tuned.
        baselines: pairs (arm, baseline) whose difference is published, seed by seed.
        judge: the verdicts.
        draw: the figure.
        metrics: keys of the summary that the table has beside the losses.
    """

    name: str
    seeds: range
    stages: tuple[Stage, ...]
    baselines: Callable[[pd.DataFrame], list[tuple[str, str]]]
    judge: Callable[[pd.DataFrame], list[Verdict]]
    draw: Callable[[pd.DataFrame, Sequence[Verdict]], Figure]
    metrics: tuple[str, ...] = ()

    def measure(self, run_all: RunAll, scale: Scale = FULL) -> pd.DataFrame:
        """Run every arm over the seeds; returns a row per arm and seed."""
        table = pd.DataFrame()
        for stage in self.stages:
            seeds = self.seeds[: scale.num_seeds]
            of_arms = [(arm, scenario_of(arm, scale)) for arm in stage(table, scale)]
            each = [(arm, with_seed(scenario, seed)) for arm, scenario in of_arms for seed in seeds]
            runs = run_all([scenario for _, scenario in each])
            rows = [self._row(arm, scenario, run) for (arm, scenario), run in zip(each, runs, strict=True)]
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
        return table

    def _row(self, arm: Arm, scenario: Scenario, run: Run) -> dict[str, Any]:
        last = float(read_run(run.folder).rounds["loss"].iloc[-1])
        return {
            "arm": arm.name,
            **arm.labels,
            "seed": scenario.seed,
            "parameters": scenario.model.num_parameters,
            "tokens": scenario.planned_rounds * _tokens_per_round(scenario),
            "loss.final": lookup(run.summary, "loss.final"),
            LOSS: last,
            "bits_per_byte.last": last / math.log(2),  # a token is a byte
            **{metric: lookup(run.summary, metric) for metric in self.metrics},
            "digest.learning": run.summary["digest.learning"],
        }


def scenario_of(arm: Arm, scale: Scale = FULL) -> Scenario:
    """The arm's scenario, ended when its peers have seen as many tokens together as those of its base.

    It ends by rounds, for an end by tokens would come before the last round is exchanged.

    Raises:
        ValueError: no whole number of rounds has so many tokens.
    """
    base, own = _load(arm.base, {}, scale), _load(arm.base, arm.overrides, scale)
    tokens = base.planned_rounds * _tokens_per_round(base)
    rounds, rest = divmod(tokens, _tokens_per_round(own))
    if rest or not rounds:
        raise ValueError(f"{arm.name}: rounds of {_tokens_per_round(own)} tokens do not make up {tokens}")
    return own.model_copy(update={"stop": own.stop.model_copy(update={"rounds": rounds})})


def _load(base: str, overrides: Mapping[str, Any], scale: Scale) -> Scenario:
    changed = {**overrides, **scale.overrides}
    scenario = load(base, changed)
    inner_steps = scenario.plan.inner_steps
    if scale.shorter == 1 or inner_steps == 1:
        return scenario
    return load(base, {**changed, "protocol.inner_steps": max(1, inner_steps // scale.shorter)})


def _tokens_per_round(scenario: Scenario) -> int:
    return scenario.peers * scenario.plan.inner_steps * scenario.tokens_per_step
