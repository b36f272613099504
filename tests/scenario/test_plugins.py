"""Parts of a user's own: a run knows them, a check does not look, and what is wrong with them is one line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from command import covsim, covsim_run

from covsim import cli_run
from covsim.behaviors import behaviors
from covsim.events import Event, Submitted
from covsim.protocol import protocols
from covsim.record.runner import Interrupted, resume, run
from covsim.scenario import load, resolved_text, run_id
from covsim.scenario.catalog import catalog
from covsim.scenario.json_schema import json_schema_text
from covsim.scenario.lookup import choice_of
from covsim.scenario.plugins import SECTIONS
from covsim.scenario.registries import REGISTRIES
from covsim.sweep.local import run_all

SCENARIO = """
version: 1
name: mine
stop: {rounds: 3}
model: {kind: gpt, layers: 1, width: 8, context: 16}
training: {batch: 1}
data: {held_out_sequences: 4}
protocol: {kind: first_loco, inner_steps: 2, k: 6}
deployment: {preset: same, inner_step: 1 s, evaluation: 0.1 s}
timeline: {block: 1 s, blocks_per_window: 30, put_window: 10 s, gather_timeout: 15 s}
peers: 3
cohorts: {honest: {share: rest}, shy: {count: 1, behavior: {kind: shy, share: 50 %}}}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 1, own_sequences: 1, random_sequences: 1}
plugins: [my_parts.py]
"""
PARTS = '''
from typing import Literal

import torch
from pydantic import Field

from covsim.behaviors import Behavior, behaviors
from covsim.protocol.chunks import cut
from covsim.protocol.compressors import Compressor, Selection, compressors
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.outer import Sgd
from covsim.protocol.plan import Plan, Protocol, protocols
from covsim.protocol.values import Fp16
from covsim.units import Share


@compressors.register
class FirstK(Compressor):
    """The first k of each chunk, whatever they are."""

    kind: Literal["first_k"] = "first_k"
    k: int = Field(default=4, ge=1, le=4096, description="values of each chunk")

    def cut(self, shape):
        grid = cut(shape)
        return grid.keeping(min(self.k, grid.chunk_size))

    def select(self, chunks, grid, origins):
        return Selection(torch.arange(grid.kept).expand(*chunks.shape[:2], grid.kept))


@protocols.register
class FirstLoCo(Protocol):
    """Exchange what stands first."""

    kind: Literal["first_loco"] = "first_loco"
    inner_steps: int = Field(default=30, ge=1, description="inner steps between two exchanges")
    k: int = Field(default=4, ge=1, description="values of each chunk")

    def plan(self):
        return Plan(
            inner_steps=self.inner_steps,
            compressor=FirstK(k=self.k),
            values=Fp16(),
            outer=Sgd(lr=1.0),
            error_feedback=ErrorFeedback(decay=1.0),
        )


@behaviors.register
class Shy(Behavior):
    """Train a little and say nothing."""

    kind: Literal["shy"] = "shy"
    share: Share = Field(default=1.0, gt=0, le=1, description="part of the inner steps that is done")

    def play_round(self, peer):
        yield from peer.train(peer.assigned_batches(), steps=max(1, round(self.share * peer.inner_steps)))
        yield from peer.sync()
'''


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Takes out again what a test has registered."""
    before = [dict(registry._parts) for registry in REGISTRIES.values()]
    yield
    if before == [registry._parts for registry in REGISTRIES.values()]:
        return
    for registry, parts in zip(REGISTRIES.values(), before, strict=True):
        registry._parts = parts
    for model in [part for registry in REGISTRIES.values() for _, part in registry.items()] + list(SECTIONS):
        model.model_rebuild(force=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a scenario and its plugin; no figures are drawn."""
    (tmp_path / "mine.yaml").write_text(SCENARIO)
    (tmp_path / "my_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_run.figures, "draw_all", lambda folder: None)
    return tmp_path


def refusal(folder: Path, *arguments: str) -> str:
    """The one line with which a run is refused; nothing is written."""
    before = sorted(folder.rglob("*"))
    code, out, err = covsim("run", "mine.yaml", "--quiet", *arguments)
    assert (code, out) == (2, ""), err
    assert sorted(folder.rglob("*")) == before
    (line,) = err.splitlines()
    return line


def test_parts_that_hold_others_are_built_after_them() -> None:
    """Whatever registry a field draws on is listed, and stands before those whose parts have such a field."""
    order = [id(registry) for registry in REGISTRIES.values()]
    holders = [(place, part) for place, each in enumerate(REGISTRIES.values()) for _, part in each.items()]
    holders += [(len(order), section) for section in SECTIONS]
    held = [(place, choice_of(field)) for place, part in holders for field in part.model_fields.values()]
    needed = [(place, order.index(id(choice.registry))) for place, choice in held if choice is not None]
    assert len(needed) > 20
    assert all(earlier < place for place, earlier in needed)


def test_a_protocol_a_compressor_and_a_behavior_of_ones_own(folder: Path) -> None:
    ran = covsim_run()
    summary = json.loads((ran / "summary.json").read_text())
    scenario = load(ran / "resolved.yaml")
    chunks = scenario.plan.compressor.cut((64, 64)).num_chunks
    assert (chunks, scenario.plan.compressor.kind) == (1, "first_k")
    submissions = pd.read_parquet(ran / "submissions.parquet")
    assert len(submissions) == 2 * 3, "the shy one has said something"
    shapes = [(1, shape) for shape in scenario.model.shapes.values()]
    assert set(submissions["model_bytes"]) == {scenario.plan.payload_bytes(shapes)}
    assert submissions["on_time"].all()
    peers = pd.read_parquet(ran / "peers.parquet")
    assert peers.groupby("behavior")["steps"].max().to_dict() == {"honest": 2, "shy": 1}
    assert summary["loss.final"] != summary["loss.initial"]


def test_its_parts_stand_inside_others(folder: Path) -> None:
    """A compressor that is registered later is one of those that `composed` takes."""
    composed = "protocol={kind: composed, inner_steps: 2, compressor: {kind: first_k, k: 6}, values: fp16}"
    ran = covsim_run(composed)
    assert load(ran / "resolved.yaml").plan.compressor.kind == "first_k"
    bare = load("mine.yaml", ["protocol={kind: composed, compressor: first_k}", "cohorts.shy.behavior=shy"])
    assert bare.plan.compressor.k == 4


def test_a_check_imports_nothing_and_says_so(folder: Path) -> None:
    (folder / "my_parts.py").write_text("raise SystemExit('it was run')\n")
    code, out, err = covsim("check", "mine.yaml")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert "names plugins" in line
    assert "my_parts.py" in line
    assert "first_loco" not in protocols


def test_the_schema_and_the_list_know_a_part_once_it_is_loaded(folder: Path) -> None:
    before = json_schema_text()
    assert "first_loco" not in before
    load("mine.yaml")
    after = json_schema_text()
    for kind in ("first_loco", "first_k", "shy"):
        assert f'"const": "{kind}"' in after
    assert len(after) > len(before)
    assert catalog("protocols")["first_loco"] == "Exchange what stands first"
    assert catalog("compressors")["first_k"] == "The first k of each chunk, whatever they are"
    assert catalog("behaviors")["shy"] == "Train a little and say nothing"


def test_settings_of_ones_own_are_checked_like_others(folder: Path) -> None:
    load("mine.yaml")
    line = refusal(folder, "cohorts.shy.behavior={kind: shy, shere: 1}")
    assert line.endswith("unknown key 'shere' (did you mean 'share'?)")
    assert refusal(folder, "protocol.k=0").endswith("must be at least 1, not 0")
    assert "no behavior is called 'shyy' (did you mean 'shy'?)" in refusal(folder, "cohorts.shy.behavior=shyy")


def test_it_survives_the_resolved_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load("mine.yaml")
    (folder / "resolved.yaml").write_text(resolved_text(scenario))
    monkeypatch.chdir("/")
    again = load(folder / "resolved.yaml")
    assert again == scenario
    assert run_id(again) == run_id(scenario)


# Edited, moved, interrupted -----------------------------------------------------------------------------------------


def test_an_edited_plugin_is_another_run(folder: Path) -> None:
    first = covsim_run()
    (folder / "my_parts.py").write_text(PARTS.replace("steps=max(1, ", "steps=max(2, "))
    second = covsim_run()
    assert first.name != second.name
    steps = [
        pd.read_parquet(ran / "peers.parquet").groupby("behavior")["steps"].max()["shy"] for ran in (first, second)
    ]
    assert steps == [1, 2], "an edited part was answered with the old one"


def test_an_edit_that_is_taken_back(folder: Path) -> None:
    """In one process, as in a notebook: what was first is in force again, and not only by name."""
    texts = (PARTS, PARTS.replace("Train a little", "Train a lot"), PARTS)
    seen = []
    for text in texts:
        (folder / "my_parts.py").write_text(text)
        scenario = load("mine.yaml")
        behavior = scenario.cohorts["shy"].behavior
        seen.append((run_id(scenario), (type(behavior).__doc__ or "").split(" and")[0]))
    assert [doc for _, doc in seen] == ["Train a little", "Train a lot", "Train a little"]
    assert seen[0] == seen[2]
    assert seen[0][0] != seen[1][0]


def test_an_edit_after_loading_counts(folder: Path) -> None:
    """A scenario that is kept, as in a notebook: what runs is what the run is filed under."""
    scenario = load("mine.yaml")
    run(scenario, SCENARIO, out=folder / "out")
    (folder / "my_parts.py").write_text(PARTS.replace("Sgd(lr=1.0)", "Sgd(lr=0.1)"))
    kept = run(scenario, SCENARIO, out=folder / "out")
    fresh = run(load("mine.yaml"), SCENARIO, out=folder / "again")
    assert (kept.folder.name, kept.summary["digest.learning"]) == (fresh.folder.name, fresh.summary["digest.learning"])


def test_a_plugin_is_found_from_the_file_that_names_it(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    (below / "deeper.yaml").write_text("extends: ../mine.yaml\nname: deeper\n")
    assert load("below/deeper.yaml").plugins == [str(folder / "my_parts.py")]
    (below / "own.yaml").write_text("extends: quickstart\nname: own\n")
    own = load("below/own.yaml", ["plugins=[my_parts.py]", "protocol=first_loco"])
    assert own.plan.compressor.kind == "first_k"


def test_an_interrupted_run_loads_it_again(folder: Path) -> None:
    scenario = load("mine.yaml")
    whole = run(scenario, SCENARIO, out=folder / "whole").folder

    def press(event: Event) -> None:
        if isinstance(event, Submitted) and event.round == 1 and not pressed:
            pressed.append(os.kill(os.getpid(), signal.SIGINT))

    pressed: list[None] = []
    with pytest.raises(Interrupted) as caught:
        run(scenario, SCENARIO, out=folder / "cut", observers=[press])
    behaviors._parts.pop("shy")
    cut = resume(caught.value.folder).folder
    for name in ("peers.parquet", "final.safetensors", "tape/tape.bin"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_other_processes_load_it_too(folder: Path) -> None:
    (ran,) = run_all([load("mine.yaml")], jobs=1, out=folder / "out", say=lambda line: None)
    assert ran.summary["rounds"] == 3


# What is wrong with one ---------------------------------------------------------------------------------------------


def test_a_name_that_is_taken(folder: Path) -> None:
    (folder / "my_parts.py").write_text(PARTS.replace('"shy"', '"lazy"'))
    line = refusal(folder)
    assert line.startswith("mine.yaml:16:11: plugins.0: ")
    assert "behavior 'lazy' is registered twice: " in line
    assert "covsim/behaviors/lazy.py" in line
    assert f"{folder}/my_parts.py" in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nimport no_such_package\n", "fails as it is imported: line 2: ModuleNotFoundError: No module named"),
        ("def (:\n", "fails as it is imported: line 1: SyntaxError: "),
        ("raise SystemExit(3)\n", "fails as it is imported: line 1: SystemExit: 3"),
        (
            "from covsim.behaviors import behaviors\n@behaviors.register\nclass Nameless: ...\n",
            "fails as it is imported: line 2: AttributeError: ",
        ),
        (
            PARTS.replace('    kind: Literal["shy"] = "shy"\n', '    kind: Literal["shy"]\n'),
            "kind",
        ),
        (PARTS.replace("share: Share", "share: Shar"), "NameError: name 'Shar' is not defined"),
        (
            "from __future__ import annotations\n" + PARTS.replace("share: Share", "share: Shar"),
            "name 'Shar' is not defined",
        ),
    ],
)
def test_a_plugin_that_fails(text: str, words: str, folder: Path) -> None:
    (folder / "my_parts.py").write_text(text)
    line = refusal(folder)
    assert line.startswith(f"mine.yaml:16:11: plugins.0: {folder}/my_parts.py: ")
    assert words in line
    (folder / "my_parts.py").write_text(PARTS)
    assert covsim_run().is_dir(), "a corrected file is still refused"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("plugins=[none.py]", "command line: plugins=[none.py]: plugins.0: there is no file 'none.py'"),
        ("plugins=my_parts.py", "command line: plugins=my_parts.py: must be a list, not 'my_parts.py'"),
        ("plugins=[3]", "command line: plugins=[3]: plugins.0: must be text, not 3"),
    ],
)
def test_a_wrong_list_of_plugins(override: str, line: str, folder: Path) -> None:
    code, out, err = covsim("run", "mine.yaml", override, "protocol=diloco", "cohorts.shy.behavior=lazy")
    assert (code, out) == (2, "")
    assert err.splitlines()[0].startswith(line)


def test_a_name_that_the_wire_cannot_write(folder: Path) -> None:
    """Payloads name their compressor in 16 bytes."""
    (folder / "my_parts.py").write_text(PARTS.replace('"first_k"', '"the_first_k_of_each"'))
    line = refusal(folder)
    assert "'the_first_k_of_each' cannot be written" in line
