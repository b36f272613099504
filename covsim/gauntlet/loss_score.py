"""What a submission is worth: the loss before and after a small trial step with it, on its own and on random data.

Source: the Gauntlet paper, section 3, and `templar` v2.1.28. The trial step is a fifth of the outer step, for larger
ones gave inconsistent scores. What is concluded from the losses (gradient score, indicator) stands in `evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from covsim.learning.evaluate import losses_of_one, losses_per_vector
from covsim.learning.model import Model


@dataclass(frozen=True)
class LossEvidence:
    """Mean nats per token [E] before and after each trial step, on own and on random data."""

    own_before: tuple[float, ...]
    own_after: tuple[float, ...]
    random_before: tuple[float, ...]
    random_after: tuple[float, ...]

    def flat(self) -> tuple[float, ...]:
        """All numbers in one row [4 E]."""
        return self.own_before + self.own_after + self.random_before + self.random_after

    @classmethod
    def of(cls, flat: Sequence[float]) -> LossEvidence:
        """The evidence that `flat` wrote down."""
        quarter = len(flat) // 4
        assert len(flat) == 4 * quarter
        return cls(*(tuple(flat[i * quarter : (i + 1) * quarter]) for i in range(4)))


def measure(
    model: Model, theta: Tensor, trials: Sequence[Tensor], own: Tensor, random: Tensor, chunk: int = 12
) -> LossEvidence:
    """Losses before and after the trial step of each payload.

    A vector's loss is bit-equal whoever shares its batch, so a payload without effect improves nothing, to the last
    bit, and the loss before on the shared random data is computed once.

    Args:
        theta: the validator's parameters [N] before the outer step of this window.
        trials: where one small step with each payload alone leads from there, E vectors [N].
        own: each peer's own sequences, int64 [E, B, T + 1].
        random: the sequences that all peers share, int64 [B, T + 1].
        chunk: vectors computed at once.
    """
    if not trials:
        return LossEvidence((), (), (), ())
    stepped = torch.stack(list(trials))  # [E, N]
    return LossEvidence(
        own_before=tuple(losses_of_one(model, theta, own).tolist()),
        own_after=tuple(losses_per_vector(model, stepped, own, chunk).tolist()),
        random_before=tuple(losses_per_vector(model, theta[None], random[None], chunk).tolist()) * len(trials),
        random_after=tuple(losses_per_vector(model, stepped, random[None], chunk).tolist()),
    )
