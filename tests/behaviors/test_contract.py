"""What every registered behavior owes: it plays by the clock, survives YAML, and leaves the others' luck alone."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest

from covsim.behaviors import Behavior, Copycat, behaviors
from covsim.events import Event, NodeJoined, RoundSettled, RoundSkipped, Submitted, Trained
from covsim.nodes.seam import Computed
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, ScenarioError, loads, population
from covsim.scenario.learning import Synthetic
from covsim.scenario.resolve import resolved_text
from covsim.simulation import Simulation

EVERY = [pytest.param(part, id=kind) for kind, part in behaviors.items()]
VARIANTS = [
    *[pytest.param(part(), id=kind) for kind, part in behaviors.items()],
    *[
        pytest.param(part.model_validate({"reads": "observed", "until": 1.0}), id=f"{kind}-observed")
        for kind, part in behaviors.items()
        if "reads" in part.model_fields
    ],
    pytest.param(Copycat(shuffle=0.1), id="copycat-shuffle"),
    pytest.param(Copycat(noise=0.5), id="copycat-noise"),
    pytest.param(Copycat(scale=2.0), id="copycat-scale"),
]


def with_one(scenario: Scenario, behavior: Behavior, num_rounds: int = 3) -> Scenario:
    """The scenario with its lazy peer replaced, so that uids, links and machines stay as they are."""
    lazy = scenario.cohorts["lazy"].model_copy(update={"behavior": behavior})
    rounds = scenario.stop.model_copy(update={"rounds": num_rounds})
    return scenario.model_copy(update={"cohorts": {**scenario.cohorts, "lazy": lazy}, "stop": rounds})


@pytest.mark.parametrize("part", EVERY)
def test_plays_its_rounds_within_window_and_link(part: type[Behavior], tiny: Scenario, play: Any) -> None:
    checkers = all_checkers(put_window_s=tiny.timeline.put_window)
    events, _ = play(with_one(tiny, part()), [checker.observe for checker in checkers])
    (uid,) = [event.uid for event in events if isinstance(event, NodeJoined) and event.cohort == "lazy"]
    done = [event for event in events if isinstance(event, RoundSettled | RoundSkipped) and event.uid == uid]
    assert [event.round for event in done] == [0, 1, 2]


@pytest.mark.parametrize("part", EVERY)
def test_survives_yaml(part: type[Behavior], tiny: Scenario) -> None:
    scenario = with_one(tiny, part())
    assert loads(resolved_text(scenario)) == scenario


@pytest.fixture(scope="module")
def without(tiny: Scenario, play: Any) -> dict[int, Any]:
    """What everybody else does first, when the one peer is lazy."""
    return first_round(play(with_one(tiny, tiny.cohorts["lazy"].behavior, num_rounds=1))[0])


def first_round(events: list[Event]) -> dict[int, Any]:
    """Steps, payload and stamp of each peer's first round, but of the one that is replaced and of who copies others."""
    cohorts = {event.uid: event.cohort for event in events if isinstance(event, NodeJoined)}
    mine = [event for event in events if getattr(event, "round", None) == 0 and isinstance(event, Trained | Submitted)]
    did: dict[int, Any] = {uid: [] for uid, cohort in cohorts.items() if cohort not in ("lazy", "copycats", None)}
    for event in mine:
        if event.uid in did:
            did[event.uid].append(
                event.steps if isinstance(event, Trained) else (event.payload_sha256, event.stored_s, event.num_bytes)
            )
    return did


@pytest.mark.parametrize("part", EVERY)
def test_leaves_the_others_alone(part: type[Behavior], tiny: Scenario, without: dict[int, Any], play: Any) -> None:
    """Nobody else draws another machine, link or text: the first payload is the same to the bit and the second."""
    scenario = with_one(tiny, part(), num_rounds=1)
    for before, after in zip(population(tiny), population(scenario), strict=True):
        assert (before.uid, before.cohort, before.uplink_bits_per_s, before.speed) == (
            after.uid,
            after.cohort,
            after.uplink_bits_per_s,
            after.speed,
        )
    assert first_round(play(scenario)[0]) == without
    assert sum(bool(done) for done in without.values()) >= 8


@pytest.mark.parametrize("part", EVERY)
def test_says_what_it_is(part: type[Behavior]) -> None:
    """It names its source and its knowledge, describes its parameters, and knows neither torch nor simpy."""
    assert part.__doc__
    assert "Source: " in " ".join(part.__doc__.split())
    assert part().knowledge in ("own", "observed", "omniscient")
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")
    source = ast.parse(inspect.getsource(inspect.getmodule(part) or part))
    imported = {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & {"torch", "simpy"}


@pytest.mark.parametrize("behavior", VARIANTS)
def test_plays_without_tensors_or_says_at_load_that_it_cannot(behavior: Behavior, tiny: Scenario) -> None:
    """Catches a script that fails in the middle of a timing-only run, and a refusal of one that would not.

    The scenario that a copy makes has not been checked: what needs coordinates is let through and must fail there.
    """
    synthetic = tiny.model_copy(update={"learning": Synthetic()})
    scenario = with_one(synthetic, behavior)
    if behavior.needs_coordinates:
        with pytest.raises(ScenarioError, match=r"cohorts.lazy.behavior: .* of cohort lazy .*learning: trained"):
            loads(resolved_text(scenario))
        with pytest.raises(ValueError, match="single numbers of an update"):
            _play_untrained(scenario)
    else:
        _play_untrained(loads(resolved_text(scenario)))


def _play_untrained(scenario: Scenario) -> None:
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    simulation = Simulation(scenario, Computed(), [checker.observe for checker in checkers])
    while not simulation.finished:
        simulation.step()
    simulation.finish()
