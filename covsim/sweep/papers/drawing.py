"""What the figures of the studies share: a mark per seed, and the mean with its 95 % interval."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.verdicts import Verdict

LEGEND = "Pale dots: single seeds. Bold: mean over seeds with its 95 % interval (Student's t)."
CHARACTERS_PER_INCH = 14
_JITTER = 0.07


def spread(
    axes: Axes, at: float, values: Sequence[float], color: str, across: bool = False, marker: str = "o"
) -> float:
    """Draw the values of all seeds at one place, and their mean with its interval; returns the mean.

    Args:
        axes: where.
        at: the place along the axis of what is compared, in steps of about 1.
        values: one per seed.
        color: of the marks.
        across: values run from left to right, and not upward.
        marker: of the mean.
    """
    measured = interval(list(values))
    places = at + _JITTER * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.array([at])
    width = [[measured.half_width], [measured.half_width]]
    bold: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6, "capsize": 4, "lw": 1.8, "zorder": 3}
    if across:
        axes.scatter(values, places, s=14, color=color, alpha=0.4, lw=0)
        axes.errorbar([measured.mean], [at], xerr=width, **bold)
    else:
        axes.scatter(places, values, s=14, color=color, alpha=0.4, lw=0)
        axes.errorbar([at], [measured.mean], yerr=width, **bold)
    return measured.mean


def rows_of(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot whose values run from left to right; the first stands on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=style.INK, length=0)


def headed(title: str, remark: str, verdicts: Sequence[Verdict], width: float, height: float) -> Figure:
    """An empty figure, inches wide and high; below it how to read it, and what became of its claims."""
    text = textwrap.fill(f"{remark} {LEGEND}", int(CHARACTERS_PER_INCH * width))
    statuses = "  ".join(f"{verdict.id}: {verdict.status}." for verdict in verdicts)
    return style.headed(title, f"{text}\n{statuses}", width, height)
