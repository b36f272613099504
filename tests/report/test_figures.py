"""Figures: drawn from a folder alone, byte-stable, with the right things in the right colors."""

import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from synthetic import STAKES, play
from written_run import write_run

from covsim.events import Event, HeldOutMeasured, RunStopped, Scored
from covsim.report import curves, peers, style
from covsim.report.figures import all_drawn, draw_all
from covsim.report.run_tables import RunTables, read_run

NAMES = ["overview.png", "loss.png", "rating_and_pay.png", "time.png", "selection.png"]


@pytest.fixture(scope="module")
def run(run_folder: Path) -> RunTables:
    return read_run(run_folder)


def test_all_figures_are_drawn_and_byte_stable(run_folder: Path, tmp_path: Path) -> None:
    bytes_of = []
    for name in ("one", "two"):
        shutil.copytree(run_folder, tmp_path / name)
        paths = draw_all(tmp_path / name)
        assert [path.name for path in paths] == NAMES
        bytes_of.append([path.read_bytes() for path in paths])
    assert bytes_of[0] == bytes_of[1]
    assert all(image.startswith(b"\x89PNG") for image in bytes_of[0])
    assert all(b"Software" not in image[:200] for image in bytes_of[0])


def test_one_missing_figure_is_noticed(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    assert not all_drawn(tmp_path / "run")
    paths = draw_all(tmp_path / "run")
    assert all_drawn(tmp_path / "run")
    paths[-1].unlink()
    assert not all_drawn(tmp_path / "run")


def test_user_settings_neither_enter_nor_change(run: RunTables) -> None:
    def drawn() -> float:
        with style.house_style():
            return float(curves.loss(run).axes[0].lines[0].get_linewidth())

    plain = drawn()
    with mpl.rc_context({"lines.linewidth": 20.0}):
        assert drawn() == plain
        assert mpl.rcParams["lines.linewidth"] == 20.0


def test_axes_that_mix_scales_say_so(run: RunTables) -> None:
    figure = curves.loss(run)
    by_time, by_bytes = figure.axes
    assert "deployment" in by_time.get_xlabel()
    assert "deployment" in by_bytes.get_xlabel()
    assert "model" in by_time.get_ylabel()


def test_loss_curve_starts_before_training_and_ends_at_the_last_round(run: RunTables) -> None:
    by_time = curves.loss(run).axes[0]
    x, y = by_time.lines[0].get_data()
    assert (x[0], y[0]) == (0.0, 5.55)
    assert x[-1] == pytest.approx(run.rounds["simulated_s"].iloc[-1] / 3600)
    assert y[-1] == run.rounds["loss"].iloc[-1]


def test_pay_is_relative_to_an_equal_share(run: RunTables) -> None:
    axes = curves.rating_and_pay(run).axes[2]
    sizes = {cohort: len(run.uids(cohort)) for cohort, _ in run.cohorts}
    ends = {cohort: line.get_ydata()[-1] for (cohort, _), line in zip(run.cohorts, axes.lines, strict=False)}
    assert sum(ends[cohort] * sizes[cohort] for cohort in sizes) / 24 == pytest.approx(1)
    honest = run.summary["payout_share.honest"] * 24 / sizes["honest"]
    assert ends["honest"] == pytest.approx(honest)


def test_each_cohort_is_drawn_in_the_color_of_its_behavior(run: RunTables) -> None:
    for axes in curves.rating_and_pay(run).axes:
        for (_, behavior), line in zip(run.cohorts, axes.lines, strict=False):
            assert line.get_color() == style.COLORS[behavior]


def test_time_of_every_peer_adds_up(run: RunTables) -> None:
    axes = peers.where_time_goes(run).axes[0]
    ends: dict[int, float] = {}
    for bar in axes.patches:  # span by span, so every bar begins where the one before it in its row ended
        row = round(bar.get_y() + bar.get_height() / 2)
        assert bar.get_x() == pytest.approx(ends.get(row, 0.0))
        ends[row] = bar.get_x() + bar.get_width()
    spans = run.peers.groupby("uid")[["compute_s", "upload_s", "download_s", "idle_s"]].mean().sum(axis=1) / 60
    assert sorted(ends.values()) == pytest.approx(sorted(spans))


def test_selection_shows_what_the_table_says(run: RunTables) -> None:
    axes = peers.who_was_selected(run).axes[0]
    picture = np.asarray(axes.images[0].get_array())
    honest = np.all(np.isclose(picture, to_rgb(style.BLUE)), axis=2).sum()
    table = run.peers[(run.peers["behavior"] == "honest") & (run.peers["place"] == "selected")]
    assert honest == table["contributed"].sum() > 0
    in_vain = np.all(np.isclose(picture, to_rgb(style.INK)), axis=2).sum()
    listed = run.peers[run.peers["place"] == "selected"]
    assert in_vain == (~listed["contributed"]).sum() > 0


def test_colors_remain_apart_when_color_blind() -> None:
    """Seen with each of the three dichromacies (Machado et al. 2009, severity 1); red and green are not, with one."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }

    def least_distance(colors: list[str], matrix: list[list[float]]) -> float:
        emitted = np.array([to_rgb(color) for color in colors])
        linear = np.where(emitted <= 0.04045, emitted / 12.92, ((emitted + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.4)
        return min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))

    for name, matrix in matrices.items():
        assert least_distance(list(style.COLORS.values()), matrix) > 0.14, name
    assert least_distance(["red", "green"], matrices["protan"]) < 0.14


def test_unknown_behaviors_get_colors_of_their_own() -> None:
    names = ["honest", "zebra", "aardvark"]
    colors = [style.color_of(name, names) for name in names]
    assert len(set(colors)) == 3
    assert set(colors[1:]).isdisjoint(style.COLORS.values())


def test_cohorts_of_one_behavior_differ_in_their_lines() -> None:
    assert style.line_of("lazy", []) != style.line_of("lazy", ["honest", "lazy"])
    assert style.line_of("lazy", ["honest"]) == style.line_of("honest", [])


def diverged_and_nobody_paid() -> list[Event]:
    def spoiled(event: Event) -> Event:
        if isinstance(event, Scored):
            return replace(event, weights=(), burned=1.0)
        if isinstance(event, HeldOutMeasured) and event.round >= 1:
            return replace(event, loss=math.nan)
        return event

    return [spoiled(event) for event in play(num_peers=24, rounds=3)]


@pytest.mark.parametrize("events", [diverged_and_nobody_paid(), play(num_peers=24, rounds=1)])
def test_odd_runs_can_be_drawn(events: list[Event], tmp_path: Path) -> None:
    assert len(draw_all(write_run(tmp_path, events))) == len(NAMES)


def test_run_that_settled_nothing_has_no_figures(tmp_path: Path) -> None:
    leader = next(iter(STAKES))
    events: list[Event] = [
        HeldOutMeasured(0.0, f"validator:{leader}", -1, "root", 5.5),
        RunStopped(9.0, 0, "simulated"),
    ]
    assert draw_all(write_run(tmp_path, events)) == []
    assert pd.read_parquet(tmp_path / "rounds.parquet").empty
