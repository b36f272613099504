"""docs/write-a-protocol.md: every block is executed as it is printed, and what it claims is held against that."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "write-a-protocol.md"
RUNS = ("mine", "mine-topk", "theirs")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w-]+\.(?:py|yaml))(, continued)?\n")


@dataclass
class Told:
    """Commands of one block, what the page says that they print, and what they did."""

    commands: list[str]
    expected: str = ""
    printed: str = ""
    codes: list[int] = field(default_factory=list)


@dataclass
class Followed:
    """The page, followed by a reader in an empty folder."""

    folder: Path
    told: list[Told] = field(default_factory=list)

    def write(self, block: str) -> None:
        match = FILE.match(block)
        assert match, f"a block without a file: {block.splitlines()[0]}"
        file = self.folder / match[1]
        assert file.exists() == bool(match[2]), f"{match[1]} is continued without a beginning, or begun twice"
        with file.open("a") as opened:
            opened.write(block)

    def run(self, block: str) -> None:
        self.told.append(Told(block.splitlines()))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        programs = {"covsim": [sys.executable, "-m", "covsim"], "python": [sys.executable]}
        for command in self.told[-1].commands:
            name, *arguments = shlex.split(command)
            done = subprocess.run(
                [*programs[name], *arguments],
                cwd=self.folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=300,
            )
            self.told[-1].printed += done.stdout
            self.told[-1].codes.append(done.returncode)

    def expect(self, block: str) -> None:
        assert not self.told[-1].expected, "an output without a command"
        self.told[-1].expected = block

    def of(self, start: str) -> Told:
        [told] = [told for told in self.told if told.commands[0].startswith(start)]
        return told


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    reader = Followed(tmp_path_factory.mktemp("page"))
    does = {"python": reader.write, "yaml": reader.write, "bash": reader.run, "text": reader.expect}
    for language, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        does[language](block)
    return reader


def table(text: str, name: str) -> list[float]:
    """The numbers of one row."""
    [row] = re.findall(rf"^{re.escape(name)} +(.*)$", text, re.MULTILINE)
    return [float(number) for number in row.split()]


def test_every_command_ends_as_the_page_has_it(followed: Followed) -> None:
    """Well, but for the one with a typing mistake."""
    codes = {command: code for told in followed.told for command, code in zip(told.commands, told.codes, strict=True)}
    mistaken = "covsim run mine.yaml protocol.momentun=0.8"
    assert codes == {**dict.fromkeys(codes, 0), mistaken: 2}, [told.printed for told in followed.told]
    assert len(codes) == 7


@pytest.mark.parametrize("command", ["covsim check", "covsim run mine.yaml protocol.momentun"])
def test_messages_are_those_printed(followed: Followed, command: str) -> None:
    told = followed.of(command)
    assert told.printed == told.expected != ""


def test_quiet_runs_print_their_folders(followed: Followed) -> None:
    folders = followed.of("covsim run mine.yaml --quiet").printed.splitlines()
    assert [Path(folder).parts[:2] for folder in folders] == [("results", name) for name in RUNS]
    assert all((followed.folder / folder / "summary.json").exists() for folder in folders)


@pytest.mark.parametrize("name", RUNS)
def test_the_comparison_is_the_one_printed(followed: Followed, name: str) -> None:
    """Bytes and time to the last digit; losses may differ a little from machine to machine."""
    told = followed.of("python compare.py")
    (loss, *costs), (printed_loss, *printed_costs) = table(told.expected, name), table(told.printed, name)
    assert costs == printed_costs
    assert printed_loss == pytest.approx(loss, rel=0.03)


def test_what_is_said_of_the_comparison(followed: Followed) -> None:
    """Half of the bytes, a higher loss, and a compressor that is no better than top-k."""
    mine, topk, theirs = (table(followed.of("python compare.py").printed, name) for name in RUNS)
    assert mine[1:] == topk[1:]
    assert mine[2] / theirs[2] == pytest.approx(0.5, abs=0.03)
    assert min(mine[0], topk[0]) > theirs[0] + 0.1
    assert mine[0] > topk[0] - 0.1


def test_the_probe_is_the_one_printed(followed: Followed) -> None:
    told = followed.of("python compare.py")
    for round in ("0", "9", "19"):
        assert table(told.printed, round) == pytest.approx(table(told.expected, round), abs=0.05)
        assert all(0 <= value <= 1 for value in table(told.printed, round))


def test_the_contract_holds_for_the_parts_of_the_page(followed: Followed) -> None:
    told = followed.of("python -m pytest")
    assert told.expected.strip() in told.printed
