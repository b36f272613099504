"""What a run of a cell amounts to: one row of the tidy table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from covsim.sweep.expect import lookup
from covsim.sweep.matrix.grid import Cell
from covsim.sweep.matrix.settings import CLEAN

PLACE = ["behavior", "aggregator", "selection", "share"]
"""The columns that say which cell a row belongs to."""

DONE, DIVERGED, FAILED = "done", "diverged", "failed"

COLUMNS = [
    *PLACE,
    "attackers",
    "seed",
    "outcome",
    "loss",
    "worse",
    "pay",
    "payout_share",
    "selected_share",
    "evaluations",
    "rounds_to_exclusion",
    "late_share",
    "honest_earning_zero",
    "could_fire",
    "digest",
    "run",
    "note",
]


def row_of(
    cell: Cell, attackers: int, seed: int, run: str, cohort: str, rules: Sequence[str], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of a run that ended.

    Args:
        cell: what was run.
        attackers: peers who attacked.
        seed: of the run.
        run: its id.
        cohort: the attackers' name in the summary.
        rules: scoring rules aimed at the behavior.
        summary: of the run.
    """
    loss = lookup(summary, "loss.final")
    per_cohort = {name: lookup(summary, f"{name}.{cohort}") for name in ("payout_share", "selected_share")}
    return {
        **place_of(cell),
        "attackers": attackers,
        "seed": seed,
        "outcome": DIVERGED if math.isnan(loss) else DONE,
        "loss": math.inf if math.isnan(loss) else loss,
        "pay": _pay(lookup(summary, f"pay_per_peer.{cohort}"), per_cohort["payout_share"]),
        **per_cohort,
        "evaluations": lookup(summary, f"evaluations_per_peer.{cohort}"),
        "rounds_to_exclusion": lookup(summary, f"rounds_to_exclusion.{cohort}"),
        "late_share": lookup(summary, "late_share"),
        "honest_earning_zero": lookup(summary, "honest_earning_zero"),
        "could_fire": all(summary["rules"].get(rule, {}).get("eligible", 0) > 0 for rule in rules),
        "digest": summary["digest.learning"],
        "run": run,
        "note": "",
    }


def row_of_failure(cell: Cell, attackers: int, seed: int, run: str, error: str) -> dict[str, Any]:
    """The row of a run that failed; it stays in the table."""
    return {
        **place_of(cell),
        "attackers": attackers,
        "seed": seed,
        "outcome": FAILED,
        "could_fire": True,
        "run": run,
        "note": error,
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The tidy table: a row per run, `worse` filled in from the clean twin of the same place and seed.

    `worse` is loss over the twin's loss, less 1: 0.05 is 5 % above. It is infinite where the loss is no number, and
    missing where the run or its twin failed.
    """
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    shared = ["aggregator", "selection", "share", "seed"]
    clean = table[table["behavior"] == CLEAN].set_index(shared)["loss"]
    twins = clean.reindex(pd.MultiIndex.from_frame(table[shared])).to_numpy()
    return table.assign(worse=[_worse(own, twin) for own, twin in zip(table["loss"], twins, strict=True)])


def place_of(cell: Cell) -> dict[str, Any]:
    """The columns that say which cell it is."""
    return {"behavior": cell.behavior, "aggregator": cell.aggregator, "selection": cell.selection, "share": cell.share}


def _worse(own: float, twin: float) -> float:
    """How much worse; a twin whose own loss is no number says nothing."""
    return own / twin - 1 if math.isfinite(twin) else math.nan


def _pay(pay: float, payout_share: float) -> float:
    """Pay relative to the honest mean; infinite where attackers alone were paid and there is nothing to divide by."""
    return math.inf if math.isnan(pay) and payout_share > 0 else pay
