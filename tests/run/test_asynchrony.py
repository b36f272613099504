"""Nobody waits for the slow: a late update goes where it arrives, counts less, and its peer catches up and pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from covsim.events import (
    Evaluated,
    Event,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RoundSkipped,
    RuleApplied,
    RunStopped,
    Submitted,
    Trained,
    Transferred,
)
from covsim.nodes.seam import Computed
from covsim.protocol import protocols
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, loads, warnings
from covsim.simulation import Simulation

ONE_IS_SLOW = """
version: 1
name: async
seed: 2
stop: {rounds: 7}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 1, inner: {kind: adamw, lr: 0.01, schedule: constant}}
protocol: {kind: async_diloco, inner_steps: 2, buffer: 1}
deployment: {preset: same, inner_step: 10 s, evaluation: 1 s, tensors: [{count: 1, shape: [8, 8]}]}
timeline: {block: 10 s, blocks_per_window: 10, put_window: 30 s, gather_timeout: 60 s, poll: 1 s}
network: {latency: 0 s}
peers: 3
cohorts:
  fast: {share: rest, uplink: 10 kb/s, downlink: 10 kb/s}
  slow: {count: 1, uplink: 10 kb/s, downlink: 10 kb/s, speed: 0.08}
validators: {lead: {stake: 1, downlink: 1 Gb/s}}
selection: all
gauntlet: {evaluated_per_window: 3, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
"""
"""The slow peer's two steps take 250 s, two and a half windows."""


def of(events: list[Event], kind: type[Any], **wanted: Any) -> list[Any]:
    """The events of a kind with these values."""
    return [
        event
        for event in events
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items())
    ]


def without_slow(scenario: Scenario) -> Scenario:
    cohorts = {name: cohort for name, cohort in scenario.cohorts.items() if name != "slow"}
    return scenario.model_copy(update={"peers": scenario.peers - 1, "cohorts": cohorts})


def under(scenario: Scenario, kind: str, **settings: Any) -> Scenario:
    protocol = protocols[kind].model_validate({"inner_steps": 2, **settings})
    return scenario.model_copy(update={"protocol": protocol})


@pytest.fixture(scope="module")
def slow_run(play: Any) -> tuple[list[Event], int]:
    """The run, checked, and the uid of its slow peer."""
    scenario = loads(ONE_IS_SLOW)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    (joined,) = of(events, NodeJoined, cohort="slow")
    return events, joined.uid


# A slow peer --------------------------------------------------------------------------------------------------------


def test_an_update_belongs_to_the_window_in_which_it_is_done(slow_run: tuple[list[Event], int]) -> None:
    """From 0 to 250 s is window 2; the next begins there, after the exchange, and is done in window 5."""
    events, slow = slow_run
    trained = of(events, Trained, uid=slow)
    assert [(event.round, event.steps, event.compute_s) for event in trained[:2]] == [(2, 2, 250.0), (5, 2, 250.0)]
    assert [event.round for event in of(events, RoundSkipped, uid=slow)] == [0, 1, 3, 4]
    submitted = of(events, Submitted, uid=slow)
    assert [event.round for event in submitted[:2]] == [2, 5]
    assert all(event.on_time for event in submitted[:2])
    assert [event.round for event in of(events, RoundSettled, uid=slow)][:2] == [2, 5]
    assert of(events, RunStopped)[0].rounds == 7


def test_nobody_waits_for_it(slow_run: tuple[list[Event], int]) -> None:
    events, slow = slow_run
    for uid in {0, 1, 2} - {slow}:
        assert [event.round for event in of(events, Trained, uid=uid)] == list(range(7))
        assert not of(events, RoundSkipped, uid=uid)


def test_it_claims_the_depth_from_which_it_began() -> None:
    """Others have stepped twice meanwhile; what its payload says is what discounts it."""
    simulation = Simulation(loads(ONE_IS_SLOW), Computed())
    bases: dict[tuple[int, int], int] = {}
    decode = simulation.exchange.decode

    def note(round: int, payload: bytes, **more: Any) -> Any:
        decoded = decode(round, payload, **more)
        (uid,) = (uid for uid in range(3) if _lies_there(simulation, round, uid, payload))
        bases[uid, round] = decoded.claims.base
        assert decoded.claims.tokens == 2 * 32
        return decoded

    simulation.exchange.decode = note  # type: ignore[method-assign]
    while not simulation.finished:
        simulation.step()
    (slow,) = (peer.uid for peer in simulation.peers if peer.body.machine.seconds_per_step > 100)
    assert (bases[slow, 2], bases[slow, 5]) == (0, 3)
    for uid in {0, 1, 2} - {slow}:
        assert [bases[uid, round] for round in range(7)] == list(range(7))


def _lies_there(simulation: Simulation, round: int, uid: int, payload: bytes) -> bool:
    stored = simulation.commons.store.stat(f"round-{round}/uid-{uid}")
    return stored is not None and stored.data == payload


def test_it_catches_up_and_pays_for_it(slow_run: tuple[list[Event], int]) -> None:
    """Before its own exchange it gathers the rounds that passed; afterwards it has everybody's theta."""
    events, slow = slow_run
    steps = of(events, OuterStepTaken, node=f"peer:{slow}")
    assert [event.round for event in steps[:6]] == [0, 1, 2, 3, 4, 5]
    for round in range(6):
        assert len({event.lineage for event in of(events, OuterStepTaken, round=round)}) == 1
    read = of(events, Transferred, node=f"peer:{slow}", purpose="gather", complete=True)
    others = {0, 1, 2} - {slow}
    for round in range(3):
        assert {event.key for event in read[2 * round : 2 * round + 2]} == {
            f"round-{round}/uid-{uid}" for uid in others
        }
    assert all(event.time_s > 300 for event in read)
    (settled,) = of(events, RoundSettled, uid=slow, round=2)
    assert settled.download_s >= sum(event.num_bytes * 8 / 10e3 for event in read[:6]) * (1 - 1e-9)


def test_nobody_is_missing(slow_run: tuple[list[Event], int]) -> None:
    """A round expects nobody in particular, so no rule about absence can act."""
    events, slow = slow_run
    assert {event.status for event in of(events, Evaluated)} == {"ok"}
    assert not of(events, Evaluated, uid=slow, round=0)
    for rule in ("gather_miss", "gather_absence", "gather_quorum", "evaluated_missing"):
        assert not any(event.fired for event in of(events, RuleApplied, rule=rule)), rule


def test_what_it_missed_is_kept_for_it(play: Any) -> None:
    """An upload of 3.3 windows: rounds that it has not gathered yet may not be deleted meanwhile.

    It ends with the run, in the middle of its last upload, and has all that came before that.
    """
    scenario = loads(ONE_IS_SLOW)
    slow = scenario.cohorts["slow"]
    uplink = slow.uplink.model_copy(update={"value": 8 * scenario.payload_bytes / 330})
    speed = slow.speed.model_copy(update={"value": 1.0})
    cohorts = {**scenario.cohorts, "slow": slow.model_copy(update={"uplink": uplink, "speed": speed})}
    scenario = scenario.model_copy(update={"cohorts": cohorts, "stop": scenario.stop.model_copy(update={"rounds": 12})})
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    (joined,) = of(events, NodeJoined, cohort="slow")
    submitted = of(events, Submitted, uid=joined.uid)
    assert submitted
    assert not any(event.on_time for event in submitted)
    steps = of(events, OuterStepTaken, node=joined.node)
    assert [event.round for event in steps] == list(range(len(steps))), "rounds were lost"
    assert len(steps) >= 8
    assert len({event.lineage for event in of(events, OuterStepTaken, round=steps[-1].round)}) == 1


def test_a_check_has_nothing_to_say_of_windows() -> None:
    """Steps are never cut, however slow everybody is."""
    scenario = loads(ONE_IS_SLOW)
    slow = {
        name: cohort.model_copy(update={"speed": scenario.cohorts["slow"].speed})
        for name, cohort in scenario.cohorts.items()
    }
    assert not [line for line in warnings(scenario.model_copy(update={"cohorts": slow})) if "inner steps" in line]


# The buffer ---------------------------------------------------------------------------------------------------------


def depths(scenario: Scenario) -> list[int]:
    """Outer steps behind the lead validator's theta after each of its rounds."""
    seen: dict[int, int] = {}

    def look(event: Event) -> None:
        if isinstance(event, OuterStepTaken) and event.node == "validator:lead":
            seen[event.round] = simulation.lead.lineage.depth

    simulation = Simulation(scenario, Computed(), (look,))
    while not simulation.finished:
        simulation.step()
    return [seen[round] for round in sorted(seen)]


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7]),
        (2, [1, 2, 3, 4, 5, 6, 7]),
        (3, [0, 1, 2, 2, 3, 4, 4]),  # 2, then 4: a step; 3 at once: a step; 2; 4: a step; 3: a step; 2
        (5, [0, 0, 1, 1, 1, 2, 2]),
        (100, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_buffer_holds_the_step_until_it_is_full(buffer: int, expected: list[int]) -> None:
    """Two payloads arrive in a round, and a third one in rounds 2 and 5; a step takes all that wait."""
    assert depths(under(loads(ONE_IS_SLOW), "async_diloco", buffer=buffer)) == expected


def test_theta_stands_still_while_the_buffer_fills(play: Any) -> None:
    events, _ = play(under(loads(ONE_IS_SLOW), "async_diloco", buffer=5))
    losses = {event.round: event.loss for event in of(events, HeldOutMeasured, node="validator:lead")}
    assert losses[-1] == losses[0] == losses[1] > losses[2] == losses[3] == losses[4] > losses[5]


def test_a_stale_update_counts_less(play: Any) -> None:
    """With a power of 0 it counts fully, so the runs agree until the stale one enters, in round 2."""
    fully, less = (
        play(under(loads(ONE_IS_SLOW), "async_diloco", buffer=1, staleness_power=power))[0] for power in (0.0, 2.0)
    )
    losses = [
        [event.loss for event in of(events, HeldOutMeasured, node="validator:lead") if event.round < 3]
        for events in (fully, less)
    ]
    assert losses[0][:3] == losses[1][:3]
    assert losses[0][3] != losses[1][3]


def test_equal_fast_peers_and_a_full_buffer_are_diloco(play: Any) -> None:
    """To the last bit, time and payloads included."""
    equal = without_slow(loads(ONE_IS_SLOW))
    buffered = play(under(equal, "async_diloco", buffer=2, staleness_power=0.0))[1]
    plain = play(under(equal, "diloco"))[1]
    assert (buffered.clock, buffered.learning) == (plain.clock, plain.learning)


def test_the_order_of_arrival_in_the_buffer_is_everybodys() -> None:
    """Who catches up applies the same payloads in the same groups: all that end together have one theta."""
    simulation = Simulation(under(loads(ONE_IS_SLOW), "async_diloco", buffer=3), Computed())
    while not simulation.finished:
        simulation.step()
    nodes = [*simulation.peers, *simulation.validators]
    assert {node.lineage.key for node in nodes} == {simulation.lead.lineage.key}
    assert all(torch.equal(node.lineage.theta, simulation.final_theta) for node in nodes)
    assert {node.lineage.depth for node in nodes} == {4}
