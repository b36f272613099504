"""From inner products of payloads to distances, and from scores to who is chosen; the order prefers nobody."""

from __future__ import annotations

import torch
from torch import Tensor

TIE = 1e-9
"""Scores that differ by less, relative to the largest, are equal: sums of the same numbers in another order."""


def squared_distances(gram: Tensor) -> Tensor:
    """Squared distances between rows [R, R] from their inner products, float64."""
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_(min=0)
    # What is left of two long vectors that agree in all digits is rounding.
    distances[distances <= 1e-12 * (squares[:, None] + squares[None, :])] = 0
    return distances


def lowest(scores: Tensor, num: int) -> Tensor:
    """Weights in [0, 1] that choose the `num` lowest scores of each row [..., R]; they sum to `num`.

    Who ties for the last places shares them.
    """
    assert 1 <= num <= scores.shape[-1], f"{num} of {scores.shape[-1]}"
    last = scores.kthvalue(num, dim=-1, keepdim=True).values
    margin = TIE * last.abs()
    below = scores < last - margin
    tied = ~below & (scores <= last + margin)
    left = num - below.sum(dim=-1, keepdim=True)
    return below.double() + tied.double() * (left / tied.sum(dim=-1, keepdim=True))


def of_mean(gram: Tensor, weights: Tensor) -> Tensor:
    """Squared distances of rows [R] from the point `weights @ rows`, whose weights need not sum to 1."""
    products = gram @ weights
    return (gram.diagonal() - 2 * products + weights @ products).clamp(min=0)


def centered(gram: Tensor, weights: Tensor) -> Tensor:
    """Inner products [R, R] of rows less their mean by weights that sum to 1."""
    products = gram @ weights
    return gram - products[:, None] - products[None, :] + weights @ products


def evenly(num: int) -> Tensor:
    """Equal weights [R] that sum to 1."""
    return torch.full((num,), 1 / num, dtype=torch.float64)
