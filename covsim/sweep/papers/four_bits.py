"""C4: are dense pseudo-gradients in four bits as good as in 32, with two peers and no error feedback?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.drawing import headed, rows_of, spread
from covsim.sweep.papers.study import Arm, Scale, Study
from covsim.sweep.papers.tables import mean, paired, shown, signed
from covsim.sweep.papers.verdicts import Verdict, within

BASE = "papers/c4"
LOSSLESS = 0.3
"""Percent of the loss."""

FULL = "fp32"
FORMATS: dict[str, Any] = {
    FULL: {"kind": "fp32"},
    "fp4": {"kind": "fp4"},
    "bin means, 4 bits": {"kind": "bin_mean", "bits": 4},
    "uniform, 4 bits": {"kind": "uniform", "bits": 4},
}
FOUR_BITS = tuple(name for name in FORMATS if name != FULL)
"""The first is the paper's format."""


def _arms(_: pd.DataFrame, scale: Scale) -> list[Arm]:
    return [Arm(name, BASE, {"protocol.values": values}, {"values": name}) for name, values in FORMATS.items()]


def _pairs(_: pd.DataFrame) -> list[tuple[str, str]]:
    return [(name, FULL) for name in FOUR_BITS]


def judge(table: pd.DataFrame) -> list[Verdict]:
    """Reproduced: the change is below 0.3 % either way with its whole interval. Not: above with its whole interval."""
    rows = []
    for id, name in zip(("C4", "C4b", "C4c"), FOUR_BITS, strict=True):
        change = interval(paired(table, name, FULL).percent)
        rows.append(
            Verdict(
                id=id,
                kind="gate" if id == "C4" else "report",
                claim=f"4-bit pseudo-gradients are lossless, M 2, no error feedback: {name}"
                + (", the paper's format" if id == "C4" else ""),
                source="2501.18512",
                expected=f"loss change < {LOSSLESS:g} %",
                rule=f"change, paired by seed: interval within ±{LOSSLESS:g} %; not: interval outside",
                ours=f"{signed(change)} of {shown(mean(table, FULL))} nats",
                error=f"{change.mean:+.2f} points",
                status=within(change, LOSSLESS),
            )
        )
    return rows


def draw(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """The change of every seed, by format, and the band of the claim."""
    figure = headed(
        "Do four bits lose anything? Dense pseudo-gradients of 2 peers, no error feedback",
        f"Band: the {LOSSLESS:g} % of the claim.",
        verdicts,
        8.5,
        4.0,
    )
    axes = figure.subplots()
    axes.axvspan(-LOSSLESS, LOSSLESS, color=style.GRID, lw=0)
    axes.axvline(0, color=style.FAINT, lw=0.8)
    for row, (name, color) in enumerate(zip(FOUR_BITS, (style.BLUE, style.ORANGE, style.GREEN), strict=True)):
        spread(axes, row, paired(table, name, FULL).percent, color, across=True)
    rows_of(axes, FOUR_BITS)
    axes.set(xlabel="Change of the held-out loss against 32 bits on the same seed (%)")
    return figure


STUDY = Study("c4", range(1, 11), (_arms,), _pairs, judge, draw)
