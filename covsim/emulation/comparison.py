"""What `covsim compare` writes and prints: three tables, one figure, and the few numbers that the claim is about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from covsim.emulation.compare import LONG_S, Pair, phases, rounds, transfers
from covsim.emulation.differences import first_difference
from covsim.record.files import write_json, write_text
from covsim.report import style

FOLDER = "comparison"
NEAR = 0.15
"""Which part of what was predicted a transfer may be off and still count as near."""


def compare(pair: Pair, out: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Write the tables of a comparison; returns the main figures and the folder of the tables.

    Args:
        out: where tables go; by default `comparison` in the emulation's folder.
    """
    frames = {"transfers": transfers(pair), "phases": phases(pair), "rounds": rounds(pair)}
    folder = out or pair.emu.folder / FOLDER
    for name, frame in frames.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    figures = _figures(pair, frames["transfers"], frames["rounds"])
    write_json(folder / "comparison.json", figures)
    _draw(pair, frames["transfers"], frames["rounds"], folder / "comparison.png")
    return figures, folder


def long_transfers(frame: pd.DataFrame) -> pd.DataFrame:
    """The transfers that count: whole in both runs, and predicted to last."""
    whole = frame["complete_predicted"].eq(True) & frame["complete_measured"].eq(True)
    return frame[whole & (frame["predicted_s"] >= LONG_S)]


def _figures(pair: Pair, moved: pd.DataFrame, played: pd.DataFrame) -> dict[str, Any]:
    judged = long_transfers(moved)
    off = judged["error"].abs()
    only = moved["predicted_s"].isna().sum(), moved["measured_s"].isna().sum()
    same = {f"rounds.same_{name}": int(played[f"same_{name}"].sum()) for name in ("on_time", "gathered", "selected")}
    loss_off = (played["measured_loss"] - played["predicted_loss"]).abs()
    return {
        "scenario": pair.sim.summary["scenario"],
        "links": pair.emu.summary["emulation.links"],
        "transfers.judged": len(judged),
        "transfers.median_error": float(off.median()),
        "transfers.worst_error": float(off.max()),
        "transfers.near": int((off <= NEAR).sum()),
        "transfers.bias": float(judged["error"].median()),
        "transfers.only_measured": int(only[0]),
        "transfers.only_predicted": int(only[1]),
        "rounds": len(played),
        "rounds.worst_round_error": float(played["round_error"].abs().max()),
        "rounds.worst_exchange_error": float(played["exchange_error"].abs().max()),
        **same,
        "rounds.same_verdicts": int(played["same_verdicts"].sum()),
        "rounds.same_history": int(played["same_history"].sum()),
        "loss.worst_difference": float(loss_off.max()),
        "theta.equal": pair.sim.theta == pair.emu.theta,
        "first_difference": first_difference(pair),
        "lag.most_s": pair.emu.summary["emulation.most_lag_s"],
    }


def table(figures: dict[str, Any]) -> Table:
    """The main figures for a terminal."""
    count = figures["rounds"]
    lines = Table(title=f"{figures['scenario']}: predicted and measured", show_header=False, title_justify="left")
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    lines.add_row("links", figures["links"])
    lines.add_row(
        f"transfers of {LONG_S:g} s and more",
        f"{figures['transfers.judged']}: off by {_share(figures['transfers.median_error'])} in the median, "
        f"{_share(figures['transfers.worst_error'])} at worst; {figures['transfers.near']} within {_share(NEAR)}; "
        f"bias {_share(figures['transfers.bias'])}",
    )
    lines.add_row(
        "transfers of one run only",
        f"{figures['transfers.only_predicted']} predicted, {figures['transfers.only_measured']} measured",
    )
    lines.add_row("round time", f"off by {_share(figures['rounds.worst_round_error'])} at worst")
    lines.add_row("exchange time", f"off by {_share(figures['rounds.worst_exchange_error'])} at worst")
    for name, words in (
        ("on_time", "same peers on time"),
        ("gathered", "same peers gathered"),
        ("selected", "same peers selected"),
        ("verdicts", "same order of verdicts"),
        ("history", "same history"),
    ):
        lines.add_row(words, f"{figures[f'rounds.same_{name}']} of {count} rounds")
    lines.add_row("loss", f"off by {figures['loss.worst_difference']:.2g} nats per token at worst")
    lines.add_row("theta", "bit for bit the same" if figures["theta.equal"] else "not the same")
    if figures["first_difference"]:
        lines.add_row("first difference", figures["first_difference"])
    lines.add_row("lag", f"{figures['lag.most_s']:.2f} s at most")
    return lines


def _share(value: float) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


def _draw(pair: Pair, moved: pd.DataFrame, played: pd.DataFrame, path: Path) -> None:
    """Transfers as predicted and measured, and the exchange of every round."""
    with style.house_style():
        figure = style.headed(
            f"{pair.sim.summary['scenario']}: predicted and measured",
            f"Simulated seconds; links {pair.emu.summary['emulation.links']}. The line is a perfect prediction, the "
            "dashed ones are 15 % off.",
            11.0,
            4.6,
        )
        left, right = figure.subplots(1, 2)
        shown = moved.dropna(subset=["predicted_s", "measured_s"])
        for purpose, color in (("submit", style.BLUE), ("gather", style.VERMILLION), ("evaluate", style.GREEN)):
            part = shown[shown["purpose"] == purpose]
            left.scatter(part["predicted_s"], part["measured_s"], s=14, color=color, label=purpose, alpha=0.6, lw=0)
        most = float(shown[["predicted_s", "measured_s"]].max().max()) * 1.05 if len(shown) else 1.0
        left.plot([0, most], [0, most], color=style.FAINT, lw=1)
        for factor in (0.85, 1.15):
            left.plot([0, most], [0, factor * most], color=style.FAINT, lw=0.8, ls="--")
        left.set(title="Every transfer", xlabel="predicted (s)", ylabel="measured (s)", xlim=(0, most), ylim=(0, most))
        left.legend()
        right.plot(played["round"], played["predicted_exchange_s"], color=style.FAINT, marker="o", label="predicted")
        right.plot(played["round"], played["measured_exchange_s"], color=style.BLUE, marker="o", label="measured")
        right.set(title="From a window's opening to the last peer's outer step", xlabel="round", ylabel="s")
        right.set_ylim(0, 1.08 * right.get_ylim()[1])
        right.legend()
        style.save(figure, path)
