"""The presets of the network's earlier phases: what the releases had set, and that each of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from covsim.events import Event, OuterStepTaken
from covsim.scenario import load, loads, resolved_text, shipped_scenarios, warnings
from covsim.scenario.hparams import import_hparams

COLUMNS = (
    "timeline.blocks_per_window",
    "timeline.put_window",
    "protocol.kind",
    "protocol.k",
    "protocol.error_decay",
    "protocol.outer.lr",
    "selection.gather",
    "selection.reserve",
    "selection.refresh_windows",
    "gauntlet.evaluated_per_window",
    "gauntlet.trial_factor",
    "gauntlet.weights.burn",
    "gauntlet.slashing.inactive_windows",
    "deployment.preset",
)
TABLE = {
    "1b-v0.2.88": (8, 10, "demo", 32, 0.999, 4e-4, 15, 0, 5, 4, 0.2, 0, 25, "templar-1b"),
    "8b-v0.3.10": (11, 10, "demo", 32, 0.999, 2e-4, 15, 0, 5, 7, 0.2, 0, 25, "templar-8b"),
    "8b-v1.0.20": (27, 18, "sparseloco", 32, 0.999, 0.9, 20, 10, 5, 10, 0.1, 0.8, 10, "templar-8b"),
    "72b-v2.1.0": (125, 70, "sparseloco", 64, 0.95, 1.0, 20, 10, 5, 15, 0.2, 0.5, 10, "covenant-72b"),
    "72b-v2.1.28": (115, 70, "sparseloco", 64, 0.95, 0.4, 20, 10, 2, 20, 0.2, 0.5, 3, "covenant-72b"),
}
FIXTURES = Path(__file__).parent / "hparams"
SMALL = {
    "peers": 6,
    "stop.rounds": 2,
    "model": {"layers": 1, "width": 16, "heads": 1, "context": 32},
    "training.batch": 1,
    "selection.gather": 4,
    "gauntlet.evaluated_per_window": 3,
    "gauntlet.own_sequences": 1,
    "gauntlet.random_sequences": 1,
    "data.held_out_sequences": 8,
    "cohorts.lazy.count": 1,
    "cohorts.flippers.count": 1,
    "cohorts.copycats.count": 1,
}


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = getattr(value, key)
    return value


SCORING = (
    "gauntlet.evaluated_per_window",
    "gauntlet.active_windows",
    "gauntlet.trial_factor",
    "gauntlet.indicator_threshold",
    "gauntlet.overlap.halve",
    "gauntlet.slashing.inactive_windows",
    "gauntlet.sync.max_behind",
    "gauntlet.weights",
)
"""What both a phase and its file say of the scoring."""


def test_each_phase_ships() -> None:
    shipped = {name.removeprefix("phases/") for name in shipped_scenarios() if name.startswith("phases/")}
    assert shipped == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_phase_is_what_its_release_had_set(name: str) -> None:
    scenario = load(f"phases/{name}")
    assert dict(zip(COLUMNS, (at(scenario, path) for path in COLUMNS), strict=True)) == dict(
        zip(COLUMNS, TABLE[name], strict=True)
    )


def test_values_and_inner_optimizers() -> None:
    scenarios = {name: load(f"phases/{name}") for name in TABLE}
    values = {name: scenario.plan.values.model_dump() for name, scenario in scenarios.items()}
    assert [value["kind"] for value in values.values()] == ["bin_mean"] * 5
    assert [value["bits"] for value in values.values()] == [8, 8, 4, 2, 2]
    assert [scenarios[name].training.inner.kind for name in list(TABLE)[2:]] == ["muon", "adamw", "adamw"]
    assert scenarios["8b-v1.0.20"].training.inner.lr == 1e-2


@pytest.mark.parametrize("name", TABLE)
def test_a_phase_says_what_it_is_not(name: str) -> None:
    scenario = load(f"phases/{name}")
    assert scenario.name == "phases-" + name.replace(".", "-")
    assert "Not modelled yet: " in scenario.description
    assert "Assumed: " in scenario.description
    assert loads(resolved_text(scenario)) == scenario


@pytest.mark.parametrize("name", TABLE)
def test_payloads_can_land_and_steps_fit(name: str) -> None:
    """At the links that phases share nobody is cut off by arithmetic; how rarely one is evaluated or paid was so."""
    slowest = "1 of 72 peers can never do an inner step"  # of 60 s, in a window of 96 s
    expected = ("evaluated over", "overlap check", "only the closing epoch", slowest)
    assert not [line for line in warnings(load(f"phases/{name}")) if not any(part in line for part in expected)]


@pytest.mark.parametrize(
    ("name", "deployed"),
    [("1b-v0.2.88", 28.2e6), ("8b-v0.3.10", 169.7e6), ("8b-v1.0.20", 141.4e6), ("72b-v2.1.28", 2.84e9)],
)
def test_payloads(name: str, deployed: float) -> None:
    """32 positions of 16 bits and 8-bit values, 32 or 64 of 12 bits and a byte, of each 4096 parameters."""
    assert load(f"phases/{name}").payload_bytes == pytest.approx(deployed, rel=0.02)


@pytest.mark.parametrize("name", ["72b-v2.1.0", "72b-v2.1.28", "8b-v1.0.20"])
def test_a_phase_and_its_file_agree(name: str) -> None:
    """The file says nothing of the double outer rate; inner rates are scaled in the phases of 72 B.

    Nor does it say its release, so what a file does not name of the scoring is of the newest preset.
    """
    phase, imported = load(f"phases/{name}"), loads(import_hparams(FIXTURES / f"{name}.json").text)
    assert {path: at(phase, path) for path in SCORING} == {path: at(imported, path) for path in SCORING}
    assert phase.selection == imported.selection
    assert phase.timeline == imported.timeline
    assert phase.plan.compressor == imported.plan.compressor
    assert phase.plan.values == imported.plan.values
    assert phase.payload_bytes == imported.payload_bytes
    assert phase.training.inner.schedule == imported.training.inner.schedule


@pytest.mark.parametrize("name", TABLE)
def test_a_phase_runs_in_small(name: str, play: Any) -> None:
    events: list[Event]
    events, _ = play(load(f"phases/{name}", SMALL))
    assert {event.round for event in events if isinstance(event, OuterStepTaken)} >= {0, 1}
