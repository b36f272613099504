"""From rows to cells: which are interesting, and what becomes of each. Works on the tidy table alone.

A cell is interesting if any one of its seeds goes over a limit that the file states beforehand. Cells that are not end
as `quiet`, with the few seeds of the screening. The others are run over more seeds and judged by the 95 % confidence
interval of the mean: `harmed` and `held`, `paid` and `unpaid`, or `unclear` where the interval reaches over the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from covsim.sweep.interval import Interval, interval
from covsim.sweep.matrix.rows import DIVERGED, FAILED, PLACE
from covsim.sweep.matrix.settings import CLEAN, Interesting

QUIET, UNCLEAR = "quiet", "unclear"
_UNKNOWN = Interval(math.nan, math.nan)


def reasons(rows: pd.DataFrame, limits: Interesting) -> str:
    """Why a cell is interesting, 'loss+pay' for example; empty if it is not. `rows` are its runs."""
    worse = [float(value) for value in rows["worse"].dropna()]
    found = {
        "loss": any(value > limits.loss_over for value in worse),
        "pay": any(value > limits.pay_over for value in rows["pay"]),
        "spread": len(worse) > 1 and max(worse) - min(worse) > limits.spread_over,  # two infinities have none
    }
    return "+".join(name for name, holds in found.items() if holds)


def interesting_places(table: pd.DataFrame, limits: Interesting, screened: Sequence[int]) -> set[tuple[Any, ...]]:
    """The places, as in `PLACE`, of the cells to confirm: interesting over the screening's seeds, nothing failed."""
    rows = table[table["seed"].isin(screened) & (table["behavior"] != CLEAN)]
    return {
        place
        for place, of_cell in rows.groupby(PLACE, sort=False)
        if reasons(of_cell, limits) and not (of_cell["outcome"] == FAILED).any()
    }


def judge_cells(table: pd.DataFrame, limits: Interesting, screened: Sequence[int]) -> pd.DataFrame:
    """A row per cell, in the table's order, the clean twins among them.

    Args:
        table: the tidy table.
        limits: of the file.
        screened: the seeds of the screening; by their rows a cell is interesting or not.
    """
    return pd.DataFrame([_cell(place, rows, limits, screened) for place, rows in table.groupby(PLACE, sort=False)])


def _cell(place: Any, rows: pd.DataFrame, limits: Interesting, screened: Sequence[int]) -> dict[str, Any]:
    why = "" if place[0] == CLEAN else reasons(rows[rows["seed"].isin(screened)], limits)
    num_failed = int((rows["outcome"] == FAILED).sum())
    confirmed = bool(why) and len(rows) > len(screened)
    worse, pay = _mean(rows["worse"]), _mean(rows["pay"])
    return {
        **dict(zip(PLACE, place, strict=True)),
        "seeds": len(rows),
        "failed": num_failed,
        "diverged": int((rows["outcome"] == DIVERGED).sum()),
        "could_fire": bool(rows["could_fire"].any()),
        "interesting": why,
        "loss": _mean(rows["loss"]).mean,
        "worse": worse.mean,
        "worse +-": worse.half_width,
        "pay": pay.mean,
        "pay +-": pay.half_width,
        "selected_share": _mean(rows["selected_share"]).mean,
        "evaluations": _mean(rows["evaluations"]).mean,
        "harm": _word(worse, limits.loss_over, ("harmed", "held"), num_failed, confirmed, bool(why)),
        "profit": _word(pay, limits.pay_over, ("paid", "unpaid"), num_failed, confirmed, bool(why)),
    }


def _word(
    measured: Interval, limit: float, words: tuple[str, str], num_failed: int, confirmed: bool, is_interesting: bool
) -> str:
    """What a cell ends as, in one of its two respects."""
    if num_failed:
        return FAILED
    if not is_interesting:
        return QUIET
    if not confirmed or math.isnan(measured.mean):
        return UNCLEAR
    over, under = words
    if math.isinf(measured.mean):
        return over
    return over if measured.low > limit else under if measured.high <= limit else UNCLEAR


def _mean(column: pd.Series[Any]) -> Interval:
    """The mean of what is known with its interval; infinite, without an interval, as soon as one value is."""
    values = [float(value) for value in column.dropna()]
    if not values:
        return _UNKNOWN
    if any(map(math.isinf, values)):
        return Interval(math.inf, math.nan)
    return interval(values)
