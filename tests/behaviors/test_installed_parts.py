"""Behaviors of installed packages: known without plugins, part of a run's identity, one line when they are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = """
version: 1
name: mine
extends: protocols/sparseloco
stop: {rounds: 2}
peers: 3
cohorts: {odd: {count: 1, behavior: odd_one, uplink: 1 Gb/s, downlink: 1 Gb/s}}
"""
PLAIN = SCENARIO.replace("behavior: odd_one", "behavior: idle")
PART = '''
from typing import Literal
from covsim.behaviors import Behavior, behaviors

@behaviors.register
class OddOne(Behavior):
    """Keep up, and nothing else."""

    kind: Literal["odd_one"] = "odd_one"

    def play_round(self, peer):
        yield from peer.sync()
'''
IDENTITIES = (
    "import sys; from covsim.scenario import load, run_id; print(*[run_id(load(name)) for name in sys.argv[1:]])"
)


def installed(site: Path, source: str, version: str = "1.0") -> None:
    """What `pip install` leaves of a package with one module."""
    (site / "odd_parts.py").write_text(source)
    info = site / "odd_parts.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: odd-parts\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[covsim.parts]\nodd = odd_parts\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    installed(folder, PART)
    (tmp_path / "odd.yaml").write_text(SCENARIO)
    (tmp_path / "plain.yaml").write_text(PLAIN)
    return folder


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)


def test_an_installed_part_is_checked_and_listed(site: Path) -> None:
    """Unlike a plugin, which `check` does not look at: whoever installs a package lets it run."""
    assert python(site, "-m", "covsim", "check", "odd.yaml").stdout.startswith("odd.yaml: ok")
    assert "odd_one" in python(site, "-m", "covsim", "list", "behaviors").stdout


def test_a_package_that_fails_is_one_line(site: Path) -> None:
    """It may not go unnoticed, or a scenario that needs it would be told of an unknown behavior."""
    installed(site, "import nothing_of_that_name")
    done = python(site, "-m", "covsim", "check", "plain.yaml")
    assert done.returncode == 2
    assert "installed package odd-parts 1.0 fails as odd_parts is imported: ModuleNotFoundError" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_edited_package_makes_another_run_of_those_that_use_it(site: Path) -> None:
    def identities() -> list[str]:
        return python(site, "-c", IDENTITIES, "odd.yaml", "plain.yaml").stdout.split()

    odd, plain = identities()
    installed(site, PART + "\n# edited\n")
    edited, same = identities()
    installed(site, PART, "1.1")
    newer, same_again = identities()
    assert len({odd, edited, newer}) == 3
    assert plain == same == same_again
