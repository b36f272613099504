"""The command line around a real run, as small as one can be: results, skipping, interruption and resumption."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
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


PROGRAM = """
import os, signal
from covsim import cli_progress
from covsim.cli import main

show = cli_progress.Lines.observe

def show_and_interrupt(self, event):
    show(self, event)
    if self._status.round == 2 and not sent:
        sent.append(os.kill(os.getpid(), signal.SIGINT))

sent = []
cli_progress.Lines.observe = show_and_interrupt
main()
"""
"""`covsim`, to which somebody presses Ctrl-C as it shows its second round."""


def start(folder: Path, *arguments: str, program: Sequence[str] = ("-m", "covsim")) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-u", *program, *arguments],
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
    process = start(tmp_path, "run", "tiny.yaml", "stop.rounds=6", program=("-c", PROGRAM))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert len(out.splitlines()) == 2
    match = re.search(r"interrupted; go on with: covsim (run --resume \S+)\n$", err)
    assert match, err
    assert "Traceback" not in err

    resumed = start(tmp_path, *match[1].split())
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert "round   6/6" in out
    [folder] = (tmp_path / "results" / "tiny").iterdir()
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 6
