"""Reading a study's table: means with intervals, differences paired by seed, and the best of what was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from covsim.sweep.interval import Interval, interval
from covsim.sweep.papers.study import LOSS


@dataclass(frozen=True)
class Paired:
    """An arm against a baseline, by seed: the differences, and the same in percent of the baseline."""

    differences: tuple[float, ...]
    percent: tuple[float, ...]


def select(table: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    """The rows that have all of the labels."""
    for label, value in labels.items():
        table = table[table[label] == value]
    return table


def by_seed(table: pd.DataFrame, arm: str, metric: str = LOSS) -> dict[int, float]:
    """A metric of an arm. Raises ValueError where there is no such arm, or a seed twice."""
    rows = select(table, arm=arm)
    if rows.empty or rows["seed"].duplicated().any():
        raise ValueError(f"the table has no arm {arm!r}" if rows.empty else f"arm {arm!r} has a seed twice")
    return {int(seed): float(value) for seed, value in zip(rows["seed"], rows[metric], strict=True)}


def mean(table: pd.DataFrame, arm: str, metric: str = LOSS) -> Interval:
    """Over the seeds of an arm, with its 95 % interval."""
    return interval(list(by_seed(table, arm, metric).values()))


def deviation(table: pd.DataFrame, arm: str, metric: str = LOSS) -> float:
    """Standard deviation over the seeds of an arm."""
    return float(pd.Series(by_seed(table, arm, metric)).std(ddof=1))


def paired(table: pd.DataFrame, arm: str, baseline: str, metric: str = LOSS) -> Paired:
    """An arm against a baseline on the same seeds. Raises ValueError where they are not the same."""
    own, base = by_seed(table, arm, metric), by_seed(table, baseline, metric)
    if set(own) != set(base):
        raise ValueError(f"{arm!r} and {baseline!r} have different seeds")
    seeds = sorted(own)
    return Paired(
        tuple(own[seed] - base[seed] for seed in seeds), tuple(100 * (own[seed] / base[seed] - 1) for seed in seeds)
    )


def best(table: pd.DataFrame, **labels: Any) -> str:
    """The arm with the lowest mean loss among those with these labels."""
    return str(select(table, **labels).groupby("arm", sort=False)[LOSS].mean().idxmin())


def label_of(table: pd.DataFrame, arm: str, label: str) -> float:
    """A numeric label of an arm."""
    return float(select(table, arm=arm)[label].iloc[0])


def border(table: pd.DataFrame, arm: str, label: str, **labels: Any) -> str:
    """' (border)' if an arm's best value is the first or the last of those tried, ' (not tuned)' if it is alone."""
    tried = select(table, **labels)[label]
    if tried.min() == tried.max():
        return " (not tuned)"
    return " (border)" if label_of(table, arm, label) in (tried.min(), tried.max()) else ""


def arms(table: pd.DataFrame) -> list[str]:
    """All arms, in the order of the table."""
    return [str(arm) for arm in table["arm"].unique()]


def means(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per arm: the mean of each metric and half the width of its 95 % interval."""
    rows = []
    for arm in arms(table):
        row: dict[str, Any] = {"arm": arm, "seeds": len(by_seed(table, arm))}
        for metric in metrics:
            measured = mean(table, arm, metric)
            row |= {metric: measured.mean, f"{metric} +-": measured.half_width}
        rows.append(row)
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """A row per pair: mean difference of the loss over seeds with its 95 % interval, in nats and in percent."""
    rows = []
    for arm, baseline in pairs:
        found = paired(table, arm, baseline)
        nats, percent = interval(found.differences), interval(found.percent)
        rows.append(
            {
                "arm": arm,
                "baseline": baseline,
                "seeds": len(found.differences),
                "nats": nats.mean,
                "nats +-": nats.half_width,
                "percent": percent.mean,
                "percent +-": percent.half_width,
            }
        )
    return pd.DataFrame(rows)


def shown(measured: Interval, digits: int = 3, unit: str = "") -> str:
    """'2.041 ± 0.012'."""
    return f"{measured.mean:.{digits}f} ± {measured.half_width:.{digits}f}{unit}"


def signed(measured: Interval, digits: int = 2, unit: str = " %") -> str:
    """'+0.31 ± 0.12 %'."""
    return f"{measured.mean:+.{digits}f} ± {measured.half_width:.{digits}f}{unit}"
