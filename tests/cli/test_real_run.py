"""The command line around a real run, as small as one can be: results, skipping, interruption and resumption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import covsim

TINY = """\
version: 1
name: tiny
stop: {rounds: 3}
model: {kind: gpt, layers: 1, width: 8, context: 16}
data: {held_out_sequences: 4}
training: {batch: 1}
protocol: {inner_steps: 2}
timeline: {block: 1 s, blocks_per_window: 20, put_window: 5 s, gather_timeout: 10 s}
peers: 3
cohorts: {honest: {share: rest}}
validators: {lead: {stake: 1}}
selection: {gather: 2, reserve: 0}
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "covsim", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_then_run_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    process = start(tmp_path, "run", "tiny.yaml")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(re.findall(r"^tiny  round", out, re.MULTILINE)) == 3
    [folder] = (tmp_path / "results" / "tiny").iterdir()
    assert (folder / "scenario.yaml").read_text() == TINY
    assert covsim.load(folder / "resolved.yaml") == covsim.load(tmp_path / "tiny.yaml")
    assert sorted(path.suffix for path in (folder / "figures").iterdir()) == [".png"] * 5
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rounds"] == 3

    again = covsim.simulate(covsim.load(tmp_path / "tiny.yaml"), tmp_path / "results")
    assert again.skipped
    assert again.folder == folder
    assert again.summary == summary


def test_an_interrupted_run_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    process = start(tmp_path, "run", "tiny.yaml", "stop.rounds=100")
    assert process.stdout is not None
    assert "round   1/100" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    match = re.search(r"interrupted; go on with: covsim (run --resume \S+)\n$", err)
    assert match, err
    assert "Traceback" not in err

    resumed = start(tmp_path, *match[1].split())
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert "round 100/100" in out
    [folder] = (tmp_path / "results" / "tiny").iterdir()
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 100
