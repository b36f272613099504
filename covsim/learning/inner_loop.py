"""H optimizer steps for a batch of peers at once: the inner loop of the protocol, and the cost of a whole run.

Letters in shapes: P peers, S steps, B sequences, T tokens of context, N parameters. A row's result does not depend, not
even in its last bit, on which other rows share the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from covsim.choice import OneOf
from covsim.learning.inner_optimizers import AdamW, InnerOptimizer, OptimizerState, Sgd, inner_optimizers
from covsim.learning.model import Model
from covsim.learning.muon import Muon

__all__ = [
    "AdamW",
    "InnerOptimizer",
    "Muon",
    "OptimizerState",
    "Sgd",
    "Training",
    "inner_optimizers",
    "run_inner_steps",
]


class Training(BaseModel):
    """The `training:` section of a scenario: how a peer trains between two exchanges."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch: int = Field(default=4, ge=1, le=4096, description="sequences per inner step")
    inner: Annotated[InnerOptimizer, OneOf(inner_optimizers, default="adamw")] = Field(
        default=AdamW(), description="the optimizer of the inner steps"
    )


def run_inner_steps(
    model: Model,
    optimizer: InnerOptimizer,
    theta: Tensor,
    state: OptimizerState,
    tokens: Tensor,
    first_steps: Sequence[int],
    total_steps: int,
    targets: Tensor | None = None,
) -> Tensor:
    """Train P peers for S steps; the state is updated in place, theta is left alone.

    Args:
        model: what is trained.
        optimizer: the inner optimizer.
        theta: where each peer starts, [P, N].
        state: the optimizer's memory of these peers.
        tokens: int64 [P, S, B, T + 1].
        first_steps: place of each peer's first step in the schedule of the whole run, [P].
        total_steps: length of that schedule.
        targets: int64 [P, S, B, T], what is to be predicted; None for the tokens that follow.

    Returns:
        Where each peer ends, [P, N].
    """
    theta = theta.clone(memory_format=torch.contiguous_format)  # also of a theta expanded to P rows
    gradients, shapes = torch.empty_like(theta), model.shapes
    for i in range(tokens.shape[1]):
        model.gradients(theta, tokens[:, i], gradients, None if targets is None else targets[:, i])
        rates = [optimizer.learning_rate(step + i, total_steps) for step in first_steps]
        optimizer.step(theta, gradients, state, rates, shapes)
    return theta
