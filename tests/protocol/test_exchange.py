"""A plan set to work on a small GPT: what is sent, who reads it, how theta moves, and what a validator tries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covsim.learning.model import Gpt
from covsim.protocol.aggregators import Aggregator, Mean, clipped
from covsim.protocol.base import Claims, Decoded, InvalidPayload
from covsim.protocol.composed import Composed
from covsim.protocol.diloco import AsyncDiLoCo, DiLoCo, LocalSgd, StreamingDiLoCo
from covsim.protocol.every_step import DeMo, Sparta
from covsim.protocol.exchange import Exchange
from covsim.protocol.fragments import Layers
from covsim.protocol.lineage import Lineage, Lineages, root_lineage
from covsim.protocol.outer import Adam, Nesterov, Sgd, SignSgd
from covsim.protocol.plan import Asynchrony, Plan, protocols
from covsim.protocol.sparseloco import SparseLoCo
from covsim.randomness import Streams
from covsim.schedules import Steps

TENSORS = list(Gpt(layers=2, width=16, context=8).shapes.items())
SIZES = [math.prod(shape) for _, shape in TENSORS]
N = sum(SIZES)
MOST_TOKENS = 10**6
AVERAGE = Mean(over="all", clip="none")

PLANS = {kind: part.model_validate({}).plan() for kind, part in protocols.items()} | {
    "adam in turn": Composed.model_validate({"outer": {"kind": "adam"}, "fragments": {"kind": "layers"}}).plan(),
    "dct of a random share": Composed.model_validate({"compressor": "dct", "fragments": {"kind": "random"}}).plan(),
    "random_k": Composed.model_validate({"compressor": "random_k"}).plan(),
    "signs by chunk": SparseLoCo(bits=1, group="chunk").plan(),
}
IN_PARTS = {name: plan for name, plan in PLANS.items() if not plan.fragments.whole}


def exchange_of(plan: Plan, aggregate: Aggregator = AVERAGE, seed: int = 3) -> Exchange:
    """The plan at work on the small model, for a hundred rounds."""
    return Exchange(plan, TENSORS, aggregate, total_rounds=100, most_tokens=MOST_TOKENS, streams=Streams(seed))


def rows(num: int, seed: int = 1) -> Tensor:
    return torch.randn(num, N, generator=torch.Generator().manual_seed(seed)) * 1e-3


def start(plan: Plan, depth: int = 0) -> Lineage:
    """A random theta after some steps, with outer memory that is not all zero."""
    draw = torch.Generator().manual_seed(7)
    theta = torch.randn(N, generator=draw)
    outer = tuple(torch.rand(N, generator=draw) for _ in plan.outer.initial(theta))
    return Lineage("start", depth, theta, outer)


def send(exchange: Exchange, round: int, updates: Tensor, *claims: Claims) -> list[Decoded]:
    """What the payloads of peers 0, 1, ... say to their receivers."""
    said = claims or (Claims(),) * len(updates)
    return [exchange.decode(round, each) for each in exchange.encode(round, range(len(updates)), updates, said)]


def exchanged(plan: Plan, round: int) -> Tensor:
    """True at the coordinates of theta that a round exchanges [N]."""
    index = plan.fragments.fragment(round, TENSORS, Streams(3)).index
    chosen = torch.zeros(N, dtype=torch.bool)
    chosen[slice(None) if index is None else index] = True
    return chosen


def dense(payload: Decoded) -> Tensor:
    """The values of a payload at their places [N]."""
    return torch.zeros(N).index_put((payload.index,), payload.value)


def per_tensor(vector: Tensor) -> tuple[Tensor, ...]:
    return vector.split(SIZES)


@pytest.fixture(params=list(PLANS.values()), ids=list(PLANS))
def plan(request: pytest.FixtureRequest) -> Plan:
    made = request.param
    assert isinstance(made, Plan)
    return made


# Every protocol -----------------------------------------------------------------------------------------------------


def test_a_round_of_every_protocol(plan: Plan) -> None:
    """Encode, decode, step: the right places move, the old theta and memory are left alone."""
    exchange, lineage = exchange_of(plan), start(plan)
    kept = [each.clone() for each in (lineage.theta, *lineage.outer)]
    payloads = send(exchange, 4, rows(3))
    theta, outer = exchange.outer_step(lineage, payloads, 4)
    assert all(torch.equal(now, before) for now, before in zip((lineage.theta, *lineage.outer), kept, strict=True))
    chosen = exchanged(plan, 4)
    for after, before in zip((theta, *outer), kept, strict=True):
        assert after.shape == (N,)
        assert after.dtype == torch.float32
        assert after.isfinite().all()
        assert torch.equal(after[~chosen], before[~chosen])
        assert not torch.equal(after[chosen], before[chosen])
    assert len(outer) == len(lineage.outer)


def test_payloads_have_the_length_of_the_formula(plan: Plan) -> None:
    """In the mean over the fragments, if there are any."""
    exchange, cycle = exchange_of(plan), len(plan.fragments.shapes(TENSORS))
    lengths = [len(payload) for round in range(cycle) for payload in exchange.encode(round, [5], rows(1), [Claims()])]
    assert sum(lengths) / cycle == exchange.regular_bytes


def test_values_lie_where_the_round_exchanges(plan: Plan) -> None:
    exchange = exchange_of(plan)
    for round in (0, 1, 2, 5):
        (payload,) = send(exchange, round, rows(1))
        assert exchanged(plan, round)[payload.index].all()
        assert len(payload.index.unique()) == len(payload.index) == len(payload.value) == payload.tensor_bounds[-1]


def test_a_payload_says_what_its_sender_claims(plan: Plan) -> None:
    claims = [Claims(tokens=500, base=3), Claims(tokens=MOST_TOKENS, base=2**20)]
    for payload, claim in zip(send(exchange_of(plan), 0, rows(2), *claims), claims, strict=True):
        assert (payload.claims.tokens, payload.claims.base) == (claim.tokens, claim.base)


def test_two_sides_need_share_nothing_but_the_plan_and_the_seed(plan: Plan) -> None:
    """A receiver that sees its first payload in round 9."""
    sender, receiver = exchange_of(plan), exchange_of(plan)
    payload = [sender.encode(round, [2], rows(1, seed=round), [Claims()])[0] for round in range(10)][-1]
    here, there = sender.decode(9, payload), receiver.decode(9, payload)
    assert torch.equal(here.index, there.index)
    assert torch.equal(here.value, there.value)


def test_equal_payloads_give_equal_bits(plan: Plan) -> None:
    lineage = start(plan)
    payloads = send(exchange_of(plan), 0, rows(3))
    one, other = (exchange_of(plan).outer_step(lineage, payloads, 0) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(*pair) for pair in zip(one[1], other[1], strict=True))


def test_any_round_can_be_asked_for_however_long_ago(plan: Plan) -> None:
    exchange = exchange_of(plan)
    (payload,) = exchange.encode(0, [1], rows(1), [Claims()])
    expected = exchange.decode(0, payload)
    for round in range(1, 40):
        exchange.encode(round, [2], rows(1), [Claims()])
    assert torch.equal(exchange.decode(0, payload).index, expected.index)


def test_one_uid_cannot_encode_twice_at_once(plan: Plan) -> None:
    with pytest.raises(AssertionError, match="one row per uid"):
        exchange_of(plan).encode(0, [1, 1], rows(2), [Claims()] * 2)


# The outer step -----------------------------------------------------------------------------------------------------


def test_the_step_is_the_outer_optimizers_on_what_the_aggregator_combines() -> None:
    plan = SparseLoCo(outer=Nesterov(lr=0.7)).plan()
    exchange, lineage, payloads = exchange_of(plan, Mean()), start(plan), send(exchange_of(plan), 0, rows(4))
    expected = plan.outer.step(lineage.theta, lineage.outer, Mean().combine(payloads, exchange.layout), 0.7)
    theta, (momentum,) = exchange.outer_step(lineage, payloads, 0)
    assert torch.equal(theta, expected[0])
    assert torch.equal(momentum, expected[1][0])


def test_schedules_run_over_outer_steps_not_rounds() -> None:
    """After two steps the third rate is in force, whatever the round."""
    exchange = exchange_of(DiLoCo(outer=Sgd(lr=0.8, schedule=Steps(at={0: 1.0, 2: 0.25}))).plan())
    assert [exchange.outer_rate(depth) for depth in range(4)] == [0.8, 0.8, 0.2, 0.2]
    (payload,) = send(exchange, 9, rows(1))
    for depth, rate in [(1, 0.8), (2, 0.2)]:
        theta, _ = exchange.outer_step(Lineage("", depth, torch.zeros(N)), [payload], 9)
        torch.testing.assert_close(theta, -rate * rows(1)[0])


def test_clip_norms_are_the_aggregators() -> None:
    plan = SparseLoCo().plan()
    payloads = send(exchange_of(plan), 0, rows(3))
    lineage = start(plan)
    limits = exchange_of(plan, Mean()).clip_norms(lineage, payloads)
    assert limits is not None
    assert len(limits) == 1
    assert torch.equal(limits[0], torch.stack([each.norms for each in payloads]).median(dim=0).values)
    assert exchange_of(plan, AVERAGE).clip_norms(lineage, payloads) is None


def test_the_historical_rate_is_applied_when_accumulating_and_in_the_step() -> None:
    """Its square is in force: 0.25 for a rate of 0.5, and the error buffer holds half of everything."""
    once, twice = (exchange_of(SparseLoCo(outer=Sgd(lr=0.5), outer_rate_twice=each).plan()) for each in (False, True))
    lineage, steps = root_lineage(torch.zeros(N)), {}
    for exchange in (once, twice):
        payloads = [send(exchange, round, rows(2, seed=round)) for round in range(3)][-1]
        steps[exchange] = exchange.outer_step(lineage, payloads, 2)[0]
    assert torch.equal(steps[twice], 0.5 * steps[once])
    assert once.buffers is not None
    assert twice.buffers is not None
    for uid in (0, 1):
        whole, half = once.buffers.buffer(uid), twice.buffers.buffer(uid)
        assert whole is not None
        assert half is not None
        assert torch.equal(half, 0.5 * whole)


def test_the_historical_rate_is_that_of_the_theta_a_peer_started_from() -> None:
    outer = Sgd(lr=1.0, schedule=Steps(at={0: 0.5, 4: 0.25}))
    exchange = exchange_of(replace(DiLoCo(outer=outer).plan(), outer_rate_twice=True))
    updates = rows(2)
    payloads = send(exchange, 4, updates, Claims(base=3), Claims(base=4))
    assert torch.equal(dense(payloads[0]), 0.5 * updates[0])
    assert torch.equal(dense(payloads[1]), 0.25 * updates[1])
    theta, _ = exchange.outer_step(Lineage("", 4, torch.zeros(N)), payloads[1:], 4)
    torch.testing.assert_close(theta, -(0.25**2) * updates[1])


# Fragments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(IN_PARTS))
def test_a_payload_of_another_fragment_is_refused(name: str) -> None:
    exchange = exchange_of(IN_PARTS[name])
    (payload,) = exchange.encode(6, [1], rows(1), [Claims()])
    exchange.decode(6, payload)
    for round in (5, 7, 8):
        with pytest.raises(InvalidPayload):
            exchange.decode(round, payload)


def test_fragments_of_equal_shapes_are_told_apart_by_number() -> None:
    """Both blocks have the same tensors; nothing but the number says which one is meant."""
    tensors = [
        (f"block{layer}.{name}", shape) for layer in (0, 1) for name, shape in [("up", (8, 4)), ("down", (4, 8))]
    ]
    plan = StreamingDiLoCo.model_validate({"fragments": {"num": 2}}).plan()
    exchange = Exchange(plan, tensors, AVERAGE, 100, MOST_TOKENS, Streams(3))
    (payload,) = exchange.encode(0, [1], torch.randn(1, 128), [Claims()])
    assert exchange.decode(2, payload).index.max() == 63
    with pytest.raises(InvalidPayload, match="fragment 0, expected 1"):
        exchange.decode(1, payload)


@pytest.mark.parametrize("poison", ["tokens", "length", "bit", "nothing"])
def test_bad_payloads_are_refused(plan: Plan, poison: str) -> None:
    exchange = exchange_of(plan)
    (payload,) = exchange.encode(0, [1], rows(1), [Claims(tokens=MOST_TOKENS + (poison == "tokens"))])
    flipped = bytes([*payload[:-30], payload[-30] ^ 1, *payload[-29:]])
    given = {"tokens": payload, "length": payload + b"\0", "bit": flipped, "nothing": b""}[poison]
    with pytest.raises(InvalidPayload):
        exchange.decode(0, given)


def test_over_a_cycle_everything_moves_once() -> None:
    """Four rounds of a quarter each, with one and the same update, make the step of a whole exchange."""
    whole = exchange_of(LocalSgd().plan())
    parts = exchange_of(replace(whole.plan, fragments=Layers(num=4)))
    lineage = start(whole.plan)
    expected, _ = whole.outer_step(lineage, send(whole, 0, rows(3)), 0)
    for round in range(4):
        theta, _ = parts.outer_step(lineage, send(parts, round, rows(3)), round)
        lineage = Lineage("", lineage.depth + 1, theta)
    assert torch.equal(lineage.theta, expected)


def test_outer_memory_of_fragments_that_take_turns() -> None:
    """Each fragment's Adam counts its own steps, as if the fragment were a model of its own."""
    outer = Adam(lr=0.01, weight_decay=0.1)
    settings = {
        "compressor": "dense",
        "values": "fp32",
        "error_feedback": "none",
        "fragments": {"kind": "layers", "num": 3},
    }
    exchange = exchange_of(replace(Composed.model_validate(settings).plan(), outer=outer))
    theta = start(exchange.plan).theta
    lineage = root_lineage(theta, outer.initial(theta))
    alone = [nn.Parameter(theta[exchanged(exchange.plan, number)].clone()) for number in range(3)]
    optimizers = [torch.optim.AdamW([part], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1) for part in alone]
    for round in range(8):
        updates = rows(2, seed=round)
        lineage = Lineage("", round + 1, *exchange.outer_step(lineage, send(exchange, round, updates), round))
        alone[round % 3].grad = updates.mean(dim=0)[exchanged(exchange.plan, round)]
        optimizers[round % 3].step()
    for number, part in enumerate(alone):
        found = lineage.theta[exchanged(exchange.plan, number)]
        torch.testing.assert_close(found, part.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mixing", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("fragments", [{"kind": "whole"}, {"kind": "layers"}, {"kind": "random", "share": 0.1}])
def test_own_weights_merge_with_theta(mixing: float, fragments: dict[str, Any]) -> None:
    """mixing own + (1 - mixing) theta where the round exchanges, own weights elsewhere; neither is changed."""
    plan = Composed.model_validate({"fragments": fragments, "mixing": mixing}).plan()
    own, theta = torch.randn(2, N, generator=torch.Generator().manual_seed(1)).unbind()
    before, chosen = (own.clone(), theta.clone()), exchanged(plan, 5)
    merged = exchange_of(plan).merge(own, theta, 5)
    torch.testing.assert_close(merged[chosen], (mixing * own + (1 - mixing) * theta)[chosen], rtol=1e-6, atol=1e-6)
    assert torch.equal(merged[~chosen], own[~chosen])
    assert torch.equal(own, before[0])
    assert torch.equal(theta, before[1])
    if mixing == 0:
        assert torch.equal(merged[chosen], theta[chosen])
    assert torch.equal(exchange_of(plan).merge(theta, theta, 5), theta)


def test_protocols_merge_as_their_papers_say() -> None:
    own, theta = torch.zeros(N), torch.ones(N)
    for plan, share in [(StreamingDiLoCo().plan(), 0.5), (Sparta().plan(), 1.0)]:
        merged = exchange_of(plan).merge(own, theta, 2)
        assert torch.equal(merged, share * exchanged(plan, 2).float())
    for plan in (PLANS[kind] for kind in ("sparseloco", "diloco", "demo", "data_parallel", "centralized")):
        assert torch.equal(exchange_of(plan).merge(own, theta, 2), theta)


# Random positions ---------------------------------------------------------------------------------------------------


def test_random_positions_are_drawn_for_each_peer_and_round() -> None:
    exchange, updates = exchange_of(PLANS["random_k"]), rows(1).expand(2, N)
    payloads = [*send(exchange, 0, updates), *send(exchange, 1, updates)]
    assert len({payload.claims.seed for payload in payloads}) == 4
    assert len({tuple(payload.index.tolist()) for payload in payloads}) == 4
    again = send(exchange_of(PLANS["random_k"]), 0, updates)
    assert [payload.claims.seed for payload in again] == [payload.claims.seed for payload in payloads[:2]]
    other = send(exchange_of(PLANS["random_k"], seed=4), 0, updates)
    assert other[0].claims.seed != again[0].claims.seed


def test_where_nothing_is_drawn_the_seed_is_zero() -> None:
    (payload,) = send(exchange_of(PLANS["sparseloco"]), 0, rows(1), Claims(seed=9))
    assert payload.claims.seed == 0


# Asynchrony ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_the_discount_of_the_stale(power: float) -> None:
    discount = Asynchrony(buffer=1, staleness_power=power).discount
    assert [discount(staleness) for staleness in range(5)] == pytest.approx([(1 + s) ** -power for s in range(5)])
    assert discount(-3) == 1.0


def test_stale_payloads_count_less() -> None:
    """Theta is three steps old; one payload is fresh, one is two and one three steps behind, one claims the future."""
    exchange = exchange_of(AsyncDiLoCo(outer=Sgd(lr=1.0), staleness_power=0.5).plan())
    updates = rows(4)
    payloads = send(exchange, 0, updates, *(Claims(base=base) for base in (3, 1, 0, 99)))
    theta, _ = exchange.outer_step(Lineage("", 3, torch.zeros(N)), payloads, 0)
    weights = torch.tensor([1.0, 3**-0.5, 0.5, 1.0])
    torch.testing.assert_close(theta, -(weights[:, None] * updates).mean(dim=0))


def test_in_step_nobody_is_discounted() -> None:
    exchange = exchange_of(DiLoCo(outer=Sgd(lr=1.0)).plan())
    payloads = send(exchange, 0, rows(1), Claims(base=0))
    assert torch.equal(exchange.outer_step(Lineage("", 9, torch.zeros(N)), payloads, 0)[0], -rows(1)[0])


def test_an_asynchronous_run_by_hand() -> None:
    """A buffer of three: what waits is discounted by the steps taken when the buffer is full."""
    plan = AsyncDiLoCo(buffer=3, outer=Sgd(lr=0.5), staleness_power=1.0).plan()
    exchange = exchange_of(plan)
    assert plan.asynchrony is not None
    histories = Lineages(root_lineage(torch.zeros(N)), exchange.outer_step, plan.asynchrony.buffer)
    lineage, depths, waiting = histories.root, [], []
    arrivals = [([1, 2], 0), ([3], 0), ([4], 0), ([1, 2], 1)]  # uids, outer steps behind the theta they trained from
    for round, (uids, base) in enumerate(arrivals):
        sent = exchange.encode(round, uids, rows(len(uids), seed=round), [Claims(base=base)] * len(uids))
        decoded = [exchange.decode(round, payload) for payload in sent]
        submissions = [(uid, f"{round}-{uid}", each) for uid, each in zip(uids, decoded, strict=True)]
        lineage = histories.child(lineage, submissions, round)
        depths.append(lineage.depth)
        waiting.append(len(lineage.waiting))
    assert (depths, waiting) == ([0, 1, 1, 2], [2, 0, 1, 0])
    first = (rows(2, seed=0).sum(dim=0) + rows(1, seed=1)[0]) / 3
    second = (0.5 * rows(1, seed=2)[0] + rows(2, seed=3).sum(dim=0)) / 3
    torch.testing.assert_close(lineage.theta, -0.5 * (first + second))


# A validator's trial ------------------------------------------------------------------------------------------------


def test_a_trial_step_subtracts_a_share_of_the_outer_step() -> None:
    plan = SparseLoCo(outer=Sgd(lr=0.8, schedule=Steps(at={0: 1.0, 2: 0.5}))).plan()
    exchange, (payload,) = exchange_of(plan), send(exchange_of(plan), 0, rows(1))
    for depth, alpha in [(0, 0.8), (2, 0.4)]:
        lineage = start(plan, depth)
        kept = lineage.theta.clone()
        trial = exchange.trial_theta(lineage, payload, 0, 0.2, None)
        torch.testing.assert_close(trial, lineage.theta - 0.2 * alpha * dense(payload))
        assert torch.equal(lineage.theta, kept)


def test_a_trial_step_is_clipped_to_the_gather() -> None:
    """Tensor by tensor to the median norm, and never scaled up."""
    plan = SparseLoCo(outer=Sgd(lr=1.0)).plan()
    exchange = exchange_of(plan, Mean())
    small, middle, large = send(exchange, 0, rows(3) * torch.tensor([[1.0], [2.0], [10.0]]))
    limits = exchange.clip_norms(root_lineage(torch.zeros(N)), [small, middle, large])
    assert limits is not None
    lineage = root_lineage(torch.zeros(N))
    torch.testing.assert_close(exchange.trial_theta(lineage, small, 0, 1.0, limits), -dense(small))
    trial = exchange.trial_theta(lineage, large, 0, 1.0, limits)
    for moved, sent, limit in zip(per_tensor(trial), per_tensor(dense(large)), limits[0].tolist(), strict=True):
        torch.testing.assert_close(moved, -sent * (limit / sent.norm()), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("outer", [Sgd(lr=0.65), SignSgd(lr=0.01)], ids=repr)
@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if plan.asynchrony is None])
def test_the_trial_of_a_lone_payload_is_its_outer_step(name: str, outer: Sgd | SignSgd) -> None:
    """At a factor of 1, for optimizers without memory, whatever is sent and of whichever part."""
    plan = replace(PLANS[name], outer=outer)
    exchange, lineage = exchange_of(plan), start(plan)
    for round in (0, 1):
        (payload,) = send(exchange, round, rows(1, seed=round))
        stepped, _ = exchange.outer_step(lineage, [payload], round)
        torch.testing.assert_close(exchange.trial_theta(lineage, payload, round, 1.0, None), stepped, rtol=0, atol=2e-7)


def test_the_trial_of_a_stale_payload_is_discounted() -> None:
    exchange = exchange_of(AsyncDiLoCo(outer=Sgd(lr=1.0), staleness_power=1.0).plan())
    fresh, stale = send(exchange, 0, rows(1).expand(2, N), Claims(base=4), Claims(base=1))
    lineage = Lineage("", 4, torch.zeros(N))
    one, quarter = (exchange.trial_theta(lineage, payload, 0, 0.2, None) for payload in (fresh, stale))
    torch.testing.assert_close(quarter, 0.25 * one)


def test_a_trial_clips_a_stale_payload_as_the_outer_step_does() -> None:
    """Two payloads of norm 1, and one of norm 2 that is a step behind and so counts half: nobody is clipped."""
    plan = AsyncDiLoCo(outer=Sgd(lr=1.0), staleness_power=1.0).plan()
    exchange = Exchange(plan, [("w", (3,))], Mean(over="all"), 100, MOST_TOKENS, Streams(3))
    claims = [Claims(base=1), Claims(base=1), Claims(base=0)]
    sent = exchange.encode(0, [0, 1, 2], torch.diag(torch.tensor([1.0, 1.0, 2.0])), claims)
    payloads, lineage = [exchange.decode(0, payload) for payload in sent], Lineage("", 1, torch.zeros(3))
    stepped, _ = exchange.outer_step(lineage, payloads, 0)
    torch.testing.assert_close(stepped, torch.full((3,), -1 / 3))
    limits = exchange.clip_norms(lineage, payloads)
    trials = torch.stack([exchange.trial_theta(lineage, payload, 0, 1.0, limits) for payload in payloads])
    torch.testing.assert_close(trials.mean(dim=0), stepped)


def test_the_trial_of_demo_goes_by_signs() -> None:
    """Every coordinate that the payload touches moves equally far, by the sign of its inverse transform."""
    plan = DeMo(outer=SignSgd(lr=0.01)).plan()
    exchange, lineage = exchange_of(plan, Mean()), start(plan)
    small, large = send(exchange, 0, rows(2) * torch.tensor([[1.0], [10.0]]))
    (undone,) = (exchange_of(replace(plan, outer=Sgd(lr=1.0))).outer_step(lineage, [large], 0)[0],)
    limits = exchange.clip_norms(lineage, [small, large])
    step = exchange.trial_theta(lineage, large, 0, 0.2, limits) - lineage.theta
    clear = (undone - lineage.theta).abs() > 1e-5
    assert clear.sum() > N / 2
    torch.testing.assert_close(step[clear], 0.2 * 0.01 * (undone - lineage.theta).sign()[clear], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", list(IN_PARTS))
def test_a_trial_leaves_other_fragments_alone(name: str) -> None:
    plan = IN_PARTS[name]
    exchange, lineage = exchange_of(plan), start(plan)
    (payload,) = send(exchange, 5, rows(1))
    trial, chosen = exchange.trial_theta(lineage, payload, 5, 1.0, (payload.norms,)), exchanged(plan, 5)
    assert torch.equal(trial[~chosen], lineage.theta[~chosen])
    assert not torch.equal(trial[chosen], lineage.theta[chosen])


def test_the_trial_of_a_payload_that_says_nothing_changes_nothing(plan: Plan) -> None:
    """To the last bit, so that its loss is the same number."""
    exchange, lineage = exchange_of(plan), start(plan)
    (payload,) = send(exchange, 0, torch.zeros(1, N))
    for limits in (None, (payload.norms,)):
        assert torch.equal(exchange.trial_theta(lineage, payload, 0, 0.2, limits), lineage.theta)


def test_a_trial_with_the_norms_of_the_gather_is_the_clip_of_the_aggregator() -> None:
    plan = SparseLoCo(outer=Sgd(lr=1.0)).plan()
    exchange, lineage = exchange_of(plan, Mean()), root_lineage(torch.zeros(N))
    payloads = send(exchange, 0, rows(3) * torch.tensor([[1.0], [2.0], [10.0]]))
    limits = exchange.clip_norms(lineage, payloads)
    assert limits is not None
    combined = Mean(clip="none").combine([clipped(each, *limits) for each in payloads], exchange.layout)
    assert torch.equal(exchange.outer_step(lineage, payloads, 0)[0], -combined)
    trials = torch.stack([exchange.trial_theta(lineage, each, 0, 1.0, limits) for each in payloads])
    senders = torch.stack([dense(each) != 0 for each in payloads]).sum(dim=0).clamp(min=1)
    torch.testing.assert_close(trials.sum(dim=0) / senders, -combined, rtol=1e-5, atol=1e-9)


# What cannot work ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "tensors", "message"),
    [
        ({"fragments": {"kind": "layers", "num": 8}}, TENSORS, "cannot be dealt"),
        ({}, [("w", (2, 3, 4))], "cannot be cut"),
        ({}, [("w", ())], "cannot be cut"),
        ({"compressor": {"kind": "topk", "layout": "rows"}, "indices": "bits12"}, [("w", (4, 5000))], "4096"),
    ],
)
def test_plans_that_cannot_cut_a_model_are_refused(
    settings: dict[str, Any], tensors: Sequence[tuple[str, tuple[int, ...]]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Exchange(Composed.model_validate(settings).plan(), tensors, Mean(), 100, MOST_TOKENS, Streams(1))
