"""Every registered protocol keeps to the contract, and those with a well-known equal are held against it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import fft
from torch import Tensor, nn

from covsim.learning.model import Gpt
from covsim.protocol.aggregators import Aggregator, Mean
from covsim.protocol.base import Claims
from covsim.protocol.composed import Composed
from covsim.protocol.compressors import Dct, Dense, TopK
from covsim.protocol.diloco import AsyncDiLoCo, DiLoCo, LocalSgd, StreamingDiLoCo
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.every_step import Centralized, DataParallel, DeMo, Sparta
from covsim.protocol.exchange import Exchange
from covsim.protocol.fragments import Layers, NamedShapes, RandomShare, Whole
from covsim.protocol.lineage import Lineage, root_lineage
from covsim.protocol.outer import Adam, Nesterov, Sgd, SignSgd
from covsim.protocol.plan import Asynchrony, Plan, Protocol, protocols
from covsim.protocol.sparseloco import SparseLoCo
from covsim.protocol.values import BinMean, Fp4, Fp16, Fp32
from covsim.randomness import Streams
from covsim.schedules import Constant

GPT = Gpt(layers=2, width=16, context=8)
TENSORS: NamedShapes = list(GPT.shapes.items())
AVERAGE = Mean(over="all", clip="none")
ROUNDS = 100


def exchange_of(plan: Plan, tensors: NamedShapes = TENSORS, aggregate: Aggregator = AVERAGE) -> Exchange:
    """The plan at work on a small model."""
    return Exchange(plan, tensors, aggregate, total_rounds=ROUNDS, most_tokens=10**9, streams=Streams(3))


def start(exchange: Exchange, theta: Tensor) -> Lineage:
    return root_lineage(theta, exchange.plan.outer.initial(theta))


def step(exchange: Exchange, lineage: Lineage, updates: Tensor, round: int) -> Lineage:
    """One round in which everybody hears everybody; updates [P, N]."""
    sent = exchange.encode(round, range(len(updates)), updates, [Claims(base=lineage.depth)] * len(updates))
    payloads = [exchange.decode(round, payload) for payload in sent]
    return Lineage("", lineage.depth + 1, *exchange.outer_step(lineage, payloads, round))


# The contract -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(protocols))
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return protocols[request.param].model_validate({"kind": request.param})


def test_what_is_registered() -> None:
    assert set(protocols) >= {
        "async_diloco",
        "centralized",
        "composed",
        "data_parallel",
        "demo",
        "diloco",
        "local_sgd",
        "sparseloco",
        "sparta",
        "streaming_diloco",
    }


def test_every_protocol_says_what_it_is_and_where_it_comes_from(protocol: Protocol) -> None:
    """The first sentence is what `covsim list` shows."""
    text = type(protocol).__doc__
    assert text
    first = text.strip().splitlines()[0]
    assert first.endswith(".")
    assert first[0].isupper()
    assert re.search(r"\n\s+Source: \S", text)
    for name, field in type(protocol).model_fields.items():
        assert name == "kind" or field.description, name


def test_every_plan_is_sane(protocol: Protocol) -> None:
    plan = protocol.plan()
    assert plan == protocol.plan()
    assert plan.inner_steps >= 1
    assert plan.sends in ("pseudo_gradient", "gradient")
    if plan.sends == "gradient":
        assert plan.inner_steps == 1
        assert not plan.keeps_own_weights
    assert 0 <= plan.mixing < 1
    assert plan.overlap_steps is None or 0 <= plan.overlap_steps <= plan.inner_steps
    assert not plan.outer_rate_twice
    assert plan.asynchrony is None or plan.fragments.whole
    for depth in (0, 1, ROUNDS - 1, 10 * ROUNDS):
        assert 0 < plan.outer.learning_rate(depth, ROUNDS) <= plan.outer.lr
    lossless = isinstance(plan.compressor, Dense)
    assert lossless or plan.error_feedback is not None


def test_settings_survive_a_round_trip(protocol: Protocol) -> None:
    again = type(protocol).model_validate_json(protocol.model_dump_json())
    assert again == protocol
    assert again.plan() == protocol.plan()


def test_inner_steps_are_a_setting_unless_gradients_are_sent(protocol: Protocol) -> None:
    if protocol.plan().sends == "gradient":
        assert "inner_steps" not in type(protocol).model_fields
        return
    changed = type(protocol).model_validate({"inner_steps": 7})
    assert changed.plan().inner_steps == 7
    for absurd in (0, -1, 100_001, 1.5):
        with pytest.raises(ValidationError):
            type(protocol).model_validate({"inner_steps": absurd})


def test_unknown_settings_are_refused(protocol: Protocol) -> None:
    with pytest.raises(ValidationError):
        type(protocol).model_validate({"inner_stepss": 7})


@pytest.mark.parametrize("tensors", [TENSORS, [(f"layer{i}.w", (130, 66)) for i in range(5)]], ids=["gpt", "alike"])
def test_payload_bytes_by_formula_are_those_of_the_codecs(protocol: Protocol, tensors: NamedShapes) -> None:
    """Exactly, where all is exchanged; else the mean over a cycle, but for the rounding of each fragment.

    A random share has one header, whatever the number of the model's tensors.
    """
    plan = protocol.plan()
    formula = plan.payload_bytes([(1, shape) for _, shape in tensors])
    regular = exchange_of(plan, tensors).regular_bytes
    if plan.stays_home:
        assert formula == 0
    elif plan.fragments.whole:
        assert formula == regular
    elif isinstance(plan.fragments, RandomShare):
        assert formula == pytest.approx(regular, abs=32)
    else:
        assert formula == pytest.approx(regular, abs=1)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"fragments": {"kind": "layers", "num": 4, "pattern": "sequential"}}, 2),
        ({"fragments": {"kind": "layers", "num": 5}, "values": "fp16", "compressor": "dense"}, 2),
        ({"fragments": {"kind": "random", "share": 0.2}, "values": "fp16", "compressor": "dense"}, 0.02 * 5946),
        ({"fragments": {"kind": "random", "share": 0.2}}, 0.02 * 5129),
        ({"compressor": "dct", "indices": "int64", "values": "fp32"}, 0),
        ({"compressor": "random_k", "packing": "byte_per_value"}, 0),
        ({"values": {"kind": "sign", "group": "chunk"}, "indices": "bits16"}, 0),
        ({"indices": "entropy"}, 0),
    ],
    ids=str,
)
def test_payload_bytes_of_composed_protocols(settings: dict[str, Any], tolerance: float) -> None:
    """Each fragment rounds its positions and its codes up to bytes, where the formula does that once."""
    plan = Composed.model_validate(settings).plan()
    formula = plan.payload_bytes([(1, shape) for _, shape in TENSORS])
    assert formula == pytest.approx(exchange_of(plan).regular_bytes, rel=0, abs=tolerance)


def test_tensors_may_be_counted_in_groups(protocol: Protocol) -> None:
    plan = protocol.plan()
    assert plan.payload_bytes([(3, (64, 128)), (2, (64,))]) == plan.payload_bytes([(1, (64, 128))] * 3 + [(2, (64,))])


def test_a_model_of_any_size_is_counted(protocol: Protocol) -> None:
    """Without building it: 70 billion parameters, in bytes per parameter that the protocol could mean."""
    plan = protocol.plan()
    per_parameter = plan.payload_bytes([(80, (28_672, 8192)), (400, (8192, 8192)), (160, (8192,))]) / 45.6e9
    assert plan.stays_home or 1e-3 < per_parameter <= 4.2


# What each one is ---------------------------------------------------------------------------------------------------


def differences(plan: Plan) -> dict[str, Any]:
    """The fields in which a plan differs from DiLoCo's."""
    reference = DiLoCo().plan()
    return {
        field.name: getattr(plan, field.name)
        for field in fields(plan)
        if getattr(plan, field.name) != getattr(reference, field.name)
    }


def test_diloco() -> None:
    plan = DiLoCo().plan()
    assert plan == Plan(inner_steps=30, compressor=Dense(), values=Fp32(), outer=Nesterov(lr=0.7, momentum=0.9))
    assert plan.fragments == Whole()
    assert not plan.keeps_own_weights
    assert DiLoCo(values=Fp16(), outer=Sgd(lr=1.0)).plan() == replace(plan, values=Fp16(), outer=Sgd(lr=1.0))


def test_local_sgd_and_the_one_machine() -> None:
    assert differences(LocalSgd().plan()) == {"outer": Sgd(lr=1.0)}
    assert differences(Centralized().plan()) == {"outer": Sgd(lr=1.0), "stays_home": True}


def test_streaming_diloco() -> None:
    plan = StreamingDiLoCo().plan()
    assert differences(plan) == {
        "inner_steps": 10,
        "values": Fp4(),
        "outer": Nesterov(lr=0.4),
        "fragments": Layers(num=3),
        "overlap_steps": 5,
        "mixing": 0.5,
    }
    assert plan.keeps_own_weights
    changed = StreamingDiLoCo.model_validate({"fragments": {"num": 4}, "overlap_steps": "none", "mixing": 0}).plan()
    assert (changed.fragments, changed.overlap_steps, changed.mixing) == (Layers(num=4), None, 0)
    assert changed.keeps_own_weights  # the fragments that are not exchanged


def test_async_diloco() -> None:
    assert differences(AsyncDiLoCo().plan()) == {"asynchrony": Asynchrony(buffer=4, staleness_power=0.5)}
    assert AsyncDiLoCo(buffer=9, staleness_power=1.0).plan().asynchrony == Asynchrony(9, 1.0)


def test_sparta() -> None:
    plan = Sparta().plan()
    assert differences(plan) == {"inner_steps": 1, "outer": Sgd(lr=1.0), "fragments": RandomShare(share=0.005)}
    assert plan.keeps_own_weights
    assert not Sparta(share=1.0).plan().keeps_own_weights


def test_data_parallel() -> None:
    plan = DataParallel().plan()
    assert {name: value for name, value in differences(plan).items() if name != "outer"} == {
        "inner_steps": 1,
        "values": Fp16(),
        "sends": "gradient",
    }
    assert isinstance(plan.outer, Adam)
    assert (plan.outer.weight_decay, plan.outer.clip_norm) == (0.1, 1.0)


def test_demo() -> None:
    plan = DeMo().plan()
    assert (plan.inner_steps, plan.sends) == (1, "gradient")
    assert plan.compressor == Dct(k=32)
    assert (plan.values, plan.indices) == (Fp32(), "int64")
    assert plan.error_feedback == ErrorFeedback(decay=0.999)
    assert isinstance(plan.outer, SignSgd)


def test_composed_is_sparseloco_by_default_and_can_be_any_of_its_settings() -> None:
    assert Composed().plan() == SparseLoCo().plan()
    by_hand: dict[str, Any] = {
        "compressor": {"kind": "topk", "k": 32, "layout": "contiguous"},
        "values": {"kind": "sign", "group": "chunk"},
        "indices": "entropy",
        "error_feedback": {"decay": 0.999, "commit": "landed"},
        "outer": {"kind": "nesterov", "lr": 0.9},
    }
    other = SparseLoCo(
        k=32, layout="contiguous", bits=1, group="chunk", indices="entropy", error_decay=0.999, error_commit="landed"
    )
    assert Composed.model_validate(by_hand).plan() == replace(other.plan(), outer=Nesterov(lr=0.9))


@pytest.mark.parametrize("kind", ["diloco", "local_sgd", "streaming_diloco", "demo", "sparta"])
def test_composed_can_be_put_together_as_others_are(kind: str) -> None:
    """All but what only a protocol of its own says: who sends gradients, and who waits for nobody."""
    plan = protocols[kind].model_validate({}).plan()
    composed = Composed(
        inner_steps=plan.inner_steps,
        compressor=plan.compressor,
        values=plan.values,
        indices=plan.indices,
        packing=plan.packing,
        error_feedback=plan.error_feedback or "none",
        outer=plan.outer,
        fragments=plan.fragments,
        overlap_steps="none" if plan.overlap_steps is None else plan.overlap_steps,
        mixing=plan.mixing,
    )
    assert composed.plan() == replace(plan, sends="pseudo_gradient")
    assert Composed.model_validate_json(composed.model_dump_json()) == composed


def test_parts_of_composed_can_be_named_bare() -> None:
    bare = Composed.model_validate({"compressor": "dense", "values": "fp16", "fragments": "layers"})
    assert (bare.compressor, bare.values, bare.fragments) == (Dense(), Fp16(), Layers())
    assert Composed.model_validate({"compressor": {"k": 8}, "values": {"bits": 4}}).plan().compressor == TopK(k=8)
    assert Composed.model_validate({"values": {"bits": 4}}).values == BinMean(bits=4)


# Held against a well-known equal ------------------------------------------------------------------------------------

HIDDEN = 12
NET: NamedShapes = [
    ("fc1.weight", (HIDDEN, 6)),
    ("fc1.bias", (HIDDEN,)),
    ("fc2.weight", (1, HIDDEN)),
    ("fc2.bias", (1,)),
]
Loss = Callable[[Tensor], Tensor]


def net() -> Tensor:
    """Parameters of a net of two layers [N]."""
    return torch.randn(sum(math.prod(shape) for _, shape in NET), generator=torch.Generator().manual_seed(1)) * 0.5


def loss_on(round: int, peer: int) -> Loss:
    """The squared error of the net on one peer's batch, as a function of theta [N]."""
    draw = torch.Generator().manual_seed(100 * round + peer)
    x, y = torch.randn(32, 6, generator=draw), torch.randn(32, 1, generator=draw)

    def loss(theta: Tensor) -> Tensor:
        pieces = theta.split([math.prod(shape) for _, shape in NET])
        w1, b1, w2, b2 = (piece.view(shape) for piece, (_, shape) in zip(pieces, NET, strict=True))
        hidden = (nn.functional.linear(x, w1, b1)).tanh()
        return (nn.functional.linear(hidden, w2, b2) - y).square().mean()

    return loss


def gradient(loss: Loss, theta: Tensor) -> Tensor:
    wanted = theta.clone().requires_grad_()
    loss(wanted).backward()
    assert wanted.grad is not None
    return wanted.grad


def train(theta: Tensor, losses: Sequence[Loss], optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Tensor:
    """What a fresh optimizer of torch's makes of theta in a step on each loss."""
    weights = nn.Parameter(theta.clone())
    steps = optimizer([weights])
    for loss in losses:
        steps.zero_grad()
        loss(weights).backward()
        steps.step()
    return weights.detach()


def plain_sgd(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def test_diloco_with_one_peer_one_step_and_rate_one_is_plain_training() -> None:
    exchange = exchange_of(DiLoCo(inner_steps=1, outer=Sgd(lr=1.0)).plan(), NET, Mean())
    lineage = start(exchange, net())
    losses = [loss_on(round, 0) for round in range(40)]
    for round, loss in enumerate(losses):
        trained = train(lineage.theta, [loss], plain_sgd)
        lineage = step(exchange, lineage, (lineage.theta - trained)[None], round)
    expected = train(net(), losses, plain_sgd)
    assert (expected - net()).norm() > 0.1
    torch.testing.assert_close(lineage.theta, expected, rtol=1e-4, atol=1e-6)


def test_diloco_with_one_peer_is_nesterov_on_pseudo_gradients() -> None:
    """Three inner steps; outside, torch's own optimizer takes theta - theta_r for a gradient."""
    exchange = exchange_of(DiLoCo(inner_steps=3, outer=Nesterov(lr=0.7, momentum=0.9)).plan(), NET, Mean())
    lineage = start(exchange, net())
    outside = nn.Parameter(net())
    nesterov = torch.optim.SGD([outside], lr=0.7, momentum=0.9, nesterov=True)
    for round in range(15):
        losses = [loss_on(3 * round + turn, 0) for turn in range(3)]
        lineage = step(exchange, lineage, (lineage.theta - train(lineage.theta, losses, plain_sgd))[None], round)
        outside.grad = outside.detach() - train(outside.detach(), losses, plain_sgd)
        nesterov.step()
    torch.testing.assert_close(lineage.theta, outside.detach(), rtol=1e-4, atol=1e-5)


def test_local_sgd_averages_parameters() -> None:
    exchange = exchange_of(LocalSgd(inner_steps=4).plan(), NET)
    lineage = start(exchange, net())
    for round in range(10):
        ends = [
            train(lineage.theta, [loss_on(4 * round + turn, peer) for turn in range(4)], plain_sgd) for peer in range(3)
        ]
        trained = torch.stack(ends)
        lineage = step(exchange, lineage, lineage.theta - trained, round)
        torch.testing.assert_close(lineage.theta, trained.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_sparta_with_a_share_of_all_is_local_sgd() -> None:
    sparta = exchange_of(Sparta(share=1.0, inner_steps=30).plan())
    local = exchange_of(LocalSgd().plan())
    theta = GPT.initial(torch.Generator().manual_seed(1))
    own = theta + 1e-2 * torch.randn(3, len(theta), generator=torch.Generator().manual_seed(2))
    averaged = [step(exchange, start(exchange, theta), theta - own, 5).theta for exchange in (sparta, local)]
    assert torch.equal(*averaged)
    torch.testing.assert_close(averaged[0], own.mean(dim=0), rtol=1e-5, atol=1e-6)
    assert torch.equal(sparta.merge(own[0], averaged[0], 5), averaged[0])


def test_sparta_averages_what_a_round_draws_and_peers_keep_the_rest() -> None:
    """Theta's own values do not matter where it has just been averaged: own weights are what is averaged."""
    plan = Sparta(share=0.3).plan()
    exchange = exchange_of(plan)
    theta = GPT.initial(torch.Generator().manual_seed(1))
    own = theta + 1e-2 * torch.randn(3, len(theta), generator=torch.Generator().manual_seed(2))
    lineage = start(exchange, theta)
    for round in range(3):
        index = plan.fragments.fragment(round, TENSORS, Streams(3)).index
        assert index is not None
        before = own.clone()
        lineage = step(exchange, lineage, lineage.theta - own, round)
        own = torch.stack([exchange.merge(row, lineage.theta, round) for row in own])
        expected = before.index_copy(1, index, before[:, index].mean(dim=0).expand(3, -1))
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_data_parallel_is_adamw_on_the_mean_loss(clip_norm: float | None) -> None:
    adam = Adam(lr=0.01, weight_decay=0.1, clip_norm=clip_norm, schedule=Constant())
    exchange = exchange_of(DataParallel(values=Fp32(), outer=adam).plan(), NET)
    lineage = start(exchange, net())
    theta = nn.Parameter(net())
    reference = torch.optim.AdamW([theta], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    norms = []
    for round in range(30):
        losses = [loss_on(round, peer) for peer in range(4)]
        lineage = step(exchange, lineage, torch.stack([gradient(loss, lineage.theta) for loss in losses]), round)
        reference.zero_grad()
        torch.stack([loss(theta) for loss in losses]).mean().backward()
        norms.append(nn.utils.clip_grad_norm_([theta], clip_norm or math.inf).item())
        reference.step()
    assert max(norms) > 0.5
    assert (theta.detach() - net()).norm() > 0.1
    torch.testing.assert_close(lineage.theta, theta.detach(), rtol=1e-3, atol=1e-5)


def test_data_parallel_in_half_precision_is_near_that() -> None:
    thetas = []
    for values in (Fp16(), Fp32()):
        exchange = exchange_of(DataParallel(values=values, outer=Sgd(lr=0.1)).plan(), NET)
        lineage = start(exchange, net())
        for round in range(10):
            updates = torch.stack([gradient(loss_on(round, peer), lineage.theta) for peer in range(4)])
            lineage = step(exchange, lineage, updates, round)
        thetas.append(lineage.theta)
    half, full = thetas
    assert not torch.equal(half, full)
    assert (half - full).norm() < 1e-3 * (full - net()).norm()


# DeMo, straight down from its algorithm -----------------------------------------------------------------------------

Floats = NDArray[np.float64]


def largest_divisor(side: int) -> int:
    """The largest divisor up to 64."""
    return max(divisor for divisor in range(1, 65) if side % divisor == 0)


def chunk_places(tensors: NamedShapes) -> list[NDArray[np.int64]]:
    """Where the elements of each chunk lie in theta: blocks of matrices, runs of vectors."""
    places, begin = [], 0
    for _, shape in tensors:
        tensor = begin + np.arange(math.prod(shape)).reshape(shape)
        sides = [largest_divisor(side) for side in shape]
        starts = np.ndindex(*(length // side for length, side in zip(shape, sides, strict=True)))
        for corner in starts:
            cut = tuple(slice(at * side, (at + 1) * side) for at, side in zip(corner, sides, strict=True))
            places.append(tensor[cut])
        begin += math.prod(shape)
    return places


class NaiveDeMo:
    """Momentum, its largest DCT coefficients out, their mean over senders back, and a step by the signs of that."""

    def __init__(self, theta: Floats, tensors: NamedShapes, peers: int, k: int, decay: float) -> None:
        self.theta, self.k, self.decay = theta, k, decay
        self.momenta = np.zeros((peers, len(theta)))
        self.chunks = chunk_places(tensors)

    def step(self, gradients: Floats, rate: float, weight_decay: float) -> Floats:
        """Move theta; returns the direction whose signs it followed."""
        self.momenta = self.decay * self.momenta + gradients
        direction = np.zeros_like(self.theta)
        for places in self.chunks:
            total, senders = np.zeros(places.shape), np.zeros(places.shape)
            for momentum in self.momenta:
                coefficients = fft.dctn(momentum[places], norm="ortho")
                chosen = np.zeros(places.size, dtype=bool)
                chosen[np.argsort(-np.abs(coefficients), axis=None)[: self.k]] = True
                sent = np.where(chosen.reshape(places.shape), coefficients, 0.0)
                momentum[places] -= fft.idctn(sent, norm="ortho")
                total += sent
                senders += chosen.reshape(places.shape)
            direction[places] = fft.idctn(total / np.maximum(senders, 1), norm="ortho")
        self.theta = (1 - rate * weight_decay) * self.theta - rate * np.sign(direction)
        return direction


@pytest.mark.parametrize("k", [1, 7, 32])
def test_demo_is_its_algorithm(k: int) -> None:
    """Three peers, three steps, on matrices of one and of several blocks and on vectors.

    Compared where the direction is clearly not 0, for there rounding decides a sign.
    """
    tensors = [("a", (128, 64)), ("b", (67,)), ("c", (130, 9)), ("d", (96,)), ("e", (5, 3))]
    exchange = exchange_of(
        DeMo(k=k, error_decay=0.9, outer=SignSgd(lr=0.01, weight_decay=0.1)).plan(), tensors, Mean(clip="none")
    )
    assert exchange.buffers is not None
    num = exchange.layout.num_parameters
    draw = torch.Generator().manual_seed(4)
    theta = torch.randn(num, generator=draw)
    lineage = start(exchange, theta)
    naive = NaiveDeMo(theta.double().numpy(), tensors, 3, k, 0.9)
    clear = np.full(num, True)
    for round in range(3):
        gradients = torch.randn(3, num, generator=draw)
        lineage = step(exchange, lineage, gradients, round)
        direction = naive.step(gradients.double().numpy(), 0.01, 0.1)
        clear &= np.abs(direction) > 1e-4
        for uid, momentum in enumerate(naive.momenta):
            buffer = exchange.buffers.buffer(uid)
            assert buffer is not None
            np.testing.assert_allclose(buffer.numpy(), momentum, rtol=0, atol=1e-5)
    assert clear.mean() > 0.9
    np.testing.assert_allclose(lineage.theta.numpy()[clear], naive.theta[clear], rtol=0, atol=1e-6)
