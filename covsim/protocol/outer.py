"""Theta moves: the outer optimizer takes the combined pseudo-gradient for a gradient.

Optimizers here see the coordinates that are exchanged and know nothing of the others; their memory belongs to a
lineage, so that equal histories share it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.choice import OneOf
from covsim.registry import Part, Registry
from covsim.schedules import Constant, Schedule, schedules

OuterState = tuple[Tensor, ...]
"""What an outer optimizer remembers: vectors as long as theta [N]."""

Decay = Annotated[float, Field(ge=0, lt=1)]


class OuterOptimizer(Part):
    """A way to apply the combined pseudo-gradient."""

    lr: float = Field(default=1.0, gt=0, le=100, description="alpha, the outer learning rate")
    schedule: Annotated[Schedule, OneOf(schedules, bare="kind")] = Field(
        default=Constant(), description="what the rate is multiplied by, from outer step to outer step"
    )

    def learning_rate(self, depth: int, total_steps: int) -> float:
        """Alpha of the outer step that follows `depth` earlier ones, of about `total_steps`."""
        return self.lr * self.schedule.factor(depth, total_steps)

    @abstractmethod
    def initial(self, theta: Tensor) -> OuterState:
        """The memory before the first step, for theta [N]."""

    @abstractmethod
    def step(self, theta: Tensor, state: OuterState, delta: Tensor, rate: float) -> tuple[Tensor, OuterState]:
        """A new theta [N] and memory, from the combined pseudo-gradient [N]; the arguments are left alone."""

    @abstractmethod
    def direction(self, delta: Tensor) -> Tensor:
        """What a step without memory would follow [N]; a validator's trial step does."""


outer_optimizers: Registry[OuterOptimizer] = Registry("outer optimizer")


@outer_optimizers.register
class Sgd(OuterOptimizer):
    """theta' = theta - alpha Delta: no momentum, no weight decay.

    Source: SparseLoCo (arXiv 2508.15706).
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.65, gt=0, le=100, description="alpha, the outer learning rate")

    def initial(self, theta: Tensor) -> OuterState:
        """Nothing."""
        return ()

    def step(self, theta: Tensor, state: OuterState, delta: Tensor, rate: float) -> tuple[Tensor, OuterState]:
        """A new theta [N]."""
        return theta - rate * delta, ()

    def direction(self, delta: Tensor) -> Tensor:
        """The pseudo-gradient itself."""
        return delta


@outer_optimizers.register
class Nesterov(OuterOptimizer):
    """Momentum outside: b' = m b + Delta, theta' = theta - alpha (Delta + m b').

    Source: DiLoCo (arXiv 2311.08105), section 3, where 0.7 and 0.9 did best; the form is that of torch.optim.SGD.
    """

    kind: Literal["nesterov"] = "nesterov"
    lr: float = Field(default=0.7, gt=0, le=100, description="alpha, the outer learning rate")
    momentum: Decay = Field(default=0.9, description="m, what the momentum keeps per outer step")

    def initial(self, theta: Tensor) -> OuterState:
        """The momentum b [N], zero."""
        return (torch.zeros_like(theta),)

    def step(self, theta: Tensor, state: OuterState, delta: Tensor, rate: float) -> tuple[Tensor, OuterState]:
        """A new theta [N] and momentum [N]."""
        (momentum,) = state
        momentum = self.momentum * momentum + delta
        return theta - rate * (delta + self.momentum * momentum), (momentum,)

    def direction(self, delta: Tensor) -> Tensor:
        """The pseudo-gradient itself."""
        return delta


@outer_optimizers.register
class Adam(OuterOptimizer):
    """Adam outside, with decoupled weight decay and an optional clip of the combined norm; on gradients, plain AdamW.

    Source: AdamW (arXiv 1711.05101); outer Adam of federated learning is FedAdam (arXiv 2003.00295).
    """

    kind: Literal["adam"] = "adam"
    lr: float = Field(default=4e-3, gt=0, le=100, description="alpha, the outer learning rate")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.95), description="decay of the two moments per outer step")
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="decoupled, times the learning rate")
    clip_norm: float | None = Field(default=None, gt=0, le=1e9, description="largest norm of the combined update")

    def initial(self, theta: Tensor) -> OuterState:
        """Two moments and the steps that each coordinate has seen, all [N]: fragments take turns."""
        return torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros_like(theta)

    def step(self, theta: Tensor, state: OuterState, delta: Tensor, rate: float) -> tuple[Tensor, OuterState]:
        """A new theta [N], moments and step counts [N]."""
        first, second, count = state
        if self.clip_norm is not None:
            delta = delta * (self.clip_norm / (delta.double().norm() + 1e-6)).clamp(max=1.0).to(delta.dtype)
        beta1, beta2 = self.betas
        first = beta1 * first + (1 - beta1) * delta
        second = beta2 * second + (1 - beta2) * delta.square()
        count = count + 1
        root = (second / (1 - beta2**count)).sqrt() + self.eps
        moved = (1 - rate * self.weight_decay) * theta - rate * (first / (1 - beta1**count)) / root
        return moved, (first, second, count)

    def direction(self, delta: Tensor) -> Tensor:
        """The pseudo-gradient itself; the trial of a validator knows no moments."""
        return delta


@outer_optimizers.register
class SignSgd(OuterOptimizer):
    """theta' = (1 - alpha wd) theta - alpha sign(Delta): every coordinate that anyone sent moves equally far.

    Source: DeMo (arXiv 2411.19870), algorithm 1 with its signed update.
    """

    kind: Literal["sign_sgd"] = "sign_sgd"
    lr: float = Field(default=1e-3, gt=0, le=100, description="alpha, the outer learning rate")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="decoupled, times the learning rate")

    def initial(self, theta: Tensor) -> OuterState:
        """Nothing."""
        return ()

    def step(self, theta: Tensor, state: OuterState, delta: Tensor, rate: float) -> tuple[Tensor, OuterState]:
        """A new theta [N]."""
        return (1 - rate * self.weight_decay) * theta - rate * delta.sign(), ()

    def direction(self, delta: Tensor) -> Tensor:
        """The signs."""
        return delta.sign()
