"""Heat maps of a matrix: behaviors down, aggregators across; how much harm is done, and whether the attackers are paid.

Blue is good for the run and vermillion is bad, on a scale that is white where nothing is lost: at a loss equal to the
clean twin's, and at an attacker's pay equal to an honest peer's. Both colors stay apart under every common color
blindness, and every cell has its number.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from covsim.report import style

GRAY, HATCH = "#D5DBE1", "#AEB8C2"
_DIVERGING = LinearSegmentedColormap.from_list(
    "covsim-harm", [style.BLUE, "#5FA5D0", "#B5D5EA", "#FFFFFF", "#F7CFB5", "#E8935A", style.VERMILLION]
)
REMARK = (
    "Left: held-out loss above the clean twin's, in percent (white: no harm; colors end at 100). Right: pay of an "
    "attacker, honest peer = 1 (white: as much; blue: less). Bold: interesting, and run over more seeds; ?: its "
    "interval reaches over the limit. Gray, hatched: a rule aimed at the attack could never act. x: a run failed. "
    "inf: the loss is no number, or attackers alone were paid."
)


@dataclass(frozen=True)
class _Panel:
    """One of the two heat maps: the columns that it shows, and how."""

    column: str
    word: str
    title: str
    norm: Normalize
    ticks: Sequence[float]
    tick_text: Callable[[float], str]
    text: Callable[[float], str]


def heat_maps(cells: pd.DataFrame, behaviors: Sequence[str], aggregators: Sequence[str], title: str) -> Figure:
    """Both heat maps of one selection and share.

    Args:
        cells: a row per cell, as `sweep.matrix.judging` makes them; what has no row stays empty.
        behaviors: rows, from the top down.
        aggregators: columns, from left to right.
        title: what the figure shows.
    """
    width = max(9.0, 4.2 + 1.16 * len(aggregators))
    remark = textwrap.fill(REMARK, int(15 * width))
    figure = style.headed(title, remark, width, 2.9 + 0.36 * len(behaviors))
    places = {(row["behavior"], row["aggregator"]): row for row in cells.to_dict("records")}
    for position, (axes, panel) in enumerate(zip(figure.subplots(1, 2, sharey=True), _panels(), strict=True)):
        _frame(axes, panel, behaviors, aggregators)
        for row, behavior in enumerate(behaviors):
            for column, aggregator in enumerate(aggregators):
                if (behavior, aggregator) in places:
                    _draw_cell(axes, panel, column, row, places[behavior, aggregator])
        _scale(figure, axes, panel)
        if position:
            axes.tick_params(labelleft=False)
    return figure


def _panels() -> tuple[_Panel, _Panel]:
    harm = SymLogNorm(linthresh=0.05, linscale=0.6, vmin=-1.0, vmax=1.0, base=10)
    return (
        _Panel(
            "worse",
            "harm",
            "Loss against the clean twin, %",
            harm,
            (-1, -0.2, -0.05, 0, 0.05, 0.2, 1),
            lambda value: f"{100 * value:+g}" if value else "0",
            _percent,
        ),
        _Panel(
            "pay",
            "profit",
            "Pay of an attacker, honest = 1",
            Normalize(0.0, 2.0),
            (0, 0.5, 1, 1.5, 2),
            "{:g}".format,
            _pay,
        ),
    )


def _frame(axes: Axes, panel: _Panel, behaviors: Sequence[str], aggregators: Sequence[str]) -> None:
    axes.set_title(panel.title)
    axes.set_xlim(-0.5, len(aggregators) - 0.5)
    axes.set_ylim(len(behaviors) - 0.5, -0.5)
    axes.set_xticks(range(len(aggregators)), [_readable(name) for name in aggregators], rotation=40, ha="right")
    axes.set_yticks(range(len(behaviors)), [_readable(name) for name in behaviors])
    for label in axes.get_xticklabels():
        label.set_rotation_mode("anchor")
    axes.tick_params(length=0, labelcolor=style.INK, labelsize=9)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_cell(axes: Axes, panel: _Panel, column: int, row: int, cell: Mapping[Any, Any]) -> None:
    """A colored square with its number; gray where a rule could never act or nothing is known."""
    value, word = float(cell[panel.column]), cell[panel.word]
    corner, failed = (column - 0.5, row - 0.5), word == "failed"
    if failed or math.isnan(value) or not cell["could_fire"]:
        hatch = "" if failed or cell["could_fire"] else "////"
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=GRAY, edgecolor=HATCH, hatch=hatch, lw=0))
        color = style.INK
    else:
        face = _DIVERGING(float(np.clip(panel.norm(np.clip(value, panel.norm.vmin, panel.norm.vmax)), 0, 1)))
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=face, lw=0))
        color = "white" if _luminance(face) < 0.35 else style.INK
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", lw=1.2))
    text = "x" if failed else "n/a" if math.isnan(value) else panel.text(value) + ("?" if word == "unclear" else "")
    bold = word not in ("quiet", "failed")
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, weight="bold" if bold else "normal")


def _scale(figure: Figure, axes: Axes, panel: _Panel) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(panel.norm, _DIVERGING), ax=axes, shrink=0.85, aspect=28, pad=0.015)
    bar.set_ticks(list(panel.ticks), labels=[panel.tick_text(tick) for tick in panel.ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: float) -> str:
    """'+3.2', '-0.4', '+57', '>999'."""
    percent = 100 * value
    if math.isinf(value):
        return "inf"
    if percent > 999:
        return ">999"
    return f"{percent:+.0f}" if abs(percent) >= 10 else f"{percent:+.1f}" if abs(percent) >= 0.05 else "0"


def _pay(value: float) -> str:
    """'0', '0.04', '1.3'."""
    if math.isinf(value):
        return "inf"
    return "0" if value == 0 else f"{value:.2f}" if value < 1 else f"{value:.1f}"


def _luminance(color: tuple[float, float, float, float]) -> float:
    """Relative luminance of a color in sRGB, 0 to 1."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
