"""Slow peers in whole runs: what each policy does to time, steps, tokens and stamps, and what unsteady machines do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted import resumed_at

from covsim.digest import Digest
from covsim.events import BatchCut, Event, Gathered, NodeJoined, RoundSettled, RunStopped, Submitted, Trained
from covsim.nodes.pace import Pace
from covsim.nodes.seam import Computed
from covsim.randomness import Streams
from covsim.record.checkers import all_checkers
from covsim.scenario import ScenarioError, loads, warnings
from covsim.simulation import Simulation
from covsim.world.machine import Machine
from covsim.world.slow import FewerSteps
from covsim.world.unsteady import Preemption, Slowdowns, StepNoise, Unsteadiness

ONE_IS_SLOW = """
version: 1
name: slow
seed: 2
stop: {rounds: 3}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 4}
protocol: {kind: sparseloco, inner_steps: 4}
deployment: {preset: same, inner_step: 10 s, evaluation: 0.1 s, tensors: [{count: 1, shape: [64, 64]}]}
timeline: {block: 10 s, blocks_per_window: 6, put_window: 20 s, gather_timeout: 40 s, poll: 1 s}
network: {latency: 0 s}
peers: 4
cohorts:
  usual: {share: rest, uplink: 1 Mb/s, downlink: 10 Mb/s}
  slow: {count: 1, uplink: 1 Mb/s, downlink: 10 Mb/s, speed: 0.4}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 4, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
"""
"""The slow peer's four steps of 25 s take 100 s, a window 60 s."""

STEP_TOKENS = 4 * 32


def of(events: list[Event], kind: type[Any], **wanted: Any) -> list[Any]:
    """The events of a kind with these values."""
    return [
        event
        for event in events
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items())
    ]


def changed(**replaced: str) -> str:
    """The scenario with more said of the slow cohort, or of other keys."""
    text = ONE_IS_SLOW.replace("speed: 0.4}", f"speed: 0.4{replaced.pop('slow', '')}}}")
    for key, value in replaced.items():
        assert key in text
        text = text.replace(key, value)
    return text


def played(play: Any, text: str) -> tuple[list[Event], int]:
    """The checked run, and the uid of its slow peer."""
    scenario = loads(text)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    (joined,) = of(events, NodeJoined, cohort="slow")
    return events, joined.uid


def claims(text: str) -> dict[tuple[int, int], int]:
    """The tokens that each payload claims, by uid and round."""
    simulation, claimed = Simulation(loads(text), Computed()), {}
    exchange = simulation.commons.exchange
    encode = exchange.encode

    def note(round: int, uids: Any, rows: Any, said: Any, *rest: Any) -> Any:
        claimed.update({(uid, round): claim.tokens for uid, claim in zip(uids, said, strict=True)})
        return encode(round, uids, rows, said, *rest)

    exchange.encode = note  # type: ignore[method-assign]
    while not simulation.finished:
        simulation.step()
    return claimed


# The policies -------------------------------------------------------------------------------------------------------


def test_fewer_steps(play: Any) -> None:
    """Two of four steps of 25 s fit into 60 s; it is on time."""
    events, slow = played(play, changed(slow=", when_slow: fewer_steps"))
    first = of(events, Trained, uid=slow)[0]
    assert (first.steps, first.wanted, first.compute_s, first.time_s) == (2, 4, 50.0, 50.0)
    assert all(event.on_time for event in of(events, Submitted, uid=slow))
    assert not of(events, BatchCut)
    assert claims(changed())[slow, 0] == 2 * STEP_TOKENS


def test_a_smaller_batch(play: Any) -> None:
    """Half a batch makes steps of 12.5 s, of which four fit; it claims what it trained on, in every later round too."""
    text = changed(slow=", when_slow: smaller_batch")
    events, slow = played(play, text)
    first = of(events, Trained, uid=slow)[0]
    assert (first.steps, first.compute_s, first.time_s) == (4, 50.0, 50.0)
    cuts = of(events, BatchCut)
    assert {event.uid for event in cuts} == {slow}
    assert [(event.steps, event.batch, event.whole) for event in cuts] == [(4, 2, 4)] * 3
    assert all(event.on_time for event in of(events, Submitted, uid=slow))
    claimed = claims(text)
    assert [claimed[slow, round] for round in range(3)] == [4 * STEP_TOKENS // 2] * 3
    assert all(tokens == 4 * STEP_TOKENS for (uid, _), tokens in claimed.items() if uid != slow)


def test_a_batch_that_cannot_shrink_enough_costs_steps(play: Any) -> None:
    """With a floor of 80 % a step takes 20 s on any batch up to three: three of four fit."""
    events, slow = played(play, changed(slow=", when_slow: {kind: smaller_batch, floor: 80 %}"))
    first = of(events, BatchCut)[0]
    assert (first.steps, first.batch, first.whole) == (3, 3, 4)
    assert of(events, Trained, uid=slow)[0].compute_s == pytest.approx(60)


def test_late(play: Any) -> None:
    """All four steps until 100 s; the put window of round 0 closed at 80 s. Nobody has its payload."""
    events, slow = played(play, changed(slow=", when_slow: late"))
    first = of(events, Trained, uid=slow)[0]
    assert (first.round, first.steps, first.compute_s, first.time_s) == (0, 4, 100.0, 100.0)
    submitted = of(events, Submitted, uid=slow, round=0)[0]
    assert submitted.stored_s == pytest.approx(100 + submitted.num_bytes * 8 / 1e6)
    assert not submitted.on_time
    others = [event for event in of(events, Gathered, round=0) if event.node != f"peer:{slow}"]
    assert others
    assert all(slow not in event.uids and slow in event.missing for event in others)
    assert claims(changed(slow=", when_slow: late"))[slow, 0] == 4 * STEP_TOKENS


def test_the_policies_of_a_peer_that_is_fast_enough_are_one(play: Any) -> None:
    texts = [changed(**{"speed: 0.4": f"when_slow: {kind}"}) for kind in ("fewer_steps", "smaller_batch", "late")]
    digests = {(digest.clock, digest.learning) for _, digest in (play(loads(text)) for text in texts)}
    assert len(digests) == 1


def test_tokens_that_a_smaller_batch_lacks_do_not_end_a_run() -> None:
    """Three peers with 512 tokens a round and one with 256: 1792 a round, so 3500 are reached in the second."""
    text = changed(slow=", when_slow: smaller_batch", **{"stop: {rounds: 3}": "stop: {tokens: 3500}"})
    events: list[Event] = []
    simulation = Simulation(loads(text), Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    trained = of(events, Trained)
    assert sum(event.steps * STEP_TOKENS for event in trained) - len(of(events, BatchCut)) * 2 * STEP_TOKENS >= 3500
    assert {event.round for event in trained} == {0, 1}
    assert len(trained) == 8


# Machines that are unsteady -----------------------------------------------------------------------------------------


def test_noise_is_of_its_own_stream_and_of_one_round(play: Any) -> None:
    noise = ", step_noise: {sigma: 0.3}"
    events, slow = played(play, changed(slow=noise))
    usual, _ = played(play, changed())
    factors = []
    for event in of(events, Trained, uid=slow):
        factors.append(StepNoise(sigma=0.3).factor(Streams(2), slow, event.round))
        assert event.compute_s == pytest.approx(event.steps * 25.0 * factors[-1])
    assert len(set(factors)) == 3
    others = {0, 1, 2, 3} - {slow}
    for uid in others:  # nobody else's steps move
        assert [e.compute_s for e in of(events, Trained, uid=uid)] == [e.compute_s for e in of(usual, Trained, uid=uid)]


def test_slow_downs_cost_steps_in_their_rounds_only(play: Any) -> None:
    text = changed(slow=", slowdowns: {rate: 50 %, factor: 2, lasts: 1}")
    events, slow = played(play, text.replace("rounds: 3", "rounds: 6"))
    slowdowns = Slowdowns.model_validate({"rate": "50 %", "factor": 2})
    expected = [25.0 * (2 if slowdowns.is_slow(Streams(2), slow, round) else 1) for round in range(6)]
    trained = of(events, Trained, uid=slow)
    assert len(set(expected)) == 2
    assert [event.compute_s / event.steps for event in trained] == expected
    assert [event.steps for event in trained] == [int(50 / step_s) if step_s > 25 else 2 for step_s in expected]


@pytest.mark.parametrize("policy", ["fewer_steps", "smaller_batch", "late"])
def test_what_is_preempted_is_idle_and_no_work_is_lost(policy: str, play: Any) -> None:
    """Compute of a round is steps times seconds, its absence beside it; who is cut ends before its window does."""
    text = changed(slow=f", when_slow: {policy}, preemption: {{every: 40 s, lasts: 15 s}}")
    events, slow = played(play, text.replace("rounds: 3", "rounds: 8"))
    settled = {event.round: event for event in of(events, RoundSettled, uid=slow)}
    away_s = [event.idle_preempted_s for event in settled.values()]
    assert sum(second > 0 for second in away_s) >= 3
    cuts = {event.round: event.batch / 4 for event in of(events, BatchCut)}
    for trained in of(events, Trained, uid=slow):
        assert trained.compute_s == pytest.approx(trained.steps * 25.0 * cuts.get(trained.round, 1.0))
        if trained.round in settled:
            assert settled[trained.round].compute_s == pytest.approx(trained.compute_s)
        if policy != "late":
            assert trained.time_s <= 60 * (trained.round + 1) + 1e-6
    assert not any(event.idle_preempted_s for event in of(events, RoundSettled) if event.uid != slow)


def test_who_takes_on_no_step_waits_for_no_machine() -> None:
    """Would catch a peer that sits out a whole preemption, windows long, to do nothing."""
    streams = Streams(1)
    unsteady = Unsteadiness(preemption=Preemption(every="1 min", lasts="1 h"))
    pace = Pace(Machine(40.0), FewerSteps(), unsteady, streams, 0, batch=1)
    gone_s = next(float(second) for second in range(10_000) if pace.away_s(second, second + 60) == pytest.approx(60))
    assert pace.lasts_s(gone_s, 40.0) > 100
    assert pace.lasts_s(gone_s, 0.0) == 0


def test_preemption_under_a_barrier_stretches_the_window(play: Any) -> None:
    """Everybody waits for the slow one: 100 s of work, and the time for which its machine was gone."""
    barrier = "timeline: {kind: barrier, block: 10 s, put_window: 20 s, gather_timeout: 40 s, poll: 1 s}"
    windowed = next(line for line in ONE_IS_SLOW.splitlines() if line.startswith("timeline"))
    text = changed(slow=", preemption: {every: 40 s, lasts: 15 s}", **{windowed: barrier})
    events, slow = played(play, text)
    trained, settled = (of(events, kind, uid=slow) for kind in (Trained, RoundSettled))
    assert [event.steps for event in trained] == [4, 4, 4]
    assert settled[0].idle_preempted_s > 0
    assert trained[0].time_s == pytest.approx(100 + settled[0].idle_preempted_s)


# Making and reading payloads ----------------------------------------------------------------------------------------


def test_compression_and_decoding_are_work(play: Any) -> None:
    """2 s to make a payload, 0.5 s for each of four gathered; on the machine of speed 0.4 2.5 times as long.

    The slow peer trains for 50 s of 60 and compresses for 5 s, before the window opens; its next round begins after the
    gather and 5 s of decoding.
    """
    text = changed(**{"evaluation: 0.1 s": "evaluation: 0.1 s, compression: 2 s, decoding: 0.5 s"})
    events, slow = played(play, text)
    usual = next(uid for uid in range(4) if uid != slow)
    for uid, pace in ((slow, 2.5), (usual, 1.0)):
        settled, gathered = of(events, RoundSettled, uid=uid)[0], of(events, Gathered, node=f"peer:{uid}", round=0)[0]
        trained = of(events, Trained, uid=uid)
        assert len(gathered.uids) == 4
        assert settled.compute_s == pytest.approx(trained[0].compute_s + (2 + 4 * 0.5) * pace)
        assert settled.time_s == pytest.approx(gathered.time_s + 2 * pace)
        assert trained[1].time_s == pytest.approx(settled.time_s + trained[1].compute_s)


def test_compression_that_outlasts_the_window_delays_the_upload(play: Any) -> None:
    text = changed(**{"evaluation: 0.1 s": "evaluation: 0.1 s, compression: 6 s"})
    events, slow = played(play, text)
    submitted = of(events, Submitted, uid=slow, round=0)[0]
    assert submitted.stored_s == pytest.approx(50 + 6 * 2.5 + submitted.num_bytes * 8 / 1e6)


# What is said before a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slow", "warning"),
    [
        (
            ", speed: 0.1",
            "1 of 4 peers can never do an inner step: it takes 100 s at the median of them, a window is 60 s",
        ),
        (
            ", when_slow: {kind: smaller_batch, floor: 80 %}",
            "1 of 4 peers cannot do all inner steps on any batch: 4 steps of at least 20 s at the median of them, and "
            "the exchange, do not fit into a window of 60 s",
        ),
        (
            ", when_slow: late",
            "1 of 4 peers are late in every round: 4 inner steps take 100 s at the median of them, window and put "
            "window 80 s",
        ),
    ],
)
def test_what_can_never_fit_is_warned_of(slow: str, warning: str) -> None:
    text = changed(slow=slow)
    text = text.replace("speed: 0.4, speed: 0.1", "speed: 0.1")
    assert warning in warnings(loads(text))


@pytest.mark.parametrize("slow", ["", ", when_slow: smaller_batch"])
def test_who_is_merely_slow_is_not(slow: str) -> None:
    assert not [line for line in warnings(loads(changed(slow=slow))) if "inner step" in line]


@pytest.mark.parametrize(
    ("slow", "timeline", "complaint"),
    [
        (", when_slow: smaller_batch", "{kind: barrier}", "when its window closes, which decides on the batch"),
        (", when_slow: slower", "{kind: windowed}", "no policy for slow peers is called 'slower'"),
        (", preemption: {every: 1 h}", "{kind: windowed}", "slow.preemption.lasts: is missing"),
    ],
)
def test_what_makes_no_sense_is_refused(slow: str, timeline: str, complaint: str) -> None:
    windowed = next(line for line in ONE_IS_SLOW.splitlines() if line.startswith("timeline"))
    with pytest.raises(ScenarioError, match=complaint):
        loads(changed(slow=slow, **{windowed: f"timeline: {timeline}"}))


ALL_OF_IT = changed(
    slow=", when_slow: smaller_batch, step_noise: {sigma: 0.2}, slowdowns: {rate: 20 %, factor: 2}, "
    "preemption: {every: 2 min, lasts: 10 s}"
)


def test_without_tensors_the_clock_is_the_same(play: Any) -> None:
    """What machines do is no matter of learning."""
    digest = Digest()
    simulation = Simulation(loads(ALL_OF_IT + "learning: {kind: synthetic}"), Computed(), (digest.add,))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    assert digest.clock == play(loads(ALL_OF_IT))[1].clock


def test_a_run_with_all_of_it_is_the_same_twice(play: Any) -> None:
    text = ALL_OF_IT
    (first, one), (_, other) = play(loads(text)), play(loads(text))
    assert (one.clock, one.learning) == (other.clock, other.learning)
    assert isinstance(first[-1], RunStopped)


def test_it_goes_on_from_its_tape_to_the_same_bits(play: Any, tmp_path: Path) -> None:
    """What befalls a machine follows from its streams, so nothing of it needs to be kept."""
    scenario = loads(ALL_OF_IT)
    simulation = Simulation(scenario, Computed())
    while not simulation.finished:
        simulation.step()
    _, digest = play(scenario)
    cuts = range(simulation.num_steps // 9, simulation.num_steps, simulation.num_steps // 9)
    found = [after for step in cuts if (after := resumed_at(scenario, tmp_path / f"tape-{step}", step)) is not None]
    assert len(found) >= 3
    assert set(found) == {(digest.clock, digest.learning)}


def test_a_smaller_batch_is_refused_where_nobody_is_cut() -> None:
    """An asynchronous protocol lets all steps end. Catches a policy that is read and has no effect."""
    protocol = next(line for line in ONE_IS_SLOW.splitlines() if line.startswith("protocol"))
    asynchronous = {protocol: "protocol: {kind: async_diloco, inner_steps: 4}"}
    loads(changed(slow=", when_slow: late", **asynchronous))
    with pytest.raises(ScenarioError, match=r"cohorts.slow.when_slow: async_diloco cuts nobody when a window closes"):
        loads(changed(slow=", when_slow: smaller_batch", **asynchronous))
