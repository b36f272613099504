"""Whole runs of what a user brings: a module, tokens, tasks and probes, by the command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import covsim, covsim_run
from safetensors.numpy import load_file

from covsim import cli_run
from covsim.events import Event, Submitted
from covsim.protocol.exchange import Exchange
from covsim.randomness import Streams
from covsim.record.runner import Interrupted, resume, run
from covsim.record.tape import records
from covsim.scenario import ScenarioError, load

SCENARIO = """
version: 1
name: mine
stop: {rounds: 4}
model: {kind: module, path: 'my_model.py:build', context: 16, options: {vocabulary: 300, width: 8}}
data: {path: tokens.npy, held_out_sequences: 8}
training: {batch: 2, inner: {kind: adamw, lr: 0.02, schedule: constant}}
protocol: {kind: composed, inner_steps: 3, compressor: {kind: topk, k: 16}, fragments: {kind: layers, num: 2}}
deployment: {preset: same, inner_step: 1 s, evaluation: 0.1 s}
timeline: {block: 1 s, blocks_per_window: 30, put_window: 10 s, gather_timeout: 15 s}
peers: 3
cohorts: {honest: {share: rest}}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 2, own_sequences: 1, random_sequences: 1}
tasks: [{kind: cloze_4, items: 40}, order_4]
probes: {moment: 'my_probe.py:moment'}
"""
MODEL = """
import torch
from torch import nn

class Bag(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + 0.1 * x.cumsum(1).tanh())

def build(vocabulary, width):
    return Bag(vocabulary, width)
"""
PROBE = """
def moment(updates):
    return sum(uid * float((each.index.double() * each.value.double()).sum()) for uid, each in updates.items())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a scenario and all that it brings; no figures are drawn."""
    (tmp_path / "mine.yaml").write_text(SCENARIO)
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "my_probe.py").write_text(PROBE)
    np.save(tmp_path / "tokens.npy", tokens())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_run.figures, "draw_all", lambda folder: None)
    return tmp_path


def tokens() -> np.ndarray[Any, Any]:
    """A text of 20,000 tokens up to 299 that counts up in short runs, so that there is something to learn."""
    luck = np.random.default_rng(1)
    return ((luck.integers(0, 300, 2500)[:, None] + np.arange(8)) % 300).ravel().astype(np.uint16)


def refused(*arguments: str) -> str:
    """The one line with which a run ends."""
    code, out, err = covsim("run", "mine.yaml", "--quiet", *arguments)
    assert (code, out) == (2, ""), err
    *warnings, line = err.splitlines()
    assert all("warning: " in warning for warning in warnings), err
    return line


# A module, tokens and tasks -----------------------------------------------------------------------------------------


def test_a_module_on_tokens_of_ones_own(folder: Path) -> None:
    ran = covsim_run()
    summary = json.loads((ran / "summary.json").read_text())
    assert summary["rounds"] == 4
    assert summary["loss.final"] < summary["loss.initial"]
    assert summary["bits_per_byte.final"] is None, "these tokens are no bytes"
    for task in ("cloze_4", "order_4"):
        assert 0 <= summary[f"task.{task}"] <= 1
    theta = load_file(ran / "final.safetensors")
    assert {name: tensor.shape for name, tensor in theta.items()} == {
        "embedding.weight": (300, 8),
        "head.weight": (300, 8),
        "head.bias": (300,),
    }
    scenario = load("mine.yaml")
    shapes = [(1, shape) for shape in scenario.model.shapes.values()]
    assert summary["network.payload_bytes"] == scenario.plan.payload_bytes(shapes)


def test_a_text_is_told_in_bits_per_byte(folder: Path) -> None:
    (folder / "my.txt").write_text("To be, or not to be, that is the question.\n" * 400)
    summary = json.loads((covsim_run("data.path=my.txt") / "summary.json").read_text())
    assert summary["bits_per_byte.final"] == pytest.approx(summary["loss.final"] / np.log(2))


def test_a_check_runs_nothing(folder: Path) -> None:
    for name in ("my_model.py", "my_probe.py"):
        (folder / name).write_text("raise SystemExit('it was run')\n")
    code, out, err = covsim("check", "mine.yaml")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "mine.yaml: ok"
    assert refused() == f"{folder}/my_model.py: fails as it is imported: line 1: SystemExit: it was run"


def test_an_interrupted_run_goes_on_with_all_of_it(folder: Path) -> None:
    scenario = load("mine.yaml")
    whole = run(scenario, SCENARIO, out=folder / "whole").folder

    def press(event: Event) -> None:
        if isinstance(event, Submitted) and event.round == 1 and not pressed:
            pressed.append(os.kill(os.getpid(), signal.SIGINT))

    pressed: list[None] = []
    with pytest.raises(Interrupted) as caught:
        run(scenario, SCENARIO, out=folder / "cut", observers=[press])
    cut = resume(caught.value.folder).folder
    for name in ("rounds.parquet", "peers.parquet", "final.safetensors", "events.jsonl.gz", "tape/tape.bin"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_an_edited_file_is_another_run(folder: Path) -> None:
    runs = {covsim_run().name}
    (folder / "my_probe.py").write_text(PROBE + "# edited\n")
    runs.add(covsim_run().name)
    (folder / "my_model.py").write_text(MODEL + "# edited\n")
    runs.add(covsim_run().name)
    np.save(folder / "tokens.npy", tokens()[1:])
    runs.add(covsim_run().name)
    assert len(runs) == 4


def test_an_edit_after_loading_counts(folder: Path) -> None:
    """A scenario that is kept, as in a notebook: what runs is what the run is filed under."""
    scenario = load("mine.yaml")
    first = run(scenario, SCENARIO, out=folder / "out")
    (folder / "my_model.py").write_text(MODEL.replace("0.1 * x.cumsum", "0.9 * x.cumsum"))
    kept = run(scenario, SCENARIO, out=folder / "out")
    fresh = run(load("mine.yaml"), SCENARIO, out=folder / "again")
    assert kept.summary["loss.initial"] != first.summary["loss.initial"]
    assert (kept.folder.name, kept.summary["digest.learning"]) == (
        fresh.folder.name,
        fresh.summary["digest.learning"],
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.options.vocabulary=299", "has logits for 299"),
        ("model.options.hight=3", "unexpected keyword argument 'hight'"),
        ("protocol.fragments.num=4", "3 layers cannot be dealt over 4 fragments"),
        ("tasks=[{kind: cloze_4, items: 3}]", "needs 4 held-out sequences"),
    ],
)
def test_what_only_a_run_can_find_out_is_one_line(override: str, words: str, folder: Path) -> None:
    assert words in refused(override)


def test_a_module_whose_rows_are_longer_than_positions(folder: Path) -> None:
    """12 bits reach 4096 places of a row; how long rows are is the module's to say."""
    changes = ("model.options.width=5000", "protocol.compressor={kind: topk, k: 16, layout: rows}")
    assert "bits12" in refused(*changes)


def test_a_task_is_asked_once(folder: Path) -> None:
    """Its accuracy is named by its kind alone, so a second one of a kind would take the place of the first."""
    with pytest.raises(ScenarioError) as caught:
        load("mine.yaml", ["tasks=[{kind: cloze_4, items: 8}, cloze_4]"])
    assert "cloze_4" in str(caught.value)


# Probes -------------------------------------------------------------------------------------------------------------


def by_hand(ran: Path) -> list[float]:
    """What the probe `moment` is worth in each round, from the payloads on the run's tape."""
    scenario = load(ran / "resolved.yaml")
    exchange = Exchange(
        scenario.plan,
        tuple(scenario.model.shapes.items()),
        scenario.aggregate,
        total_rounds=scenario.planned_rounds,
        most_tokens=10**9,
        streams=Streams(scenario.seed),
    )
    sums = [0.0] * scenario.planned_rounds
    for kind, label, data in records(ran / "tape" / "tape.bin"):
        if kind == "payload":
            uid, round = (int(part.partition("=")[2]) for part in label.split()[1:])
            decoded = exchange.decode(round, data)
            theta = np.zeros(scenario.model.num_parameters)
            theta[decoded.index.numpy()] = decoded.value.numpy()
            sums[round] += uid * float(np.arange(len(theta)) @ theta)
    return sums


def test_a_probe_is_a_column_of_the_rounds(folder: Path) -> None:
    ran = covsim_run()
    rounds = pd.read_parquet(ran / "rounds.parquet")
    assert rounds["probe.moment"].tolist() == pytest.approx(by_hand(ran), rel=1e-9)
    assert len(set(rounds["probe.moment"])) == 4
    assert rounds["probe.moment"].dtype == np.float64


def test_a_probe_looks_where_losses_are_measured(folder: Path) -> None:
    ran = covsim_run("data.held_out_every=3")
    seen = pd.read_parquet(ran / "rounds.parquet")["probe.moment"]
    assert seen.isna().tolist() == [True, True, False, True]
    assert seen[2] == pytest.approx(by_hand(ran)[2], rel=1e-9)


def test_a_probe_decides_nothing(folder: Path) -> None:
    """With another probe it is another run, and everything else in it is the same."""
    with_probe = json.loads((covsim_run() / "summary.json").read_text())
    without = json.loads((covsim_run("~probes.moment") / "summary.json").read_text())
    same = ("loss.final", "network.bytes_up", "time.simulated_s", "task.cloze_4")
    assert {name: with_probe[name] for name in same} == {name: without[name] for name in same}


def test_a_probe_may_answer_with_nothing_to_say(folder: Path) -> None:
    (folder / "my_probe.py").write_text("def moment(updates):\n    return float('nan')\n")
    assert pd.read_parquet(covsim_run() / "rounds.parquet")["probe.moment"].isna().all()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("None", "must return a number, not NoneType"),
        ("'many'", "must return a number, not str"),
        ("1j", "must return a number, not complex"),
        ("next(iter(updates.values())).value[:2]", "must return a number, not Tensor"),
        ("10**400", "must return a number, not int"),
    ],
)
def test_a_probe_that_gives_no_number(answer: str, words: str, folder: Path) -> None:
    (folder / "my_probe.py").write_text(f"def moment(updates):\n    return {answer}\n")
    assert refused() == f"{folder}/my_probe.py:moment: {words}"


FAILS_LATER = """
calls = []

def moment(updates):
    calls.append(updates)
    if len(calls) == 3:
        return inverse(0)
    return 0

def inverse(x):
    return 1 / x
"""


def test_a_probe_that_fails_leaves_a_run_that_can_be_resumed(folder: Path) -> None:
    (folder / "my_probe.py").write_text(FAILS_LATER)
    failure = f"{folder}/my_probe.py:moment: fails on a round: line 11: ZeroDivisionError: division by zero"
    assert refused() == failure
    (left,) = folder.glob("results/mine/*")
    names = {path.name for path in left.rglob("*") if path.is_file()}
    assert names <= {"scenario.yaml", "resolved.yaml", "tape.bin"}
    assert "an unfinished run lies here; go on with: covsim run --resume" in refused()
    assert resume(left).summary["rounds"] == 4, "the module counts on, and fails no more"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def momentum(updates): ...\n", "my_probe.py: defines no 'moment' (did you mean 'momentum'?)"),
        ("moment = 3\n", "my_probe.py: 'moment' is neither a function nor a class"),
        ("\nimport no_such_package\n", "line 2: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_probe_that_cannot_be_loaded(text: str, line: str, folder: Path) -> None:
    (folder / "my_probe.py").write_text(text)
    assert line in refused()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_probe.py", "'FOLDER/my_probe.py' does not name a function in a Python file, as my_model.py:build does"),
        ("tokens.npy", "'FOLDER/tokens.npy' does not name a function in a Python file, as my_model.py:build does"),
        ("your_probe.py:moment", "there is no file 'your_probe.py'"),
        ("3", "must be text, not 3"),
    ],
)
def test_a_probe_that_is_no_function(path: str, message: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(SCENARIO.replace("'my_probe.py:moment'", path))
    with pytest.raises(ScenarioError) as caught:
        load("mine.yaml")
    assert str(caught.value) == f"mine.yaml:17:18: probes.moment: {message.replace('FOLDER', str(folder))}"
