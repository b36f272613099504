"""The studies of published claims: fair arms, verdicts by their rules, files that hold what they should."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from covsim.scenario import load
from covsim.sweep.interval import Interval
from covsim.sweep.papers import STUDIES, Places, Scale, Study, Verdict, centralized, density, publish, run_studies
from covsim.sweep.papers import __main__ as command
from covsim.sweep.papers import error_feedback, four_bits, model_size, replicas, tables, verdicts
from covsim.sweep.papers.study import FULL, LOSS, Arm, scenario_of

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
TINY = Scale(
    num_seeds=2,
    grid=1,
    shorter=15,
    overrides={
        "model": {"layers": 1, "width": 8, "context": 16},
        "stop.rounds": 2,
        "data.held_out_sequences": 16,
        "training.inner.schedule.warmup_steps": 1,
    },
)
SIGNED = {name for name in STUDIES}

Loss = Callable[[dict[str, Any]], float]
"""The mean loss of an arm, by its labels."""


def table_of(study: Study, loss: Loss, noise: float = 0.001, own_noise: float = 0.0) -> pd.DataFrame:
    """A made-up table: means as asked, noise that all arms of a seed share, and noise of each arm's own."""
    table = pd.DataFrame()
    for stage in study.stages:
        rows = [
            made_up(arm, seed, loss(dict(arm.labels)), noise, own_noise)
            for arm in stage(table, FULL)
            for seed in study.seeds
        ]
        table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
    return table


def made_up(arm: Arm, seed: int, mean: float, noise: float, own_noise: float) -> dict[str, Any]:
    own = np.random.default_rng([seed, *arm.name.encode()]).normal()
    value = mean + noise * np.random.default_rng(seed).normal() + own_noise * own
    numbers = {LOSS: value, "loss.final": value, "bits_per_byte.last": value / math.log(2)}
    sizes = {"parameters": 185_216 if arm.labels.get("size") == "large" else 43_328, "tokens": 1000}
    accuracies = dict.fromkeys(centralized.TASKS, 0.5 + 0.01 * seed)
    return {"arm": arm.name, **arm.labels, "seed": seed, **sizes, **numbers, **accuracies, "digest.learning": "0"}


def status(study: Study, table: pd.DataFrame, id: str) -> str:
    (verdict,) = (each for each in study.judge(table) if each.id == id)
    return verdict.status


# Arms ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arms() -> dict[str, list[Arm]]:
    """All arms of every study, with whatever an earlier stage would have tuned."""
    found: dict[str, list[Arm]] = {}
    for name, study in STUDIES.items():
        table = pd.DataFrame()
        for stage in study.stages:
            more = stage(table, FULL)
            rows = [made_up(arm, seed, 2.0, 0.0, 0.1) for arm in more for seed in study.seeds]
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
            found[name] = found.get(name, []) + more
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_all_arms_of_a_study_see_equally_many_tokens(name: str, arms: dict[str, list[Arm]]) -> None:
    assert len({arm.name for arm in arms[name]}) == len(arms[name])
    representatives = {repr(sorted(arm.overrides.items(), key=str)): arm for arm in one_of_each(arms[name])}
    scenarios = [scenario_of(arm) for arm in representatives.values()]
    seen = {each.planned_rounds * each.peers * each.plan.inner_steps * each.tokens_per_step for each in scenarios}
    assert len(seen) == 1
    assert len(STUDIES[name].seeds) >= (5 if name in ("c1", "c4", "c6") else 3)
    for each in scenarios:
        assert each.plan.inner_steps <= each.window_s - each.timeline.gather_timeout
        assert each.aggregate.model_dump()["clip"] == ("median_norm" if each.protocol.kind == "sparseloco" and name == "c6" else each.aggregate.model_dump()["clip"])


def one_of_each(found: list[Arm]) -> list[Arm]:
    """The first arm of each set of labels, rates aside."""
    kept: dict[str, Arm] = {}
    for arm in found:
        kept.setdefault(repr([v for k, v in arm.labels.items() if k not in ("outer_lr", "peak")]), arm)
    return list(kept.values())
