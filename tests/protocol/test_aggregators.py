"""Clip and mean, on payloads small enough to compute by hand; and what every aggregator keeps to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from covsim.protocol.aggregators import Aggregator, Mean, aggregators, clipped, median_norms
from covsim.protocol.base import Claims, Decoded, Layout

LAYOUT = Layout(((4,), (2,)))
Over = Literal["senders", "all"]
Clip = Literal["median_norm", "none"]
Weights = Literal["equal", "tokens"]


def payload(first: dict[int, float], second: dict[int, float], tokens: int = 0) -> Decoded:
    """Values of a tensor at 0 to 3 and of one at 4 and 5."""
    index = torch.tensor([*first, *second])
    value = torch.tensor([*first.values(), *second.values()])
    norms = [math.hypot(*values.values()) for values in (first, second)]
    return Decoded(
        index,
        value,
        tensor_bounds=(0, len(first), len(index)),
        tensor_of=torch.tensor([0] * len(first) + [1] * len(second)),
        norms=torch.tensor(norms, dtype=torch.float64),
        kept_share=torch.ones(len(index)),
        claims=Claims(tokens=tokens),
    )


def claiming(given: Decoded, tokens: int) -> Decoded:
    return replace(given, claims=Claims(tokens=tokens))


SMALL = payload({0: 0.6, 1: 0.8}, {4: 1.0})
MIDDLE = payload({1: -2.0, 2: 0.0}, {5: 3.0})
LARGE = payload({1: 30.0, 3: 40.0}, {4: 2.0})


def random_payloads(num: int) -> list[Decoded]:
    """Payloads of different sizes that send all coordinates but one or two."""
    draw = torch.Generator().manual_seed(num)
    made = []
    for sender in range(num):
        values = (torch.randn(6, generator=draw) * (1 + sender)).tolist()
        first = {place: values[place] for place in range(4) if place != sender % 5}
        made.append(payload(first, {4 + sender % 2: values[4 + sender % 2]}, tokens=1000 * (sender + 1)))
    return made


def test_median_norm_is_the_lower_median() -> None:
    assert median_norms([LARGE, SMALL, MIDDLE]).tolist() == [2.0, 2.0]
    assert median_norms([LARGE, SMALL]).tolist() == [1.0, 1.0]
    assert median_norms([LARGE]).tolist() == [50.0, 2.0]


def test_clipping_scales_down_per_tensor_and_never_up() -> None:
    limited = clipped(LARGE, torch.tensor([2.0, 5.0], dtype=torch.float64))
    assert limited.value.tolist() == pytest.approx([1.2, 1.6, 2.0])
    assert limited.norms.tolist() == pytest.approx([2.0, 2.0])
    assert LARGE.value.tolist() == [30.0, 40.0, 2.0]
    assert clipped(SMALL, torch.tensor([2.0, 5.0], dtype=torch.float64)).value.tolist() == SMALL.value.tolist()


def test_clipping_keeps_what_a_payload_claims() -> None:
    assert clipped(claiming(LARGE, 7), torch.ones(2, dtype=torch.float64)).claims == Claims(tokens=7)


def test_a_payload_of_zeros_stays_one() -> None:
    zeros = payload({0: 0.0}, {4: 0.0})
    assert clipped(zeros, median_norms([zeros, SMALL])).value.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("over", "clip", "expected"),
    [
        ("senders", "none", [0.6, 28.8 / 3, 0.0, 40.0, 1.5, 3.0]),
        ("all", "none", [0.2, 28.8 / 3, 0.0, 40.0 / 3, 1.0, 1.0]),
        ("senders", "median_norm", [0.6, 0.0, 0.0, 1.6, 1.5, 2.0]),
        ("all", "median_norm", [0.2, 0.0, 0.0, 1.6 / 3, 1.0, 2 / 3]),
    ],
)
def test_mean(over: Over, clip: Clip, expected: list[float]) -> None:
    delta = Mean(over=over, clip=clip).combine([SMALL, MIDDLE, LARGE], LAYOUT)
    assert delta.dtype == torch.float32
    assert delta.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("over", "tokens", "expected"),
    [
        ("senders", (100, 300, 600), [0.6, (80 - 600 + 18_000) / 1000, 0.0, 40.0, 1300 / 700, 3.0]),
        ("all", (100, 300, 600), [0.06, (80 - 600 + 18_000) / 1000, 0.0, 24.0, 1.3, 0.9]),
        ("senders", (100, 300, 0), [0.6, (80 - 600) / 400, 0.0, 0.0, 1.0, 3.0]),
        ("all", (100, 300, 0), [0.15, (80 - 600) / 400, 0.0, 0.0, 0.25, 2.25]),
        ("senders", (0, 0, 0), [0.0] * 6),
        ("all", (0, 0, 0), [0.0] * 6),
    ],
)
def test_mean_weighted_by_tokens(over: Over, tokens: tuple[int, int, int], expected: list[float]) -> None:
    """A payload that claims no tokens counts for nothing, as if it had not been sent."""
    payloads = [claiming(*pair) for pair in zip((SMALL, MIDDLE, LARGE), tokens, strict=True)]
    delta = Mean(over=over, clip="none", weights="tokens").combine(payloads, LAYOUT)
    assert delta.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("over", ["senders", "all"])
@pytest.mark.parametrize("tokens", [1, 10**4, 10**12])
def test_equal_tokens_weigh_equally(over: Over, tokens: int) -> None:
    payloads = [claiming(each, tokens) for each in random_payloads(5)]
    weighted = Mean(over=over, weights="tokens").combine(payloads, LAYOUT)
    torch.testing.assert_close(weighted, Mean(over=over).combine(payloads, LAYOUT))


def test_tokens_are_a_claim_that_only_the_rule_by_tokens_believes() -> None:
    honest = random_payloads(4)
    boasting = [*honest[:3], claiming(honest[3], 10**9)]
    assert torch.equal(Mean().combine(honest, LAYOUT), Mean().combine(boasting, LAYOUT))
    assert not torch.allclose(
        Mean(weights="tokens").combine(honest, LAYOUT), Mean(weights="tokens").combine(boasting, LAYOUT)
    )


def test_over_senders_one_peer_alone_on_a_coordinate_is_not_diluted() -> None:
    delta = Mean(over="senders", clip="none").combine([SMALL] * 19 + [payload({3: 7.0}, {5: 0.0})], LAYOUT)
    assert delta[3] == 7.0
    assert Mean(over="all", clip="none").combine([SMALL] * 19 + [payload({3: 7.0}, {5: 0.0})], LAYOUT)[3] == 7 / 20


def test_clip_norms_say_what_combine_clips_to() -> None:
    assert Mean(clip="none").clip_norms([SMALL]) is None
    assert Mean().clip_norms([]) is None
    limits = Mean().clip_norms([SMALL, MIDDLE, LARGE])
    assert limits is not None
    by_hand = [clipped(each, limits) for each in (SMALL, MIDDLE, LARGE)]
    assert torch.equal(Mean().combine([SMALL, MIDDLE, LARGE], LAYOUT), Mean(clip="none").combine(by_hand, LAYOUT))


@pytest.mark.parametrize("over", ["senders", "all"])
@pytest.mark.parametrize("weights", ["equal", "tokens"])
def test_the_mean_without_a_clip_is_linear(over: Over, weights: Weights) -> None:
    """Of payloads that send the same coordinates."""
    mean = Mean(over=over, clip="none", weights=weights)
    ones = random_payloads(4)
    others = [replace(each, value=each.value.flip(0)) for each in ones]
    sums = [replace(one, value=2 * one.value - 3 * other.value) for one, other in zip(ones, others, strict=True)]
    expected = 2 * mean.combine(ones, LAYOUT) - 3 * mean.combine(others, LAYOUT)
    torch.testing.assert_close(mean.combine(sums, LAYOUT), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("over", ["senders", "all"])
@pytest.mark.parametrize("clip", ["median_norm", "none"])
@pytest.mark.parametrize("weights", ["equal", "tokens"])
def test_the_mean_of_equal_payloads_is_that_payload(
    over: Over, clip: Clip, weights: Literal["equal", "tokens"]
) -> None:
    delta = Mean(over=over, clip=clip, weights=weights).combine([claiming(LARGE, 5)] * 7, LAYOUT)
    assert delta.tolist() == pytest.approx([0, 30, 0, 40, 2, 0], rel=1e-6)


def test_the_clipped_mean_follows_the_scale_of_its_payloads() -> None:
    """The clip is relative: nobody's unit is preferred."""
    payloads = random_payloads(5)
    scaled = [each.scaled(torch.full((2,), 8.0, dtype=torch.float64)) for each in payloads]
    torch.testing.assert_close(Mean().combine(scaled, LAYOUT), 8 * Mean().combine(payloads, LAYOUT))


@pytest.mark.parametrize("weights", ["equal", "tokens"])
def test_with_a_clip_no_tensor_moves_further_than_the_median(weights: Weights) -> None:
    """However loud one peer is, and however many tokens it claims."""
    loud = payload({0: 1e20, 1: -1e20, 2: 1e20, 3: 1e20}, {4: 1e20, 5: 1e20}, tokens=10**9)
    payloads = [claiming(SMALL, 10), claiming(MIDDLE, 10), loud]
    moved = Mean(over="all", weights=weights).combine(payloads, LAYOUT)
    assert 0.1 < moved[:4].norm() < 2.0001
    assert 0.1 < moved[4:].norm() < 3.0001


def every() -> list[Aggregator]:
    """Each registered aggregator by its defaults, and the mean in all its forms."""
    kinds = [aggregators[kind].model_validate({"kind": kind}) for kind in aggregators]
    forms = itertools.product(["senders", "all"], ["median_norm", "none"], ["equal", "tokens"])
    return kinds + [Mean.model_validate({"over": over, "clip": clip, "weights": w}) for over, clip, w in forms]


@pytest.fixture(params=every(), ids=repr)
def aggregator(request: pytest.FixtureRequest) -> Aggregator:
    made = request.param
    assert isinstance(made, Aggregator)
    return made


@pytest.mark.parametrize("payloads", [[SMALL], [SMALL, MIDDLE], [LARGE] * 5, random_payloads(6)], ids=len)
def test_every_aggregator_returns_a_finite_vector_like_theta(
    aggregator: Aggregator, payloads: Sequence[Decoded]
) -> None:
    kept = [(each.index.clone(), each.value.clone(), each.norms.clone()) for each in payloads]
    delta = aggregator.combine(payloads, LAYOUT)
    assert delta.shape == (LAYOUT.num_parameters,)
    assert delta.dtype == torch.float32
    assert delta.isfinite().all()
    assert torch.equal(delta, aggregator.combine(payloads, LAYOUT))
    for each, before in zip(payloads, kept, strict=True):
        assert all(map(torch.equal, (each.index, each.value, each.norms), before))


def test_every_aggregator_is_blind_to_the_order(aggregator: Aggregator) -> None:
    payloads = random_payloads(4)
    expected = aggregator.combine(payloads, LAYOUT)
    for order in itertools.permutations(payloads):
        torch.testing.assert_close(aggregator.combine(order, LAYOUT), expected, rtol=1e-5, atol=1e-6)


def test_the_order_of_two_touches_no_bit(aggregator: Aggregator) -> None:
    one, other, _ = random_payloads(3)
    assert torch.equal(aggregator.combine([one, other], LAYOUT), aggregator.combine([other, one], LAYOUT))


def test_every_aggregator_leaves_alone_what_nobody_sent(aggregator: Aggregator) -> None:
    assert aggregator.combine([claiming(SMALL, 3), claiming(MIDDLE, 4)], LAYOUT)[3] == 0


def test_every_limit_is_one_norm_per_tensor_or_for_all(aggregator: Aggregator) -> None:
    assert aggregator.clip_norms([]) is None
    limits = aggregator.clip_norms(random_payloads(3))
    if limits is not None:
        assert limits.shape in {(2,), ()}
        assert limits.dtype == torch.float64
        assert (limits > 0).all()


@pytest.mark.parametrize("setting", [{"over": "nobody"}, {"clip": 1.0}, {"weights": "stake"}, {"trim": 0.1}])
def test_absurd_settings(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Mean.model_validate(setting)
