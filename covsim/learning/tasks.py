"""Zero-shot tasks: multiple-choice questions about held-out text, answered by the lowest loss.

A task asks for no training and no prompt: each choice is a whole sequence, and the model chooses the one that it finds
least surprising. The questions follow from the data settings and the context alone; every run with these is asked the
same, whatever its seed, so that runs can be compared question by question.

Letters in shapes: Q questions, C choices, T tokens of context, N parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from covsim.learning.corpus import Corpus
from covsim.learning.evaluate import losses_of_one
from covsim.learning.model import Model
from covsim.randomness import Streams
from covsim.registry import Part, Registry

_CHOICES = 4


class Task(Part):
    """Multiple-choice questions about text that nobody trains on."""

    kind: str
    items: int = Field(default=400, ge=1, le=100_000, description="questions; fewer where fewer sequences are held out")

    @property
    @abstractmethod
    def chance(self) -> float:
        """The accuracy of guessing."""

    @abstractmethod
    def questions(self, corpus: Corpus) -> Tensor:
        """The choices of each question, int64 [Q, C, T + 1]; the first is the right one.

        Raises ValueError if the context or the held-out part is too short.
        """

    def accuracy(self, model: Model, theta: Tensor, corpus: Corpus) -> float:
        """The share of questions that a parameter vector [N] answers right.

        Choices that share the lowest loss share the answer: the right one among m of them counts 1 / m. A loss that is
        not a number is the highest. The result depends on no thread count.
        """
        questions = self.questions(corpus)
        Q, C = questions.shape[:2]
        losses = losses_of_one(model, theta, questions.flatten(0, 1)[:, None]).view(Q, C).nan_to_num(nan=torch.inf)
        lowest = losses == losses.amin(dim=1, keepdim=True)  # [Q, C]
        return float((lowest[:, 0] / lowest.sum(dim=1)).double().mean())


tasks: Registry[Task] = Registry("task")


@tasks.register
class Cloze(Task):
    """Find the true continuation of a sequence among four: its second half, or that of another held-out sequence."""

    kind: Literal["cloze_4"] = "cloze_4"

    @property
    def chance(self) -> float:
        """One in four."""
        return 1 / _CHOICES

    def questions(self, corpus: Corpus) -> Tensor:
        """Four times the same beginning [Q, 4, T + 1]: the lowest loss is that of the likeliest continuation."""
        sequences = corpus.held_out(self.items)  # [Q, T + 1]
        Q, half = len(sequences), sequences.shape[1] // 2
        if Q < _CHOICES:
            raise ValueError(f"{self.kind} needs {_CHOICES} held-out sequences, and there are {Q}")
        generator = Streams(0).numpy("task", self.kind)
        others = [generator.choice(Q - 1, _CHOICES - 1, replace=False) for _ in range(Q)]
        ahead = np.array([[0, *(1 + other)] for other in others])  # [Q, 4], distinct and less than Q
        donors = torch.from_numpy((np.arange(Q)[:, None] + ahead) % Q)
        choices = sequences[:, None].repeat(1, _CHOICES, 1)
        choices[:, :, -half:] = sequences[donors][:, :, -half:]
        return choices


@tasks.register
class Order(Task):
    """Find the true order of the four quarters of a sequence among itself and three shuffles of it."""

    kind: Literal["order_4"] = "order_4"

    @property
    def chance(self) -> float:
        """One in four."""
        return 1 / _CHOICES

    def questions(self, corpus: Corpus) -> Tensor:
        """A sequence and three shuffles of it [Q, 4, T + 1]; what four does not divide stays at the beginning."""
        sequences = corpus.held_out(self.items)  # [Q, T + 1]
        Q, quarter = len(sequences), sequences.shape[1] // 4
        if not quarter:
            raise ValueError(f"{self.kind} needs a context of at least 3 tokens")
        generator = Streams(0).numpy("task", self.kind)
        orders = np.array([_four_orders(generator) for _ in range(Q)])  # [Q, 4, 4]
        places = orders[..., None] * quarter + np.arange(quarter)  # [Q, 4, 4, quarter]
        moved = torch.from_numpy(places.reshape(Q, _CHOICES, -1))
        choices = sequences[:, None].repeat(1, _CHOICES, 1)
        choices[:, :, -4 * quarter :] = choices[:, :, -4 * quarter :].gather(2, moved)
        return choices


def _four_orders(generator: np.random.Generator) -> list[list[int]]:
    """The true order of four pieces, then three different other ones."""
    orders = [[0, 1, 2, 3]]
    while len(orders) < _CHOICES:
        order = generator.permutation(4).tolist()
        if order not in orders:
            orders.append(order)
    return orders
