"""One figure for several scenarios over several seeds: does the loss tell them apart?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from covsim.report import style
from covsim.report.run_tables import RunTables, read_run
from covsim.sweep.interval import interval

# No behavior's color: a line here is a scenario.
_LOOKS = ((style.BLACK, "-"), (style.GREEN, "-"), (style.FAINT, (0, (5, 2))), (style.GREEN, (0, (1.5, 1.5))))


def draw_comparison(runs: Mapping[str, Sequence[Path]], path: Path, title: str) -> None:
    """Draw the held-out loss of up to four scenarios by round, a thin line per seed and a bold one for their mean.

    Args:
        runs: the folders of the runs of each scenario, one per seed, by what to call the scenario.
        path: where the PNG goes.
        title: what the figure shows.
    """
    if not 0 < len(runs) <= len(_LOOKS):
        raise ValueError(f"a comparison shows 1 to {len(_LOOKS)} scenarios, not {len(runs)}")
    tables = {name: [read_run(folder) for folder in folders] for name, folders in runs.items()}
    with style.house_style():
        style.save(compare_losses(tables, title), path)


def compare_losses(runs: Mapping[str, Sequence[RunTables]], title: str) -> Figure:
    """Held-out loss by round, by scenario and seed; the last three rounds' mean with its 95 % interval beside it."""
    figure = style.headed(
        title,
        "Held-out loss of the small model, on the lead validator's theta. Thin: one seed; bold: mean over seeds. "
        "At the right: mean of the last 3 rounds\nwith its 95 % interval over seeds.",
        9.0,
        4.8,
    )
    axes = figure.subplots()
    labels = []
    for (name, of_seeds), (color, line) in zip(runs.items(), _LOOKS, strict=False):
        end = _losses(axes, of_seeds, color, line)
        final = interval([run.number("loss.final") for run in of_seeds])
        spread = f" ± {final.half_width:.2f}" if len(of_seeds) > 1 else ""
        labels.append((end, f"{name}\n{final.mean:.2f}{spread}", color))
    axes.set(xlabel="Outer steps", ylabel="Held-out loss (nats per token)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.label_lines(axes, labels, gap=0.12)
    return figure


def _losses(axes: Axes, of_seeds: Sequence[RunTables], color: str, line: object) -> float:
    """Draw one scenario; returns where its mean ends."""
    curves = [np.concatenate([[run.number("loss.initial")], run.rounds["loss"]]) for run in of_seeds]
    length = min(len(curve) for curve in curves)
    for curve in curves:
        axes.plot(np.arange(len(curve)), curve, color=color, lw=0.8, alpha=0.45)
    mean = np.mean([curve[:length] for curve in curves], axis=0)
    axes.plot(np.arange(length), mean, color=color, ls=line, lw=2.4)
    return float(mean[-1])
