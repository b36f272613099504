"""Every peer in one picture: where its time goes, and in which rounds it was selected. Rows are peers, by cohort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from covsim.report import style
from covsim.report.run_tables import RunTables

_MINUTE_S = 60.0


def where_time_goes(run: RunTables) -> Figure:
    """Mean minutes of a round that every peer computes, uploads, downloads and waits."""
    utilization, share = run.number("time.compute_utilization"), run.number("time.compute_share")
    figure = style.headed(
        f"Compute is {utilization:.0%} of working time, {share:.0%} of all time",
        "Every row is a peer, its mean over all rounds, sorted within its cohort by compute time. Working time is "
        "compute, upload and download;\na download includes waiting for the listed payloads.",
        10.5,
        7.0,
    )
    time_by_peer(figure.subplots(), run)
    figure.legend(handles=span_handles(), loc="outside right upper")
    return figure


def time_by_peer(axes: Axes, run: RunTables) -> None:
    """A bar per peer: minutes of a mean round by what they went into."""
    settled = run.peers.dropna(subset=["compute_s"])
    minutes = settled.groupby("uid")[[f"{span}_s" for span in style.SPANS]].mean() / _MINUTE_S
    rows = _rows_of_cohorts(axes, run, lambda cohort: minutes.reindex(run.uids(cohort)).dropna())
    for first, own in rows:
        _stack(axes, own.sort_values("compute_s", ascending=False), first)
    axes.set(xlabel="Minutes of a round, on the deployment's clock", xlim=(0, None))
    axes.grid(False, axis="y")
    axes.margins(y=0.01)
    axes.invert_yaxis()


def span_handles() -> list[Patch]:
    """What the shades of `time_by_peer` mean, for a legend."""
    return [Patch(facecolor=color, label=span) for span, color in style.SPANS.items()]


def _stack(axes: Axes, minutes: pd.DataFrame, first: int) -> None:
    """The rows of a cohort's peers, from row `first` on."""
    rows = np.arange(first, first + len(minutes))
    left = np.zeros(len(minutes))
    for span, color in style.SPANS.items():
        width = minutes[f"{span}_s"].to_numpy()
        axes.barh(rows, width, left=left, height=0.88, color=color, lw=0)
        left = left + width


def _rows_of_cohorts(
    axes: Axes, run: RunTables, rows_of: Callable[[str], pd.DataFrame]
) -> list[tuple[int, pd.DataFrame]]:
    """First row and rows of every cohort, one row left free between two; names the cohorts on the y axis."""
    first, placed = 0, []
    middles, names, colors = [], [], []
    for cohort, behavior in run.cohorts:
        rows = rows_of(cohort)
        placed.append((first, rows))
        middles.append(first + (len(rows) - 1) / 2)
        names.append(f"{cohort} ({len(rows)})")
        colors.append(run.color(behavior))
        first += len(rows) + 1
    axes.set_yticks(middles, names)
    for tick, color in zip(axes.get_yticklabels(), colors, strict=True):
        tick.set_color(color)
    axes.tick_params(axis="y", length=0)
    return placed


def who_was_selected(run: RunTables) -> Figure:
    """Every peer's place in every round: entered, on the list in vain, in reserve, or neither."""
    unique, mean = run.summary["participation.unique"], run.number("participation.mean_contributing")
    figure = style.headed(
        f"{unique} of {run.peers['uid'].nunique()} peers ever entered the model, {mean:.1f} in a mean round",
        "Gather list in force, and what entered the lead validator's theta. Within a cohort, peers are sorted by "
        "how often they entered.",
        10.5,
        7.0,
    )
    selection_by_peer(figure.subplots(), run)
    figure.legend(handles=place_handles(), loc="outside right upper", title="Color: cohort. Shade:")
    return figure


def selection_by_peer(axes: Axes, run: RunTables) -> None:
    """A pixel per peer and round."""
    colors = {cohort: run.color(behavior) for cohort, behavior in run.cohorts}
    rows = _rows_of_cohorts(axes, run, lambda cohort: _by_contributions(run.peers, cohort))
    height = sum(len(own) + 1 for _, own in rows) - 1
    rounds = run.peers["round"].nunique()
    picture = np.ones((height, rounds, 3))
    for (first, own), (cohort, _) in zip(rows, run.cohorts, strict=True):
        picture[first : first + len(own)] = _places(run.peers, list(own.index), colors[cohort])
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=(-0.5, rounds - 0.5, height - 0.5, -0.5))
    _separate_rounds(axes, rounds)
    axes.set(xlabel="Round")


_SHADES = {"entered": 1.0, "reserve, entered": 0.6, "reserve": 0.22}


def _by_contributions(peers: pd.DataFrame, cohort: str) -> pd.DataFrame:
    """The peers of a cohort by uid, those that entered most often first."""
    own = peers[peers["cohort"] == cohort]
    return own.groupby("uid")[["contributed"]].sum().sort_values("contributed", ascending=False, kind="stable")


def _places(peers: pd.DataFrame, uids: list[int], color: str) -> np.ndarray[Any, Any]:
    """One pixel [uid, round, RGB] per peer and round."""
    place = peers.pivot(index="uid", columns="round", values="place").loc[uids].to_numpy()
    entered = peers.pivot(index="uid", columns="round", values="contributed").loc[uids].to_numpy(dtype=bool)
    pixels = np.tile(np.array(to_rgb(style.EMPTY)), (*place.shape, 1))
    pixels[place == "reserve"] = _tint(color, _SHADES["reserve"])
    pixels[(place == "reserve") & entered] = _tint(color, _SHADES["reserve, entered"])
    pixels[place == "selected"] = to_rgb(style.INK)
    pixels[(place == "selected") & entered] = to_rgb(color)
    return pixels


def _tint(color: str, strength: float) -> tuple[float, float, float]:
    """The color, thinned with white."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def _separate_rounds(axes: Axes, rounds: int) -> None:
    axes.grid(False)
    axes.vlines(np.arange(rounds - 1) + 0.5, *axes.get_ylim(), color="white", lw=1)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def place_handles() -> list[Patch]:
    """What the shades of `selection_by_peer` mean, for a legend."""
    handles = [Patch(facecolor=_tint(style.BLUE, shade), label=name) for name, shade in _SHADES.items()]
    handles.insert(1, Patch(facecolor=style.INK, label="listed in vain"))
    return [*handles, Patch(facecolor=style.EMPTY, label="neither")]
