"""What trial steps do to the loss, and what is made of it."""

from __future__ import annotations

import pytest
import torch
from gauntlet_windows import seen
from torch import Tensor

from covsim.gauntlet.evidence import gradient_score, indicator
from covsim.gauntlet.loss_score import LossEvidence, measure
from covsim.learning.model import Gpt
from covsim.protocol.aggregators import Mean
from covsim.protocol.base import Claims
from covsim.protocol.exchange import Exchange
from covsim.protocol.lineage import root_lineage
from covsim.protocol.plan import protocols
from covsim.randomness import Streams

MODEL = Gpt(layers=1, width=16, context=8)
N = MODEL.num_parameters


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def trials_around(theta: Tensor, num: int, generator: torch.Generator) -> list[Tensor]:
    """Where small steps lead."""
    return list(theta + 0.01 * torch.randn(num, N, generator=generator))


def tokens(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, MODEL.context + 1), generator=generator)


def test_losses_are_those_of_each_trial_step_alone(generator: torch.Generator) -> None:
    theta = MODEL.initial(generator)
    trials = trials_around(theta, 5, generator)
    own, shared = tokens(generator, 5, 4), tokens(generator, 3)
    found = measure(MODEL, theta, trials, own, shared, chunk=2)
    for i, trial in enumerate(trials):
        alone = [MODEL.losses(t[None], x[None]).item() for x in (own[i], shared) for t in (theta, trial)]
        seen_here = [found.own_before[i], found.own_after[i], found.random_before[i], found.random_after[i]]
        assert seen_here == pytest.approx(alone, rel=1e-6)
        assert len(set(seen_here)) == 4


def test_nothing_depends_on_who_is_measured_together(generator: torch.Generator) -> None:
    theta = MODEL.initial(generator)
    trials = trials_around(theta, 7, generator)
    own, shared = tokens(generator, 7, 8), tokens(generator, 8)
    together = measure(MODEL, theta, trials, own, shared, chunk=4)
    for i, trial in enumerate(trials):
        alone = measure(MODEL, theta, [trial], own[i : i + 1], shared)
        assert alone.flat() == tuple(together.flat()[i::7])


def test_measuring_changes_nothing(generator: torch.Generator) -> None:
    theta = MODEL.initial(generator)
    trials = trials_around(theta, 2, generator)
    kept = [each.clone() for each in (theta, *trials)]
    measure(MODEL, theta, trials, tokens(generator, 2, 4), tokens(generator, 4))
    assert all(torch.equal(*pair) for pair in zip((theta, *trials), kept, strict=True))


def exchange_of(kind: str) -> Exchange:
    """A protocol at work on the model."""
    plan = protocols[kind].model_validate({}).plan()
    tensors = list(MODEL.shapes.items())
    return Exchange(plan, tensors, Mean(), total_rounds=10, most_tokens=100, streams=Streams(1))


@pytest.mark.parametrize("kind", list(protocols))
def test_a_payload_that_says_nothing_improves_nothing(kind: str, generator: torch.Generator) -> None:
    """To the last bit, so that its indicator is -1 and not the sign of a rounding error."""
    exchange, theta = exchange_of(kind), MODEL.initial(generator)
    payload = exchange.decode(0, exchange.encode(0, [1], torch.zeros(1, N), [Claims()])[0])
    trial = exchange.trial_theta(
        root_lineage(theta), payload, 0, 0.2, exchange.clip_norms(root_lineage(theta), [payload])
    )
    found = measure(MODEL, theta, [trial] * 5, tokens(generator, 5, 8), tokens(generator, 8), chunk=2)
    assert found.own_before == found.own_after
    assert found.random_before == found.random_after
    row = seen(0, gain=0.0, own_gain=0.0)
    assert (gradient_score(row), indicator(row)) == (0.0, -1.0)


@pytest.mark.parametrize("kind", [kind for kind in protocols if kind != "sparta"])
def test_an_honest_gradient_improves_the_loss_and_its_reverse_makes_it_worse(
    kind: str, generator: torch.Generator
) -> None:
    """By the trial step of every protocol; the 0.5 % that a round of SPARTA exchanges are too few to see."""
    exchange, theta, shared = exchange_of(kind), MODEL.initial(generator), tokens(generator, 8)
    (gradient,) = MODEL.gradients(theta[None], shared[None], torch.empty(1, N))
    updates = torch.stack([gradient, -gradient]) / gradient.norm()
    said = [exchange.decode(0, each) for each in exchange.encode(0, [1, 2], updates, [Claims()] * 2)]
    trials = [exchange.trial_theta(root_lineage(theta), payload, 0, 0.2, None) for payload in said]
    found = measure(MODEL, theta, trials, shared.expand(2, -1, -1), shared)
    assert found.random_after[0] < found.random_before[0] < found.random_after[1]
    assert found.own_after == pytest.approx(found.random_after, rel=1e-6)


def test_measuring_nobody() -> None:
    found = measure(MODEL, torch.zeros(N), [], torch.zeros(0, 0, 0), torch.zeros(8, 9))
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
