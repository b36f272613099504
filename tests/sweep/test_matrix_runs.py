"""A matrix that is run: two stages, gone on with after a stop, failures kept; and what is published, run again."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from covsim import cli_matrix
from covsim.sweep.local import run_all
from covsim.sweep.matrix import CLEAN, Cell, Grid, MatrixRuns, Published, find_matrix, read_matrix
from covsim.sweep.matrix.judging import judge_cells
from covsim.sweep.matrix.rows import DONE, FAILED, PLACE

PUBLISHED = Published(Path(__file__).parents[2] / "results" / "published", "matrix")

BASE = """
version: 1
name: base
stop: {rounds: 2}
model: {kind: gpt, layers: 1, width: 8, heads: 1, context: 16}
training: {batch: 1}
protocol: {kind: sparseloco, inner_steps: 2}
deployment: same
peers: 4
cohorts:
  honest: {share: rest, uplink: 1 Gb/s, downlink: 1 Gb/s}
  attackers: {share: 25 %, uplink: 1 Gb/s, downlink: 1 Gb/s}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 4, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
record: {level: summary}
"""

BREAKS = '''
from typing import Literal

from covsim.behaviors import behaviors
from covsim.behaviors.base import Behavior, PeerVerbs, Script


@behaviors.register
class MatrixBreaks(Behavior):
    """Break the run."""

    kind: Literal["matrix_breaks"] = "matrix_breaks"

    def play_round(self, peer: PeerVerbs) -> Script:
        """Raise."""
        yield from peer.sync()
        raise RuntimeError("it broke")
'''

MATRIX = """
version: 1
name: small
base: base.yaml
behaviors:
  flips: {behavior: {kind: sign_flip, scale: 100000}}
  idle: {behavior: idle}
aggregators: {mean: {kind: mean, clip: none}}
selections: {all: all}
shares: [25 %]
seeds: {screen: 2, confirm: 3}
interesting: {loss_over: 90 %, pay_over: 100, spread_over: 90 %}
"""


def written(folder: Path) -> Path:
    (folder / "base.yaml").write_text(BASE)
    (folder / "small.yaml").write_text(MATRIX)
    return folder / "small.yaml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path)


def runs_of(path: Path, out: Path, lines: list[str]) -> MatrixRuns:
    return MatrixRuns(Grid(read_matrix(path), path), out, jobs=0, say=lines.append)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, list[str]]:
    """The table of a matrix that was run in one go, and what was said on the way."""
    folder = tmp_path_factory.mktemp("whole")
    lines: list[str] = []
    return runs_of(written(folder), folder / "runs", lines).measure(), lines


def seeds_by_behavior(table: pd.DataFrame) -> dict[str, list[int]]:
    return {str(name): rows["seed"].tolist() for name, rows in table.groupby("behavior")}


def ended(lines: list[str]) -> list[str]:
    """The lines of runs that ended."""
    return [line for line in lines if line.startswith("[")]


def test_interesting_cells_and_their_twins_alone_are_confirmed(whole: tuple[pd.DataFrame, list[str]]) -> None:
    """The flips are so wild that they are interesting; peers that do nothing are not."""
    table, lines = whole
    assert seeds_by_behavior(table) == {CLEAN: [1, 2, 3], "flips": [1, 2, 3], "idle": [1, 2]}
    assert "1 of 2 cells are interesting and run over more seeds" in lines
    assert (table["outcome"] == DONE).all()
    assert (table[table["behavior"] == "flips"]["worse"] > 0.9).all()
    assert table[table["behavior"] == "idle"]["worse"].abs().max() < 0.2


def test_a_matrix_that_was_stopped_goes_on_and_ends_the_same(
    path: Path, tmp_path: Path, whole: tuple[pd.DataFrame, list[str]]
) -> None:
    """Catches a run that is done twice, and a table that depends on how often the matrix was stopped."""
    first: list[str] = []

    def stop_after_three(line: str) -> None:
        first.append(line)
        if len(ended(first)) == 3:
            raise KeyboardInterrupt

    grid = Grid(read_matrix(path), path)
    with pytest.raises(KeyboardInterrupt):
        MatrixRuns(grid, tmp_path / "cut", jobs=0, say=stop_after_three).measure()
    second: list[str] = []
    again = runs_of(path, tmp_path / "cut", second).measure()
    assert second[0] == "3 of 6 runs are there already"
    assert len(ended(second)) == len(again) - 3
    pd.testing.assert_frame_equal(again, whole[0])


def test_a_failed_run_stays_in_the_table(path: Path, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS)
    (tmp_path / "base.yaml").write_text(BASE + "plugins: [breaks.py]\n")
    path.write_text(MATRIX.replace("behavior: idle", "behavior: matrix_breaks"))
    table = runs_of(path, tmp_path / "runs", []).measure()
    broken = table[table["behavior"] == "idle"]
    assert broken["outcome"].tolist() == [FAILED, FAILED]
    assert all("RuntimeError: it broke" in note for note in broken["note"])
    assert broken["loss"].isna().all()
    assert (table[table["behavior"] != "idle"]["outcome"] == DONE).all()
    code = cli_matrix.matrix(str(path), [], 0, tmp_path / "runs", tmp_path / "tables", estimate=False, redraw=False)
    assert code == cli_matrix.FAILED_RUNS


def test_the_estimate_times_one_run_and_counts_the_rest(path: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    runs = runs_of(path, tmp_path / "runs", lines)
    cost = runs.estimate()
    assert lines[0] == "timing one run"
    assert (cost.screening, cost.left, cost.confirming) == (6, 5, 3)
    assert cost.run_s > 0
    assert str(cost).startswith("screening: 6 runs, 5 of them left, about 1 min on 1 process at ")
    assert runs_of(path, tmp_path / "runs", lines).estimate().left == 5
    assert lines.count("timing one run") == 1


def test_the_command_writes_tables_and_figures_and_draws_them_again(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, tables = tmp_path / "runs", tmp_path / "tables"

    def command(*, estimate: bool = False, redraw: bool = False) -> int:
        return cli_matrix.matrix(
            str(path), ["seeds.first=4", "~behaviors.flips"], 0, runs, tables, estimate=estimate, redraw=redraw
        )

    assert command(redraw=True) == cli_matrix.BAD_INPUT
    assert "run the matrix without --redraw" in capsys.readouterr().err
    assert command(estimate=True) == cli_matrix.OK
    assert not tables.exists()
    assert command() == cli_matrix.OK
    names = {"small.csv", "small-cells.csv", "small-all-25.png"}
    assert {file.name for file in tables.iterdir()} == names
    before = {file.name: file.read_bytes() for file in tables.iterdir()}
    assert set(pd.read_csv(tables / "small.csv")["seed"]) == {4, 5}
    assert command(redraw=True) == cli_matrix.OK
    assert {file.name: file.read_bytes() for file in tables.iterdir()} == before


def test_bad_input_is_a_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli_matrix.matrix(str(tmp_path / "no.yaml"), [], 0, None, None, estimate=False, redraw=False)
    assert code == cli_matrix.BAD_INPUT
    assert capsys.readouterr().err.strip().endswith("no such file")


def test_the_command_is_registered() -> None:
    """Catches arguments that the command line hands over in another order."""
    from typer.testing import CliRunner

    from covsim.cli import app

    ended = CliRunner().invoke(app, ["matrix", "no-such.yaml", "seeds.first=2", "--jobs", "0"])
    assert ended.exit_code == cli_matrix.BAD_INPUT
    assert "no-such.yaml: no such file" in ended.output


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    if not PUBLISHED.runs.is_file():
        pytest.skip(f"{PUBLISHED.runs.name} is not published yet; `covsim matrix matrix` takes an hour or two")
    return pd.read_csv(PUBLISHED.runs)


def test_what_is_published_is_the_whole_matrix(published: pd.DataFrame) -> None:
    """Catches a table of another matrix than the one that ships, and cells that do not follow from the runs."""
    path = find_matrix("matrix")
    matrix = read_matrix(path)
    grid = Grid(matrix, path)
    cells = [tuple(vars(cell).values()) for cell in (*grid.twins(), *grid.cells())]
    assert set(published[PLACE].itertuples(index=False, name=None)) == set(cells)
    seeds = matrix.seeds
    again = judge_cells(published, matrix.interesting, range(seeds.first, seeds.first + seeds.screen))
    pd.testing.assert_frame_equal(
        again.fillna({"interesting": ""}),
        pd.read_csv(PUBLISHED.cells).fillna({"interesting": ""}),
        rtol=1e-3,
        check_dtype=False,
    )
    for selection in matrix.selections:
        for share in matrix.shares:
            assert PUBLISHED.figure(selection, share).stat().st_size > 10_000


@pytest.mark.slow  # its numbers hold on the platform that they were made on
def test_three_published_cells_come_out_again(published: pd.DataFrame, tmp_path: Path) -> None:
    """The most harmful run, the best paid and the first: the loss to four digits, on another platform perhaps not."""
    path = find_matrix("matrix")
    grid = Grid(read_matrix(path), path)
    done = published[(published["outcome"] == DONE) & (published["behavior"] != CLEAN)]
    paid = done[done["pay"] < math.inf]
    picked = done.loc[list(dict.fromkeys([done["worse"].idxmax(), paid["pay"].idxmax(), done.index[0]]))]
    rows = picked.to_dict("records")
    cells = [Cell(row["behavior"], row["aggregator"], row["selection"], row["share"]) for row in rows]
    scenarios = [grid.scenario(cell, int(row["seed"])) for cell, row in zip(cells, rows, strict=True)]
    for row, run in zip(rows, run_all(scenarios, jobs=2, out=tmp_path, keep_tapes=False), strict=True):
        assert run.summary["loss.final"] == pytest.approx(row["loss"], rel=1e-4)
        assert run.summary["pay_per_peer.attackers"] == pytest.approx(row["pay"], rel=1e-3, abs=1e-6, nan_ok=True)
