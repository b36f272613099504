"""Trial steps and what they do to the loss."""

from __future__ import annotations

import pytest
import torch
from gauntlet_windows import seen
from torch import Tensor

from covsim.gauntlet.loss_score import LossEvidence, gradient_score, indicator, measure, trial_step
from covsim.learning.model import Gpt
from covsim.protocol.aggregators import median_norms
from covsim.protocol.base import Decoded
from covsim.protocol.sparseloco import SparseLoCo

MODEL = Gpt(layers=1, width=16, context=8)
CODEC = SparseLoCo().codec(list(MODEL.shapes.values()))
N = MODEL.num_parameters


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def decoded(rows: Tensor) -> list[Decoded]:
    return [CODEC.decode(payload) for payload in CODEC.compress(rows)[0]]


def dense(payload: Decoded) -> Tensor:
    return torch.zeros(N).index_put((payload.index,), payload.value)


def tokens(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, MODEL.context + 1), generator=generator)


def test_a_trial_step_subtracts_the_payload(generator: torch.Generator) -> None:
    theta = torch.randn(N, generator=generator)
    (payload,) = decoded(torch.randn(1, N, generator=generator))
    kept = theta.clone()
    torch.testing.assert_close(trial_step(theta, payload, 0.13, None), theta - 0.13 * dense(payload))
    assert torch.equal(theta, kept)


def test_a_trial_step_is_clipped_to_the_gather(generator: torch.Generator) -> None:
    """Tensor by tensor to the median norm, and never scaled up."""
    rows = torch.randn(3, N, generator=generator) * torch.tensor([[1.0], [2.0], [10.0]])
    small, middle, large = decoded(rows)
    medians = median_norms([small, middle, large])
    theta = torch.zeros(N)
    assert torch.equal(trial_step(theta, small, 1.0, medians), -dense(small))
    step = trial_step(theta, large, 1.0, medians)
    start = 0
    for tensor, shape in enumerate(MODEL.shapes.values()):
        size = torch.Size(shape).numel()
        moved, sent = step[start : start + size], dense(large)[start : start + size]
        torch.testing.assert_close(moved, -sent * (medians[tensor] / sent.norm()).float(), rtol=1e-5, atol=1e-7)
        start += size


def test_losses_are_those_of_each_trial_step_alone(generator: torch.Generator) -> None:
    theta = MODEL.initial(generator)
    payloads = decoded(0.1 * torch.randn(5, N, generator=generator))
    own, shared = tokens(generator, 5, 4), tokens(generator, 3)
    medians = median_norms(payloads[:3])
    found = measure(MODEL, theta, payloads, own, shared, step=0.13, medians=medians, chunk=2)
    for i, payload in enumerate(payloads):
        trial = trial_step(theta, payload, 0.13, medians)
        alone = [MODEL.losses(t[None], x[None]).item() for x in (own[i], shared) for t in (theta, trial)]
        seen_here = [found.own_before[i], found.own_after[i], found.random_before[i], found.random_after[i]]
        assert seen_here == pytest.approx(alone, rel=1e-6)


def test_nothing_depends_on_who_is_measured_together(generator: torch.Generator) -> None:
    theta = MODEL.initial(generator)
    payloads = decoded(0.1 * torch.randn(7, N, generator=generator))
    own, shared = tokens(generator, 7, 8), tokens(generator, 8)
    together = measure(MODEL, theta, payloads, own, shared, step=0.13, medians=None, chunk=4)
    for i, payload in enumerate(payloads):
        alone = measure(MODEL, theta, [payload], own[i : i + 1], shared, step=0.13, medians=None)
        assert alone.flat() == tuple(together.flat()[i::7])


def test_a_payload_that_says_nothing_improves_nothing(generator: torch.Generator) -> None:
    """To the last bit, so that its indicator is -1 and not the sign of a rounding error."""
    (payload,) = decoded(torch.zeros(1, N))
    theta = MODEL.initial(generator)
    found = measure(
        MODEL, theta, [payload] * 5, tokens(generator, 5, 8), tokens(generator, 8), step=0.13, medians=None, chunk=2
    )
    assert found.own_before == found.own_after
    assert found.random_before == found.random_after
    row = seen(0, gain=0.0, own_gain=0.0)
    assert (gradient_score(row), indicator(row)) == (0.0, -1.0)


def test_measuring_nobody() -> None:
    found = measure(MODEL, torch.zeros(N), [], torch.zeros(0, 0, 0), torch.zeros(8, 9), step=0.1, medians=None)
    assert found == LossEvidence((), (), (), ())
    assert LossEvidence.of(found.flat()) == found


def test_the_flat_row_reads_back() -> None:
    written = LossEvidence((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0))
    assert written.flat() == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    assert LossEvidence.of(written.flat()) == written


@pytest.mark.parametrize(
    ("own_gain", "gain", "sign"), [(0.02, 0.01, 1), (0.01, 0.02, -1), (-0.01, -0.02, 1), (-0.02, -0.01, -1), (0, 0, -1)]
)
def test_the_indicator_compares_relative_improvements(own_gain: float, gain: float, sign: int) -> None:
    row = seen(0, gain=gain, own_gain=own_gain)
    assert indicator(row) == sign
    assert gradient_score(row) == pytest.approx(gain, abs=1e-12)
