"""Clip and mean, on payloads small enough to compute by hand."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from covsim.protocol.aggregators import Mean, aggregators, clipped, median_norms
from covsim.protocol.base import Decoded, Layout
from covsim.protocol.sparseloco import SparseLoCo

LAYOUT = Layout(((4,), (2,)))


def payload(first: dict[int, float], second: dict[int, float]) -> Decoded:
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
    )


SMALL = payload({0: 0.6, 1: 0.8}, {4: 1.0})
MIDDLE = payload({1: -2.0, 2: 0.0}, {5: 3.0})
LARGE = payload({1: 30.0, 3: 40.0}, {4: 2.0})


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
def test_mean(over: Literal["senders", "all"], clip: Literal["median_norm", "none"], expected: list[float]) -> None:
    delta = Mean(over=over, clip=clip).combine([SMALL, MIDDLE, LARGE], LAYOUT)
    assert delta.dtype == torch.float32
    assert delta.tolist() == pytest.approx(expected, abs=1e-6)


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


def test_combines_what_the_codec_decodes() -> None:
    codec = SparseLoCo().codec([(64, 128), (96,)])
    payloads, sent = codec.compress(torch.randn(9, codec.num_parameters, generator=torch.Generator().manual_seed(1)))
    decoded = [codec.decode(payload) for payload in payloads]
    expected = sent.sum(0) / (sent != 0).sum(0).clamp(min=1)
    assert torch.allclose(Mean(clip="none").combine(decoded, codec.layout), expected, atol=1e-6)


@pytest.mark.parametrize("kind", list(aggregators))
def test_every_aggregator_returns_a_finite_theta_shaped_vector(kind: str) -> None:
    aggregator = aggregators[kind].model_validate({"kind": kind})
    for payloads in ([SMALL], [SMALL, MIDDLE], [LARGE] * 5):
        delta = aggregator.combine(payloads, LAYOUT)
        assert delta.shape == (LAYOUT.num_parameters,)
        assert delta.isfinite().all()
        assert torch.equal(delta, aggregator.combine(payloads, LAYOUT))
