"""What moves a peer's parameters at every inner step, for a batch of peers at once.

Letters in shapes: P peers, N parameters. A row's result does not depend, not even in its last bit, on which other rows
share the batch. So operations here work row by row, or round each element by itself: a fused multiply and add may round
an element differently at the end of a vector, and where that is depends on the batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from covsim.choice import OneOf
from covsim.registry import Part, Registry
from covsim.schedules import Constant, Cosine, Schedule, schedules

Shapes = Mapping[str, tuple[int, ...]]
"""The parameter tensors by name, in their order inside the flat vector."""

Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers of P peers from round to round."""

    first: Tensor  # moments [P, N], or [P, 0] for an optimizer that keeps none
    second: Tensor  # moments [P, N], or [P, 0] for an optimizer that keeps fewer than two
    counts: Tensor  # steps done so far, float32 [P]

    @classmethod
    def zeros(cls, P: int, N: int, device: torch.device | str = "cpu", num_moments: int = 2) -> OptimizerState:
        """The state of peers that have not trained yet."""
        first, second = (torch.zeros(P, N if num_moments > i else 0, device=device) for i in range(2))
        return cls(first, second, torch.zeros(P, device=device))

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
    """A rule that moves each peer's parameters by its own gradient."""

    lr: float = Field(default=4e-3, gt=0, le=100, description="peak learning rate")
    schedule: Annotated[Schedule, OneOf(schedules, default="cosine", bare="kind")] = Field(
        default=Cosine(), description="what the rate is multiplied by, from inner step to inner step"
    )

    def learning_rate(self, step: int, total_steps: int) -> float:
        """The rate of inner step `step`, counted from 0 over the whole run of `total_steps`."""
        return self.lr * self.schedule.factor(step, total_steps)

    @property
    @abstractmethod
    def num_moments(self) -> int:
        """How many vectors as long as theta are remembered of each peer, at most 2."""

    @abstractmethod
    def step(
        self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float], shapes: Shapes
    ) -> None:
        """Move theta and the state in place.

        Args:
            theta: parameters [P, N].
            gradients: [P, N], consumed.
            state: of the same peers.
            rates: the learning rate of each peer, [P].
            shapes: the tensors that make up the N parameters.
        """


inner_optimizers: Registry[InnerOptimizer] = Registry("inner optimizer")


@inner_optimizers.register
class AdamW(InnerOptimizer):
    """AdamW with the gradient clipped per peer.

    Source: Covenant-72B (arXiv 2603.08163), section 3; AdamW (arXiv 1711.05101).
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=4e-3, gt=0, le=1, description="peak learning rate")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.95), description="decay of the two moments per step")
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decoupled, times the learning rate")
    clip_norm: float = Field(default=1.0, gt=0, le=1e9, description="largest gradient norm of a peer")

    @property
    def num_moments(self) -> int:
        """Two."""
        return 2

    def step(
        self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float], shapes: Shapes
    ) -> None:
        """Clip each peer's gradient, then move."""
        divisors = clip_divisors(gradients, self.clip_norm)
        state.counts.add_(1)
        rows = (theta, gradients, state.first, state.second, state.counts, divisors)
        for rate, row in zip(rates, zip(*(part.unbind() for part in rows), strict=True), strict=True):
            *vectors, count, divisor = row
            adamw_(vectors, count, rate, self, divisor)


@inner_optimizers.register
class Sgd(InnerOptimizer):
    """Gradient descent, with momentum and weight decay if wanted; with neither, theta minus rate times gradient.

    Source: the form is that of torch.optim.SGD, without dampening.
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=100, description="peak learning rate")
    momentum: Decay = Field(default=0.0, description="what the momentum keeps per step")
    nesterov: bool = Field(default=False, description="look ahead along the momentum")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="coupled: added to the gradient, times theta")
    clip_norm: float | None = Field(default=None, gt=0, le=1e9, description="largest gradient norm of a peer")
    schedule: Annotated[Schedule, OneOf(schedules, default="cosine", bare="kind")] = Field(
        default=Constant(), description="what the rate is multiplied by, from inner step to inner step"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0")
        return self

    @property
    def num_moments(self) -> int:
        """The momentum, if there is any."""
        return 1 if self.momentum else 0

    def step(
        self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float], shapes: Shapes
    ) -> None:
        """Clip, decay, gather momentum, move."""
        if self.clip_norm is not None:
            gradients.div_(clip_divisors(gradients, self.clip_norm)[:, None])
        if self.weight_decay:
            gradients.add_(self.weight_decay * theta)
        if self.momentum:
            gather_momentum_(gradients, state.first, self.momentum, self.nesterov)
        state.counts.add_(1)
        theta.sub_(gradients.mul_(theta.new_tensor(rates)[:, None]))


def clip_divisors(gradients: Tensor, clip_norm: float) -> Tensor:
    """What to divide each row of [P, N] by so that its norm is at most `clip_norm`, at least 1, [P]."""
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)  # [P]
    return ((norms + 1e-6) / clip_norm).clamp(min=1)


def gather_momentum_(gradients: Tensor, momenta: Tensor, momentum: float, nesterov: bool) -> None:
    """Add gradients to the decayed momenta, then replace them by what to follow; all of one shape."""
    momenta.mul_(momentum).add_(gradients)
    if nesterov:
        gradients.add_(momentum * momenta)
    else:
        gradients.copy_(momenta)


class AdamSettings(Protocol):
    """What AdamW needs to know beside the rate."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the two moments per step."""

    @property
    def eps(self) -> float:
        """Added to the root of the second moment."""

    @property
    def weight_decay(self) -> float:
        """Decoupled, times the learning rate."""


def adamw_(
    vectors: Sequence[Tensor],
    count: Tensor,
    rate: float,
    settings: AdamSettings,
    divisor: Tensor | None = None,
    spans: Sequence[slice] = (),
) -> None:
    """Move one peer in place by torch's fused AdamW: one pass over memory instead of ten.

    Args:
        vectors: parameters, gradient, first and second moments, each [N].
        count: steps done, this one included, [].
        rate: the learning rate.
        settings: the rest of AdamW.
        divisor: what the gradient is divided by, [].
        spans: the parts to move; none for all.
    """
    pieces = [[vector[span] for span in spans] if spans else [vector] for vector in vectors]
    parameters, gradients, first, second = pieces
    torch._fused_adamw_(
        parameters,
        gradients,
        first,
        second,
        [],
        [count] * len(parameters),
        lr=rate,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        weight_decay=settings.weight_decay,
        eps=settings.eps,
        amsgrad=False,
        maximize=False,
        grad_scale=divisor,
    )
