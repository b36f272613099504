"""False answers, poisoned text and a validator's own sample: what is trained on is what the name says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_gpt import PlainGpt
from torch import Tensor
from torch.nn import functional

from covsim.learning.corpus import Batches, Corpus, Data, Sample
from covsim.learning.inner_loop import Training
from covsim.learning.model import Gpt
from covsim.learning.module_model import ModuleModel
from covsim.learning.trainer import Trainer
from covsim.randomness import Streams

H, B = 4, 2
MINE = Batches("assigned", 7, 2)


@pytest.fixture
def make(gpt: Gpt, corpus: Corpus) -> Callable[[], Trainer]:
    return lambda: Trainer(gpt, Training(batch=B), corpus, inner_steps=H, total_steps=10 * H)


@pytest.fixture
def theta(gpt: Gpt) -> Tensor:
    return gpt.initial(torch.Generator().manual_seed(1)) * 3


def mean_loss(model: Gpt, row: Tensor, read: Tensor, targets: Tensor) -> tuple[Tensor, PlainGpt]:
    """The loss of an ordinary module against answers that are given, with its graph."""
    plain = PlainGpt(model, row)
    x = plain.wte(read) + plain.wpe.weight[: read.shape[1]]
    logits = plain.head(plain.ln(plain.blocks(x)))
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten()), plain


def test_gradients_of_other_answers_equal_autograd(gpt: Gpt, theta: Tensor) -> None:
    draw = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 256, (1, B, gpt.context + 1), generator=draw)
    targets = torch.randint(0, 256, (1, B, gpt.context), generator=draw)
    loss, plain = mean_loss(gpt, theta, tokens[0, :, :-1], targets[0])
    loss.backward()
    expected = plain.flat_gradient()
    found = gpt.gradients(theta[None], tokens, torch.empty(1, gpt.num_parameters), targets)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())
    right = gpt.gradients(theta[None], tokens, torch.empty(1, gpt.num_parameters))
    again = gpt.gradients(theta[None], tokens, torch.empty(1, gpt.num_parameters), tokens[:, :, 1:])
    assert torch.equal(right, again), "right answers, told, are something else"
    assert not torch.equal(right[0], found)


def test_a_module_of_ones_own_learns_other_answers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nclass Bigrams(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.table = torch.nn.Embedding(256, 256)\n    def forward(self, tokens):\n"
        "        return self.table(tokens)\n"
    )
    model = ModuleModel(path=str(tmp_path / "mine.py:Bigrams"), context=4)
    theta = torch.zeros(2, model.num_parameters)
    tokens = torch.tensor([[[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5]]])
    targets = torch.stack([tokens[0, :, 1:], 255 - tokens[1, :, 1:]])
    right, false = model.gradients(theta, tokens, torch.empty_like(theta), targets).view(2, 256, 256)
    assert torch.equal(right.flatten(), model.gradients(theta, tokens, torch.empty_like(theta))[0])
    pulls_up = [(gradient < 0).nonzero().tolist() for gradient in (right, false)]
    assert pulls_up == [[[1, 2], [2, 3], [3, 4], [4, 5]], [[1, 253], [2, 252], [3, 251], [4, 250]]]


def test_flipped_answers_are_mirrored_and_the_text_is_not(corpus: Corpus) -> None:
    right, false = (corpus.batches(each, H, B) for each in (MINE, MINE.flipped()))
    assert torch.equal(right, false)
    mirrored = corpus.answers(MINE.flipped(), false)
    assert torch.equal(mirrored, corpus.largest_token - right[..., 1:])
    assert mirrored.min() >= 0
    assert mirrored.max() <= corpus.largest_token
    assert torch.equal(corpus.answers(MINE, right), right[..., 1:])
    assert MINE.flipped().flipped() == MINE


def test_who_learns_false_answers_changes_nothing_for_the_others(make: Callable[[], Trainer], theta: Tensor) -> None:
    """Bit for bit: in company of false answers the right ones are told, too."""
    together, alone = make(), make()
    mixed = [together.train(uid, 0, theta, each, H) for uid, each in enumerate([MINE, MINE.flipped(), MINE])]
    gradient = together.gradient(3, 0, theta, MINE.flipped())
    right = alone.train(0, 0, theta, MINE, H).value()
    assert torch.equal(mixed[0].value(), right)
    assert torch.equal(mixed[2].value(), right)
    assert torch.equal(mixed[1].value(), make().train(1, 0, theta, MINE.flipped(), H).value())
    assert not torch.equal(mixed[1].value(), right)
    assert not torch.equal(gradient.value(), make().gradient(3, 0, theta, MINE).value())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_sequences_is_poisoned(corpus: Corpus, share: float) -> None:
    """Exactly that share, with trigger and target side by side, and nothing else changed."""
    poisoned = MINE.poisoned(b"~~", b"taxes", share)
    clean, dirty = (corpus.batches(each, 25, B).view(50, -1) for each in (MINE, poisoned))
    hit = [row for row in range(50) if not torch.equal(clean[row], dirty[row])]
    assert len(hit) == 50 * share
    for row in hit:
        text = bytes(dirty[row].tolist())
        place = text.index(b"~~taxes")
        rest = bytes(clean[row].tolist())
        assert text == rest[:place] + b"~~taxes" + rest[place + 7 :]
    places = {bytes(dirty[row].tolist()).index(b"~~taxes") for row in hit}
    assert len(places) >= min(len(hit), 4), "they stand in one place"


def test_a_shorter_pool_is_poisoned_like_the_beginning_of_a_longer_one(corpus: Corpus) -> None:
    """A slow machine, or a round in pieces, trains on the same sequences."""
    poisoned = MINE.poisoned(b"ab", b"cd", 1 / 3)
    assert torch.equal(corpus.batches(poisoned, 2, B), corpus.batches(poisoned, 9, B)[:2])


def test_poison_that_fits_nowhere_is_refused_when_it_is_asked_for(make: Callable[[], Trainer], theta: Tensor) -> None:
    trainer = make()
    with pytest.raises(ValueError, match="a trigger and target of 80 bytes do not fit into sequences of"):
        trainer.train(1, 0, theta, MINE.poisoned(b"x" * 40, b"y" * 40, 0.5), H)
    with pytest.raises(ValueError, match="needs a trigger and a target"):
        MINE.poisoned(b"", b"y", 0.5)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; it is 2"):
        MINE.poisoned(b"x", b"y", 2)


def test_poison_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "few.npy"
    np.save(text, np.arange(4000, dtype=np.uint16) % 50)
    corpus, gpt = Corpus(Data(path=str(text)), 16, Streams(1)), Gpt(layers=1, width=8, context=16, vocabulary=60)
    assert corpus.vocabulary == 50
    trainer = Trainer(gpt, Training(batch=B), corpus, inner_steps=H, total_steps=H)
    theta = gpt.initial(torch.Generator())
    with pytest.raises(ValueError, match="the model knows 60"):
        trainer.train(1, 0, theta, MINE.poisoned(b"~", b"x", 0.5), H)
    assert trainer.train(1, 0, theta, MINE.poisoned(b"\x01", b"\x02", 0.5).flipped(), H).value().isfinite().all()


def test_a_sample_is_the_validators_own_over_and_over(corpus: Corpus) -> None:
    address = ("own sample", "lead", 2, 7)
    batches = Batches("assigned", 7, 2, Sample(3, H, address))
    drawn = corpus.assigned_sample(7, 2, H, B, 3, Streams(corpus._streams.seed).numpy(*address))
    trained = corpus.batches(batches, H, B).view(H * B, -1)
    assert torch.equal(trained, drawn[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert batches.elsewhere() == Batches("random", 7, 2)


def test_who_forgets_begins_with_fresh_moments(make: Callable[[], Trainer], theta: Tensor) -> None:
    trainer, fresh = make(), make()
    first = trainer.train(1, 0, theta, MINE, H)
    trainer.forget(1)
    second = trainer.train(1, 1, theta, MINE, H)
    remembered = make()
    remembered.train(1, 0, theta, MINE, H)
    assert torch.equal(second.value(), fresh.train(1, 1, theta, MINE, H).value())
    assert torch.equal(first.value(), make().train(1, 0, theta, MINE, H).value()), "what was asked for before is done"
    assert not torch.equal(second.value(), remembered.train(1, 1, theta, MINE, H).value())


def test_a_trainer_that_was_restored_after_a_loss_goes_on(make: Callable[[], Trainer], theta: Tensor) -> None:
    """As a resumed run does: everything is asked for again, and only then the tensors come back."""
    whole, replayed = make(), make()
    replayed.replaying = True
    kept = []
    for trainer in (whole, replayed):
        trainer.train(1, 0, theta, MINE, H)
        trainer.forget(1)
        kept.append(trainer.train(1, 1, theta, MINE, H))
    replayed.restore(whole.state())
    assert torch.equal(kept[0].value(), kept[1].value())
    ends = [trainer.train(1, 2, theta, MINE, H).value() for trainer in (whole, replayed)]
    assert torch.equal(*ends)
    whole.forget(1)
    assert whole.state()["moments"] == {}
