"""Every registered protocol in whole small runs: no rule is broken, what it sends is charged, and the model learns."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from test_swarm import drawn
from torch import Tensor

from covsim.behaviors import Honest
from covsim.digest import Digest
from covsim.events import (
    Evaluated,
    Event,
    Gathered,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    RunStopped,
    Submitted,
    Trained,
    Transferred,
)
from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import run_inner_steps
from covsim.learning.inner_optimizers import OptimizerState
from covsim.nodes.seam import Computed
from covsim.protocol import Protocol, protocols
from covsim.protocol.composed import Composed
from covsim.randomness import Streams
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, loads
from covsim.scenario.catalog import REGISTRIES
from covsim.scenario.deployment import num_parameters
from covsim.scenario.resolve import resolved_text
from covsim.scenario.sections import Cohort
from covsim.simulation import Simulation

KINDS = sorted(protocols)


@dataclass(frozen=True)
class Played:
    """A scenario, and what happened in it."""

    scenario: Scenario
    events: list[Event]
    digest: Digest

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def under(tiny: Scenario, kind: str, **settings: Any) -> Scenario:
    """The tiny scenario under another protocol, on links twice as wide for the bytes that this one sends.

    So everybody but the late lands in every round, although fragments are up to twice as long as their mean.
    """
    part = protocols[kind]
    steps = {"inner_steps": 3} if "inner_steps" in part.model_fields else {}
    scenario = tiny.model_copy(update={"protocol": part(**(steps | settings))})
    if scenario.plan.stays_home:
        alone = Cohort(share="rest", behavior=Honest())
        return scenario.model_copy(update={"peers": 1, "cohorts": {"honest": alone}})
    factor = 2 * scenario.payload_bytes / tiny.payload_bytes
    cohorts = {name: widened(cohort, factor) for name, cohort in tiny.cohorts.items()}
    validators = {
        name: node.model_copy(update={"downlink": node.downlink * factor}) for name, node in tiny.validators.items()
    }
    return scenario.model_copy(update={"cohorts": cohorts, "validators": validators})


def widened(cohort: Cohort, factor: float) -> Cohort:
    """The cohort with its links so many times as fast."""
    links = {}
    for name in ("uplink", "downlink"):
        link = getattr(cohort, name)
        rate = "median" if link.kind == "lognormal" else "value"
        links[name] = link.model_copy(update={rate: float(round(factor * getattr(link, rate)))})
    return cohort.model_copy(update=links)


@pytest.fixture(scope="module")
def run_of(tiny: Scenario, play: Any) -> Callable[[str], Played]:
    """What a protocol makes of the tiny scenario, all checkers on; played once."""
    known: dict[str, Played] = {}

    def run(kind: str) -> Played:
        if kind not in known:
            scenario = under(tiny, kind)
            checkers = all_checkers(put_window_s=scenario.timeline.put_window)
            known[kind] = Played(scenario, *play(scenario, [checker.observe for checker in checkers]))
        return known[kind]

    return run


# Every protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_rule_is_broken_and_everybody_steps(kind: str, run_of: Any) -> None:
    played = run_of(kind)
    (stopped,) = played.of(RunStopped)
    assert (stopped.reason, stopped.rounds) == ("rounds", 4)
    behavior = {event.uid: event.behavior for event in played.of(NodeJoined)}
    assert all(event.on_time is (behavior[event.uid] != "late") for event in played.of(Submitted))
    assert not [event for event in played.of(Evaluated) if event.status == "invalid"]
    stepped: dict[str, list[int]] = {event.node: [] for event in played.of(NodeJoined)}
    for event in played.of(OuterStepTaken):
        stepped[event.node].append(event.round)
    assert stepped == {node: [0, 1, 2, 3] for node in stepped}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_from_its_resolved_text(kind: str, run_of: Any, play: Any) -> None:
    played = run_of(kind)
    written = loads(resolved_text(played.scenario))
    assert written == played.scenario
    again = play(written)[1]
    assert (again.clock, again.learning) == (played.digest.clock, played.digest.learning)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_is_charged_by_formula(kind: str, run_of: Any) -> None:
    """A regular payload is charged the deployment's, also by whoever reads it; fragments, as the mean of a cycle."""
    played = run_of(kind)
    plan, scenario = played.scenario.plan, played.scenario
    cycle = getattr(plan.fragments, "num", 1)
    charged: dict[int, set[float]] = defaultdict(set)
    lengths: dict[int, set[int]] = defaultdict(set)
    for event in played.of(Submitted):
        charged[event.round].add(event.num_bytes)
        lengths[event.round].add(event.model_bytes)
    assert all(len(sizes) == 1 for sizes in (*charged.values(), *lengths.values())), "those of a round are alike"
    in_turn = [min(charged[round]) for round in range(cycle)]
    assert sum(in_turn) / cycle == pytest.approx(scenario.payload_bytes, rel=1e-12)
    read = [event for event in played.of(Transferred) if event.direction == "down" and event.complete]
    assert read
    for event in read:
        assert event.num_bytes in charged[int(event.key.partition("/")[0].removeprefix("round-"))]
    if not plan.stays_home:
        written = [min(lengths[round]) for round in range(cycle)]
        of_the_model = plan.payload_bytes((1, shape) for shape in scenario.model.shapes.values())
        assert sum(written) / cycle == pytest.approx(of_the_model, rel=1e-12)


BYTES_PER_PARAMETER = {
    "async_diloco": 4.0,
    "centralized": 0.0,
    "composed": 64 / 4096 * (2 + 12) / 8,
    "data_parallel": 2.0,
    "demo": 32 / 4096 * (4 + 8),
    "diloco": 4.0,
    "local_sgd": 4.0,
    "sparseloco": 64 / 4096 * (2 + 12) / 8,
    "sparta": 0.005 * 4,
    "streaming_diloco": 0.5 / 3,
}
"""Values times their bits, positions included; the rest is headers, and vectors that are too short to compress."""


@pytest.mark.parametrize("kind", BYTES_PER_PARAMETER)
def test_bytes_by_hand(kind: str, tiny: Scenario) -> None:
    scenario = under(tiny, kind)
    by_hand = BYTES_PER_PARAMETER[kind] * num_parameters(scenario.charged_tensors)
    assert scenario.payload_bytes == pytest.approx(by_hand, rel=0.003)


def test_null_is_a_default_or_nothing() -> None:
    """What is null is left out of a resolved scenario, so no field may have another default and take null as well."""
    parts = [part for registry in REGISTRIES.values() for _, part in registry.items()]
    for model in (*parts, Scenario, *_sections(Scenario)):
        for name, field in model.model_fields.items():
            takes_null = type(None) in get_args(field.annotation)
            assert not takes_null or field.default is None, f"{model.__name__}.{name}"


def _sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The models of all fields of a model, at any depth."""
    below = {
        kind
        for field in model.model_fields.values()
        for kind in (field.annotation, *get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }
    return below.union(*map(_sections, below))


# Learning -----------------------------------------------------------------------------------------------------------

COURSE = """
version: 1
name: course
seed: 5
stop: {rounds: 12}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 4, inner: {kind: adamw, lr: 0.01, schedule: constant}}
protocol: {kind: sparseloco, inner_steps: 3}
deployment: {preset: same, inner_step: 10 s, evaluation: 1 s}
timeline: {blocks_per_window: 10, put_window: 20 s, gather_timeout: 30 s}
peers: 3
cohorts: {honest: {share: rest}}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 1, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 16, held_out_every: 4}
"""
FAST = {"schedule": {"kind": "constant"}}
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "async_diloco": (12, {"buffer": 3}),
    "data_parallel": (36, {"outer": {"kind": "adam", "lr": 0.01, **FAST}}),
    "demo": (36, {"outer": {"kind": "sign_sgd", "lr": 0.01, **FAST}}),
    "sparta": (36, {"inner_steps": 1, "share": 0.2}),
    "streaming_diloco": (12, {"overlap_steps": 1}),
}
"""Rounds and settings under which 36 steps are enough to see something."""


def course(kind: str) -> Scenario:
    rounds, settings = SETTINGS.get(kind, (12, {}))
    steps = {"inner_steps": 3} if "inner_steps" in protocols[kind].model_fields else {}
    scenario = loads(COURSE)
    changes = {
        "protocol": protocols[kind].model_validate(steps | settings),
        "stop": scenario.stop.model_copy(update={"rounds": rounds}),
    }
    if scenario.model_copy(update=changes).plan.stays_home:
        changes["peers"] = 1
    return scenario.model_copy(update=changes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_protocol_learns(kind: str, play: Any) -> None:
    """Guessing costs ln 256 = 5.55 nats; 36 steps go a long way to what single letters tell."""
    events, _ = play(course(kind))
    losses = [event.loss for event in events if isinstance(event, HeldOutMeasured)]
    assert losses[0] == pytest.approx(math.log(256), abs=0.05)
    assert losses[-1] < losses[0] - 1, "it did not learn"


def test_the_defaults_of_composed_are_sparselocos(tiny: Scenario, play: Any) -> None:
    first, other = play(under(tiny, "sparseloco"))[1], play(under(tiny, "composed"))[1]
    assert (first.clock, first.learning) == (other.clock, other.learning)


def plain_training(scenario: Scenario) -> tuple[Tensor, list[Tensor]]:
    """The inner optimizer alone: theta [N] at the start, and after each of its rounds."""
    streams, model, training = Streams(scenario.seed), scenario.model, scenario.training
    corpus = Corpus(scenario.data, model.context, streams)
    steps, rounds = scenario.plan.inner_steps, scenario.planned_rounds
    theta = model.initial(streams.torch("initial theta"))[None]
    state = OptimizerState.zeros(1, model.num_parameters, theta.device, training.inner.num_moments)
    seen = [theta[0]]
    for round in range(rounds):
        tokens = corpus.batches(Batches("assigned", 0, round), steps, training.batch)[None]
        theta = run_inner_steps(model, training.inner, theta, state, tokens, [round * steps], rounds * steps)
        seen.append(theta[0])
    return seen[0], seen[1:]


def test_centralized_is_plain_training_and_free() -> None:
    """Within rounding: theta - (theta - trained) is `trained` to the last bit only where the two are close."""
    scenario = course("centralized")
    events: list[Event] = []
    simulation = Simulation(scenario, Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    start, trained = plain_training(scenario)
    moved = (trained[-1] - start).abs().mean()
    error = (simulation.final_theta - trained[-1]).abs()
    assert error.max() < 1e-6
    assert error.mean() < 1e-6 * moved
    assert {event.steps for event in events if isinstance(event, Trained)} == {3}
    assert {event.num_bytes for event in events if isinstance(event, Submitted | Transferred)} == {0.0}


# Parts put together by hand -----------------------------------------------------------------------------------------

MIXES: dict[str, dict[str, Any]] = {
    "random_k in turns, overlapped": {
        "compressor": {"kind": "random_k", "k": 8},
        "values": {"kind": "uniform", "bits": 4, "group": "chunk"},
        "fragments": {"kind": "layers", "num": 2},
        "overlap_steps": 1,
        "mixing": 0.3,
    },
    "threshold, entropy": {"compressor": "threshold", "values": "fp16", "indices": "entropy"},
    "dct of a random share": {
        "compressor": {"kind": "dct", "k": 8},
        "values": {"kind": "sign"},
        "indices": "int64",
        "fragments": {"kind": "random", "share": 0.2},
    },
    "dense in 4 bits, no feedback": {
        "compressor": "dense",
        "values": "fp4",
        "error_feedback": "none",
        "overlap_steps": 0,
        "outer": {"kind": "adam", "lr": 0.01},
    },
    "rows, a byte per value": {
        "compressor": {"kind": "topk", "k": 4, "layout": "rows"},
        "indices": "bits16",
        "packing": "byte_per_value",
        "error_feedback": {"decay": 0.9, "commit": "landed"},
        "outer": {"kind": "nesterov"},
    },
}


@pytest.mark.parametrize("mix", MIXES)
def test_a_protocol_put_together_by_hand(mix: str, play: Any) -> None:
    scenario = loads(COURSE).model_copy(update={"protocol": _composed(MIXES[mix])})
    assert loads(resolved_text(scenario)) == scenario
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, digest = play(scenario, [checker.observe for checker in checkers])
    assert {event.outcome for event in events if isinstance(event, Gathered)} == {"complete"}
    assert {event.status for event in events if isinstance(event, Evaluated)} == {"ok"}
    losses = [event.loss for event in events if isinstance(event, HeldOutMeasured)]
    assert losses[-1] < losses[0] - 0.05
    assert digest.learning == play(scenario)[1].learning


def _composed(settings: dict[str, Any]) -> Composed:
    return Composed.model_validate({"inner_steps": 3, **settings})


def test_an_irregular_payload_is_charged_in_proportion(play: Any) -> None:
    """What a threshold lets through depends on the values; the charge follows the real length."""
    scenario = loads(COURSE).model_copy(update={"protocol": _composed(MIXES["threshold, entropy"])})
    events, _ = play(scenario)
    submitted = [event for event in events if isinstance(event, Submitted)]
    assert len({event.model_bytes for event in submitted}) > 3
    regular = scenario.plan.payload_bytes((1, shape) for shape in scenario.model.shapes.values())
    for event in submitted:
        assert event.num_bytes == pytest.approx(event.model_bytes / regular * scenario.payload_bytes)


# Any protocol in any company ----------------------------------------------------------------------------------------

FEW = range(3)
MANY = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 40)]


def drawn_protocol(luck: random.Random) -> Protocol:
    """A protocol with settings that nobody would choose, but everybody may."""
    kind = luck.choice([kind for kind in KINDS if kind != "centralized"])
    fragments = [{"num": num} for num in (1, 2, 3, 5)]
    feedback = ["none", {"decay": 0.9, "commit": "landed"}, {"decay": 0.9}]
    choices: dict[str, list[Any]] = {
        "inner_steps": [1, 2, 3],
        "buffer": [1, 3, 8],
        "staleness_power": [0, 2],
        "overlap_steps": ["none", 0, 1, 5],
        "mixing": [0, 0.5],
        "error_commit": ["compressed", "landed"],
        "bits": [1, 2, 4, 8],
        "group": ["tensor", "chunk"],
        "indices": ["bits12", "bits16", "int64", "entropy"],
        "packing": ["packed", "byte_per_value"],
        "share": [0.01, 0.3, 1],
        "error_feedback": feedback,
    }
    if kind == "composed":
        choices |= {
            "compressor": ["topk", "random_k", "threshold", "dct", "dense"],
            "values": ["bin_mean", "uniform", "sign", "fp4", "fp16", "fp32"],
            "fragments": ["whole", {"kind": "random", "share": 0.1}, *fragments],
            "outer": [{"kind": "sgd"}, {"kind": "nesterov"}, {"kind": "adam"}, {"kind": "sign_sgd"}],
        }
    elif kind == "streaming_diloco":
        choices["fragments"] = fragments
    settings = {name: luck.choice(values) for name, values in choices.items() if name in protocols[kind].model_fields}
    return protocols[kind].model_validate(settings)


@pytest.mark.parametrize("seed", [*FEW, *MANY])
def test_no_rule_is_broken_by_any_protocol(seed: int, tiny: Scenario, play: Any) -> None:
    """Random links, behaviors and lists as in the swarm, but under any protocol; most payloads are in time."""
    luck = random.Random(seed)
    scenario = drawn(tiny, seed).model_copy(update={"protocol": drawn_protocol(luck)})
    factor = luck.choice([0.3, 1, 1]) * scenario.payload_bytes / tiny.payload_bytes
    cohorts = {name: widened(cohort, factor) for name, cohort in scenario.cohorts.items()}
    scenario = scenario.model_copy(update={"cohorts": cohorts})
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, digest = play(scenario, [checker.observe for checker in checkers])
    assert isinstance(events[-1], RunStopped)
    assert events[-1].rounds == 3, resolved_text(scenario)
    assert not [event for event in events if isinstance(event, Evaluated) and event.status == "invalid"]
    assert digest.learning == play(scenario)[1].learning
