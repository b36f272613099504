"""Exchanges that overlap with compute: their time in closed form, and their numbers against a few lines of torch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from test_protocol_runs import under
from torch import Tensor

from covsim.events import (
    Event,
    Gathered,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RunStopped,
    Submitted,
    Trained,
)
from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import run_inner_steps
from covsim.learning.inner_optimizers import OptimizerState
from covsim.nodes.seam import Computed
from covsim.protocol import protocols
from covsim.randomness import Streams
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, ScenarioError, loads, warnings
from covsim.scenario.sections import Stop
from covsim.simulation import Simulation

BY_HAND = """
version: 1
name: overlap
seed: 2
stop: {rounds: 4}
model: {kind: gpt, layers: 2, width: 16, heads: 1, context: 32}
training: {batch: 1, inner: {kind: adamw, lr: 0.01, schedule: constant}}
protocol: {kind: streaming_diloco, inner_steps: 4, fragments: {num: 1}}
aggregate: {over: all, clip: none}
deployment: {preset: same, inner_step: 10 s, evaluation: 1 s, tensors: [{count: 1, shape: [64, 64]}]}
timeline: {block: 10 s, blocks_per_window: 20, put_window: 60 s, gather_timeout: 100 s, poll: 1 s}
network: {latency: 0 s}
peers: 2
cohorts: {honest: {share: rest, uplink: 1 kb/s, downlink: 2 kb/s}}
validators: {lead: {stake: 1, downlink: 1 Gb/s}}
selection: all
gauntlet: {evaluated_per_window: 1, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
"""
H, STEP_S, WINDOW_S = 4, 10.0, 200.0


def streaming(**settings: Any) -> Scenario:
    """Two equal peers that exchange 2 kB, all of theta unless `settings` say otherwise."""
    scenario = loads(BY_HAND)
    protocol = protocols["streaming_diloco"].model_validate({"inner_steps": H, "fragments": {"num": 1}, **settings})
    return scenario.model_copy(update={"protocol": protocol})


def short(**settings: Any) -> Scenario:
    """The same with payloads of a few hundred bytes, so that 32 bits a value are on time."""
    scenario = streaming(values="fp32", **settings)
    (tensor,) = scenario.deployment.tensors
    small = scenario.deployment.model_copy(update={"tensors": [tensor.model_copy(update={"shape": [8, 8]})]})
    return scenario.model_copy(update={"deployment": small})


def exchange_s(scenario: Scenario) -> tuple[float, float]:
    """Seconds of an upload, and of the gather of the other one's payload."""
    bits = 8 * scenario.payload_bytes
    return bits / 1e3, bits / 2e3


def of(events: list[Event], kind: type[Any], **wanted: Any) -> list[Any]:
    """The events of a kind with these values."""
    return [
        event
        for event in events
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items())
    ]


# Time ---------------------------------------------------------------------------------------------------------------


def test_the_exchange_of_the_example_is_longer_than_two_steps_and_shorter_than_three() -> None:
    up_s, down_s = exchange_s(streaming())
    assert 2 * STEP_S < up_s + down_s < 3 * STEP_S


@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 4, 100])
def test_a_round_takes_what_is_longer_and_then_the_rest(overlap: int, play: Any) -> None:
    """max(o s, U + G) + (n - o) s from the window's opening: the exchange of the round before ends where they meet."""
    scenario = streaming(overlap_steps=overlap)
    up_s, down_s = exchange_s(scenario)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    o = min(overlap, H)
    for uid in (0, 1):
        for trained in of(events, Trained, uid=uid):
            opened_s = trained.round * WINDOW_S
            first = trained.round == 0
            met_s = opened_s if first else opened_s + max(o * STEP_S, up_s + down_s)
            assert trained.steps == H
            assert trained.time_s == pytest.approx(met_s + (H if first else H - o) * STEP_S)
            if not first:
                (step,) = of(events, OuterStepTaken, node=f"peer:{uid}", round=trained.round - 1)
                assert step.time_s == pytest.approx(met_s)
        for submitted in of(events, Submitted, uid=uid):
            assert submitted.stored_s == pytest.approx((submitted.round + 1) * WINDOW_S + up_s)


def test_without_overlap_a_peer_waits_for_all_of_it(play: Any) -> None:
    """As every protocol that waits: upload and gather are booked to the round that they belong to."""
    scenario = streaming(overlap_steps="none")
    up_s, down_s = exchange_s(scenario)
    events, _ = play(scenario)
    for trained in of(events, Trained, uid=0):
        waited_s = up_s + down_s if trained.round else 0.0
        assert trained.time_s == pytest.approx(trained.round * WINDOW_S + waited_s + H * STEP_S)
    for settled in of(events, RoundSettled, uid=0):
        assert (settled.upload_s, settled.download_s) == (pytest.approx(up_s), pytest.approx(down_s))


@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 100])
def test_only_waiting_is_booked(overlap: int, play: Any) -> None:
    """What overlaps with compute costs nothing; what a peer waits for is communication, in whichever round it waits."""
    scenario = streaming(overlap_steps=overlap)
    up_s, down_s = exchange_s(scenario)
    events, _ = play(scenario)
    last = scenario.stop.rounds - 1
    waited_s = max(0.0, up_s + down_s - min(overlap, H) * STEP_S)
    for settled in of(events, RoundSettled, uid=0):
        assert settled.compute_s == pytest.approx(H * STEP_S)
        assert (settled.upload_s, settled.download_s) == (0, 0)
        if settled.round < last:
            assert settled.idle_exchange_s == pytest.approx(waited_s if settled.round else 0.0, abs=1e-6)


@pytest.mark.parametrize("overlap", [0, 2])
def test_the_last_round_waits_for_its_own_exchange(overlap: int, play: Any) -> None:
    """The wait until the window opens is idle, as it is under a protocol without overlap; what follows is not."""
    scenario = streaming(overlap_steps=overlap)
    up_s, down_s = exchange_s(scenario)
    events, _ = play(scenario)
    (settled,) = of(events, RoundSettled, uid=0, round=3)
    waited_s = max(0.0, up_s + down_s - overlap * STEP_S)
    assert settled.time_s == pytest.approx(4 * WINDOW_S + up_s + down_s)
    assert settled.idle_exchange_s == pytest.approx(waited_s + up_s + down_s)


@pytest.mark.parametrize("overlap", ["none", 0, 2])
def test_a_round_begins_where_the_one_before_ended(overlap: int | str, play: Any) -> None:
    """No span of a peer's time is in no round: `time.compute_share` divides by their sum."""
    events, _ = play(streaming(overlap_steps=overlap))
    for uid in (0, 1):
        settled = of(events, RoundSettled, uid=uid)
        assert settled[0].started_s == 0
        for before, after in itertools.pairwise(settled):
            assert after.started_s == before.time_s


def test_the_last_exchange_is_finished(play: Any) -> None:
    for overlap in (0, 2, 100):
        events, _ = play(streaming(overlap_steps=overlap))
        last = {event.node: event for event in of(events, OuterStepTaken)}
        assert {(event.round, event.lineage) for event in last.values()} == {(3, last["validator:lead"].lineage)}
        assert set(last) == {"peer:0", "peer:1", "validator:lead"}
        assert of(events, RunStopped)[0].rounds == 4


def test_an_exchange_that_is_longer_than_a_window(play: Any) -> None:
    """Nobody's payload is on time, peers skip what they cannot play, and the run ends all the same."""
    scenario = streaming(overlap_steps=1)
    (honest,) = scenario.cohorts.values()
    slow = honest.model_copy(update={"uplink": honest.uplink.model_copy(update={"value": 50.0})})
    scenario = scenario.model_copy(update={"cohorts": {"honest": slow}})
    assert exchange_s(scenario)[0] * 1e3 / 50 > WINDOW_S
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    assert of(events, RunStopped)[0].rounds == 4
    assert not any(event.on_time for event in of(events, Submitted))
    assert {event.outcome for event in of(events, Gathered)} == {"empty"}


@pytest.mark.parametrize(("overlap", "fit"), [("none", False), (0, False), (2, True), (4, True)])
def test_a_check_knows_what_overlaps(overlap: int | str, fit: bool, play: Any) -> None:
    """In 60 s there is room for four steps of 10 s beside an exchange of 26 s only where the two overlap."""
    scenario = streaming(overlap_steps=overlap)
    tight = scenario.timeline.model_copy(update={"blocks_per_window": 6, "put_window": 30.0})
    scenario = scenario.model_copy(update={"timeline": tight})
    events, _ = play(scenario)
    assert all(event.steps == H for event in of(events, Trained)) is fit
    assert any("cannot do all inner steps" in line for line in warnings(scenario)) is not fit


# Numbers ------------------------------------------------------------------------------------------------------------


class Reference:
    """Streaming DiLoCo as its algorithm box has it, for peers that all hear each other.

    `own` are the peers' weights [P, N], `theta` [N] is what the outer optimizer has made of the exchanges so far.
    """

    def __init__(self, scenario: Scenario, overlap: int, alpha: float, lr: float, momentum: float) -> None:
        self.scenario, self.overlap, self.alpha, self.lr, self.momentum = scenario, overlap, alpha, lr, momentum
        streams, model = Streams(scenario.seed), scenario.model
        self.corpus = Corpus(scenario.data, model.context, streams)
        self.theta = model.initial(streams.torch("initial theta"))
        self.velocity = torch.zeros_like(self.theta)
        self.own = self.theta.repeat(scenario.peers, 1)
        N = model.num_parameters
        self.states = [
            OptimizerState.zeros(1, N, self.theta.device, scenario.training.inner.num_moments) for _ in self.own
        ]

    def run(self, fragments: list[Tensor]) -> None:
        """All rounds; `fragments` [n] each take turns."""
        sent = None
        for round in range(self.scenario.planned_rounds):
            done = 0
            if sent is not None:
                done = self.overlap
                self.train(round, 0, done)
                self.exchange(sent, fragments[(round - 1) % len(fragments)])
            self.train(round, done, self.scenario.plan.inner_steps)
            sent = self.theta - self.own
        assert sent is not None
        self.exchange(sent, fragments[(self.scenario.planned_rounds - 1) % len(fragments)])

    def train(self, round: int, first: int, last: int) -> None:
        """Inner steps `first` to `last` of a round, of every peer."""
        scenario, H = self.scenario, self.scenario.plan.inner_steps
        for uid, own in enumerate(self.own.unbind()):
            tokens = self.corpus.batches(Batches("assigned", uid, round), H, scenario.training.batch)[first:last]
            self.own[uid] = run_inner_steps(
                scenario.model,
                scenario.training.inner,
                own[None],
                self.states[uid],
                tokens[None],
                [round * H + first],
                scenario.planned_rounds * H,
            )[0]

    def exchange(self, sent: Tensor, where: Tensor) -> None:
        """The outer step of one fragment, and its merging with everybody's own weights."""
        mean = sum(sent[:, where].unbind()) / len(sent)
        velocity = self.momentum * self.velocity[where] + mean
        self.velocity[where] = velocity
        self.theta = self.theta.clone()
        self.theta[where] -= self.lr * (mean + self.momentum * velocity)
        self.own[:, where] = self.alpha * self.own[:, where] + (1 - self.alpha) * self.theta[where]


def played_out(scenario: Scenario) -> Simulation:
    simulation = Simulation(scenario, Computed())
    while not simulation.finished:
        simulation.step()
    return simulation


@pytest.mark.parametrize("overlap", [0, 1, 4])
def test_against_the_algorithm_box(overlap: int) -> None:
    """Two fragments in turns, half of the own weights kept; the exchange meets theta of the round that it is of."""
    scenario = short(
        fragments={"num": 2},
        overlap_steps=overlap,
        mixing=0.5,
        outer={"kind": "nesterov", "lr": 0.4, "momentum": 0.9},
    ).model_copy(update={"peers": 3})
    places = torch.arange(scenario.model.num_parameters).split(
        [torch.Size(shape).numel() for shape in scenario.model.shapes.values()]
    )
    turns: list[list[Tensor]] = [[], []]
    for place, name in zip(places, scenario.model.shapes, strict=True):
        turns[name.startswith(("wpe", "block1.", "ln.bias"))].append(place)  # every second layer
    reference = Reference(scenario, overlap, alpha=0.5, lr=0.4, momentum=0.9)
    start = reference.theta.clone()
    reference.run([torch.cat(turn) for turn in turns])

    simulation = played_out(scenario)
    theta = simulation.final_theta
    moved = (reference.theta - start).abs().max()
    torch.testing.assert_close(theta, reference.theta, rtol=0, atol=float(1e-5 * moved))
    for peer in simulation.peers:
        assert torch.equal(peer.lineage.theta, theta)
        own = peer.body._own.value()
        torch.testing.assert_close(own, reference.own[peer.uid], rtol=0, atol=float(1e-5 * moved))
        assert (own - theta).abs().max() > 0.01 * moved, "own weights are theta"
    first, second, _ = (peer.body._own.value() for peer in simulation.peers)
    assert (first - second).abs().max() > 0.01 * moved, "all peers have the same own weights"


def test_one_fragment_without_overlap_is_diloco(play: Any) -> None:
    """The same events to the last bit, the payloads' too."""
    outer = {"kind": "nesterov", "lr": 0.5, "momentum": 0.8}
    one = short(overlap_steps="none", mixing=0.0, outer=outer)
    other = one.model_copy(update={"protocol": protocols["diloco"].model_validate({"inner_steps": H, "outer": outer})})
    (events, first), (_, second) = play(one), play(other)
    assert len({event.loss for event in of(events, HeldOutMeasured)}) == 5
    assert (first.clock, first.learning) == (second.clock, second.learning)


def test_no_steps_of_overlap_learn_the_same_as_waiting(play: Any) -> None:
    """Only the bookkeeping differs: the exchange is waited for in the round that follows."""
    settings = {"mixing": 0.3, "fragments": {"num": 2}}
    waits, none = (played_out(short(overlap_steps=overlap, **settings)) for overlap in ("none", 0))
    assert waits.lead.lineage.depth == 4
    assert torch.equal(waits.final_theta, none.final_theta)


# Company ------------------------------------------------------------------------------------------------------------


def test_copycats_and_lazy_peers_play_along(tiny: Scenario, play: Any) -> None:
    """Scripts know nothing of overlap: one copies in time and keeps up with everybody's theta, one does its share."""
    scenario = under(tiny, "streaming_diloco", overlap_steps=2)
    scenario = scenario.model_copy(update={"store": scenario.store.model_copy(update={"read_failure": 0.0})})
    events, _ = play(scenario)
    behavior = {event.uid: event.behavior for event in of(events, NodeJoined)}
    (copycat,) = (uid for uid, kind in behavior.items() if kind == "copycat")
    (lazy,) = (uid for uid, kind in behavior.items() if kind == "lazy")
    assert [(event.wanted, event.steps) for event in of(events, Trained, uid=lazy)] == [(1, 1)] * 4
    for round in range(4):
        (copied,) = of(events, Submitted, uid=copycat, round=round)
        originals = [event for event in of(events, Submitted, round=round) if event.uid != copycat]
        (victim,) = (event for event in originals if event.payload_sha256 == copied.payload_sha256)
        assert victim.stored_s < copied.stored_s
        assert copied.on_time
        assert len({event.lineage for event in of(events, OuterStepTaken, round=round)}) == 1
    assert not of(events, Trained, uid=copycat)


# Outer steps that are taken rounds later ------------------------------------------------------------------------------


def delayed(delay: int, **settings: Any) -> Scenario:
    """Two equal peers that exchange all of theta, and step so many rounds later."""
    scenario = short()
    protocol = protocols["diloco"].model_validate({"inner_steps": H, "outer_delay": delay, **settings})
    return scenario.model_copy(update={"protocol": protocol, "stop": Stop(rounds=6)})


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_a_delayed_step_is_taken_so_many_rounds_later(delay: int, play: Any) -> None:
    """The outer step of round r when the steps of round r + n are done; training waits for nothing but its window."""
    scenario = delayed(delay)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    for uid in (0, 1):
        for trained in of(events, Trained, uid=uid):
            assert trained.time_s == pytest.approx(trained.round * WINDOW_S + H * STEP_S)
        steps = of(events, OuterStepTaken, node=f"peer:{uid}")
        assert [step.round for step in steps] == list(range(6))
        for step in steps[: 6 - delay]:
            assert step.time_s == pytest.approx((step.round + delay) * WINDOW_S + H * STEP_S)
        assert all(step.time_s >= 6 * WINDOW_S for step in steps[6 - delay :]), "the rest when the last window opens"
        for settled in of(events, RoundSettled, uid=uid)[:-1]:
            assert settled.download_s == settled.upload_s == settled.idle_exchange_s == 0
    assert len({step.lineage for step in of(events, OuterStepTaken, round=5)}) == 1


def test_a_peer_trains_from_the_theta_of_the_rounds_that_have_come_in(play: Any) -> None:
    """Round 3 of a delay of 2 starts from theta after round 0: the claims of its payload say from how many steps."""
    told: dict[int, int] = {}

    class Overheard(Computed):
        def payload(self, label: str, compute: Any) -> bytes:
            made = super().payload(label, compute)
            words = dict(word.split("=") for word in label.split()[1:])
            told[int(words["round"])] = simulation.exchange.decode(int(words["round"]), made).claims.base
            return made

    simulation = Simulation(delayed(2), Overheard())
    while not simulation.finished:
        simulation.step()
    assert told == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3}


def test_a_delay_costs_learning(play: Any) -> None:
    """Staler starts: with a constant rate the loss after as many rounds is higher, or the delay would not act."""
    losses = {}
    for delay in (0, 4):
        events, _ = play(delayed(delay, outer={"kind": "sgd", "lr": 0.7}))
        losses[delay] = [event.loss for event in of(events, HeldOutMeasured)][-1]
    assert losses[4] > losses[0]


@pytest.mark.parametrize("part", ["overlap_steps: 2", "mixing: 20 %", "fragments: {kind: layers, num: 2}"])
def test_only_whole_exchanges_are_delayed(part: str) -> None:
    with pytest.raises(ScenarioError, match="outer_delay is for exchanges of all of theta"):
        loads(BY_HAND.replace("{kind: streaming_diloco, inner_steps: 4, fragments: {num: 1}}",
                              f"{{kind: composed, outer_delay: 1, {part}}}"))  # fmt: skip
