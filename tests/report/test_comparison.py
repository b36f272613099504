"""Several scenarios over several seeds in one figure."""

from pathlib import Path

import pytest
from synthetic import play
from written_run import write_run

from covsim.report.run_tables import read_run
from covsim.sweep.comparison import compare_losses, draw_comparison


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        write_run(tmp_path_factory.mktemp(f"seed{seed}"), play(num_peers=24, rounds=3 + seed % 2, seed=seed))
        for seed in (1, 2, 3)
    ]


def test_mean_is_over_the_rounds_that_all_seeds_have(folders: list[Path]) -> None:
    runs = [read_run(folder) for folder in folders]
    axes = compare_losses({"gauntlet": runs}, "title").axes[0]
    *seeds, mean = axes.lines
    assert [len(line.get_ydata()) for line in seeds] == [5, 4, 5]
    assert len(mean.get_ydata()) == 4
    for i, value in enumerate(mean.get_ydata()):
        assert value == pytest.approx(sum(line.get_ydata()[i] for line in seeds) / 3)


def test_labels_name_scenario_and_interval(folders: list[Path]) -> None:
    runs = [read_run(folder) for folder in folders]
    axes = compare_losses({"gauntlet": runs, "random": runs[:1]}, "title").axes[0]
    texts = [text.get_text() for text in axes.texts]
    final = [run.summary["loss.final"] for run in runs]
    assert any(text.startswith(f"gauntlet\n{sum(final) / 3:.2f} ± ") for text in texts)
    assert f"random\n{final[0]:.2f}" in texts


def test_figure_is_written(folders: list[Path], tmp_path: Path) -> None:
    draw_comparison({"a": folders, "b": folders}, tmp_path / "contrast.png", "title")
    assert (tmp_path / "contrast.png").read_bytes().startswith(b"\x89PNG")


def test_too_many_scenarios_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 4 scenarios, not 5"):
        draw_comparison({str(i): folders for i in range(5)}, tmp_path / "x.png", "title")
