"""Losses without gradients: of many parameter vectors, or of one vector on many batches.

Letters in shapes: P vectors, E batches, B sequences, T tokens of context, N parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from covsim.learning.model import Model
from covsim.learning.workers import side_by_side


def losses_per_vector(model: Model, thetas: Tensor, tokens: Tensor, chunk: int = 12) -> Tensor:
    """Mean nats per token [P] of each vector on its own sequences.

    Args:
        model: the model whose parameters these are.
        thetas: [P, N].
        tokens: int64 [P, B, T + 1], or [1, B, T + 1] for the same sequences for all.
        chunk: vectors computed at once; it changes the speed, never the result.
    """
    tokens = tokens.to(thetas.device).expand(len(thetas), -1, -1)
    parts = side_by_side(lambda part: model.losses(thetas[part], tokens[part]), len(thetas), chunk)
    return torch.cat([thetas.new_zeros(0), *parts])


def losses_of_one(model: Model, theta: Tensor, tokens: Tensor, chunk: int = 32) -> Tensor:
    """Mean nats per token [E] of one vector [N] on each of E batches.

    Args:
        model: the model whose parameters these are.
        theta: [N].
        tokens: int64 [E, B, T + 1].
        chunk: sequences computed at once; it changes the speed, never the result.
    """
    E, B = tokens.shape[:2]
    sequences = tokens.to(theta.device).flatten(0, 1)[None]  # [1, E * B, T + 1]
    parts = side_by_side(lambda part: model.sequence_losses(theta[None], sequences[:, part]), E * B, chunk)
    return torch.cat([theta.new_zeros(1, 0), *parts], dim=1).view(E, B).mean(dim=1)
