"""Every bad file gets one clear line and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import BAD_INPUT, app
from covsim.scenario import ScenarioError, load
from covsim.scenario.reader import MAX_FILE_BYTES

HERE = Path(__file__).parent
EXPECTED = dict(line.split(" | ", 1) for line in (HERE / "bad" / "expected.txt").read_text("utf-8").splitlines())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with copies of the bad files and their base."""
    shutil.copytree(HERE / "bad", tmp_path / "bad")
    shutil.copy(HERE / "base.yaml", tmp_path)
    monkeypatch.chdir(tmp_path / "bad")
    return tmp_path / "bad"


def refused(arguments: list[str]) -> str:
    """What `covsim` writes to stderr as it refuses an input with code 2, writing nothing else and no file."""
    before = sorted(Path.cwd().parent.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == BAD_INPUT, result.output
    assert result.stdout == ""
    assert sorted(Path.cwd().parent.rglob("*")) == before
    return result.stderr


def test_each_file_has_an_expectation() -> None:
    assert sorted(EXPECTED) == sorted(path.stem for path in (HERE / "bad").glob("*.yaml"))
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_run_refuses(name: str, folder: Path) -> None:
    assert refused(["run", f"{name}.yaml"]) == EXPECTED[name] + "\n"


@pytest.mark.parametrize("name", ["unknown_key", "alias_bomb", "unclosed_bracket"])
def test_check_and_show_refuse_with_the_same_line(name: str, folder: Path) -> None:
    for command in ("check", "show"):
        assert refused([command, f"{name}.yaml"]) == EXPECTED[name] + "\n"


def _make_binary(folder: Path) -> None:
    (folder / "x.yaml").write_bytes(bytes(range(256)) * 8)


def _make_utf_16(folder: Path) -> None:
    (folder / "x.yaml").write_text("version: 1\n", encoding="utf-16")


def _make_huge(folder: Path) -> None:
    with (folder / "x.yaml").open("wb") as file:
        file.truncate(100_000_000)


def _make_folder(folder: Path) -> None:
    (folder / "x.yaml").mkdir()


def _make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.yaml")


def _make_cycle(folder: Path) -> None:
    (folder / "x.yaml").write_text("extends: y.yaml\n")
    (folder / "y.yaml").write_text("name: y\nextends: x.yaml\n")


def _make_long_chain(folder: Path) -> None:
    for number in range(20):
        (folder / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (folder / "x.yaml").write_text("extends: 0.yaml\n")


def _make_long_key(folder: Path) -> None:
    (folder / "x.yaml").write_text(f"? {'k' * 100_000}\n: 1\nextends: ../base.yaml\n")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda folder: None, "x.yaml: no such file"),
        (_make_binary, "x.yaml: is not UTF-8 text (byte 128)"),
        (_make_utf_16, "x.yaml: is not UTF-8 text (byte 0)"),
        (_make_huge, f"x.yaml: is larger than {MAX_FILE_BYTES // 1000} kB; a scenario is a page of text"),
        (_make_folder, "x.yaml: is a directory"),
        (_make_pipe, "x.yaml: is not a regular file"),
        (_make_cycle, "y.yaml:2:10: extends: 'x.yaml' extends this file in turn: a cycle"),
        (_make_long_chain, "14.yaml:1:10: extends: a chain of more than 16 files"),
        (_make_long_key, f"x.yaml:1:3: unknown key 'k{'k' * 55}..."),
    ],
)
def test_run_refuses_what_is_no_text(make: Callable[[Path], None], line: str, folder: Path) -> None:
    make(folder)
    assert refused(["run", "x.yaml"]) == line + "\n"


def test_unreadable_file(folder: Path) -> None:
    path = folder / "x.yaml"
    path.write_text("version: 1\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert refused(["run", "x.yaml"]) == "x.yaml: cannot be read: Permission denied\n"


def test_several_mistakes_give_a_line_each(folder: Path) -> None:
    (folder / "x.yaml").write_text("extends: ../base.yaml\npeers: many\nseed: -1\nname: x\nweather: fine\n")
    with pytest.raises(ScenarioError) as caught:
        load("x.yaml")
    assert str(caught.value).splitlines() == [
        "x.yaml:2:8: peers: must be a whole number, not 'many'",
        "x.yaml:3:7: seed: must be at least 0, not -1",
        "x.yaml:5:1: unknown key 'weather'",
    ]


def test_a_mistake_in_an_extended_file_is_shown_there(folder: Path) -> None:
    (folder / "x.yaml").write_text("name: x\nextends: unknown_key.yaml\nseed: 2\n")
    assert refused(["check", "x.yaml"]) == EXPECTED["unknown_key"] + "\n"


def test_a_real_process_shows_no_traceback(folder: Path) -> None:
    """The same through the real interpreter, once."""
    command = [sys.executable, "-m", "covsim", "run", "wrong_unit.yaml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (BAD_INPUT, "", EXPECTED["wrong_unit"] + "\n")
