"""Muon: matrices are moved by the nearest (semi-)orthogonal matrix to their momentum.

Letters in shapes: P peers, N parameters, n tensors of one shape [R, C], M matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.learning.inner_optimizers import (
    Decay,
    InnerOptimizer,
    OptimizerState,
    Shapes,
    adamw_,
    gather_momentum_,
    inner_optimizers,
)

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5, chosen by Keller Jordan for the steepest slope at 0."""

Pattern = Annotated[str, Field(min_length=1, max_length=100)]


@inner_optimizers.register
class Muon(InnerOptimizer):
    """Momentum made near-orthogonal for matrices, AdamW for vectors and for the tensors that are left out by name.

    The step of a matrix [R, C] is scaled by 0.2 sqrt(max(R, C)), so that its entries are about as large as those of an
    AdamW step and one rate serves both; weight decay is decoupled.
    Source: Keller Jordan's Muon (github.com/KellerJordan/Muon); scale and weight decay of Moonlight (arXiv 2502.16982),
    which torch.optim.Muon calls "match_rms_adamw". Tensors of more than two dimensions count as [R, rest], as there.
    """

    kind: Literal["muon"] = "muon"
    lr: float = Field(default=8e-3, gt=0, le=1, description="peak learning rate of the matrices")
    momentum: Decay = Field(default=0.95, description="what the momentum keeps per step")
    nesterov: bool = Field(default=True, description="look ahead along the momentum")
    ns_steps: int = Field(default=5, ge=1, le=20, description="Newton-Schulz iterations")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="decoupled, times the learning rate")
    exclude: tuple[Pattern, ...] = Field(
        default=("*wte*", "*wpe*", "*head*", "*emb*"),
        max_length=100,
        description="names of tensors left to AdamW, with * for anything; vectors always are",
    )
    adam_lr: float = Field(default=4e-3, gt=0, le=1, description="peak learning rate of AdamW's part")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.95), description="decay of AdamW's moments per step")
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of AdamW's second moment")

    @property
    def num_moments(self) -> int:
        """Two; of matrices only the first is used."""
        return 2

    def step(
        self, theta: Tensor, gradients: Tensor, state: OptimizerState, rates: Sequence[float], shapes: Shapes
    ) -> None:
        """Move the matrices, tensors of equal shape together, then the rest."""
        state.counts.add_(1)
        plan = split(shapes, self.exclude)
        for shape, spans in plan.matrices.items():
            self._step_matrices(theta, gradients, state.first, rates, shape, spans)
        if not plan.rest:
            return
        rows = (theta, gradients, state.first, state.second, state.counts)
        for rate, row in zip(rates, zip(*(part.unbind() for part in rows), strict=True), strict=True):
            *vectors, count = row
            adamw_(vectors, count, rate * (self.adam_lr / self.lr), self, spans=plan.rest)

    def _step_matrices(
        self,
        theta: Tensor,
        gradients: Tensor,
        momenta: Tensor,
        rates: Sequence[float],
        shape: tuple[int, int],
        spans: Sequence[slice],
    ) -> None:
        """Move n tensors of one shape [R, C] of all P peers."""
        for span in spans:
            gather_momentum_(gradients[:, span], momenta[:, span], self.momentum, self.nesterov)
        followed = torch.stack([gradients[:, span] for span in spans], dim=1)  # [P, n, R * C]
        directions = orthogonalize(followed.view(-1, *shape), self.ns_steps).reshape(followed.shape)
        scale = 0.2 * math.sqrt(max(shape))
        moves = directions * theta.new_tensor([rate * scale for rate in rates])[:, None, None]
        kept = theta.new_tensor([1 - rate * self.weight_decay for rate in rates])[:, None]  # [P, 1]
        for span, move in zip(spans, moves.unbind(1), strict=True):
            theta[:, span].mul_(kept).sub_(move)


@dataclass(frozen=True)
class Split:
    """Which parts of the flat vector are matrices, by shape [R, C], and what is left."""

    matrices: dict[tuple[int, int], list[slice]]
    rest: list[slice]


def split(shapes: Shapes, exclude: Sequence[str]) -> Split:
    """Sort tensors into matrices and the rest: vectors, and names that match a pattern of `exclude`."""
    found, start = Split({}, []), 0
    for name, shape in shapes.items():
        span = slice(start, start := start + math.prod(shape))
        if len(shape) < 2 or any(fnmatchcase(name, pattern) for pattern in exclude):
            found.rest.append(span)
        else:
            found.matrices.setdefault((shape[0], math.prod(shape[1:])), []).append(span)
    return found


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Push the singular values of each [R, C] of [M, R, C] towards 1, and keep its singular vectors.

    After 5 steps those above 1/600 of the matrix's norm lie between 0.68 and 1.21, smaller ones below.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT.contiguous() if tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x
