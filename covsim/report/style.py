"""One look for all figures: one color per behavior everywhere, told apart by color-blind readers too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from covsim.record.files import write_whole

# Okabe and Ito (2008): eight colors that remain apart under every common color blindness.
BLUE, VERMILLION, ORANGE, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#CC79A7"
GREEN, SKY, YELLOW, BLACK = "#009E73", "#56B4E9", "#F0E442", "#000000"

COLORS = {"honest": BLUE, "sign_flip": VERMILLION, "lazy": ORANGE, "copycat": PURPLE, "late": SKY}
"""The behaviors that ship with covsim; others take the remaining colors in the order of their names."""

SPANS = {"compute": "#33475B", "upload": "#7C93A8", "download": "#B9C6D2", "idle": "#EEF1F4"}
"""How a peer spends its time: shades of one gray-blue, so that no span is taken for a behavior."""

INK, FAINT, GRID, EMPTY = "#1F2933", "#66727F", "#E3E8ED", "#F5F7F9"
_LINES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "covsim",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house's look, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def color_of(behavior: str, all_behaviors: Iterable[str]) -> str:
    """The color of a behavior; `all_behaviors` are those in the figure."""
    if behavior in COLORS:
        return COLORS[behavior]
    spare = (GREEN, YELLOW, BLACK, FAINT)
    others = sorted(set(all_behaviors) - set(COLORS))
    return spare[min(others.index(behavior), len(spare) - 1)]


def line_of(behavior: str, earlier: Iterable[str]) -> object:
    """A dash pattern: cohorts of one behavior share its color and differ in their lines."""
    return _LINES[sum(other == behavior for other in earlier) % len(_LINES)]


def headed(title: str, remark: str, width: float, height: float) -> Figure:
    """An empty figure, inches wide and high, with what it shows as its title and what to mind below it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.008, ha="left", fontsize=13, fontweight="bold")
    figure.supxlabel(remark, x=0.008, ha="left", fontsize=8.5, color=FAINT)
    return figure


def label_lines(axes: Axes, labels: list[tuple[float, str, str]], gap: float = 0.06) -> None:
    """Write labels (y, text, color) at the right edge beside their lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    places = sorted((min(max((y - low) / (high - low), 0.0), 1.0), text, color) for y, text, color in labels)
    heights: list[float] = []
    for wanted, _, _ in places:
        heights.append(max(wanted, heights[-1] + gap) if heights else wanted)
    over = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for height, (_, text, color) in zip(heights, places, strict=True):
        axes.annotate(
            text, (1.015, height - over), xycoords="axes fraction", va="center", color=color, fontsize=9, clip_on=False
        )


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=150, metadata={"Software": None}))
