"""Questions about held-out text are fair, the same for every run, and answered by the lowest loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from covsim.learning.corpus import Corpus, Data
from covsim.learning.model import Gpt, Model
from covsim.learning.tasks import Cloze, Order, Task, tasks
from covsim.randomness import Streams

T = 32
Q = 400


class Bigrams(Model):
    """A table of the logarithm of each token's chance after each other token [V, V]; it is looked up, never trained."""

    kind: Literal["bigrams"] = "bigrams"
    vocabulary: int = 256

    @property
    def known_before_run(self) -> bool:
        return True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"table": (self.vocabulary, self.vocabulary)}

    def check_tokens(self, largest: int) -> None:
        assert largest < self.vocabulary

    def initial(self, generator: torch.Generator) -> Tensor:
        return torch.zeros(self.num_parameters)

    def sequence_losses(self, theta: Tensor, tokens: Tensor) -> Tensor:
        pairs = tokens[..., :-1] * self.vocabulary + tokens[..., 1:]  # [P, B, T]
        return -theta.gather(1, pairs.flatten(1)).view(pairs.shape).mean(dim=2)

    def gradients(self, theta: Tensor, tokens: Tensor, out: Tensor) -> Tensor:
        raise NotImplementedError

    def of(self, tokens: Tensor) -> Tensor:
        """The table [N] of a text [n], with one half added to every count."""
        pairs = tokens[:-1] * self.vocabulary + tokens[1:]
        counts = torch.bincount(pairs, minlength=self.num_parameters).view(self.vocabulary, -1) + 0.5
        return (counts / counts.sum(dim=1, keepdim=True)).log().flatten()


@pytest.fixture(scope="module")
def speeches() -> Corpus:
    return Corpus(Data(), T, Streams(1))


OwnText = Callable[[np.ndarray], Corpus]


@pytest.fixture
def own(tmp_path: Path) -> OwnText:
    """The corpus of a file of these tokens."""

    def corpus(tokens: np.ndarray) -> Corpus:
        np.save(tmp_path / "own.npy", tokens)
        return Corpus(Data(path=str(tmp_path / "own.npy")), T, Streams(1))

    return corpus


@pytest.mark.parametrize("kind", list(tasks))
def test_questions_are_about_held_out_text_and_the_first_choice_is_true(kind: str, speeches: Corpus) -> None:
    questions = tasks[kind]().questions(speeches)
    assert questions.shape == (Q, 4, T + 1)
    assert questions.dtype == torch.int64
    assert torch.equal(questions[:, 0], speeches.held_out(Q))
    for choices in questions:
        assert len(choices.unique(dim=0)) == 4


@pytest.mark.parametrize("kind", list(tasks))
def test_every_run_with_the_same_data_is_asked_the_same(kind: str, speeches: Corpus) -> None:
    other_seed = Corpus(Data.model_validate({"shards": "by_party", "held_out_sequences": 3}), T, Streams(7))
    assert torch.equal(tasks[kind]().questions(speeches), tasks[kind]().questions(other_seed))


def test_a_cloze_has_other_held_out_endings(speeches: Corpus) -> None:
    questions = Cloze().questions(speeches)
    half = (T + 1) // 2
    assert torch.equal(questions[:, :, :-half], questions[:, :1, :-half].expand(-1, 4, -1))
    endings = {bytes(ending.tolist()) for ending in speeches.held_out(Q)[:, -half:]}
    assert {bytes(ending.tolist()) for ending in questions[:, 1:, -half:].flatten(0, 1)} <= endings


def test_an_order_has_the_same_quarters(own: OwnText) -> None:
    questions = Order(items=30).questions(own(np.arange(60_000)))
    assert torch.equal(questions[:, :, :1], questions[:, :1, :1].expand(-1, 4, -1))  # 33 is 1 more than 4 quarters
    quarters = questions[:, :, 1:].view(30, 4, 4, 8)
    assert (quarters.diff(dim=-1) == 1).all()
    first_tokens = quarters[..., 0]
    assert torch.equal(first_tokens.sort(dim=2).values, first_tokens[:, :1].expand(-1, 4, -1))
    orders = (first_tokens - first_tokens[:, :1, :1]) // 8
    assert {tuple(order) for order in orders[:, 1:].flatten(0, 1).tolist()} > {(1, 0, 2, 3), (3, 2, 1, 0)}


@pytest.mark.parametrize("kind", list(tasks))
def test_an_untrained_model_guesses(kind: str, speeches: Corpus) -> None:
    model = Gpt(layers=1, width=16, context=T)
    theta = model.initial(torch.Generator().manual_seed(1))
    accuracy = tasks[kind]().accuracy(model, theta, speeches)
    spread = math.sqrt(0.25 * 0.75 / Q)
    assert abs(accuracy - tasks[kind]().chance) < 3 * spread


@pytest.mark.parametrize("kind", list(tasks))
def test_who_knows_the_rule_of_the_text_answers_all(kind: str, own: OwnText) -> None:
    """The text counts up to 96 and begins again, so where pieces do not fit together a table of bigrams sees it."""
    text = np.arange(100_000) % 97
    model = Bigrams(context=T, vocabulary=97)
    corpus = own(text)
    theta = model.of(torch.from_numpy(text))
    accuracy = tasks[kind]().accuracy(model, theta, corpus)
    questions = tasks[kind]().questions(corpus)
    tied = [len({tuple(choice) for choice in choices.tolist()}) < 4 for choices in questions]
    assert accuracy == pytest.approx(1, abs=np.mean(tied))
    assert accuracy > 0.98
    assert tasks[kind]().accuracy(model, -theta, corpus) == 0


@pytest.mark.parametrize(("task", "expected"), [(Cloze(), 0.36), (Order(), 0.79)], ids=str)
def test_bigrams_of_real_text_beat_chance(task: Task, expected: float, speeches: Corpus) -> None:
    model = Bigrams(context=T)
    theta = model.of(speeches.random_sample(4000, np.random.default_rng(1)).flatten())
    spread = math.sqrt(0.25 * 0.75 / Q)
    accuracy = task.accuracy(model, theta, speeches)
    assert accuracy > task.chance + 4 * spread
    assert accuracy == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("kind", list(tasks))
def test_who_finds_all_choices_alike_gets_exactly_the_share_of_a_guess(kind: str, speeches: Corpus) -> None:
    model = Bigrams(context=T)
    for value in (0.0, math.nan, -math.inf):
        assert tasks[kind]().accuracy(model, torch.full((65_536,), value), speeches) == 0.25


@pytest.mark.parametrize(("tied", "counts"), [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)])
def test_ties_share_the_answer(tied: int, counts: float) -> None:
    class Fixed(Task):
        """One question whose choices are told apart by their first token."""

        kind: Literal["fixed"] = "fixed"

        @property
        def chance(self) -> float:
            return 0.25

        def questions(self, corpus: Corpus) -> Tensor:
            first = torch.tensor([0, 0, 0, 0]) if tied == 4 else torch.tensor([0] * tied + [1] * (4 - tied))
            return torch.stack([first, torch.zeros(4, dtype=torch.int64)], dim=1)[None]

    model = Bigrams(context=2, vocabulary=2)
    theta = torch.tensor([-1.0, 0.0, -2.0, 0.0])  # a 0 after a 0 is likelier than after a 1
    assert Fixed().accuracy(model, theta, None) == pytest.approx(counts)  # type: ignore[arg-type]
    assert Fixed().accuracy(model, -theta, None) == (0.25 if tied == 4 else 0)  # type: ignore[arg-type]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", list(tasks))
def test_the_number_of_threads_does_not_matter(kind: str, speeches: Corpus) -> None:
    model = Gpt(layers=1, width=16, context=T)
    theta = model.initial(torch.Generator().manual_seed(1))
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(tasks[kind](items=50).accuracy(model, theta, speeches))
    assert len(found) == 1


def test_fewer_questions_where_less_is_held_out(own: OwnText) -> None:
    corpus = own(np.arange(20_000) % 97)
    assert len(Cloze().questions(corpus)) == len(corpus._held_out) == 31
    with pytest.raises(ValueError, match="cloze_4 needs 4 held-out sequences, and there are 2"):
        Cloze().questions(own(np.arange(50 * T)))


def test_a_context_too_short_to_be_shuffled_is_refused() -> None:
    corpus = Corpus(Data(), 2, Streams(1))
    assert Cloze(items=5).questions(corpus).shape == (5, 4, 3)
    with pytest.raises(ValueError, match="order_4 needs a context of at least 3 tokens"):
        Order().questions(corpus)
