"""docs/faults.md: its table has every kind, its examples are valid, and the fault that it shows works as printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covsim.events import Event, FaultBegan, FaultEnded, Transferred
from covsim.registry import Registry
from covsim.scenario import Scenario, load, loads, shipped_scenarios
from covsim.scenario.metrics import metrics
from covsim.scenario.registries import REGISTRIES
from covsim.scenario.resolve import resolved_text
from covsim.world.faults import faults as kinds

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_has_every_kind() -> None:
    cuts = PAGE.partition("## What each cuts")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", cuts, re.MULTILINE)) == list(kinds)


def test_every_kind_has_a_scenario() -> None:
    shown = {fault.kind for name in shipped_scenarios() if name.startswith("faults/") for fault in load(name).faults}
    assert shown == set(kinds)


def test_the_keys_are_those_of_the_summary() -> None:
    written = PAGE.partition("## What is written")[2].partition("\n## ")[0]
    families = {name.replace("<fault>", "x") for name in re.findall(r"`([a-z_]+\.[a-z_<>.]+)`", written)}
    families -= {"faults.parquet"}
    known = set(metrics(["honest"], (), ["x"]))
    assert families <= known
    assert "recovery_rounds.x" in families


def test_the_examples_are_valid(tiny: Scenario) -> None:
    (example,) = blocks("yaml")
    example = example.replace("cohort: home", "cohort: honest")
    assert len(loads(resolved_text(tiny).replace("faults: []\n", example)).faults) == 3


@pytest.fixture
def registered() -> Any:
    """Forgets what a test registers."""
    before: list[tuple[Registry[Any], Any]] = [(registry, registry.items()) for registry in REGISTRIES.values()]
    yield
    for registry, parts in before:
        registry.put_back(parts)
    Scenario.model_rebuild(force=True)


@pytest.mark.usefixtures("registered")
def test_the_fault_of_a_reader_works(
    tiny: Scenario, play: Callable[..., tuple[list[Event], Any]], tmp_path: Path
) -> None:
    """An upload that begins 800 s into it goes at half of the link for 100 s less the latency, then at a quarter."""
    (code,) = blocks("python")
    (tmp_path / "brownout.py").write_text(code)
    text = resolved_text(tiny).replace("faults: []", "faults: [{kind: brownout, at: 1600 s, lasts: 3000 s, uids: [1]}]")
    text = text.replace("plugins: []", "plugins: [brownout.py]")
    (tmp_path / "mine.yaml").write_text(text)
    scenario = load(tmp_path / "mine.yaml")
    events, _ = play(scenario)
    assert [type(event) for event in events if isinstance(event, FaultBegan | FaultEnded)] == [FaultBegan, FaultEnded]
    (upload,) = (e for e in events if isinstance(e, Transferred) and (e.key, e.direction) == ("round-1/uid-1", "up"))
    (before,) = (e for e in events if isinstance(e, Transferred) and (e.key, e.direction) == ("round-0/uid-1", "up"))
    whole_s = before.time_s - before.started_s - 0.05
    expected_s = 99.95 + (whole_s - 99.95 / 2) * 4
    assert upload.time_s - upload.started_s - 0.05 == pytest.approx(expected_s)
