"""Theta moves: the outer optimizer takes the combined pseudo-gradient for a gradient."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field
from torch import Tensor

from covsim.registry import Part, Registry


class OuterOptimizer(Part):
    """A way to apply the combined pseudo-gradient."""

    @abstractmethod
    def learning_rate(self, round: int) -> float:
        """Alpha of a round."""

    @abstractmethod
    def step(self, theta: Tensor, delta: Tensor, round: int) -> Tensor:
        """A new theta [N] from theta [N] and the combined pseudo-gradient [N]."""


outer_optimizers: Registry[OuterOptimizer] = Registry("outer optimizer")


@outer_optimizers.register
class Sgd(OuterOptimizer):
    """theta' = theta - alpha Delta: no momentum, no weight decay (SparseLoCo, arXiv 2508.15706)."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.65, gt=0, le=100, description="alpha, the outer learning rate")

    def learning_rate(self, round: int) -> float:
        """Alpha, the same in every round."""
        return self.lr

    def step(self, theta: Tensor, delta: Tensor, round: int) -> Tensor:
        """A new theta [N], on theta's device."""
        return theta - self.learning_rate(round) * delta.to(theta.device)
