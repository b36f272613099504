"""docs/write-an-attack.md: every block is executed as it is printed, and what it claims is held against that."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from covsim.behaviors.base import PeerVerbs

PAGE = Path(__file__).parents[2] / "docs" / "write-an-attack.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ((?:package/)?[\w-]+\.(?:py|yaml|toml))\n")
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]


@dataclass
class Told:
    """Commands of one block, what the page says that they print, and what they did."""

    commands: list[str]
    expected: str = ""
    printed: str = ""
    codes: list[int] = field(default_factory=list)


@dataclass
class Followed:
    """The page, followed by a reader in a folder; packages are installed into a folder of their own."""

    folder: Path
    told: list[Told] = field(default_factory=list)

    def write(self, block: str) -> None:
        match = FILE.match(block)
        assert match, f"a block without a file: {block.splitlines()[0]}"
        assert not (self.folder / match[1]).exists(), f"{match[1]} is begun twice"
        (self.folder / match[1]).write_text(block)

    def run(self, block: str) -> None:
        self.told.append(Told(block.splitlines()))
        site = self.folder / "site"
        path = os.pathsep.join([str(site), *sys.path])
        programs = {
            "covsim": [sys.executable, "-m", "covsim"],
            "python": [sys.executable],
            "pip": [*PIP, "--target", str(site)],
        }
        for command in self.told[-1].commands:
            name, *arguments = shlex.split(command)
            done = subprocess.run(
                [*programs[name], *(arguments if name != "pip" else arguments[1:])],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
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

    def summary(self, name: str) -> dict[str, float]:
        [file] = self.folder.glob(f"results/{name}/*/summary.json")
        summary: dict[str, float] = json.loads(file.read_text())
        return summary


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    reader = Followed(tmp_path_factory.mktemp("page"))
    (reader.folder / "package").mkdir()
    does = {"bash": reader.run, "text": reader.expect}
    for language, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        does.get(language, reader.write)(block)
    return reader


def rows(text: str) -> dict[str, list[float]]:
    """The numbers of a table, by name."""
    return {line.split()[0]: [float(word) for word in line.split()[1:]] for line in text.splitlines()[1:]}


def test_every_command_ends_well(followed: Followed) -> None:
    codes = {command: code for told in followed.told for command, code in zip(told.commands, told.codes, strict=True)}
    assert codes == dict.fromkeys(codes, 0), [told.printed for told in followed.told]
    assert len(codes) == 8


def test_the_comparison_is_the_one_printed(followed: Followed) -> None:
    """Losses may differ a little from machine to machine, and with them who is gathered."""
    told = followed.of("python compare.py")
    expected, printed = rows(told.expected), rows(told.printed)
    for name in ("clean", "attacked", "defended"):
        assert printed[name][0] == pytest.approx(expected[name][0], rel=0.05)
        assert printed[name][1] == pytest.approx(expected[name][1], abs=10)


def test_the_attack_works_and_the_defense_helps(followed: Followed) -> None:
    loss = {name: followed.summary(name)["loss.final"] for name in ("clean", "attacked", "defended")}
    assert loss["attacked"] > loss["clean"] + 0.5
    assert loss["defended"] < loss["clean"] + (loss["attacked"] - loss["clean"]) / 3


def test_the_attackers_are_selected_at_first_only(followed: Followed) -> None:
    """Four rounds of twelve, as the page says; up to two more elsewhere."""
    assert followed.summary("defended")["selected_share.undoers"] < 1 / 3 * 6 / 12


def test_an_installed_part_needs_no_plugins(followed: Followed) -> None:
    told = followed.of("covsim check copied.yaml")
    assert told.printed.startswith(told.expected)
    assert followed.summary("copied")["tokens_per_peer.copiers"] == 0
    assert followed.summary("copied")["selected_share.copiers"] > 0


def test_the_contract_holds_for_the_attack_of_the_page(followed: Followed) -> None:
    told = followed.of("python -m pytest")
    assert told.expected.strip() in told.printed


def test_every_verb_is_in_the_table() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## The verbs")[1].split("\n## ")[0]
    verbs = {name for name in vars(PeerVerbs) if not name.startswith("_")} - {"uid", "round", "inner_steps"}
    assert verbs <= set(re.findall(r"`(\w+)", table)), "a verb is missing"
