"""Runs without tensors: the clock of a real run, and scores that follow a stated rule."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from scripted import with_scripts

from covsim.behaviors.base import Script
from covsim.digest import Digest
from covsim.events import (
    Evaluated,
    Event,
    Gathered,
    HeldOutMeasured,
    ListPublished,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    Submitted,
    Transferred,
)
from covsim.learning.sketch import Sketch
from covsim.nodes.seam import Computed
from covsim.nodes.synthetic import loss_at
from covsim.record.checkers import all_checkers
from covsim.record.runner import run
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.learning import Synthetic
from covsim.scenario.loading import loads
from covsim.scenario.resolve import resolved_text
from covsim.simulation import Simulation


def played(scenario: Scenario) -> tuple[list[Event], str]:
    """A whole run in memory with all checkers on; its events and its clock digest."""
    events: list[Event] = []
    digest = Digest()
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    watching = (events.append, digest.add, *(checker.observe for checker in checkers))
    simulation = Simulation(scenario, Computed(), watching)
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return events, digest.clock


def changed(scenario: Scenario, *overrides: str) -> Scenario:
    return loads(resolved_text(scenario), "test", list(overrides))


SELECTIONS = {
    "fixed": "selection={kind: fixed, uids: [0, 1, 2, 3, 5]}",
    "random": "selection={kind: random, gather: 4, reserve: 2}",
}


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["protocol={kind: streaming_diloco, inner_steps: 3}"],
        ["cohorts.lazy.behavior={kind: debug_flood}"],
        ["faults=[{kind: truncated_object, from_round: 1, to_round: 3, share: 30 %}]"],
    ],
    ids=["sparse", "fragments", "bytes beside", "truncated"],
)
def test_the_clock_is_that_of_a_real_run(tiny: Scenario, selection: str, more: list[str]) -> None:
    """Copies, late uploads, failing reads and evaluations included. Catches a size or a score that leaks into time."""
    scenario = changed(tiny, SELECTIONS[selection], *more)
    real, real_clock = played(scenario)
    synthetic, synthetic_clock = played(changed(scenario, "learning=synthetic"))
    assert len(real) == len(synthetic)
    assert synthetic_clock == real_clock
    assert sum(isinstance(event, Submitted) for event in real) >= 20


@pytest.mark.slow
def test_the_flagship_has_the_clock_of_its_timing_only_twin() -> None:
    """covenant72b with 20 fixed peers: 72 peers, 30 rounds."""
    uids = list(range(20))
    scenario = load("covenant72b", {"selection": {"kind": "fixed", "uids": uids}})
    assert played(scenario)[1] == played(changed(scenario, "learning=synthetic"))[1]


@pytest.fixture(scope="module")
def quick() -> list[Event]:
    """The events of the quickstart without tensors, twice as long."""
    return played(load("quickstart", ["learning=synthetic", "stop.rounds=24"]))[0]


def test_no_tensor_is_made(monkeypatch: pytest.MonkeyPatch, tiny: Scenario) -> None:
    """Of the size of theta, or of anything else after the start. Catches a peer that still carries parameters."""
    simulation = Simulation(changed(tiny, "learning=synthetic"), Computed())

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a tensor was made")

    for maker in ("zeros", "empty", "stack", "zeros_like", "randn", "from_numpy", "tensor", "cat"):
        monkeypatch.setattr(torch, maker, refuse)
    while not simulation.finished:
        simulation.step()
    simulation.finish()


def test_scores_tell_behaviors_apart(quick: list[Event]) -> None:
    """Flipped signs raise the loss, half the steps improve less, copies overlap. Catches a rule that sees nothing."""
    cohorts = {event.uid: event.cohort for event in quick if isinstance(event, NodeJoined)}
    scores: dict[str, list[float]] = defaultdict(list)
    overlaps: dict[str, float] = defaultdict(float)
    for event in quick:
        if isinstance(event, Evaluated):
            if not math.isnan(event.gradient_score):
                scores[cohorts[event.uid]].append(event.gradient_score)
            if not math.isnan(event.overlap):
                overlaps[cohorts[event.uid]] = max(overlaps[cohorts[event.uid]], event.overlap)
    mean = {cohort: sum(values) / len(values) for cohort, values in scores.items()}
    assert mean["flippers"] < 0 < mean["lazy"] < mean["honest"]
    assert overlaps["copycats"] == pytest.approx(1.0)


def test_the_loss_falls_towards_its_floor(quick: list[Event]) -> None:
    """And flippers are off the list in the end. Catches work that does not enter, and scores that decide nothing."""
    losses = [event.loss for event in quick if isinstance(event, HeldOutMeasured)]
    rule = Synthetic()
    assert losses[0] == rule.start
    assert rule.floor < losses[-1] < losses[len(losses) // 2] < losses[0]
    flippers = {event.uid for event in quick if isinstance(event, NodeJoined) and event.cohort == "flippers"}
    last = [event for event in quick if isinstance(event, ListPublished)][-1]
    assert flippers
    assert last.selected
    assert not flippers & set(last.selected)


def test_the_rule_is_smooth_where_harm_begins() -> None:
    """The tangent at no progress goes on before it. Catches attacks that cost nothing, or a step in the loss."""
    rule, small = Synthetic(), 1e-6
    before, after = loss_at(rule, -small) - rule.start, rule.start - loss_at(rule, small)
    assert before == pytest.approx(after, rel=1e-4)
    assert loss_at(rule, 1e9) == pytest.approx(rule.floor, abs=1e-3)


def test_sketches_are_vectors() -> None:
    """Closed forms of their arithmetic. Catches a cosine or a norm that forgets a part."""
    one, other = Sketch(3.0, {("assigned", 1, 0): 4.0}), Sketch(0.0, {("assigned", 2, 0): 2.0})
    assert one.norm() == 5.0
    assert (one + other).norm() == pytest.approx(math.sqrt(29))
    assert (one - one).norm() == 0.0
    assert one.cosine(-2.0 * one) == pytest.approx(-1.0)
    assert one.likeness(other) == 0.0
    assert one.likeness(0.5 * one) == pytest.approx(1.0)


def test_what_needs_single_coordinates_is_refused(tiny: Scenario) -> None:
    """In one line that says what to do, of a script that does not say so. Catches a run that goes on with nonsense."""
    scenario = with_scripts(changed(tiny, "learning=synthetic"), {"flippers": loudest_only}, rounds=1)
    with pytest.raises(ValueError, match=r"single numbers of an update.*learning: synthetic"):
        played(scenario)


def loudest_only(peer: Any) -> Script:
    """A user's own script, which does not state that it looks at coordinates."""
    update = yield from peer.train(peer.assigned_batches())
    yield from peer.submit(update.map(lambda vector: vector * (vector.abs() > vector.abs().mean())))
    yield from peer.sync()


def test_what_says_that_it_needs_them_is_refused_when_read(tiny: Scenario) -> None:
    """With the cohort and a way out. Catches a check that comes after minutes of a run."""
    with pytest.raises(ScenarioError, match=r"norm_stuffing of cohort flippers .*learning: trained.*sign_flip"):
        changed(tiny, "learning=synthetic", "cohorts.flippers.behavior=norm_stuffing")


def test_the_mean_of_others_is_not(tiny: Scenario) -> None:
    """IPM needs only a mean. Catches a refusal that is too wide."""
    played(changed(tiny, "learning=synthetic", "cohorts.flippers.behavior=ipm"))


def test_tasks_and_probes_are_refused(tiny: Scenario) -> None:
    """They look at theta. Catches answers about a model that does not exist."""
    with pytest.raises(ValueError, match="tasks and probes need learning: trained"):
        Simulation(changed(tiny, "learning=synthetic", "tasks=[cloze_4]"), Computed())


def test_a_folder_says_that_nothing_was_trained(tiny: Scenario, tmp_path: Any) -> None:
    """The summary names the rule and there are no weights. Catches a synthetic loss that passes for a measured one."""
    scenario = changed(tiny, "learning=synthetic")
    done = run(scenario, resolved_text(scenario), tmp_path)
    assert done.summary["learning"] == "synthetic"
    assert not (done.folder / "final.safetensors").exists()
    assert done.summary["loss.final"] > 0


# Bundled transfers ---------------------------------------------------------------------------------------------------

PRIVATE = ["store.read_failure=0", "compute.transfers=bundled"]
"""Nobody waits for another's bytes: nothing fails, and the store has room for all."""


def times(events: list[Event], *kinds: type[Event]) -> dict[tuple[Any, ...], float]:
    """When each event of some kinds happened, by its kind, whose it was, and its round."""
    return {
        (type(event).__name__, getattr(event, "uid", getattr(event, "node", "")), event.round): event.time_s  # type: ignore[attr-defined]
        for event in events
        if isinstance(event, kinds)
    }


def test_bundled_transfers_end_when_single_ones_do(tiny: Scenario) -> None:
    """Late, missing and copied payloads, reserves and aborted gathers included; to a microsecond, and of equal bytes.

    Catches a gather that is too early, a reserve that is not asked, and bytes that nobody is charged.
    """
    single, _ = played(changed(tiny, "learning=synthetic", "store.read_failure=0", "stop.rounds=8"))
    bundled, _ = played(changed(tiny, "learning=synthetic", *PRIVATE, "stop.rounds=8"))
    kinds = (RoundSettled, Submitted, Gathered, OuterStepTaken)
    before, after = times(single, *kinds), times(bundled, *kinds)
    assert before.keys() == after.keys()
    assert max(abs(after[key] - before[key]) for key in before) < 1e-6
    sets = [
        {(event.node, event.round): (event.uids, event.outcome) for event in events if isinstance(event, Gathered)}
        for events in (single, bundled)
    ]
    assert sets[0] == sets[1]
    moved = [sum(event.num_bytes for event in events if isinstance(event, Transferred)) for events in (single, bundled)]
    assert moved[1] == pytest.approx(moved[0], rel=1e-9)
    spans = [[event for event in events if isinstance(event, RoundSettled)] for events in (single, bundled)]
    downloads = [{(event.uid, event.round): event.download_s for event in of_peers} for of_peers in spans]
    assert all(downloads[1][key] == pytest.approx(downloads[0][key], abs=1e-6) for key in downloads[0])
    assert sum(isinstance(event, Transferred) for event in bundled) < 0.6 * sum(
        isinstance(event, Transferred) for event in single
    )


RESERVES = """
version: 1
name: reserves
seed: 1
stop: {rounds: 4}
learning: synthetic
model: {kind: gpt, layers: 1, width: 8, heads: 1, context: 16}
deployment: covenant-72b
timeline: {kind: windowed, block: 12 s, blocks_per_window: 170, put_window: 240 s, gather_timeout: 900 s}
network: {latency: 50 ms}
peers: 12
cohorts:
  honest: {share: rest, uplink: 110 Mb/s, downlink: 5 Gb/s}
  slow: {count: 3, uplink: 20 Mb/s, downlink: 5 Gb/s}
validators: {lead: {stake: 1}}
selection: {kind: random, gather: 6, reserve: 5}
chain: {log: []}
"""
"""A quarter of the peers miss every put window, and links are idle long before it closes."""


def test_a_reserve_is_downloaded_when_it_is_asked() -> None:
    """Not before: its payload lies there, but nobody looks. Catches bytes that come while a link waits for the late."""
    single, bundled = (
        played(loads(RESERVES, overrides=[f"compute.transfers={how}"]))[0] for how in ("single", "bundled")
    )
    assert any(event.reserves for event in single if isinstance(event, Gathered))
    kinds = (RoundSettled, Gathered)
    before, after = times(single, *kinds), times(bundled, *kinds)
    assert max(abs(after[key] - before[key]) for key in before) < 1e-6
    spans = [
        {(event.uid, event.round): event.idle_arrival_s for event in events if isinstance(event, RoundSettled)}
        for events in (single, bundled)
    ]
    assert max(spans[0].values()) > 50
    assert all(spans[1][key] == pytest.approx(spans[0][key], abs=0.2) for key in spans[0]), "but for latencies"


def test_nobody_goes_on_looking_for_what_never_came() -> None:
    """Catches memory that grows by a round's payloads for each one that is missing."""
    scenario = loads(RESERVES, overrides=["compute.transfers=bundled", "stop.rounds=8"])
    simulation = Simulation(scenario, Computed())
    while not simulation.finished:
        simulation.step()
    waited_for = [key for key, event in simulation.commons.store._arrivals.items() if event.callbacks]
    assert {key.partition("/")[0] for key in waited_for} <= {"round-7", "round-8"}


def test_a_bundled_real_run_has_the_same_clock(tiny: Scenario) -> None:
    """As its timing-only twin. Catches bundling that depends on what is bundled."""
    scenario = changed(tiny, SELECTIONS["random"], *PRIVATE)
    assert played(scenario)[1] == played(changed(scenario, "learning=synthetic"))[1]


@pytest.mark.parametrize(
    "shared",
    [
        "store.egress=10 Gb/s",
        "store.read_failure=1 %",
        "protocol={kind: async_diloco, inner_steps: 3}",
        "network.jitter={kind: uniform, most: 1 s}",
    ],
)
def test_shared_bytes_are_not_bundled(tiny: Scenario, shared: str) -> None:
    """One line says what makes peers wait for each other. Catches wrong seconds that nobody notices."""
    base = ["store.read_failure=0", "compute.transfers=bundled", shared]
    with pytest.raises(ScenarioError, match="bundled does not go together with"):
        changed(tiny, "learning=synthetic", *base)
