"""C3: do replicas cost a larger model less? The gap of DiLoCo with eight peers at two sizes, all else equal.

Both sizes see as many tokens in as many rounds, and are tuned over the same rates; the paper gives a larger model more
tokens. The reference is one machine with the whole batch, which computes what data parallelism does. What the smaller
size needs is shared with C2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import Interval, interval
from covsim.sweep.papers import replicas
from covsim.sweep.papers.drawing import headed, spread
from covsim.sweep.papers.replicas import DILOCO, ONE_MACHINE
from covsim.sweep.papers.study import Arm, Scale, Study
from covsim.sweep.papers.tables import best, border, label_of, paired, select, shown, signed
from covsim.sweep.papers.verdicts import Verdict, above

BASES = {"small": replicas.BASE, "large": "papers/c3"}
REPLICAS = 8


def _tune_peak(_: pd.DataFrame, scale: Scale) -> list[Arm]:
    """One machine at every peak rate, both sizes; the larger ones first, for they take longer."""
    return [
        _of_size(size, replicas.one_machine(BASES[size], peak))
        for size in ("large", "small")
        for peak in scale.few(replicas.PEAKS)
    ]


def _compare(table: pd.DataFrame, scale: Scale) -> list[Arm]:
    """Eight peers at the best peak of their size and the half of it, at every outer rate."""
    peaks = {size: label_of(table, best(table, size=size, family=ONE_MACHINE), "peak") for size in BASES}
    return [
        _of_size(size, arm)
        for size in ("large", "small")
        for arm in replicas.diloco_grid(BASES[size], REPLICAS, peaks[size], scale)
    ]


def _of_size(size: str, arm: Arm) -> Arm:
    return replace(arm, name=f"{size}, {arm.name}", labels={"size": size, **arm.labels})


def _pair(table: pd.DataFrame, size: str) -> tuple[str, str]:
    """The best of DiLoCo, and the best of one machine."""
    return best(table, size=size, family=DILOCO), best(table, size=size, family=ONE_MACHINE)


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [_pair(table, size) for size in BASES]


def shrinks_by(table: pd.DataFrame) -> Interval:
    """Percentage points by which the gap of the larger size is smaller, paired by seed."""
    small, large = (paired(table, *_pair(table, size)).percent for size in BASES)
    return interval([one - other for one, other in zip(small, large, strict=True)])


def judge(table: pd.DataFrame) -> list[Verdict]:
    """Reproduced: the gap shrinks with its whole interval. Not: it grows with its whole interval."""
    shown_gaps = []
    for size in BASES:
        arm, baseline = _pair(table, size)
        gap = interval(paired(table, arm, baseline).percent)
        rate, peak = label_of(table, arm, "outer_lr"), label_of(table, arm, "peak")
        shown_gaps.append(
            f"{_parameters(table, size):,} parameters {signed(gap)} (outer rate {rate:g}"
            f"{border(table, arm, 'outer_lr', size=size, family=DILOCO)}, peak {peak:g}; DP: peak "
            f"{label_of(table, baseline, 'peak'):g}{border(table, baseline, 'peak', size=size, family=ONE_MACHINE)})"
        )
    difference = shrinks_by(table)
    return [
        Verdict(
            id="C3",
            kind="gate",
            claim="the penalty of M 8 over data parallelism shrinks with model size; equal tokens here",
            source="2503.09799",
            expected="smaller relative gap at the larger of two sizes at least 4 times apart",
            rule="the gap of the small minus that of the large, paired by seed: interval above 0; not: below 0",
            ours=f"{'; '.join(shown_gaps)}; smaller by {shown(difference, 2)} points",
            error="-",
            status=above(difference, 0),
        )
    ]


def _parameters(table: pd.DataFrame, size: str) -> int:
    return int(select(table, size=size)["parameters"].iloc[0])


def draw(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """The gap of every seed at both sizes."""
    figure = headed(
        "Do replicas cost a larger model less? DiLoCo with 8 peers, H 30",
        "Both sizes on as many tokens, both sides tuned. Gray lines join equal seeds.",
        verdicts,
        8.0,
        4.8,
    )
    axes = figure.subplots()
    gaps = [paired(table, *_pair(table, size)).percent for size in BASES]
    for of_seed in zip(*gaps, strict=True):
        axes.plot(range(len(BASES)), of_seed, color=style.FAINT, lw=0.8, alpha=0.6)
    for place, (values, color) in enumerate(zip(gaps, (style.BLUE, style.VERMILLION), strict=True)):
        spread(axes, place, values, color)
    axes.set_xticks(range(len(BASES)), [f"{_parameters(table, size):,}" for size in BASES])
    axes.set_xlim(-0.5, len(BASES) - 0.5)
    axes.axhline(0, color=style.FAINT, lw=0.8)
    axes.set(xlabel="Parameters", ylabel="Loss above one machine's (%)")
    return figure


STUDY = Study("c3", range(1, 4), (_tune_peak, _compare), _pairs, judge, draw)
