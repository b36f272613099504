"""A matrix without running it: what its file may say, which scenarios its cells are, and what is made of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from covsim.behaviors import Honest
from covsim.protocol.aggregators import Mean
from covsim.scenario import ScenarioError, load, run_id, shipped_scenarios
from covsim.sweep.matrix import CLEAN, Cell, Grid, Published, failed_runs, find_matrix, publish, read_matrix
from covsim.sweep.matrix.judging import interesting_places, judge_cells, reasons
from covsim.sweep.matrix.rows import DIVERGED, DONE, FAILED, row_of, row_of_failure, table_of
from covsim.sweep.matrix.settings import Interesting

MATRIX = """
version: 1
name: small
base: matrix-base
behaviors:
  flips: {behavior: {kind: sign_flip, scale: 3}, rules: [negative_streak]}
  lazy: {behavior: lazy}
aggregators:
  mean: {kind: mean, clip: none}
  clipped: {kind: mean, clip: median_norm}
selections: {gauntlet: gauntlet, random: random}
shares: [12.5 %, 25 %]
"""


def written(folder: Path, text: str = MATRIX) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def grid_of(folder: Path, text: str = MATRIX) -> Grid:
    path = written(folder, text)
    return Grid(read_matrix(path), path)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return grid_of(tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("rules: [negative_streak]", "rules: [negative_steak]", "did you mean 'negative_streak'"),
        ("  lazy:", "  clean:", "small.yaml:7:3: behaviors.clean: clean is the twin"),
        ("[12.5 %, 25 %]", "[25 %, 25 %]", "shares: must be above 0 % and differ"),
        ("[12.5 %, 25 %]", "[0 %]", "shares: must be above 0 % and differ"),
        ("[12.5 %, 25 %]", "[]", "shares: must have at least 1 entries"),
        ("base: matrix-base\n", "", "base: is missing"),
        ("shares:", "seeds: {screen: 5, confirm: 5}\nshares:", "confirm takes more seeds than screen, 5"),
        ("shares:", "sharse: 1\nshares:", "unknown key 'sharse' (did you mean 'shares'?)"),
        ("name: small", "name: ../small", "small.yaml:3:7: name:"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, before: str, after: str, message: str) -> None:
    """Catches a mistake that would only come to light when hundreds of runs are under way."""
    assert before in MATRIX
    with pytest.raises(ScenarioError) as raised:
        read_matrix(written(tmp_path, MATRIX.replace(before, after, 1)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("kind: sign_flip, scale: 3", "kind: sing_flip", "behaviors.flips"),
        ("kind: sign_flip, scale: 3", "kind: sign_flip, scael: 3", "behaviors.flips"),
        ("{kind: mean, clip: none}", "{kind: mean, clip: some}", "aggregators.mean.clip: "),
        ("random: random", "random: rnadom", "selections.random"),
        ("12.5 %", "13 %", "shares: 13 % of 24 peers are not whole peers"),
        ("base: matrix-base", "base: quickstart", "cohort: quickstart has no cohort 'attackers'"),
        ("base: matrix-base", "base: nowhere", "no such file"),
        ("  clipped:", f"  {'c' * 60}:", "names of a run have at most 64 characters"),
    ],
)
def test_a_bad_part_is_said_with_its_place_in_the_matrix(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in MATRIX
    with pytest.raises(ValueError) as raised:
        grid_of(tmp_path, MATRIX.replace(before, after, 1))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_overrides_reach_the_matrix_and_misspelt_names_do_not(tmp_path: Path) -> None:
    path = written(tmp_path)
    changed = read_matrix(path, ["~behaviors.lazy", "seeds.confirm=7", "aggregators.mean.clip=median_norm"])
    assert (list(changed.behaviors), changed.seeds.confirm) == (["flips"], 7)
    with pytest.raises(ScenarioError, match=r"there is no behaviors\.lzay"):
        read_matrix(path, ["behaviors.lzay.behavior=honest"])


def test_every_cell_is_the_base_with_four_things_changed(grid: Grid) -> None:
    """Catches an axis that does not reach the scenario, and one that changes more than it should."""
    cells = list(grid.cells())
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    base = load("matrix-base")
    for cell in cells:
        scenario = grid.scenario(cell, 7)
        assert scenario.cohorts["attackers"].behavior.kind == {"flips": "sign_flip", "lazy": "lazy"}[cell.behavior]
        assert isinstance(scenario.aggregate, Mean)
        assert scenario.aggregate.clip == {"mean": "none", "clipped": "median_norm"}[cell.aggregator]
        assert scenario.selection.kind == cell.selection
        assert scenario.cohorts["attackers"].share == cell.share
        assert scenario.seed == 7
        changed = {"name", "seed", "cohorts", "aggregate", "selection", "expect"}
        assert scenario.model_dump(exclude=changed) == base.model_dump(exclude=changed)
    names = {grid.scenario(cell, 1).name for cell in (*cells, *grid.twins())}
    assert len(names) == 24
    assert "small-flips-mean-gauntlet-3of24" in names


def test_a_cell_is_the_scenario_that_loading_gives(grid: Grid) -> None:
    """Parts are put into the base without its validators: what comes out must be what they would have let through."""
    scenario = grid.scenario(Cell("flips", "mean", "random", 0.25), 3)
    overrides: dict[str, Any] = {
        "name": scenario.name,
        "seed": 3,
        "cohorts.attackers": {"share": "25 %", "behavior": {"kind": "sign_flip", "scale": 3}},
        "aggregate": {"clip": "none"},
        "selection": "random",
    }
    loaded = load("matrix-base", overrides)
    assert loaded == scenario
    assert run_id(loaded) == run_id(scenario)


def test_the_clean_twin_differs_in_the_attackers_behavior_alone(grid: Grid) -> None:
    cell = Cell("flips", "clipped", "gauntlet", 0.125)
    assert cell.twin in set(grid.twins())
    own, twin = grid.scenario(cell, 2), grid.scenario(cell.twin, 2)
    honest = own.cohorts["attackers"].model_copy(update={"behavior": Honest()})
    assert twin == own.model_copy(update={"name": twin.name, "cohorts": {**own.cohorts, "attackers": honest}})


def test_the_shipped_matrix_is_as_large_as_promised_and_scoring_can_act_in_it() -> None:
    path = find_matrix("matrix")
    matrix = read_matrix(path)
    grid = Grid(matrix, path)
    assert len(matrix.behaviors) >= 8
    assert len(matrix.aggregators) >= 8
    assert set(matrix.selections) == {"gauntlet", "random"}
    assert len(matrix.shares) == 2
    assert (matrix.seeds.screen, matrix.seeds.confirm) == (2, 5)
    base = load("matrix-base")
    assert base.planned_rounds >= 30
    assert base.gauntlet.evaluated_per_window >= base.peers
    for cell in (*grid.cells(), *grid.twins()):
        assert grid.scenario(cell, 1).selection.model_dump()["gather"] * 3 <= base.peers


def test_a_matrix_lies_among_the_scenarios_and_is_none() -> None:
    assert "matrix" not in shipped_scenarios()
    assert "matrix-base" in shipped_scenarios()
    assert find_matrix("matrix").is_file()
    assert find_matrix("matrix") == find_matrix("matrix.yaml")


def summary_of(loss: float | None = 2.0, pay: float | None = 0.25, payout: float = 0.1) -> dict[str, Any]:
    return {
        "loss.final": loss,
        "pay_per_peer.attackers": pay,
        "payout_share.attackers": payout,
        "selected_share.attackers": 0.2,
        "evaluations_per_peer.attackers": 32.0,
        "rounds_to_exclusion.attackers": None,
        "late_share": 0.0,
        "honest_earning_zero": 0.1,
        "digest.learning": "abc",
        "rules": {"negative_streak": {"eligible": 5, "fired": 0}, "overlap_halve": {"eligible": 0, "fired": 0}},
    }


def row(behavior: str, seed: int, rules: tuple[str, ...] = (), **summary: Any) -> dict[str, Any]:
    cell = Cell(behavior, "mean", "gauntlet", 0.25)
    return row_of(cell, 6, seed, "id", "attackers", rules, summary_of(**summary))


def test_a_row_is_worse_than_the_twin_of_its_own_seed() -> None:
    """Catches a comparison with another seed's twin."""
    rows = [row(CLEAN, 1, loss=2.0), row(CLEAN, 2, loss=4.0), row("flips", 2, loss=5.0), row("flips", 1, loss=3.0)]
    table = table_of(rows)
    assert table["worse"].tolist() == [0.0, 0.0, 0.25, 0.5]
    assert set(table["outcome"]) == {DONE}


def test_a_loss_that_is_no_number_is_a_divergence_and_not_a_gap() -> None:
    table = table_of([row(CLEAN, 1), row("flips", 1, loss=None)])
    assert table["outcome"].tolist() == [DONE, DIVERGED]
    assert table["worse"].tolist() == [0.0, math.inf]


def test_a_twin_that_diverged_or_failed_says_nothing() -> None:
    diverged = table_of([row(CLEAN, 1, loss=None), row("flips", 1)])
    failed = table_of([row_of_failure(Cell(CLEAN, "mean", "gauntlet", 0.25), 6, 1, "id", "E: x"), row("flips", 1)])
    assert math.isnan(diverged["worse"].iloc[1])
    assert math.isnan(failed["worse"].iloc[1])


def test_attackers_who_alone_are_paid_are_paid_infinitely_more() -> None:
    assert row("flips", 1, pay=None, payout=1.0)["pay"] == math.inf
    assert math.isnan(row("flips", 1, pay=None, payout=0.0)["pay"])


def test_a_rule_that_nobody_was_eligible_for_could_not_fire() -> None:
    assert row("flips", 1)["could_fire"]
    assert row("flips", 1, ("negative_streak",))["could_fire"]
    assert not row("flips", 1, ("overlap_halve",))["could_fire"]
    assert not row("flips", 1, ("negative_streak", "overlap_halve"))["could_fire"]
    assert not row("flips", 1, ("bad_window",))["could_fire"]


LIMITS = Interesting(loss_over=0.05, pay_over=0.5, spread_over=0.05)


def cell_of(losses: list[float | None], pays: list[float], rules: tuple[str, ...] = ()) -> pd.Series[Any]:
    """What becomes of a cell whose clean twin ends at 2.0 and whose runs end so; two seeds are the screening's."""
    rows = [row(CLEAN, seed, loss=2.0) for seed in range(1, len(losses) + 1)]
    rows += [
        row("flips", seed, rules, loss=loss, pay=pay)
        for seed, (loss, pay) in enumerate(zip(losses, pays, strict=True), 1)
    ]
    cells = judge_cells(table_of(rows), LIMITS, range(1, 3))
    assert cells["behavior"].tolist() == [CLEAN, "flips"]
    return cells.iloc[1]


def test_nothing_over_a_limit_is_quiet() -> None:
    cell = cell_of([2.02, 2.04], [0.1, 0.5])
    assert (cell["interesting"], cell["harm"], cell["profit"]) == ("", "quiet", "quiet")


@pytest.mark.parametrize(
    ("losses", "pays", "why"),
    [([2.2, 2.2], [0.0, 0.0], "loss"), ([2.0, 2.0], [0.0, 0.6], "pay"), ([1.95, 2.08], [0.0, 0.0], "spread")],
)
def test_one_seed_over_one_limit_is_interesting(losses: list[float | None], pays: list[float], why: str) -> None:
    cell = cell_of(losses, pays)
    assert cell["interesting"] == why
    assert (cell["harm"], cell["profit"]) == ("unclear", "unclear"), "two seeds are too few to say"


def test_confirmed_cells_are_judged_by_their_interval() -> None:
    assert cell_of([2.4, 2.41, 2.42, 2.43, 2.44], [0.0] * 5)["harm"] == "harmed"
    assert cell_of([2.2, 2.01, 2.0, 2.0, 2.01], [0.0] * 5)["harm"] == "unclear"
    assert cell_of([2.11, 2.0, 2.0, 2.0, 2.0], [0.0] * 5)["harm"] == "held"
    assert cell_of([2.0] * 5, [0.7] * 5)["harm"] == "held"
    assert cell_of([2.0] * 5, [0.7] * 5)["profit"] == "paid"
    assert cell_of([2.4] * 5, [0.1, 0.1, 0.1, 0.1, 0.1])["profit"] == "unpaid"


def test_interest_is_decided_by_the_screening_alone() -> None:
    """Catches a rule that looks at the seeds that only interesting cells have."""
    assert cell_of([2.0, 2.0, 2.9, 2.9, 2.9], [0.0] * 5)["interesting"] == ""


def test_a_diverged_run_makes_a_cell_harmed() -> None:
    cell = cell_of([None, 2.0, 2.0, 2.0, 2.0], [0.0] * 5)
    assert (cell["worse"], cell["harm"], cell["diverged"]) == (math.inf, "harmed", 1)


def test_failed_runs_are_marked_and_not_dropped() -> None:
    place = Cell("flips", "mean", "gauntlet", 0.25)
    rows = [row(CLEAN, 1), row(CLEAN, 2), row("flips", 1, loss=4.0), row_of_failure(place, 6, 2, "id", "E: it broke")]
    table = table_of(rows)
    (cell,) = judge_cells(table, LIMITS, range(1, 3)).iloc[1:].to_dict("records")
    assert (cell["failed"], cell["seeds"], cell["harm"], cell["profit"]) == (1, 2, FAILED, FAILED)
    assert interesting_places(table, LIMITS, range(1, 3)) == set()
    assert reasons(table[table["behavior"] == "flips"], LIMITS) == "loss"


def test_files_follow_from_the_tidy_table(tmp_path: Path) -> None:
    """Catches a number that is lost on the way through the file, infinities and names like 'nan' among them."""
    matrix = read_matrix(written(tmp_path))
    grid = Grid(matrix, tmp_path / "small.yaml")
    rows = [
        row_of(cell, 3, seed, "id", "attackers", (), summary_of(loss=None if cell.behavior == "flips" else 2.0))
        for cell in (*grid.twins(), *grid.cells())
        for seed in (1, 2)
    ]
    rows[-1] = row_of_failure(list(grid.cells())[-1], 6, 2, "id", "RuntimeError: broke")
    table = table_of(rows)
    places = Published(tmp_path, "small")
    table.to_csv(places.runs, index=False)
    written_files = list(publish(matrix, tmp_path))
    assert [path.name for path in written_files] == [
        "small-cells.csv",
        "small-gauntlet-12_5.png",
        "small-gauntlet-25.png",
        "small-random-12_5.png",
        "small-random-25.png",
    ]
    assert all(path.stat().st_size > 500 for path in written_files)
    assert failed_runs(matrix, tmp_path) == 1
    again = pd.read_csv(places.cells, keep_default_na=False)
    assert again[again["behavior"] == "flips"]["worse"].tolist() == [math.inf] * 8
    before = [path.read_bytes() for path in written_files]
    assert [path.read_bytes() for path in publish(matrix, tmp_path)] == before
