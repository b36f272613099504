"""`covsim import-hparams`: a scenario on standard output or in a file, what became of the keys on standard error."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import app
from covsim.scenario import load, loads

FOLDER = Path(__file__).parents[1] / "scenario" / "hparams"
NEWEST = str(FOLDER / "72b-v2.1.28.json")


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    result = CliRunner().invoke(app, ["import-hparams", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_prints_a_scenario_and_what_became_of_the_keys() -> None:
    code, out, err = invoke(NEWEST, "--peers", "20", "--rounds", "3")
    assert code == 0
    scenario = loads(out)
    assert (scenario.peers, scenario.stop.rounds) == (20, 3)
    assert "  not used: project: name under which the run is logged\n" in err


def test_writes_a_file_that_loads(tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.yaml"
    code, printed, _ = invoke(NEWEST, "--out", str(out))
    assert (code, printed) == (0, "")
    assert load(out) == loads(invoke(NEWEST)[1])
    assert [path.name for path in out.parent.iterdir()] == ["mine.yaml"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    assert invoke(NEWEST, "--out", str(out)) == (2, "", f"{out} is there already; --force overwrites it\n")
    assert out.read_text() == "mine"
    assert invoke(NEWEST, "--out", str(out), "--force")[0] == 0
    assert load(out).name == "72b-v2-1-28"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "mine.yaml"
    code, _, err = invoke(NEWEST, "--out", str(out))
    assert code == 2
    assert err.startswith(f"{out} cannot be written: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.json"], "nothing.json: no such file"),
        ([str(FOLDER / "crusades.json")], "is not a hparams file of templar: it has no blocks_per_window"),
        ([NEWEST, "--peers", "0"], "--peers must be greater than 0, not 0"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "mine.yaml"
    code, printed, err = invoke(*arguments, "--out", str(out))
    assert (code, printed) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_the_name_of_the_file_cannot_break_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "a: b\n# {x}é.json"
    path.write_text(Path(NEWEST).read_text())
    _, out, _ = invoke(str(path))
    assert loads(out).name == "a-b-x"
