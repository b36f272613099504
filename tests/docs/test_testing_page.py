"""docs/testing.md: every block is executed as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {
    "pytest": ["-m", "pytest", "-p", "no:covsim", "-p", "covsim.pytest_plugin", "-p", "no:cacheprovider"],
    "covsim": ["-m", "covsim"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and output of every command of the page, by its text, given in the order of the page."""
    folder = tmp_path_factory.mktemp("page")
    done: dict[str, tuple[int, str]] = {}
    for language, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language in ("yaml", "python"):
            name = re.match(r"# ([\w-]+\.(?:py|yaml))\n", block)
            assert name, f"a block without a file: {block.splitlines()[0]}"
            (folder / name[1]).write_text(block)
        else:
            assert language == "bash"
            done |= {command: run(command, folder) for command in block.splitlines()}
    return done


def run(command: str, folder: Path) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, *PROGRAMS[program], *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout


def test_every_command_ends_well(told: dict[str, tuple[int, str]]) -> None:
    assert {command: code for command, (code, _) in told.items()} == dict.fromkeys(told, 0), told
    assert len(told) == 4


def test_what_is_said_of_the_tests_holds(told: dict[str, tuple[int, str]]) -> None:
    """Three assertions; three claims, one of them a known hole; one claim by name."""
    assert "3 passed" in told["pytest -q test_besieged.py"][1]
    assert "2 passed, 1 xfailed" in told["pytest --covsim besieged.yaml -v"][1]
    assert "1 passed, 2 deselected" in told["pytest --covsim besieged.yaml -k flippers"][1]
