"""Inner steps on part of a batch: which sequences they see, and that company of another shape changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import Training, run_inner_steps
from covsim.learning.inner_optimizers import OptimizerState
from covsim.learning.model import Gpt
from covsim.learning.trainer import Trainer

H, BATCH = 3, 4
TRAINING = Training(batch=BATCH)


@pytest.fixture
def theta(gpt: Gpt) -> Tensor:
    return gpt.initial(torch.Generator().manual_seed(1))


def trainer(gpt: Gpt, corpus: Corpus) -> Trainer:
    return Trainer(gpt, TRAINING, corpus, inner_steps=H, total_steps=10 * H)


def test_a_thinned_step_sees_the_first_sequences_of_the_whole_one(corpus: Corpus) -> None:
    """A subset of the same pool: what a validator draws from is what was trained on."""
    whole = Batches("assigned", 3, 1)
    every = corpus.batches(whole, H, BATCH)
    assert torch.equal(corpus.batches(whole.thinned(2), H, BATCH), every[:, :2])
    assert torch.equal(corpus.batches(whole.flipped().thinned(1), H, BATCH), every[:, :1])
    assert torch.equal(corpus.batches(whole.thinned(9), H, BATCH), every)
    assert (whole.size(BATCH), whole.thinned(2).size(BATCH), whole.thinned(9).size(BATCH)) == (4, 2, 4)


def test_it_really_trains_on_that_batch(gpt: Gpt, corpus: Corpus, theta: Tensor) -> None:
    batches = Batches("assigned", 3, 1)
    found = trainer(gpt, corpus).train(3, 1, theta, batches.thinned(2), H).value()
    tokens = corpus.batches(batches, H, BATCH)[None, :, :2]
    state = OptimizerState.zeros(1, gpt.num_parameters, torch.device("cpu"), TRAINING.inner.num_moments)
    expected = run_inner_steps(gpt, TRAINING.inner, theta[None], state, tokens, [H], 10 * H)[0]
    assert torch.equal(found, expected)
    assert not torch.equal(found, trainer(gpt, corpus).train(3, 1, theta, batches, H).value())


def test_company_of_another_shape_changes_nothing(gpt: Gpt, corpus: Corpus, theta: Tensor) -> None:
    """Five peers on batches of 4, 1, 2, 4 and 2, of different lengths, together and each alone."""
    asked = [(0, 4, 3), (1, 1, 3), (2, 2, 2), (3, 4, 1), (4, 2, 3)]
    together = trainer(gpt, corpus)
    updates = [
        together.train(uid, 0, theta, Batches("assigned", uid, 0).thinned(num), steps) for uid, num, steps in asked
    ]
    for (uid, num, steps), update in zip(asked, updates, strict=True):
        alone = trainer(gpt, corpus).train(uid, 0, theta, Batches("assigned", uid, 0).thinned(num), steps)
        assert torch.equal(update.value(), alone.value())


def test_a_gradient_may_be_of_part_of_a_batch(gpt: Gpt, corpus: Corpus, theta: Tensor) -> None:
    """With others' whole ones pending: those of whole batches are means over four sequences, this one over one."""
    both = trainer(gpt, corpus)
    part = both.gradient(3, 0, theta, Batches("assigned", 3, 0).thinned(1))
    both.gradient(4, 0, theta, Batches("assigned", 4, 0))
    tokens = corpus.batches(Batches("assigned", 3, 0), 1, BATCH)[0, None, :1]
    expected = gpt.gradients(theta[None], tokens, torch.empty(1, gpt.num_parameters))[0]
    assert torch.equal(part.value(), expected)
