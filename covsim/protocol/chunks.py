"""How tensors are cut into chunks, and where the elements of a chunk lie in theta (numpy only).

blocks       a matrix is cut into blocks whose sides are the largest divisors of its own sides up to 64, each block
             flattened row by row; a vector is cut like a matrix of one row (templar, `ChunkingTransformer`)
contiguous   a tensor is flattened and cut into runs of the largest divisor of its size up to 4096
rows         a chunk is a whole row of a matrix, or a whole vector
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covsim.protocol.invalid import refuse

ChunkLayout = Literal["blocks", "contiguous", "rows"]

CHUNK_SIDE = 64
MAX_RUN = 4096  # elements of a contiguous chunk
MAX_CHUNK = 2**16  # elements of any chunk: a position takes at most 16 bits
MAX_COUNT = 2**16 - 1  # elements sent of a chunk whose count is sent, too: it takes 16 bits


@dataclass(frozen=True)
class ChunkGrid:
    """One tensor of `rows` x `columns`, cut into blocks of `height` x `width`; of each, `kept` elements are sent.

    Where what is sent depends on the values, `kept` is the most, and `odds` the chance of an element of Gaussian values
    to be sent if `kept` allows it; everywhere else it is None.
    """

    rows: int
    columns: int
    height: int
    width: int
    kept: int
    odds: float | None = None

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
        """The most values that are sent for the tensor."""
        return self.num_chunks * self.kept

    @property
    def whole(self) -> bool:
        """True if the chunks are always sent whole, and so without positions."""
        return self.kept == self.chunk_size and self.odds is None

    @property
    def num_positions(self) -> int:
        """The most positions that are sent for the tensor."""
        return 0 if self.whole else self.num_values

    @property
    def expected_kept(self) -> float:
        """Elements sent of a chunk; in expectation, for Gaussian values, where it depends on them."""
        if self.odds is None:
            return float(self.kept)
        odds = self.count_odds()
        return float(odds @ np.arange(len(odds)))

    def keeping(self, kept: int, odds: float | None = None) -> ChunkGrid:
        """The same chunks, with another number of elements to send of each."""
        return replace(self, kept=kept, odds=odds)

    def chunk_starts(self) -> NDArray[np.int64]:
        """Where in the flat tensor each chunk begins [num_chunks]."""
        down = np.arange(0, self.rows, self.height, dtype=np.int64) * self.columns
        across = np.arange(0, self.columns, self.width, dtype=np.int64)
        return (down[:, None] + across).ravel()

    def count_odds(self) -> NDArray[np.float64]:
        """How likely each number of sent elements of a chunk is, for Gaussian values [kept + 1]."""
        if self.odds is not None:
            return _binomial(self.chunk_size, self.odds, self.kept)
        certain = np.zeros(self.kept + 1)
        certain[-1] = 1.0
        return certain


def cut(shape: Sequence[int], layout: ChunkLayout = "blocks") -> ChunkGrid:
    """The grid of one tensor, all elements of each chunk kept.

    Raises ValueError for a tensor without elements or with more than two dimensions, or with rows too long for a chunk.
    """
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise ValueError(f"a tensor of shape {tuple(shape)} cannot be cut: it needs 1 or 2 dimensions of 1 or more")
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    if layout == "blocks":
        height, width = _largest_divisor(rows, CHUNK_SIDE), _largest_divisor(columns, CHUNK_SIDE)
        return ChunkGrid(rows, columns, height, width, height * width)
    if layout == "contiguous":
        run = _largest_divisor(rows * columns, MAX_RUN)
        return ChunkGrid(1, rows * columns, 1, run, run)
    if columns > MAX_CHUNK:
        raise ValueError(f"a row of {columns} is too long for a chunk: layout rows takes up to {MAX_CHUNK}")
    return ChunkGrid(rows, columns, 1, columns, columns)


def clamped_even(k: int, chunk_size: int) -> int:
    """`k` clamped to [2, chunk size] and made even, so that two 12-bit positions fill 3 bytes; 1 of 1 element."""
    kept = min(max(k, 2), chunk_size)
    return kept if kept == 1 else kept - kept % 2


def _largest_divisor(side: int, limit: int) -> int:
    return next(divisor for divisor in range(min(side, limit), 0, -1) if side % divisor == 0)


@lru_cache(maxsize=256)
def _binomial(trials: int, chance: float, most: int) -> NDArray[np.float64]:
    """How likely 0 ... `most` successes are, more counting as `most`."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])  # log of each factorial
    wins = np.arange(trials + 1)
    combinations = logs[trials] - logs - logs[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.where(wins > 0, wins * np.log(chance), 0) + np.where(
            wins < trials, wins[::-1] * np.log1p(-chance), 0
        )
    odds = np.exp(combinations + powers)
    odds[most] = odds[most:].sum()
    return np.asarray(odds[: most + 1] / odds[: most + 1].sum())


class ChunkMap:
    """The chunks of a model's tensors, one after the other: K chunks in theta, and what is sent of each.

    Args:
        grids: one per tensor [T].
        missing: numbers of tensors that are left out: they keep their places in theta, and have no chunks.

    Attributes:
        grids: as given [T].
        present: True for the tensors that are not missing [T].
        rank: the number of each tensor among those that are present [T].
        counted: True if the number of values sent of a chunk depends on the values, and so stands in the payload.
        tensor_starts: offset of each tensor in theta [T].
        chunk_bounds: offsets of the tensors among the K chunks, T + 1 numbers.
        tensor, start, size, width, columns: of each chunk, its tensor and its place and measures in it [K].
        kept: the most values sent of each chunk [K].
        positioned: True for the chunks whose positions a receiver must know [K].
        full: the values of a payload that has the most of them.
    """

    def __init__(self, grids: Sequence[ChunkGrid], missing: Collection[int] = ()) -> None:
        self.grids = tuple(grids)
        self.present = np.array([tensor not in missing for tensor in range(len(grids))], dtype=bool)
        self.rank = np.cumsum(self.present) - 1
        self.counted = any(grid.odds is not None for grid in grids)
        assert not self.counted or all(grid.odds is not None for grid in grids), "counted chunks and others"
        self.tensor_starts = _bounds([grid.size for grid in grids])[:-1]
        chunks_of = [grid.num_chunks if here else 0 for grid, here in zip(grids, self.present, strict=True)]
        self.chunk_bounds = _bounds(chunks_of)
        self.tensor = np.repeat(np.arange(len(grids)), chunks_of)
        places = zip(self.tensor_starts, grids, self.present, strict=True)
        starts = [start + grid.chunk_starts() for start, grid, here in places if here]
        self.start = np.concatenate([np.empty(0, dtype=np.int64), *starts])
        self.size = np.repeat(np.array([grid.chunk_size for grid in grids], dtype=np.int64), chunks_of)
        self.width = np.repeat(np.array([grid.width for grid in grids], dtype=np.int64), chunks_of)
        self.columns = np.repeat(np.array([grid.columns for grid in grids], dtype=np.int64), chunks_of)
        self.kept = np.repeat(np.array([grid.kept for grid in grids], dtype=np.int64), chunks_of)
        self.positioned = np.repeat(np.array([not grid.whole for grid in grids], dtype=bool), chunks_of)
        self.full = Places(self, self.kept)

    @property
    def num_chunks(self) -> int:
        """K."""
        return self.chunk_bounds[-1]


class Places:
    """Where the n values of a payload belong, of which those of chunks not sent whole have one of its M positions.

    Args:
        chunks: the model's chunks.
        counts: values sent of each chunk [K].

    Attributes:
        chunks, counts: as given.
        value_bounds: offsets of the tensors among the n values, T + 1 numbers.
        position_bounds: offsets of the tensors among the M positions, T + 1 numbers.
        chunk_of: the chunk of each value [n].
        tensor_of: the tensor of each value [n].
        kept_share: share of its chunk that is sent with each value [n], float32.
    """

    def __init__(self, chunks: ChunkMap, counts: NDArray[np.int64]) -> None:
        self.chunks = chunks
        self.counts = counts
        ends = np.cumsum(counts)
        self.value_bounds = _at_bounds(counts, chunks.chunk_bounds)
        self.position_bounds = _at_bounds(counts * chunks.positioned, chunks.chunk_bounds)
        self.num_values, self.num_positions = self.value_bounds[-1], self.position_bounds[-1]
        self.chunk_of = np.repeat(np.arange(len(counts)), counts)
        self.tensor_of = chunks.tensor[self.chunk_of]
        self.kept_share = (counts / chunks.size).astype(np.float32)[self.chunk_of]
        self._base = chunks.start[self.chunk_of]
        self._has_position = chunks.positioned[self.chunk_of]
        if not chunks.positioned.all():
            self._place_whole_chunks(ends)

        of_position = np.repeat(np.flatnonzero(chunks.positioned), counts[chunks.positioned])
        narrow = np.uint16 if not len(chunks.width) or chunks.width.max() <= np.iinfo(np.uint16).max else np.uint32
        self._size = chunks.size.astype(np.uint32)[of_position]
        self._width = chunks.width.astype(narrow)[of_position]
        self._columns = chunks.columns[of_position]
        self._follows = of_position[1:] == of_position[:-1]

    def flat_index(self, positions: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Places in theta [..., n] of values whose positions in their chunks are [..., M]."""
        index = np.empty((*positions.shape[:-1], self.num_values), dtype=np.int64)
        index[...] = self._base
        if self.num_positions:
            down, across = np.divmod(positions, self._width)
            index[..., self._has_position] += down * self._columns + across
        return index

    def check(self, positions: NDArray[np.uint16]) -> None:
        """Raise InvalidPayload for positions [M] outside their chunks, or that do not ascend in each."""
        refuse(positions >= self._size, "position {} lies outside its chunk")
        refuse(self._follows & (positions[1:] == positions[:-1]), "position {} is there twice in its chunk")
        refuse(self._follows & (positions[1:] < positions[:-1]), "position {} is followed by a lower one in its chunk")

    def _place_whole_chunks(self, ends: NDArray[np.int64]) -> None:
        """Add each value's place in its chunk, for chunks sent whole."""
        whole = ~self._has_position
        chunk_of = self.chunk_of[whole]
        inside = np.flatnonzero(whole) - (ends - self.counts)[chunk_of]
        down, across = np.divmod(inside, self.chunks.width[chunk_of])
        self._base[whole] += down * self.chunks.columns[chunk_of] + across


def _bounds(lengths: Sequence[int]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def _at_bounds(counts: NDArray[np.int64], bounds: Sequence[int]) -> list[int]:
    """Offsets of the tensors among what their chunks count [T + 1]."""
    totals = np.concatenate([[0], np.cumsum(counts)])
    return [int(total) for total in totals[np.asarray(bounds)]]
