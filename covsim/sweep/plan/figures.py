"""Pictures of a plan, each beside its table: utilization, stragglers, bytes against time."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from covsim.record.files import write_text
from covsim.report import style
from covsim.scenario.schema import Scenario
from covsim.sweep.plan.grids import (
    DEADLINE,
    FIRST,
    USUAL_SHARE,
    USUAL_SLOWNESS,
    bytes_grid,
    straggler_grid,
    utilization_grid,
)
from covsim.sweep.plan.setting import Setting

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_SHADES = LinearSegmentedColormap.from_list("covsim-utilization", ["#F5F7F9", "#B5D5EA", "#5FA5D0", style.BLUE])
_POLICY_COLORS = (style.BLUE, style.GREEN, style.ORANGE, style.VERMILLION)
_WINDOWS = "Windows are as long as 95 % of the peers need, no upload is late, no gather is given up. "
_NO_DEADLINES = "No upload is late, no gather is given up. "


def draw(scenario: Scenario, folder: Path) -> list[Path]:
    """Draw all figures of a scenario's plan and write their tables; returns the paths of what was written.

    Raises CannotPlan.
    """
    setting = Setting.of(scenario)
    name = scenario.name
    with style.house_style():
        drawn = {
            "utilization": (grid := utilization_grid(setting), utilization_figure(grid, setting)),
            "stragglers": (grid := straggler_grid(setting), straggler_figure(grid, name)),
            "bytes": (grid := bytes_grid(setting), bytes_figure(grid, setting)),
        }
        paths = []
        for what, (table, figure) in drawn.items():
            path = folder / f"plan_{what}.csv"
            write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
            style.save(figure, path.with_suffix(".png"))
            paths += [path, path.with_suffix(".png")]
    return paths


def utilization_figure(grid: pd.DataFrame, setting: Setting) -> Figure:
    """A heat map of utilization over bandwidth and H, with lines of equal utilization."""
    shown = grid.pivot_table(index="inner_steps", columns="uplink_bits_per_s", values="utilization", sort=True)
    remark = (
        f"Links of all peers keep their proportions; across is the median uplink. {_windows(setting)}"
        "No luck: reads succeed, nobody crashes. The cross is the scenario as it is."
    )
    figure = style.headed(f"Compute utilization: {setting.scenario.name}", _wrapped(remark, 8), 8, 5.6)
    axes = figure.subplots()
    rates, steps = shown.columns.to_numpy() / 1e6, shown.index.to_numpy()
    image = axes.pcolormesh(rates, steps, shown.to_numpy(), cmap=_SHADES, norm=Normalize(0, 1), shading="nearest")
    lines = axes.contour(rates, steps, shown.to_numpy(), levels=LEVELS, colors=style.INK, linewidths=1)
    labels = axes.clabel(lines, fmt=lambda level: f"{level * 100:.0f} %", fontsize=9, inline=False, colors=style.INK)
    for label in labels:
        label.set_rotation(0)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1})
    median = float(np.median(setting.uplink)) / 1e6
    axes.plot([median], [setting.inner_steps], "x", color=style.VERMILLION, markersize=10, markeredgewidth=2.5)
    axes.set(xscale="log", yscale="log", xlabel="median uplink, Mb/s", ylabel="inner steps H")
    axes.grid(False)
    _plain_logs(axes)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1.0), label="compute over compute and communication")
    return figure


def straggler_figure(grid: pd.DataFrame, name: str) -> Figure:
    """Round time and steps that count, over how slow the slow are and over how many they are, per policy."""
    remark = (
        f"Left: {USUAL_SHARE:.0%} of the peers are slow. Right: the slow take {USUAL_SLOWNESS:g} times as long. "
        f"Barrier for the first: {FIRST:.0%}. Deadline and windows: {DEADLINE:g} times what the median peer needs. "
        "Who is not done stops at a whole step. Below: inner steps an hour whose payload lands in time, over those "
        "of a barrier for all with nobody slow."
    )
    figure = style.headed(f"Stragglers: {name}", _wrapped(remark, 10.5), 10.5, 7)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (over, label) in enumerate(
        (("slowness", "times as slow as the others"), ("share", "share of slow peers"))
    ):
        for row, (value, scale) in enumerate((("round_s", 1 / 60), ("steps_that_count", 1.0))):
            _curves(axes[row, column], grid[grid["over"] == over], over, value, scale)
        axes[1, column].set_xlabel(label)
    axes[1, 1].xaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0, 0].set_ylabel("a round, min")
    axes[1, 0].set_ylabel("inner steps that count, relative")
    axes[1, 0].yaxis.set_major_formatter(PercentFormatter(1.0))
    for panel in axes.flat:
        panel.set_ylim(bottom=0)
    axes[0, 0].legend(loc="upper left", fontsize=9)
    return figure


def _curves(axes: Axes, points: pd.DataFrame, over: str, value: str, scale: float) -> None:
    for number, (policy, curve) in enumerate(points.groupby("policy", sort=False)):
        axes.plot(
            curve[over],
            curve[value] * scale,
            color=_POLICY_COLORS[number],
            linestyle=("-", "--", "-.", ":")[number],
            label=str(policy),
        )


def bytes_figure(grid: pd.DataFrame, setting: Setting) -> Figure:
    """Bytes against hours of the same number of inner steps: a line per speed of links, along which H changes."""
    remark = (
        f"The same {setting.rounds * setting.inner_steps:,} inner steps of {setting.num_peers} peers, those that land "
        f"in time alone; uploads and gathers of peers. {_windows(setting)}Says nothing of what is learned: more steps "
        "between exchanges cost loss, see the studies C1 to C5. The cross is the scenario's H and links."
    )
    figure = style.headed(f"Bytes against time: {setting.scenario.name}", _wrapped(remark, 8), 8, 5.8)
    axes = figure.subplots()
    factors = sorted(grid["bandwidth"].unique())
    shades = LinearSegmentedColormap.from_list("covsim-links", [style.SKY, style.BLUE, style.INK])
    for number, factor in enumerate(factors):
        curve = grid[grid["bandwidth"] == factor]
        color = shades(number / max(1, len(factors) - 1))
        axes.plot(curve["hours"], curve["bytes"] / 1e12, color=color, marker=".", markersize=4, label=f"{factor:g} x")
    _mark_steps(axes, grid[grid["bandwidth"] == factors[0]])
    own = _nearest(grid[grid["bandwidth"] == 1], setting.inner_steps)
    axes.plot(own["hours"], own["bytes"] / 1e12, "x", color=style.VERMILLION, markersize=10, markeredgewidth=2.5)
    axes.set(xscale="log", yscale="log", xlabel="simulated hours", ylabel="TB moved by all peers")
    axes.legend(title="links, as they are = 1 x", loc="lower right")
    _plain_logs(axes)
    return figure


def _nearest(curve: pd.DataFrame, steps: int) -> pd.Series:
    """The row of a line whose H is nearest."""
    nearest: pd.Series = curve.loc[(np.log(curve["inner_steps"] / steps)).abs().idxmin()]
    return nearest


def _mark_steps(axes: Axes, curve: pd.DataFrame) -> None:
    """Write H beside some points of a line."""
    for wanted in (1, 10, 100, 1000):
        point = _nearest(curve, wanted)
        axes.annotate(
            f"H {point['inner_steps']:.0f}",
            (point["hours"], point["bytes"] / 1e12),
            xytext=(7, -10),
            textcoords="offset points",
            fontsize=9,
            color=style.FAINT,
        )


def _windows(setting: Setting) -> str:
    return _WINDOWS if setting.barrier is None else _NO_DEADLINES


def _wrapped(text: str, width: float) -> str:
    return textwrap.fill(text, int(15 * width))


def _plain_logs(axes: Axes) -> None:
    """Plain numbers on logarithmic axes, more of them where an axis is short."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())
