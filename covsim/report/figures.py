"""The figures of a run, drawn from the tables in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from covsim.report import curves, peers, style
from covsim.report.run_tables import RunTables, read_run


def draw_all(folder: Path) -> list[Path]:
    """Draw all figures of the run in `folder` into its `figures/`; returns their paths.

    Equal tables give equal bytes. A run that settled no round has nothing to draw.
    """
    run = read_run(folder)
    if run.rounds.empty:
        return []
    with style.house_style():
        for name, draw in _DRAWINGS.items():
            style.save(draw(run), _path(folder, name))
    return [_path(folder, name) for name in _DRAWINGS]


def all_drawn(folder: Path) -> bool:
    """True when the run in `folder` has every figure that `draw_all` draws."""
    return all(_path(folder, name).is_file() for name in _DRAWINGS)


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


def _path(folder: Path, name: str) -> Path:
    return folder / "figures" / f"{name}.png"


_DRAWINGS: dict[str, Callable[[RunTables], Figure]] = {
    "overview": overview,
    "loss": curves.loss,
    "rating_and_pay": curves.rating_and_pay,
    "time": peers.where_time_goes,
    "selection": peers.who_was_selected,
}
