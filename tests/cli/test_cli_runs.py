"""`covsim explain`: the story of a peer of a real run, whatever it was, and one line for what cannot be told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command import covsim

from covsim.record.runner import run
from covsim.scenario import load
from covsim.scenario.resolve import resolved_text

BASE = Path(__file__).parents[1] / "scenario" / "base.yaml"
SMALL = {
    "stop.rounds": 6,
    "model": {"kind": "gpt", "layers": 1, "width": 16, "heads": 1, "context": 16},
    "training": {"batch": 1},
    "protocol.inner_steps": 2,
    "gauntlet.overlap.from_round": 2,
    "gauntlet.evaluated_per_window": 8,
    "gauntlet.weights.set_every_windows": 1,
    "chain.tempo": 200,
    "cohorts.lazy.membership": {"kind": "from_round", "round": 3},
    "cohorts.flippers.behavior": "late",
    "validators.third": {"stake": 0.1, "behavior": "weight_copier"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = load(BASE, SMALL)
    return run(scenario, resolved_text(scenario), out=tmp_path_factory.mktemp("explained")).folder


@pytest.mark.parametrize("cohort", ["honest", "lazy", "flippers", "copycats"])
def test_every_cohort_has_its_story(cohort: str, folder: Path) -> None:
    peers = pd.read_parquet(folder / "peers.parquet")
    verdicts = pd.read_parquet(folder / "verdicts.parquet")
    uid = int(peers.loc[peers["cohort"] == cohort, "uid"].min())
    code, out, err = covsim("explain", str(folder), "--uid", str(uid))
    assert (code, err) == (0, "")
    assert out.startswith(f"uid {uid}: cohort {cohort}, behavior ")
    text = re.sub(r"\s+", " ", out)
    assert "third never judged it" in text
    own = verdicts[verdicts["uid"] == uid]
    assert len(own)
    for reasons in own["reasons"]:
        assert reasons in text
    for round in range(6):
        code, out, err = covsim("explain", str(folder), "--uid", str(uid), "--round", str(round))
        assert (code, err) == (0, "")
        assert out.count("\n  weigh ") == len(own[own["round"] == round])
        assert "\nthird: judged nobody in this round\n" in out


def test_who_came_later_took_no_part_before(folder: Path) -> None:
    peers = pd.read_parquet(folder / "peers.parquet")
    uid = int(peers.loc[peers["cohort"] == "lazy", "uid"].min())
    _, out, _ = covsim("explain", str(folder), "--uid", str(uid))
    assert "\nplayed 3 of 6 rounds, " in out
    assert "\nrounds 0 to 2: not evaluated, not on the list, took no part\n" in out


def test_one_validator_is_told_of_alone(folder: Path) -> None:
    _, both, _ = covsim("explain", str(folder), "--uid", "1", "--round", "0")
    code, out, _ = covsim("explain", str(folder), "--uid", "1", "--round", "0", "--validator", "second")
    assert code == 0
    assert "\nlead" in both
    assert "\nlead" not in out
    assert out.partition("\n\n")[2].strip() in both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--uid", "99"], "there is no peer with uid 99; uids go from 0 to 23"),
        (["--uid", "1", "--round", "6"], "round 6 was not played; the run has rounds 0 to 5"),
        (["--uid", "1", "--validator", "leed"], "no validator is called 'leed' (did you mean 'lead'?)"),
    ],
)
def test_what_cannot_be_told_is_one_line(arguments: list[str], message: str, folder: Path) -> None:
    code, out, err = covsim("explain", str(folder), *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    code, out, err = covsim("explain", str(tmp_path), "--uid", "0")
    assert (code, out) == (2, "")
    assert err == f"{tmp_path}: no finished run is here (it has no rounds.parquet)\n"


def test_a_run_of_level_summary_is_one_line(tmp_path: Path) -> None:
    scenario = load(BASE, {**SMALL, "stop.rounds": 1, "record.level": "summary"})
    folder = run(scenario, resolved_text(scenario), out=tmp_path).folder
    code, out, err = covsim("explain", str(folder), "--uid", "0")
    assert (code, out) == (2, "")
    assert "the run was recorded at level summary; what validators saw is kept from level rounds on" in err
    assert len(err.splitlines()) == 1


def test_a_story_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "from covsim.cli import app\n"
        f"try: app(['explain', {str(folder)!r}, '--uid', '1'])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *[name for name in ('torch', 'matplotlib', 'simpy') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("uid 1: ")
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_timeline_is_written_beside_the_run(folder: Path, tmp_path: Path) -> None:
    """And where there are no events, one line says so. Catches a traceback, or a file that nobody finds."""
    code, out, _ = covsim("trace", str(folder), "--out", str(tmp_path / "timeline.json"))
    assert (code, (tmp_path / "timeline.json").is_file()) == (0, True)
    assert "Perfetto" in out or "perfetto" in out
    code, _, err = covsim("trace", str(tmp_path))
    assert code == 2
    assert len(err.splitlines()) == 1
