"""The figures of a run, drawn from the tables in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from covsim.report import curves, peers, style
from covsim.report.run_tables import RunTables, read_run


def draw_all(folder: Path) -> list[Path]:
    """Draw all figures of the run in `folder` into its `figures/`; returns their paths.

    Equal tables give equal bytes. A run that settled no round has nothing to draw, and one in which nobody learns only
    where its time goes.
    """
    run = read_run(folder)
    if run.rounds.empty:
        return []
    drawn = ["time"] if _nobody_learns(folder) else list(_DRAWINGS)
    with style.house_style():
        for name in drawn:
            style.save(_DRAWINGS[name](run), _path(folder, name))
    return [_path(folder, name) for name in drawn]


def all_drawn(folder: Path) -> bool:
    """True when the run in `folder` has every figure that `draw_all` draws."""
    missing = [name for name in _DRAWINGS if not _path(folder, name).is_file()]
    return not missing or ("time" not in missing and _nobody_learns(folder))


def overview(run: RunTables) -> Figure:
    """A run on one page: does it learn, who is paid, where does the time go, who was selected."""
    figure = style.headed(
        f"{run.summary['scenario']}: {run.peers['uid'].nunique()} peers, {run.summary['rounds']} rounds, "
        f"loss {run.number('loss.initial'):.2f} to {run.number('loss.final'):.2f} nats per token",
        "The loss is that of the small model that really trained; hours, minutes and pay are those of the deployment "
        "that the clock charges for.",
        13.0,
        9.0,
    )
    (learns, paid), (time, selected) = figure.subplots(2, 2, height_ratios=(2, 3))
    curves.loss_by_time(learns, run)
    learns.set_title("Does it learn?")
    curves.pay_so_far(paid, run)
    paid.set_title("Who is paid? Pay per peer so far (1 = an equal share)")
    peers.time_by_peer(time, run)
    time.set_title("Where does the time go? A mean round of every peer")
    time.legend(handles=peers.span_handles(), loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, fontsize=9)
    peers.selection_by_peer(selected, run)
    selected.set_title("Who is selected? (pale: reserve, dark: listed in vain)")
    return figure


def _nobody_learns(folder: Path) -> bool:
    """Whether no loss was ever measured in the run that lies there."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary["loss.initial"] is None


def _path(folder: Path, name: str) -> Path:
    return folder / "figures" / f"{name}.png"


_DRAWINGS: dict[str, Callable[[RunTables], Figure]] = {
    "overview": overview,
    "loss": curves.loss,
    "rating_and_pay": curves.rating_and_pay,
    "time": peers.where_time_goes,
    "selection": peers.who_was_selected,
}
