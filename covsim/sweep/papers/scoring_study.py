"""A study of the scoring: runs over seeds, what is read of each, and the tables from which verdicts and figures follow.

A `study.Study` compares arms by their loss on equal tokens. Here what is compared is what validators concluded, so a
study says itself what to read of a run. It may ask a run's tape, and then tapes are kept.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from covsim.record.runner import Run
from covsim.report import style
from covsim.scenario import Scenario, load, with_seed
from covsim.sweep.interval import Interval
from covsim.sweep.papers.drawing import CHARACTERS_PER_INCH
from covsim.sweep.papers.study import FULL, Arm, RunAll, Scale
from covsim.sweep.papers.verdicts import Verdict

Tables = Mapping[str, pd.DataFrame]
"""By what stands behind the study's name in the file's name; the main table stands under the empty string."""

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class ScoringStudy:
    """Claims about scores, ratings or copies, and the runs that they are judged by.

    Attributes:
        name: `d1`, as in the table of targets.
        seeds: of every arm.
        arms: what is run.
        read: the tables of one run, under the same names for every run; columns `arm` and `seed` are added.
        derive: further tables, from all of them.
        judge: the verdicts.
        draw: the figures, by what stands behind the study's name.
        suffixes: the names of the tables that `read` gives, of some run at least.
        needs_tapes: whether `read` asks the tape.
    """

    name: str
    seeds: range
    arms: Callable[[Scale], list[Arm]]
    read: Callable[[Run, Scale], Tables]
    derive: Callable[[Tables], Tables]
    judge: Callable[[Tables], list[Verdict]]
    draw: Callable[[Tables, Sequence[Verdict]], Mapping[str, Figure]]
    suffixes: tuple[str, ...] = ("",)
    needs_tapes: bool = False

    def measure(self, run_all: RunAll, scale: Scale = FULL) -> Tables:
        """Run every arm over the seeds; returns the tables with the rows of all runs."""
        each = [
            (arm, seed, with_seed(scenario, seed))
            for arm, scenario in ((arm, scenario_of(arm, scale)) for arm in self.arms(scale))
            for seed in self.seeds[: scale.num_seeds]
        ]
        runs = run_all([scenario for _, _, scenario in each])
        parts: dict[str, list[pd.DataFrame]] = {}
        for (arm, seed, _), run in zip(each, runs, strict=True):
            for suffix, rows in self.read(run, scale).items():
                labelled = rows.assign(arm=arm.name, seed=seed, **arm.labels)
                parts.setdefault(suffix, []).append(labelled[["arm", *arm.labels, "seed", *rows.columns]])
        return {suffix: pd.concat(frames, ignore_index=True) for suffix, frames in parts.items()}


def scenario_of(arm: Arm, scale: Scale = FULL) -> Scenario:
    """The arm's scenario, with what a smaller scale overrides."""
    return load(arm.base, {**arm.overrides, **scale.overrides})


def share_interval(hits: int, trials: int) -> Interval:
    """A share with its 95 % interval after Wilson, which holds for few trials and near 0 and 1.

    The interval lies around a value between the share and one half, so the mean of what is returned is that value, and
    not hits / trials.
    """
    assert 0 <= hits <= trials > 0, "a share of something"
    share, spread = hits / trials, Z * Z / trials
    root = math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return Interval((share + spread / 2) / (1 + spread), Z * root / (1 + spread))


def shown_share(hits: int, trials: int) -> str:
    """'19 of 20 (95 %; 76 to 99 %)'."""
    measured = share_interval(hits, trials)
    low, high = 100 * max(0.0, measured.low), 100 * min(1.0, measured.high)
    return f"{hits} of {trials} ({100 * hits / trials:.0f} %; {low:.0f} to {high:.0f} %)"


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[list[float], list[float]]:
    """The ROC curve of a score that should be higher for the positive: shares of negative and of positive at or above.

    The threshold falls from above all values to the lowest; equal values are passed together.
    """
    assert positive, "a curve needs both kinds"
    assert negative, "a curve needs both kinds"
    false, true = [0.0], [0.0]
    for threshold in sorted({*positive, *negative}, reverse=True):
        false.append(sum(value >= threshold for value in negative) / len(negative))
        true.append(sum(value >= threshold for value in positive) / len(positive))
    return false, true


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The area under the ROC curve: how often one of the positive has the higher score than one of the negative.

    Equal scores count half. 0.5 is guessing.
    """
    assert positive, "an area needs both kinds"
    assert negative, "an area needs both kinds"
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


def of_arm(table: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    """The rows with all of the labels. Raises ValueError where there are none."""
    found = table
    for label, value in labels.items():
        found = found[found[label] == value]
    if found.empty:
        raise ValueError(f"the table has no rows with {labels}")
    return found


def headed(title: str, remark: str, verdicts: Sequence[Verdict], width: float, height: float) -> Figure:
    """An empty figure, inches wide and high; below it how to read it, and what became of its claims."""
    text = textwrap.fill(remark, int(CHARACTERS_PER_INCH * width))
    statuses = "  ".join(f"{verdict.id}: {verdict.status}." for verdict in verdicts)
    return style.headed(title, f"{text}\n{statuses}", width, height)
