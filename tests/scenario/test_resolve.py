"""A scenario as text again, and the identity of a run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from covsim.scenario import clean_twin, load, loads, resolved_text, run_id, shipped_scenarios, with_seed

BASE = Path(__file__).parent / "base.yaml"
RICH = [
    "store={ingress: 12.5 Gb/s, read_failure: 1 %, max_object: 3 GB}",
    "cohorts.lazy.speed={kind: choice, values: [1, 0.5], weights: [3, 1]}",
    "cohorts.flippers.share=12.5 %",
    "stop={tokens: 1000000, simulated: 2.5 h, loss: 2.1}",
    "expect={seeds: 3, claims: [{metric: loss.final, versus: clean, margin: 2 %, xfail: 'not yet: #3'}]}",
    "data.shards={kind: dirichlet, alpha: 0.3}",
    "compute.threads=2",
    "description='two\n\nparagraphs: with # signs'",
]


@pytest.mark.parametrize("overrides", [[], RICH])
def test_the_text_loads_back_to_the_same_scenario(overrides: list[str]) -> None:
    scenario = load(BASE, overrides)
    assert loads(resolved_text(scenario)) == scenario


@pytest.mark.parametrize("name", shipped_scenarios())
def test_every_shipped_scenario_survives(name: str) -> None:
    scenario = load(name)
    text = resolved_text(scenario)
    assert loads(text) == scenario
    assert resolved_text(loads(text)) == text


def test_quantities_keep_their_units() -> None:
    text = resolved_text(load(BASE))
    assert "put_window: 180 s" in text
    assert "median: 110 Mb/s" in text
    assert "burn: 50 %" in text


def test_the_run_id_tells_scenarios_apart() -> None:
    scenario = load(BASE)
    ids = [run_id(each) for each in (scenario, with_seed(scenario, 7), clean_twin(scenario), load(BASE, {"peers": 25}))]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{12}", each) for each in ids)
    assert run_id(load(BASE)) == ids[0]


def test_the_run_id_is_that_of_the_resolved_text() -> None:
    scenario = load(BASE, RICH)
    assert run_id(loads(resolved_text(scenario))) == run_id(scenario)


def test_the_run_id_does_not_depend_on_the_process() -> None:
    code = f"from covsim.scenario import load, run_id; print(run_id(load({str(BASE)!r})))"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == run_id(load(BASE))


def test_the_run_id_follows_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "covsim"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("covsim.scenario.resolve.covsim.__file__", str(package / "__init__.py"))
    scenario = load(BASE)
    before = run_id(scenario)
    (package / "protocol.py").write_text("BETA = 0.95\n")
    changed = run_id(scenario)
    (package / "data").mkdir()
    (package / "data" / "text.xz").write_bytes(b"other")
    assert len({before, changed, run_id(scenario)}) == 3
