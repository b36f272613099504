"""What other rules would have changed, as tables: by cohort, and the peers to whom it makes the most difference."""

from __future__ import annotations

import math

import pandas as pd
from rich.table import Column, Table

MOST_PEERS = 10
_SHOWN = {
    "ordinal": "rating",
    "final_score": "final score",
    "tokens": "tokens",
    "profit": "profit",
    "selected_rounds": "rounds listed",
}
_SIDES = ("before", "after")


def cohort_table(compared: pd.DataFrame) -> Table:
    """Means per peer of every cohort, before -> after, and the cohort's share of all tokens paid to peers."""
    shown = _shown(compared)
    table = Table(Column("cohort", no_wrap=True), "peers", *shown.values(), "share of pay")
    totals = {side: compared[f"tokens_{side}"].sum() for side in _SIDES}
    for cohort, rows in compared.groupby("cohort"):
        shares = [_percent(rows[f"tokens_{side}"].sum(), total) for side, total in totals.items()]
        table.add_row(
            str(cohort),
            str(len(rows)),
            *(_change(rows[f"{name}_before"].mean(), rows[f"{name}_after"].mean()) for name in shown),
            " -> ".join(dict.fromkeys(shares)),
        )
    return table


def peer_table(compared: pd.DataFrame) -> Table | None:
    """The peers whose tokens change most, and among equals their profit; None if nobody's do."""
    shown = _shown(compared)
    change = {name: (compared[f"{name}_after"] - compared[f"{name}_before"]).abs() for name in ("tokens", "profit")}
    moved = compared.assign(**change)[(change["tokens"] > 0) | (change["profit"] > 0)]
    if moved.empty:
        return None
    moved = moved.sort_values(["tokens", "profit", "uid"], ascending=[False, False, True])
    table = Table("uid", Column("cohort", no_wrap=True), *shown.values())
    for _, row in moved.head(MOST_PEERS).iterrows():
        cells = (_change(row[f"{name}_before"], row[f"{name}_after"]) for name in shown)
        table.add_row(str(row["uid"]), str(row["cohort"]), *cells)
    return table


def _shown(compared: pd.DataFrame) -> dict[str, str]:
    """The columns to show with their titles: those of which anything is known."""
    known = {name for name in _SHOWN if compared[[f"{name}_{side}" for side in _SIDES]].notna().any(axis=None)}
    return {name: title for name, title in _SHOWN.items() if name in known}


def _change(before: float, after: float) -> str:
    return " -> ".join(dict.fromkeys(map(_number, (before, after))))


def _number(value: float) -> str:
    """Three digits, and whole numbers from 1000 on."""
    if math.isnan(value):
        return "n/a"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole > 0 else "n/a"
