"""The discrete cosine transform of chunks, orthonormal, so that it keeps norms.

    Y = D_h X D_w^T,   D_n[i, j] = sqrt((1 + [i > 0]) / n) cos(pi (2 j + 1) i / (2 n))        DCT-II; X = D_h^T Y D_w

A block's result must not show what else is transformed with it. Products of one large matrix would: how they are split
depends on its size. So each block is a product of its own, in float64, rounded once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def dct(blocks: Tensor) -> Tensor:
    """The coefficients of blocks [..., height, width], float32."""
    down, across = (_matrix(size, blocks.device) for size in blocks.shape[-2:])
    return _both_sides(blocks, down.T, across.T)


def inverse_dct(coefficients: Tensor) -> Tensor:
    """The blocks of coefficients [..., height, width], float32."""
    down, across = (_matrix(size, coefficients.device) for size in coefficients.shape[-2:])
    return _both_sides(coefficients, down, across)


def _both_sides(blocks: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left^T X right of each block X [..., height, width].

    Rows stand on the left of each product, with the strides of a fresh tensor: of a single row or column they are open
    otherwise, and torch may choose another kernel by them.
    """
    flat = _fresh(blocks.reshape(-1, *blocks.shape[-2:]).double())
    by_row = torch.bmm(flat, right.expand(len(flat), -1, -1))
    by_column = torch.bmm(_fresh(by_row.mT), left.expand(len(flat), -1, -1))
    return by_column.mT.float().reshape(blocks.shape)


def _fresh(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


@lru_cache(maxsize=128)
def _matrix(size: int, device: torch.device) -> Tensor:
    """D_n, float64 [size, size]."""
    order = torch.arange(size, dtype=torch.float64, device=device)
    waves = torch.cos(math.pi / (2 * size) * order[:, None] * (2 * order + 1))
    waves *= math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves
