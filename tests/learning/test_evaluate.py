"""Losses do not depend on how the work is cut, so an update of zero changes a loss by exactly zero."""

from __future__ import annotations

import pytest
import torch

from covsim.learning.evaluate import losses_of_one, losses_per_vector
from covsim.learning.model import Gpt


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_one_vector_scores_the_same_alone_and_among_many(gpt: Gpt, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    generator = torch.Generator().manual_seed(1)
    theta = gpt.initial(generator) * 5
    tokens = torch.randint(0, 256, (9, 5, gpt.context + 1), generator=generator)
    expected = torch.cat([gpt.losses(theta[None], batch[None]) for batch in tokens])
    assert expected.unique().numel() == 9
    for chunk in (1, 2, 7, 45):
        assert torch.equal(losses_of_one(gpt, theta, tokens, chunk), expected)
        assert torch.equal(losses_per_vector(gpt, theta.expand(9, -1), tokens, chunk), expected)


def test_many_vectors_may_share_their_sequences(gpt: Gpt) -> None:
    generator = torch.Generator().manual_seed(1)
    thetas = torch.stack([gpt.initial(generator) for _ in range(3)])
    tokens = torch.randint(0, 256, (1, 4, gpt.context + 1), generator=generator)
    shared = losses_per_vector(gpt, thetas, tokens)
    assert torch.equal(shared, losses_per_vector(gpt, thetas, tokens.repeat(3, 1, 1)))
    assert shared.unique().numel() == 3


def test_nothing_to_evaluate_is_fine(gpt: Gpt) -> None:
    tokens = torch.zeros(0, 8, gpt.context + 1, dtype=torch.int64)
    assert losses_per_vector(gpt, torch.zeros(0, gpt.num_parameters), tokens).shape == (0,)
    assert losses_of_one(gpt, torch.zeros(gpt.num_parameters), tokens).shape == (0,)
