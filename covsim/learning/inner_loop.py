"""H optimizer steps for a batch of peers at once: the inner loop of the protocol, and the cost of a whole run.

Letters in shapes: P peers, S steps, B sequences, T tokens of context, N parameters. A row's result does not depend, not
even in its last bit, on which other rows share the batch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from covsim.choice import OneOf
from covsim.learning.model import Model
from covsim.registry import Part, Registry
from covsim.units import Share


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers of P peers from round to round."""

    first: Tensor  # moments [P, N]
    second: Tensor  # moments [P, N]
    counts: Tensor  # steps done so far, float32 [P]

    @classmethod
    def zeros(cls, P: int, N: int, device: torch.device | str = "cpu") -> OptimizerState:
        """The state of peers that have not trained yet."""
        return cls(torch.zeros(P, N, device=device), torch.zeros(P, N, device=device), torch.zeros(P, device=device))

    @classmethod
    def stack(cls, states: Sequence[OptimizerState]) -> OptimizerState:
        """One state of all the peers of `states`, copied."""
        return cls(*(torch.cat(parts) for parts in zip(*(vars(state).values() for state in states), strict=True)))

    def rows(self) -> list[OptimizerState]:
        """The state of each peer by itself, copied."""
        columns = (part.split(1) for part in vars(self).values())
        return [OptimizerState(*(part.clone() for part in row)) for row in zip(*columns, strict=True)]

    def head(self, p: int) -> OptimizerState:
        """The first `p` peers, sharing memory."""
        return OptimizerState(self.first[:p], self.second[:p], self.counts[:p])


class InnerOptimizer(Part):
    """A rule that moves each peer's parameters by its own gradient and keeps two moments per parameter."""

    @abstractmethod
    def learning_rate(self, step: int, total_steps: int) -> float:
        """The rate of inner step `step`, counted from 0 over the whole run of `total_steps`."""

    @abstractmethod
    def step(self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float]) -> None:
        """Move theta [P, N] and the state in place, peer p at rate rates[p]; `gradients` [P, N] are consumed."""


inner_optimizers: Registry[InnerOptimizer] = Registry("inner optimizer")

Decay = Annotated[float, Field(ge=0, lt=1)]


@inner_optimizers.register
class AdamW(InnerOptimizer):
    """AdamW with the gradient clipped per peer, linear warm-up and cosine decay (Covenant-72B, section 3)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=4e-3, gt=0, le=1, description="peak learning rate")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.95), description="decay of the two moments per step")
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decoupled, times the learning rate")
    clip_norm: float = Field(default=1.0, gt=0, le=1e9, description="largest gradient norm of a peer")
    warmup_steps: int = Field(default=60, ge=0, le=10_000_000, description="inner steps of linear warm-up")
    final_lr_share: Share = Field(default=0.1, description="learning rate of the last step, as a share of the peak")

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Up to the peak linearly, then by a cosine to `final_lr_share` of it; constant beyond the end."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        return self.lr * (self.final_lr_share + (1 - self.final_lr_share) * (1 + math.cos(math.pi * progress)) / 2)

    def step(self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float]) -> None:
        """Clip each peer's gradient, then move by torch's fused AdamW: one pass over memory instead of ten."""
        norms = torch.linalg.vector_norm(gradients, dim=1)  # [P]
        divisors = ((norms + 1e-6) / self.clip_norm).clamp(min=1)
        state.counts.add_(1)
        rows = (theta, gradients, state.first, state.second, divisors, state.counts)
        for rate, row in zip(rates, zip(*(part.unbind() for part in rows), strict=True), strict=True):
            parameters, gradient, first, second, divisor, count = row
            torch._fused_adamw_(
                [parameters],
                [gradient],
                [first],
                [second],
                [],
                [count],
                lr=rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=self.weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
            )


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

    Returns:
        Where each peer ends, [P, N].
    """
    theta = theta.clone(memory_format=torch.contiguous_format)  # also of a theta expanded to P rows
    gradients = torch.empty_like(theta)
    for i in range(tokens.shape[1]):
        model.gradients(theta, tokens[:, i], out=gradients)
        optimizer.step(theta, gradients, state, [optimizer.learning_rate(s + i, total_steps) for s in first_steps])
    return theta
