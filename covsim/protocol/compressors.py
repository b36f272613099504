"""Which values are sent: how tensors are cut, and what is kept of each chunk.

A compressor is one class here or in a package of its own. What the wire must know stands in the grids that it cuts:
how much is kept of a chunk, or at most and with what odds. Whether positions are sent or drawn, and in what space the
values live, are two parts that a compressor may name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from covsim.protocol.base import Shape
from covsim.protocol.chunks import MAX_CHUNK, MAX_COUNT, ChunkGrid, ChunkLayout, clamped_even, cut
from covsim.protocol.dct import dct, inverse_dct
from covsim.protocol.quantize import group_sum
from covsim.registry import Part, Registry
from covsim.units import Share

Kept = Annotated[int, Field(ge=1, le=MAX_CHUNK, description="values sent of each chunk, clamped to what it has")]
Cutting = Annotated[
    ChunkLayout,
    Field(description="how tensors are cut: blocks of up to 64 x 64, contiguous runs of up to 4096, or whole rows"),
]

__all__ = [
    "Basis",
    "ChunkLayout",
    "Compressor",
    "CosineBasis",
    "Dct",
    "Dense",
    "Draw",
    "Origin",
    "RandomK",
    "Selection",
    "Threshold",
    "TopK",
    "UniformDraw",
    "compressors",
    "largest",
]

_DRAWN_AT_ONCE = 2**15  # elements for which random numbers are drawn at once


class Origin(NamedTuple):
    """Where chunks come from.

    Attributes:
        seed: what the payload claims.
        tensor: the place of the tensor in the model.
    """

    seed: int
    tensor: int


class Selection(NamedTuple):
    """What is kept of R x C chunks.

    Attributes:
        positions: in their chunks, distinct and ascending [R, C, kept], int64.
        used: True for those that are sent [R, C, kept], bool; None if all are.
    """

    positions: Tensor
    used: Tensor | None = None


class Draw(ABC):
    """Positions that sender and receiver draw from the payload's seed, so that none are sent."""

    @abstractmethod
    def positions(self, grid: ChunkGrid, seed: int, tensor: int) -> NDArray[np.uint16]:
        """Positions of one tensor, distinct and ascending in each chunk [num_chunks, kept]."""


class Basis(ABC):
    """A linear transform of chunks, in whose space values are chosen, sent and combined; it keeps norms."""

    @abstractmethod
    def forward(self, blocks: Tensor) -> Tensor:
        """From theta's space [..., height, width], float32; a block's result must not depend on the others."""

    @abstractmethod
    def inverse(self, blocks: Tensor) -> Tensor:
        """Back to it."""


class Compressor(Part):
    """A choice of values.

    `draw` names where positions come from that are not sent; `basis`, the space in which values are chosen.
    """

    kind: str
    draw: ClassVar[Draw | None] = None
    basis: ClassVar[Basis | None] = None

    @abstractmethod
    def cut(self, shape: Shape) -> ChunkGrid:
        """How a tensor is cut, and how many elements are kept of its chunks.

        Raises ValueError for a tensor that cannot be cut.
        """

    @abstractmethod
    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """What is kept of R tensors of equal grid, cut into C chunks of S elements [R, C, S], float32.

        A tensor's result must not depend on the others. Not asked for tensors that are sent whole. A chunk that is not
        finite keeps an element that is not.
        """


compressors: Registry[Compressor] = Registry("compressor")


@compressors.register
class TopK(Compressor):
    """The k largest of each chunk by absolute value.

    Source: SparseLoCo (arXiv 2508.15706); one-covenant/templar clamps k to at least 2 and makes it even. Blocks are cut
    as there, contiguous runs as the paper says of vectors, and rows as an early version of the live code did.
    """

    kind: Literal["topk"] = "topk"
    k: Kept = 64
    layout: Cutting = "blocks"

    def cut(self, shape: Shape) -> ChunkGrid:
        """In the layout, an even number kept."""
        grid = cut(shape, self.layout)
        return grid.keeping(clamped_even(self.k, grid.chunk_size))

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """The largest."""
        return Selection(largest(chunks, grid.kept))


class UniformDraw(Draw):
    """Every set of positions of a chunk is equally likely."""

    def positions(self, grid: ChunkGrid, seed: int, tensor: int) -> NDArray[np.uint16]:
        """The elements with the lowest of so many random numbers, which carry their positions in their low bits."""
        stream = np.random.Philox(key=(tensor << 64) | seed)
        place = np.arange(grid.chunk_size, dtype=np.uint64)
        kept = np.empty((grid.num_chunks, grid.kept), dtype=np.uint16)
        chunks_at_once = max(1, _DRAWN_AT_ONCE // grid.chunk_size)
        for start in range(0, grid.num_chunks, chunks_at_once):
            part = kept[start : start + chunks_at_once]
            keys = stream.random_raw(len(part) * grid.chunk_size).reshape(len(part), -1)
            keys &= np.uint64(2**64 - MAX_CHUNK)
            keys |= place
            if grid.kept < grid.chunk_size:
                keys.partition(grid.kept - 1, axis=1)
            part[...] = keys[:, : grid.kept] & np.uint64(MAX_CHUNK - 1)
        kept.sort(axis=1)
        return kept


@compressors.register
class RandomK(Compressor):
    """k uniformly random elements of each chunk; both sides draw their positions from the payload's seed.

    Source: random-k sparsification (arXiv 1809.07599).
    """

    kind: Literal["random_k"] = "random_k"
    k: Kept = 64
    layout: Cutting = "blocks"
    draw: ClassVar[Draw | None] = UniformDraw()

    def cut(self, shape: Shape) -> ChunkGrid:
        """As top-k of the same k, so that the two send equally many."""
        grid = cut(shape, self.layout)
        return grid.keeping(clamped_even(self.k, grid.chunk_size))

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """What each payload's seed says."""
        drawn = [UniformDraw().positions(grid, origin.seed, origin.tensor) for origin in origins]
        return Selection(torch.from_numpy(np.stack(drawn).astype(np.int64)).to(chunks.device))


@compressors.register
class Threshold(Compressor):
    """The values above a multiple of their tensor's root mean square, at most a share of each chunk, largest first.

    Source: threshold sparsification (arXiv 1712.01887 sends what exceeds a threshold).
    """

    kind: Literal["threshold"] = "threshold"
    factor: float = Field(default=3.0, gt=0, le=100, description="multiples of the root mean square to exceed")
    most: Annotated[Share, Field(gt=0, le=1, description="largest part of a chunk that is sent; at least 1 value")] = (
        0.05
    )
    layout: Cutting = "blocks"

    def cut(self, shape: Shape) -> ChunkGrid:
        """In the layout; Gaussian values exceed the threshold with the odds of its two tails."""
        grid = cut(shape, self.layout)
        most = min(max(1, int(self.most * grid.chunk_size + 1e-9)), MAX_COUNT)
        return grid.keeping(most, odds=math.erfc(self.factor / math.sqrt(2)))

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """Of the largest, those above the threshold, and those that are no numbers."""
        positions = largest(chunks, grid.kept)
        values = chunks.gather(-1, positions)
        threshold = self.factor * (group_sum(chunks.double().square()) / grid.size).sqrt()
        return Selection(positions, (values.abs() > threshold[:, None, None]) | ~values.isfinite())


class CosineBasis(Basis):
    """The coefficients of a two-dimensional cosine transform of each block."""

    def forward(self, blocks: Tensor) -> Tensor:
        """DCT-II."""
        return dct(blocks)

    def inverse(self, blocks: Tensor) -> Tensor:
        """DCT-III."""
        return inverse_dct(blocks)


@compressors.register
class Dct(Compressor):
    """The k largest coefficients of each block's cosine transform.

    Source: DeMo (arXiv 2411.19870), whose k need be neither even nor larger than 1.
    """

    kind: Literal["dct"] = "dct"
    k: Kept = 32
    basis: ClassVar[Basis | None] = CosineBasis()

    def cut(self, shape: Shape) -> ChunkGrid:
        """Blocks; a vector's chunks are blocks of one row."""
        grid = cut(shape)
        return grid.keeping(min(self.k, grid.chunk_size))

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """The largest."""
        return Selection(largest(chunks, grid.kept))


@compressors.register
class Dense(Compressor):
    """All values.

    Source: DiLoCo (arXiv 2311.08105).
    """

    kind: Literal["dense"] = "dense"

    def cut(self, shape: Shape) -> ChunkGrid:
        """Blocks, sent whole."""
        return cut(shape)

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """Every position, if ever asked."""
        return Selection(torch.arange(grid.chunk_size, device=chunks.device).expand_as(chunks))


def largest(chunks: Tensor, kept: int) -> Tensor:
    """Positions [..., kept] of the largest absolute values of each chunk [..., chunk size], ascending, int64.

    Of equal values the first wins. To have that on every device, a value's bits (for numbers without sign they order
    like the numbers) and its place from the end are sorted as one integer.
    """
    from_the_end = torch.arange(MAX_CHUNK - 1, MAX_CHUNK - 1 - chunks.shape[-1], -1, device=chunks.device)
    keys = chunks.abs().view(torch.int32).long().mul_(MAX_CHUNK).bitwise_or_(from_the_end)
    top = keys.topk(kept, sorted=False).values
    return (MAX_CHUNK - 1 - top % MAX_CHUNK).sort().values
