"""What other rules would have changed, as tables: by cohort, and the peers to whom it makes the most difference."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

MOST_PEERS = 10
_SHOWN = {"ordinal": "rating", "final_score": "final score", "tokens": "tokens", "selected_rounds": "rounds selected"}


def cohort_table(compared: pd.DataFrame) -> Table:
    """Means per peer of every cohort, before -> after, and the cohort's share of all tokens paid to peers."""
    table = Table("cohort", "peers", *_SHOWN.values(), "share of pay")
    totals = {side: compared[f"tokens_{side}"].sum() for side in ("before", "after")}
    for cohort, rows in compared.groupby("cohort"):
        shares = {side: _ratio(rows[f"tokens_{side}"].sum(), total) for side, total in totals.items()}
        table.add_row(
            str(cohort),
            str(len(rows)),
            *(_change(rows[f"{name}_before"].mean(), rows[f"{name}_after"].mean()) for name in _SHOWN),
            f"{shares['before']:.1%} -> {shares['after']:.1%}",
        )
    return table


def peer_table(compared: pd.DataFrame) -> Table | None:
    """The peers whose tokens change most; None if nobody's do."""
    change = (compared["tokens_after"] - compared["tokens_before"]).abs()
    moved = compared.assign(change=change)[change > 0].sort_values(["change", "uid"], ascending=[False, True])
    if moved.empty:
        return None
    table = Table("uid", "cohort", *_SHOWN.values())
    for _, row in moved.head(MOST_PEERS).iterrows():
        cells = (_change(row[f"{name}_before"], row[f"{name}_after"]) for name in _SHOWN)
        table.add_row(str(row["uid"]), str(row["cohort"]), *cells)
    return table


def _change(before: float, after: float) -> str:
    return f"{before:.3g}" if f"{before:.3g}" == f"{after:.3g}" else f"{before:.3g} -> {after:.3g}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
