"""The heat maps say what the cells say: numbers, signs, gray where nothing can be said, white where nothing is lost."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from covsim.report import style
from covsim.report.matrix import GRAY, heat_maps


def cell(behavior: str, aggregator: str, **changed: Any) -> dict[str, Any]:
    quiet = {"worse": 0.0, "pay": 1.0, "harm": "quiet", "profit": "quiet", "could_fire": True}
    return {"behavior": behavior, "aggregator": aggregator, **quiet, **changed}


def drawn(*cells: dict[str, Any]) -> tuple[Axes, Axes]:
    behaviors = list(dict.fromkeys(each["behavior"] for each in cells))
    aggregators = list(dict.fromkeys(each["aggregator"] for each in cells))
    with style.house_style():
        figure: Figure = heat_maps(pd.DataFrame(cells), behaviors, aggregators, "title")
    return figure.axes[0], figure.axes[1]


def words(axes: Axes) -> dict[tuple[int, int], str]:
    """Texts by (column, row)."""
    return {(int(text.get_position()[0]), int(text.get_position()[1])): text.get_text() for text in axes.texts}


def faces(axes: Axes) -> list[tuple[float, ...]]:
    """Colors of the filled squares in the order in which they were drawn."""
    return [patch.get_facecolor()[:3] for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()]


def test_every_cell_stands_in_its_row_and_column() -> None:
    loss, pay = drawn(
        cell("flips", "mean", worse=0.5, pay=0.0),
        cell("flips", "median", worse=-0.031, pay=0.25),
        cell("lazy", "median", worse=12.0, pay=1.5),
    )
    assert words(loss) == {(0, 0): "+50", (1, 0): "-3.1", (1, 1): ">999"}
    assert words(pay) == {(0, 0): "0", (1, 0): "0.25", (1, 1): "1.5"}
    assert [label.get_text() for label in loss.get_yticklabels()] == ["flips", "lazy"]
    assert [label.get_text() for label in loss.get_xticklabels()] == ["mean", "median"]


def test_no_harm_is_white_and_both_sides_of_it_differ() -> None:
    """Catches a scale whose middle has moved, and one turned around."""
    loss, pay = drawn(
        cell("a", "x", worse=0.0, pay=1.0), cell("a", "y", worse=0.3, pay=1.6), cell("a", "z", worse=-0.3, pay=0.4)
    )
    for axes in (loss, pay):
        none, bad, good = faces(axes)
        assert none == pytest.approx((1, 1, 1), abs=0.01)
        assert bad[0] > bad[2] + 0.3, "harm is vermillion"
        assert good[2] > good[0] + 0.3, "the opposite is blue"


def test_harm_beyond_the_scale_takes_the_last_color() -> None:
    loss, _ = drawn(cell("a", "x", worse=1.0), cell("a", "y", worse=math.inf), cell("a", "z", worse=40.0))
    assert len(set(faces(loss))) == 1
    assert words(loss)[1, 0] == "inf"


def test_where_a_rule_could_never_act_a_cell_is_gray_and_keeps_its_number() -> None:
    loss, pay = drawn(cell("a", "x", worse=0.5, could_fire=False), cell("a", "y", worse=0.5))
    assert faces(loss)[0] == pytest.approx(to_rgb(GRAY))
    assert faces(pay)[0] == pytest.approx(to_rgb(GRAY))
    assert words(loss)[0, 0] == "+50"
    assert [patch.get_hatch() for patch in loss.patches[:1]] == ["////"]
    assert faces(loss)[1] != pytest.approx(to_rgb(GRAY))


def test_failed_unknown_and_unclear_cells_are_marked() -> None:
    loss, pay = drawn(
        cell("a", "x", harm="failed", profit="failed", worse=math.nan, pay=math.nan),
        cell("a", "y", harm="unclear", worse=0.07, pay=math.nan),
        cell("a", "z", harm="harmed", worse=0.2),
    )
    assert words(loss) == {(0, 0): "x", (1, 0): "+7.0?", (2, 0): "+20"}
    assert words(pay)[1, 0] == "n/a"
    weights = [text.get_weight() for text in loss.texts]
    assert weights == ["normal", "bold", "bold"]
