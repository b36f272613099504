"""`pytest --covsim`: scenario files with claims are tests; without the option nothing happens at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from besieged import BESIEGED

pytest_plugins = ["pytester"]

EXPECT = """
expect:
  seeds: 2
  claims:
    - {metric: loss.final, at_most: 6}
    - {metric: loss.final, versus: clean, margin: 5 %, xfail: nobody minds the flippers}
    - {metric: pay_per_peer.flippers, at_most: 0.5}
"""
PLUGIN = ("-p", "no:covsim", "-p", "covsim.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist")
"""The plugin of this very tree, whatever is installed."""


@pytest.fixture
def out(results: Path) -> str:
    return f"--covsim-out={results}"


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)


def scenario(pytester: pytest.Pytester, expect: str = EXPECT, name: str = "besieged.yaml") -> Path:
    folder = pytester.path / "scenarios"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(BESIEGED + expect)
    return folder


def test_every_claim_is_a_test(pytester: pytest.Pytester, out: str) -> None:
    """Two pass, and the known hole is there, as it should be."""
    scenario(pytester)
    result = run(pytester, "--covsim", "scenarios", "-v", "--covsim-jobs=0", out)
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "*besieged.yaml::loss.final PASSED*",
            "*besieged.yaml::loss.final#2 XFAIL (nobody minds the flippers)*",
            "*besieged.yaml::pay_per_peer.flippers PASSED*",
        ]
    )


def test_claims_are_chosen_by_name(pytester: pytest.Pytester, out: str) -> None:
    scenario(pytester)
    result = run(pytester, "--covsim", "scenarios", "-k", "flippers", "--covsim-jobs=0", out)
    result.assert_outcomes(passed=1, deselected=2)


@pytest.mark.slow
def test_runs_in_processes_of_their_own_are_the_same(pytester: pytest.Pytester, tmp_path: Path) -> None:
    scenario(pytester)
    result = run(pytester, "--covsim", "scenarios", "-k", "flippers", "--covsim-jobs=2", f"--covsim-out={tmp_path}")
    result.assert_outcomes(passed=1, deselected=2)
    assert len(list((tmp_path / "besieged").glob("*/summary.json"))) == 2


def test_a_claim_that_fails_says_all(pytester: pytest.Pytester, out: str, results: Path) -> None:
    scenario(pytester, EXPECT.replace("at_most: 6}", "at_most: 1}"))
    result = run(pytester, "--covsim", "scenarios", "-k", "loss.final and not 2", "--covsim-jobs=0", out)
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "*besieged.yaml: loss.final at most 1*",
            "besieged, seeds 1, 2: fail",
            "*expected  loss.final at most 1",
            "*seen * ± *",
            f"*seed 1: *{results}*",
            "*covsim run *besieged.yaml --seed 1 --out *",
            "*covsim run *besieged.yaml --seed 2 --out *",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_known_hole_that_is_closed_is_a_failure(pytester: pytest.Pytester, out: str) -> None:
    scenario(pytester, EXPECT.replace("margin: 5 %", "margin: 100 %"))
    result = run(pytester, "--covsim", "scenarios", "-k", "2", "--covsim-jobs=0", out)
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*XPASS(strict)*nobody minds the flippers*"])


@pytest.mark.parametrize(("choice", "outcome"), [("fail", "failed"), ("skip", "skipped"), ("pass", "passed")])
def test_inconclusive_is_what_it_is_told_to_be(pytester: pytest.Pytester, out: str, choice: str, outcome: str) -> None:
    """Two seeds, and a border between their losses."""
    scenario(pytester, "expect: {seeds: 2, claims: [{metric: loss.final, at_most: 5.555}]}")
    result = run(pytester, "--covsim", "scenarios", f"--covsim-inconclusive={choice}", "--covsim-jobs=0", out)
    result.assert_outcomes(**{outcome: 1})


def test_a_known_hole_may_not_be_inconclusive_either(pytester: pytest.Pytester, out: str) -> None:
    scenario(pytester, "expect: {seeds: 2, claims: [{metric: loss.final, at_most: 5.555, xfail: known}]}")
    result = run(pytester, "--covsim", "scenarios", "--covsim-jobs=0", out)
    result.assert_outcomes(failed=1)


def test_a_scenario_that_cannot_be_loaded_is_an_error(pytester: pytest.Pytester) -> None:
    scenario(pytester, EXPECT.replace("loss.final", "loss.finl"))
    result = run(pytester, "--covsim", "scenarios")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*besieged.yaml:*no metric is called 'loss.finl' (did you mean 'loss.final'?)*"])


def test_runs_that_fail_are_not_run_again_for_every_claim(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """A plugin's behavior raises; it leaves a line for each time that it was asked to play."""
    folder = scenario(pytester, EXPECT.replace("seeds: 2", "seeds: 1"))
    (folder / "broken.py").write_text(
        "from typing import Literal\n"
        "from pathlib import Path\n"
        "from covsim.behaviors import Behavior, behaviors\n"
        "@behaviors.register\n"
        "class BrokenInPytest(Behavior):\n"
        '    """Breaks."""\n'
        '    kind: Literal["broken_in_pytest"] = "broken_in_pytest"\n'
        "    def play_round(self, peer):\n"
        f"        with Path({str(tmp_path / 'asked')!r}).open('a') as file:\n"
        "            file.write('x')\n"
        "        raise RuntimeError('out of order')\n"
        "        yield\n"
    )
    text = (
        (folder / "besieged.yaml")
        .read_text()
        .replace("{kind: sign_flip, scale: 2}", "broken_in_pytest")
        .replace("count: 2", "count: 1")
    )
    (folder / "besieged.yaml").write_text(text + "plugins: [broken.py]\n")
    out = tmp_path / "out"
    result = pytester.runpytest_subprocess(*PLUGIN, "--covsim", "scenarios", "--covsim-jobs=0", f"--covsim-out={out}")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*RuntimeError: out of order*"])
    assert (tmp_path / "asked").read_text() == "x"


def test_other_yaml_is_left_alone(pytester: pytest.Pytester) -> None:
    """A workflow, a scenario that claims nothing, and one that claims nothing of what it extends."""
    folder = scenario(pytester, "")
    (folder / "workflow.yaml").write_text("on: push\njobs: {test: {steps: [{run: pytest}]}}\n")
    (folder / "derived.yaml").write_text("extends: besieged.yaml\nname: derived\n")
    result = run(pytester, "--covsim", "scenarios")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.assert_outcomes()


def test_claims_of_a_file_that_is_extended_count(pytester: pytest.Pytester, out: str) -> None:
    folder = scenario(pytester)
    (folder / "derived.yaml").write_text("extends: besieged.yaml\n")
    result = run(pytester, "--covsim", "scenarios/derived.yaml", "--covsim-jobs=0", out)
    result.assert_outcomes(passed=2, xfailed=1)


def test_without_the_option_nothing_is_collected(pytester: pytest.Pytester) -> None:
    scenario(pytester)
    pytester.makepyfile("def test_mine(): pass")
    run(pytester).assert_outcomes(passed=1)
    assert run(pytester, "scenarios").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_without_the_option_nothing_heavy_is_imported(pytester: pytest.Pytester) -> None:
    """All that a plain pytest of a user pays for is this one file."""
    pytester.makepyfile(
        "import sys\n"
        "def test_mine():\n"
        "    ours = [name for name in sys.modules if name.split('.')[0] == 'covsim']\n"
        "    heavy = [name for name in ('torch', 'numpy', 'pandas', 'pydantic', 'simpy') if name in sys.modules]\n"
        "    assert (ours, heavy) == (['covsim', 'covsim.pytest_plugin'], [])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "covsim.pytest_plugin", str(pytester.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout


def test_negative_jobs_are_refused(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--covsim", "--covsim-jobs=-1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--covsim-jobs must be 0 or more, not -1*"])


def test_an_installed_covsim_brings_the_plugin() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"covsim": "covsim.pytest_plugin"}
