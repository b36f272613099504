"""How tensors are cut into chunks, and where the elements of a chunk lie in theta (numpy only).

A matrix is cut into blocks whose sides are the largest divisors of its own sides up to 64, each block flattened row
by row; a vector is cut like a matrix of one row (templar, `ChunkingTransformer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

CHUNK_SIDE = 64
MAX_CHUNK = CHUNK_SIDE**2  # a position in a chunk takes 12 bits


@dataclass(frozen=True)
class ChunkGrid:
    """One tensor of `rows` x `columns`, cut into blocks of `height` x `width`; of each, `kept` elements are sent."""

    rows: int
    columns: int
    height: int
    width: int
    kept: int

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return self.rows * self.columns

    @property
    def chunk_size(self) -> int:
        """Elements of a chunk."""
        return self.height * self.width

    @property
    def num_chunks(self) -> int:
        """Chunks of the tensor."""
        return self.size // self.chunk_size

    @property
    def num_values(self) -> int:
        """Values that are sent for the tensor."""
        return self.num_chunks * self.kept

    @property
    def whole(self) -> bool:
        """True if the chunks are sent whole, and so without positions."""
        return self.kept == self.chunk_size

    @property
    def num_positions(self) -> int:
        """Positions that are sent for the tensor."""
        return 0 if self.whole else self.num_values

    def chunk_starts(self) -> NDArray[np.int64]:
        """Where in the flat tensor each chunk begins [num_chunks]."""
        down = np.arange(0, self.rows, self.height, dtype=np.int64) * self.columns
        across = np.arange(0, self.columns, self.width, dtype=np.int64)
        return (down[:, None] + across).ravel()


def cut(shape: Sequence[int], k: int) -> ChunkGrid:
    """The grid of one tensor, of which `k` elements per chunk are to be kept.

    `k` is clamped to [2, chunk size] and made even, so that two 12-bit positions fill 3 bytes; a chunk of one element
    keeps it. Raises ValueError for a tensor without elements or with more than two dimensions.
    """
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise ValueError(f"a tensor of shape {tuple(shape)} cannot be cut: it needs 1 or 2 dimensions of 1 or more")
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    height, width = _largest_divisor(rows), _largest_divisor(columns)
    chunk_size = height * width
    kept = min(max(k, 2), chunk_size)
    return ChunkGrid(rows, columns, height, width, kept if kept == 1 else kept - kept % 2)


def _largest_divisor(side: int) -> int:
    return next(divisor for divisor in range(min(side, CHUNK_SIDE), 0, -1) if side % divisor == 0)


class ChunkMap:
    """Where the values of a payload belong: the tensors of a model, one after the other, chunk after chunk.

    Of a payload's n values, those of chunks that are not sent whole have one of its M positions.

    Attributes:
        grids: one per tensor [T].
        tensor_starts: offset of each tensor in theta [T].
        value_bounds: offsets of the tensors among the n values, T + 1 numbers.
        position_bounds: offsets of the tensors among the M positions, T + 1 numbers.
        tensor_of: the tensor of each value [n].
        kept_share: share of its chunk that is sent with each value [n].
        chunk_size: size of the chunk that each position points into [M].
        opens_chunk: True for the first position of each chunk [M].
    """

    def __init__(self, grids: Sequence[ChunkGrid]) -> None:
        self.grids = tuple(grids)
        self.tensor_starts = _bounds([grid.size for grid in grids])[:-1]
        self.value_bounds = _bounds([grid.num_values for grid in grids])
        self.position_bounds = _bounds([grid.num_positions for grid in grids])
        self.num_values, self.num_positions = self.value_bounds[-1], self.position_bounds[-1]

        values_of = [grid.num_values for grid in grids]
        self.tensor_of = np.repeat(np.arange(len(grids)), values_of)
        self.kept_share = np.repeat([grid.kept / grid.chunk_size for grid in grids], values_of).astype(np.float32)
        bases = [start + _value_bases(grid) for start, grid in zip(self.tensor_starts, grids, strict=True)]
        self._base = np.concatenate(bases)
        self._has_position = np.repeat([not grid.whole for grid in grids], values_of)

        positions_of = [grid.num_positions for grid in grids]
        self.chunk_size = np.repeat([grid.chunk_size for grid in grids], positions_of).astype(np.uint16)
        self._width = np.repeat([grid.width for grid in grids], positions_of).astype(np.uint16)
        self._columns = np.repeat([grid.columns for grid in grids], positions_of)
        opens = [np.arange(grid.num_positions) % grid.kept == 0 for grid in grids]
        self.opens_chunk = np.concatenate(opens)

    def flat_index(self, positions: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Places in theta [..., n] of values whose positions in their chunks are [..., M]."""
        down, across = np.divmod(positions, self._width)
        index = np.empty((*positions.shape[:-1], self.num_values), dtype=np.int64)
        index[...] = self._base
        index[..., self._has_position] += down * self._columns + across
        return index


def _bounds(lengths: Sequence[int]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def _value_bases(grid: ChunkGrid) -> NDArray[np.int64]:
    """Where in the flat tensor the chunk of each value begins; for chunks sent whole, where the value itself lies."""
    starts = grid.chunk_starts()
    if not grid.whole:
        return np.repeat(starts, grid.kept)
    down, across = np.divmod(np.arange(grid.chunk_size), grid.width)
    places: NDArray[np.int64] = starts[:, None] + down * grid.columns + across
    return places.ravel()
