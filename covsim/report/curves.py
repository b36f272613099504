"""Curves over a run: loss against time and bytes; rating, indicator and pay by cohort.

The loss is that of the small model which really trained; hours and bytes are those of the deployment that the clock
charged for. Every axis that sets one against the other says so.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from covsim.report import style
from covsim.report.run_tables import RunTables

_HOUR_S = 3600.0
_TERA = 1e12


def loss(run: RunTables) -> Figure:
    """Held-out loss against the deployment's time, and against its bytes."""
    start, end = run.number("loss.initial"), run.number("loss.final")
    hours, terabytes = run.number("time.simulated_s") / _HOUR_S, run.rounds["bytes_so_far"].max() / _TERA
    figure = style.headed(
        f"Held-out loss from {start:.2f} to {end:.2f} nats per token in {hours:.1f} h and {terabytes:.3g} TB",
        "The loss is that of the small model that really trained. Hours and bytes are those that the deployment would "
        f"take, {run.number('network.payload_bytes') / 1e9:.2f} GB a payload.\nLine: the lead validator's theta. "
        "Dotted: up to the highest loss of all histories that were measured after that round.",
        10.5,
        4.5,
    )
    by_time, by_bytes = figure.subplots(1, 2, sharey=True)
    loss_by_time(by_time, run)
    _loss_curve(by_bytes, run, run.rounds["bytes_so_far"] / _TERA)
    by_bytes.set(xlabel="Bytes of the deployment over all links (TB)")
    bits = by_bytes.secondary_yaxis("right", functions=(lambda nats: nats / math.log(2), lambda b: b * math.log(2)))
    bits.set_ylabel("Bits per byte")
    bits.spines["right"].set_visible(False)
    return figure


def loss_by_time(axes: Axes, run: RunTables) -> None:
    """Held-out loss of the model against hours of the deployment."""
    _loss_curve(axes, run, run.rounds["simulated_s"] / _HOUR_S)
    axes.set(xlabel="Time of the deployment (h)", ylabel="Held-out loss of the model (nats per token)")


def _loss_curve(axes: Axes, run: RunTables, along: pd.Series[float]) -> None:
    rounds, color = run.rounds, run.color("honest")
    x = np.concatenate([[0.0], along])
    y = np.concatenate([[run.number("loss.initial")], rounds["loss"]])
    axes.plot(x, y, color=color, marker="o", markersize=3.5)
    apart = rounds["loss_highest"] > rounds["loss_lowest"]
    highest = rounds["loss_highest"][apart]
    axes.vlines(along[apart], rounds["loss_lowest"][apart], highest, color=color, lw=1, ls=(0, (1.5, 1.5)))
    axes.plot(along[apart], highest, color=color, ls="none", marker="_", markersize=8)
    axes.set_xlim(left=0)
    end = f"{y[0]:.2f} at the start\n{run.number('loss.final'):.2f} mean of the last 3 rounds"
    axes.annotate(end, (0.93, 0.95), xycoords="axes fraction", ha="right", va="top", color=color)
    bigrams = run.summary["diagnostics"].get("bigram_nats")
    if bigrams is not None:
        _mark_level(axes, bigrams, f"what bigrams reach: {bigrams:.2f}")


def _mark_level(axes: Axes, level: float, text: str) -> None:
    """A dashed line across, with a word under its left end, where a falling loss is far above, and room for it."""
    axes.axhline(level, color=style.FAINT, lw=1, ls=(0, (4, 3)))
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom=min(bottom, level - 0.1 * (top - level)))
    axes.annotate(
        text,
        (0, level),
        xycoords=("axes fraction", "data"),
        xytext=(4, -4),
        textcoords="offset points",
        ha="left",
        va="top",
        fontsize=8.5,
        color=style.FAINT,
    )


def rating_and_pay(run: RunTables) -> Figure:
    """What the lead validator thought of every cohort over the rounds, and what it was paid."""
    pay = ", ".join(
        f"{cohort} {run.number(f'pay_per_peer.{cohort}'):.2f}"
        for cohort, behavior in run.cohorts
        if behavior != "honest"
    )
    figure = style.headed(
        f"Pay per peer, honest = 1: {pay}" if pay else "Rating and pay",
        "Rating and indicator: the lead validator's, after the last evaluation of each peer; line: median of the "
        "cohort, band: its middle half.  Pay: what is not burned.",
        12.5,
        4.3,
    )
    rating, indicator, paid = figure.subplots(1, 3)
    _by_cohort(rating, run, _ordinal(run.peers), "Rating (mu − 3 sigma)")
    _by_cohort(indicator, run, _known(run.peers, "indicator_average"), "Own-against-random indicator")
    indicator.axhline(0, color=style.FAINT, lw=0.8)
    pay_so_far(paid, run)
    return figure


def _ordinal(peers: pd.DataFrame) -> pd.DataFrame:
    """mu - 3 sigma by round and uid, as of the last evaluation."""
    return _known(peers, "mu") - 3 * _known(peers, "sigma")


def _known(peers: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column by round and uid, with the last known value where there is none."""
    return peers.pivot(index="round", columns="uid", values=column).ffill()


def _by_cohort(axes: Axes, run: RunTables, values: pd.DataFrame, title: str) -> None:
    behaviors: list[str] = []
    for cohort, behavior in run.cohorts:
        own = values[run.uids(cohort)]
        quarters = own.quantile([0.25, 0.5, 0.75], axis=1)
        color, line = run.color(behavior), style.line_of(behavior, behaviors)
        axes.fill_between(own.index, quarters.loc[0.25], quarters.loc[0.75], color=color, alpha=0.15, lw=0)
        axes.plot(own.index, quarters.loc[0.5], color=color, ls=line)
        behaviors.append(behavior)
    axes.set(title=title, xlabel="Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def pay_so_far(axes: Axes, run: RunTables) -> None:
    """Mean pay of a cohort's peer until each round, in units of an equal share of all pay until then."""
    paid = run.peers.pivot(index="round", columns="uid", values="payout").cumsum()
    relative = paid.div(paid.mean(axis=1).where(lambda mean: mean > 0), axis=0)
    labels: list[tuple[float, str, str]] = []
    behaviors: list[str] = []
    for cohort, behavior in run.cohorts:
        own = relative[run.uids(cohort)].mean(axis=1)
        axes.plot(own.index, own, color=run.color(behavior), ls=style.line_of(behavior, behaviors))
        labels.append((own.iloc[-1], f"{cohort} ({len(run.uids(cohort))})", run.color(behavior)))
        behaviors.append(behavior)
    axes.axhline(1, color=style.FAINT, lw=0.8, ls=(0, (4, 3)))
    axes.set(title="Pay per peer so far (1 = an equal share)", xlabel="Round")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    labels = [label for label in labels if not math.isnan(label[0])]
    if not labels:
        axes.set(xlim=(0, max(1, len(run.rounds) - 1)), title="Nobody was paid")
    style.label_lines(axes, labels)
