"""The protocols side by side: scenarios that differ by their protocol, on as many tokens and over the same links."""

from __future__ import annotations

from typing import Any

import pytest

from covsim.events import Event, Gathered, OuterStepTaken, RoundSettled, RoundSkipped, RunStopped, Submitted, Trained
from covsim.protocol import protocols
from covsim.protocol.aggregators import Mean
from covsim.protocol.codec import payload_bytes
from covsim.scenario import Scenario, load, loads, population, resolved_text, shipped_scenarios, warnings
from covsim.scenario.deployment import TEMPLAR_1B, num_parameters
from covsim.schedules import Cosine

NAMES = sorted(name.removeprefix("protocols/") for name in shipped_scenarios() if name.startswith("protocols/"))
TOKENS = 20 * 8 * 30 * 4 * 64
WAITING = [name for name in NAMES if name not in ("streaming_diloco", "async_diloco", "centralized")]
"""Those whose peers upload, gather and train one after the other."""

DENSE = Mean(over="all", clip="none")
AGGREGATES = {
    "sparseloco": Mean(over="senders", clip="median_norm"),
    "demo": Mean(over="senders", clip="none"),
}
SEVENTH = "71.43 Mb/s"
"""For a gather of one payload of another to take as long as that of seven at the full rate."""

SMALL: dict[str, Any] = {
    "peers": 2,
    "stop": {"rounds": 3},
    "training.batch": 1,
    "data.held_out_sequences": 4,
    "data.held_out_every": 1,
}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scenario(name: str) -> Scenario:
    return load(f"protocols/{name}")


def upload_s(scenario: Scenario) -> float:
    return scenario.network.latency + scenario.payload_bytes * 8 / 110e6


def gather_s(scenario: Scenario, others: int = 7) -> float:
    return scenario.network.latency + others * scenario.payload_bytes * 8 / 500e6


def test_each_protocol_has_one() -> None:
    ours = {kind for kind, part in protocols.items() if part.__module__.startswith("covsim.")}
    assert set(NAMES) == ours - {"composed"}


def test_a_scenario_is_called_like_its_protocol(name: str, scenario: Scenario) -> None:
    assert scenario.protocol.kind == name
    assert scenario.description.rstrip(".").count(". ") == 0, "one sentence"
    assert "compare" in scenario.description
    assert loads(resolved_text(scenario)) == scenario


def test_tokens_are_equal(name: str, scenario: Scenario) -> None:
    per_round = scenario.peers * scenario.plan.inner_steps * scenario.tokens_per_step
    assert scenario.planned_rounds * per_round == TOKENS == 1_228_800
    assert scenario.stop.tokens == (TOKENS if name == "async_diloco" else None)


def test_all_but_the_protocol_is_equal(name: str, scenario: Scenario) -> None:
    base = load("protocols/sparseloco")
    same = ("seed", "model", "deployment", "network", "store", "validators", "selection", "gauntlet", "record")
    assert {part: getattr(scenario, part) for part in same} == {part: getattr(base, part) for part in same}
    assert scenario.data == base.data.model_copy(update={"held_out_every": 30 // scenario.plan.inner_steps})
    everyone = population(scenario)
    assert {(peer.uplink_bits_per_s, peer.downlink_bits_per_s) for peer in everyone} == {(110e6, 500e6)}
    assert all(peer.behavior.kind == "honest" for peer in everyone)
    assert sorted(peer.speed for peer in everyone) == (
        [1.0] if name == "centralized" else [0.125] * 2 + [1.0] * 6 if name == "async_diloco" else [1.0] * 8
    )


def test_peers_train_alike(name: str, scenario: Scenario) -> None:
    base = load("protocols/sparseloco").training
    assert scenario.training.batch * scenario.peers == 32
    assert scenario.training.inner.kind == ("sgd" if name == "local_sgd" else "adamw")
    assert scenario.training.inner.schedule == base.inner.schedule == Cosine(warmup_steps=60, final_share=0.1)
    if scenario.plan.sends == "gradient":  # the outer optimizer is the only one
        assert scenario.plan.outer.schedule == base.inner.schedule
    assert scenario.aggregate == AGGREGATES.get(name, DENSE)


def test_an_inner_step_takes_what_its_comment_says() -> None:
    operations = 6 * num_parameters(TEMPLAR_1B) * 131_072
    assert load("protocols/sparseloco").inner_step_s == pytest.approx(operations / (0.38 * 3.12e14), rel=1e-2)


def test_nothing_is_warned_of(scenario: Scenario) -> None:
    assert warnings(scenario) == []


def test_windows_are_just_wide_enough(name: str, scenario: Scenario) -> None:
    """By whole seconds; the largest fragment of streaming is larger than the mean, by which its window is measured."""
    train_s = scenario.plan.inner_steps * scenario.inner_step_s
    slack_s = scenario.window_s - upload_s(scenario) - gather_s(scenario, others=min(7, scenario.peers - 1)) - train_s
    assert 0 <= slack_s < 1
    if name != "streaming_diloco":
        assert 0 < scenario.timeline.put_window - upload_s(scenario) <= 1


def largest_fragment_bits(scenario: Scenario) -> float:
    """Of the deployment's payloads, which are charged in proportion to the model's."""
    plan = scenario.plan
    sizes = [
        payload_bytes(((1, shape) for shape in shapes), plan.compressor, plan.values, plan.indices, plan.packing)
        for shapes in plan.fragments.shapes(tuple(scenario.model.shapes.items()))
    ]
    return scenario.payload_bytes * max(sizes) * len(sizes) / sum(sizes) * 8


def test_the_largest_fragment_lands_and_is_exchanged_in_its_window() -> None:
    """While it is, 5 steps are done; the other 5 come after it."""
    scenario = load("protocols/streaming_diloco")
    bits = largest_fragment_bits(scenario)
    assert 0 < scenario.timeline.put_window - (0.05 + bits / 110e6) < 1
    exchange_s = 0.1 + bits / 110e6 + 7 * bits / 500e6
    assert max(exchange_s, 5 * 8) + 5 * 8 < scenario.window_s


# Each runs, in small -----------------------------------------------------------------------------------------------


def small(name: str) -> Scenario:
    """Two peers, or one, for three rounds at the clock of the whole."""
    changes = SMALL | {"peers": 1} if name == "centralized" else SMALL
    if name == "async_diloco":
        changes = changes | {"cohorts.slow.count": 1, "protocol.buffer": 2, "stop": {"rounds": 4}}
    return load(f"protocols/{name}", changes)


def events_of(scenario: Scenario, kind: type[Any], play: Any) -> list[Any]:
    events: list[Event] = play(scenario)[0]
    return [event for event in events if isinstance(event, kind)]


def test_it_runs_and_nobody_is_late(name: str, play: Any) -> None:
    scenario = small(name)
    events: list[Event] = play(scenario)[0]
    last = scenario.planned_rounds - 1  # an asynchronous update that misses the end of a run belongs to its last round
    assert all(event.on_time for event in events if isinstance(event, Submitted) and event.round < last)
    stepped = {event.round for event in events if isinstance(event, OuterStepTaken) and event.node == "validator:lead"}
    assert stepped == set(range(last + 1))
    assert all(event.outcome != "aborted" for event in events if isinstance(event, Gathered))
    [stopped] = [event for event in events if isinstance(event, RunStopped)]
    assert (stopped.rounds, stopped.reason) == (scenario.planned_rounds, "rounds")
    if name != "async_diloco":
        assert all(event.steps == scenario.plan.inner_steps for event in events if isinstance(event, Trained))


@pytest.mark.parametrize("name", WAITING)
def test_a_round_takes_what_its_bytes_and_steps_take(name: str, play: Any) -> None:
    scenario = small(name)
    settled: list[RoundSettled] = events_of(scenario, RoundSettled, play)
    assert len(settled) == 6
    for event in settled:
        assert event.compute_s == pytest.approx(8 * scenario.plan.inner_steps)
        assert event.upload_s == pytest.approx(upload_s(scenario))
        assert event.download_s == pytest.approx(gather_s(scenario, others=1))


def test_streaming_waits_for_its_largest_fragment_alone(play: Any) -> None:
    """Round 0 exchanges it, so round 1 waits for it; the next one is small, and 5 steps hide it."""
    scenario = load("protocols/streaming_diloco", {**SMALL, "cohorts.honest.downlink": SEVENTH})
    settled: list[RoundSettled] = events_of(scenario, RoundSettled, play)
    bits = largest_fragment_bits(scenario)
    waits_s = [event.idle_exchange_s for event in settled if event.round < 2]
    assert waits_s[:2] == [0, 0]
    assert waits_s[2:] == pytest.approx([0.1 + bits / 110e6 + 7 * bits / 500e6 - 5 * 8] * 2, abs=0.01)


def test_async_waits_for_nobody(play: Any) -> None:
    """While the slow one trains, which takes it into the second window, the fast one goes on."""
    events: list[Event] = play(small("async_diloco"))[0]
    slow = next(peer.uid for peer in population(small("async_diloco")) if peer.cohort == "slow")
    skipped = [(event.uid, event.round) for event in events if isinstance(event, RoundSkipped)]
    assert skipped
    assert {uid for uid, _ in skipped} == {slow}
    assert all(event.steps == 30 for event in events if isinstance(event, Trained) and event.uid == slow)
    assert any(event.uid == slow for event in events if isinstance(event, Submitted))


def test_slow_peers_of_synchronous_diloco_do_three_steps(play: Any) -> None:
    """What async_diloco's description compares with."""
    cohort = {"count": 1, "uplink": "110 Mb/s", "downlink": SEVENTH, "speed": 0.125}
    sync = load("protocols/diloco", {**SMALL, "cohorts.honest.downlink": SEVENTH, "cohorts.slow": cohort})
    slow = next(peer.uid for peer in population(sync) if peer.cohort == "slow")
    steps = [event.steps for event in events_of(sync, Trained, play) if event.uid == slow]
    assert steps[1:] == [3, 3]  # the first round has a window for itself
