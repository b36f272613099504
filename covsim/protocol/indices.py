"""How positions in chunks are written (numpy only).

    bits12    12 bits each, two in 3 bytes; chunks of up to 4096
    bits16    2 bytes each
    int64     8 bytes each, as DeMo's reference code sends them
    entropy   per chunk the shortest of sixteen Rice codes of the gaps

The gap g before a position is the number of elements left out between it and the one before. A Rice code with
parameter b writes g mod 2^b in b bits and g div 2^b in unary: so many zeros and a one. With b = 0 that is a bitmap, cut
off behind its last one. Low bits and unary parts stand in streams of their own, so that both can be read at once for
all values:

    parameter b of each chunk    1 byte each
    low bits, unary parts        two streams, the first bit lowest, each filled to a byte with zeros

Of equally short codes the one of the lowest parameter is written; no other is accepted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from covsim.protocol.chunks import MAX_CHUNK, ChunkGrid
from covsim.protocol.invalid import InvalidPayload, refuse

IndexCoding = Literal["bits12", "bits16", "int64", "entropy"]

_MAX_RICE: Final = 15  # a longer low part never pays for gaps under 2^16

Positions = NDArray[np.uint16]
Counts = NDArray[np.int64]


class Coder(ABC):
    """Writes the positions of a payload: per chunk, so many as are sent of it, ascending.

    Attributes:
        longest_chunk: the size of chunk that it can point into.
    """

    longest_chunk: int

    @abstractmethod
    def num_bytes(self, num_positions: int) -> int | None:
        """Length of this many positions; None where it depends on them."""

    @abstractmethod
    def most_bytes(self, num_positions: int, sizes: Counts) -> int:
        """The longest that this many positions in chunks of these sizes can get."""

    @abstractmethod
    def expected_bits(self, grid: ChunkGrid) -> float:
        """Expected length for one chunk of uniformly random positions."""

    @abstractmethod
    def encode(self, positions: Positions, counts: Counts, sizes: Counts) -> Iterable[bytes]:
        """The bytes of P rows of positions [P, M], of which chunks of these sizes have so many each."""

    @abstractmethod
    def decode(self, data: NDArray[np.uint8], counts: Counts, sizes: Counts) -> Positions:
        """The positions [M] in `data`, all of it; their order is not checked. Raises InvalidPayload."""


class FixedWidth(Coder):
    """Every position takes the same number of whole bytes."""

    longest_chunk = MAX_CHUNK

    def __init__(self, width: int) -> None:
        self._type = np.dtype(f"<u{width}")

    def num_bytes(self, num_positions: int) -> int:
        """Width times number."""
        return num_positions * self._type.itemsize

    def most_bytes(self, num_positions: int, sizes: Counts) -> int:
        """The same."""
        return self.num_bytes(num_positions)

    def expected_bits(self, grid: ChunkGrid) -> float:
        """The same, for the expected number."""
        return grid.expected_kept * 8 * self._type.itemsize

    def encode(self, positions: Positions, counts: Counts, sizes: Counts) -> Iterable[bytes]:
        """One number after the other."""
        return (row.tobytes() for row in positions.astype(self._type))

    def decode(self, data: NDArray[np.uint8], counts: Counts, sizes: Counts) -> Positions:
        """One number after the other."""
        numbers = data.view(self._type)
        refuse(numbers >= MAX_CHUNK, "position {} lies outside its chunk")
        return numbers.astype(np.uint16)


class TwelveBits(Coder):
    """Two positions in 3 bytes, the first in the low bits."""

    longest_chunk = 2**12

    def num_bytes(self, num_positions: int) -> int:
        """12 bits each."""
        return -(-num_positions * 3 // 2)

    def most_bytes(self, num_positions: int, sizes: Counts) -> int:
        """The same."""
        return self.num_bytes(num_positions)

    def expected_bits(self, grid: ChunkGrid) -> float:
        """The same, for the expected number."""
        return grid.expected_kept * 12

    def encode(self, positions: Positions, counts: Counts, sizes: Counts) -> Iterable[bytes]:
        """[P, M] to P times ceil(3 M / 2) bytes."""
        num_bytes = self.num_bytes(positions.shape[1])
        if positions.shape[1] % 2:
            positions = np.pad(positions, ((0, 0), (0, 1)))
        first, second = positions[:, 0::2], positions[:, 1::2]
        packed = np.empty((*first.shape, 3), dtype=np.uint8)
        packed[..., 0] = first & 0xFF
        packed[..., 1] = first >> 8 | (second & 0xF) << 4
        packed[..., 2] = second >> 4
        return (row[:num_bytes].tobytes() for row in packed.reshape(len(positions), -1))

    def decode(self, data: NDArray[np.uint8], counts: Counts, sizes: Counts) -> Positions:
        """The reverse; half a byte of padding must be zero."""
        if len(data) % 3:
            if data[-1] >> 4:
                raise InvalidPayload("padding bits after the positions are not zero")
            data = np.append(data, np.uint8(0))
        low, middle, high = data.reshape(-1, 3).astype(np.uint16).T
        numbers = np.stack([low | (middle & 0xF) << 8, middle >> 4 | high << 4], axis=1).ravel()
        return numbers[: counts.sum()]


class Entropy(Coder):
    """The shortest of some Rice codes, chunk by chunk."""

    longest_chunk = MAX_CHUNK

    def num_bytes(self, num_positions: int) -> int | None:
        """Depends on the positions, if there are any."""
        return None

    def most_bytes(self, num_positions: int, sizes: Counts) -> int:
        """Rice parameter 0 in every chunk: what is chosen instead is shorter, but for the ends of two streams."""
        return len(sizes) + int(sizes.sum()) // 8 + 2

    def expected_bits(self, grid: ChunkGrid) -> float:
        """One byte and the code that is shortest in expectation; choosing per chunk saves up to 1 % more."""
        return 8 + _expected_bits(grid)

    def encode(self, positions: Positions, counts: Counts, sizes: Counts) -> Iterable[bytes]:
        """Row by row, for each has its own length."""
        return (self._encode_row(row, counts) for row in positions)

    def decode(self, data: NDArray[np.uint8], counts: Counts, sizes: Counts) -> Positions:
        """Lengths are checked before anything is made of them."""
        if len(data) < len(counts):
            raise InvalidPayload(f"{len(data)} bytes are too few for positions in {len(counts)} chunks")
        parameters, streams = data[: len(counts)], data[len(counts) :]
        refuse(parameters > _MAX_RICE, "positioned chunk {} has an unknown code")
        widths = np.repeat(parameters, counts).astype(np.int64)
        low_bytes = -(-int(widths.sum()) // 8)
        if low_bytes > len(streams):
            raise InvalidPayload("the positions are longer than their bytes")
        gaps = _unary(streams[low_bytes:], len(widths)) << widths
        gaps |= _low_bits(streams[:low_bytes], widths)
        refuse(_best_parameters(gaps, counts) != parameters, "positioned chunk {} has not the shortest code")
        positions = _from_gaps(gaps, counts)
        refuse(positions >= np.repeat(sizes, counts), "position {} lies outside its chunk")
        return positions.astype(np.uint16)

    def _encode_row(self, row: Positions, counts: Counts) -> bytes:
        gaps = _gaps(row.astype(np.int64), counts)
        parameters = _best_parameters(gaps, counts)
        widths = np.repeat(parameters, counts).astype(np.int64)
        value_of_bit = np.repeat(np.arange(len(widths)), widths)
        place = np.arange(len(value_of_bit)) - np.repeat(np.cumsum(widths) - widths, widths)
        low_bits = gaps[value_of_bit] >> place & 1
        ends = np.cumsum((gaps >> widths) + 1)
        unary = np.zeros(ends[-1] if len(ends) else 0, dtype=bool)
        unary[ends - 1] = True
        streams = (low_bits.astype(np.uint8), unary)
        return parameters.tobytes() + b"".join(np.packbits(bits, bitorder="little").tobytes() for bits in streams)


CODERS: Final[dict[IndexCoding, Coder]] = {
    "bits12": TwelveBits(),
    "bits16": FixedWidth(2),
    "int64": FixedWidth(8),
    "entropy": Entropy(),
}
"""The codings, in the order of their numbers on the wire."""


def coder_for(indices: IndexCoding, grids: Iterable[ChunkGrid]) -> Coder:
    """The coder for tensors cut like this. Raises ValueError where its positions cannot reach all of a chunk."""
    coder = CODERS[indices]
    longest = max((grid.chunk_size for grid in grids if not grid.whole), default=0)
    if longest > coder.longest_chunk:
        raise ValueError(f"{indices} reaches chunks of up to {coder.longest_chunk} elements; there is one of {longest}")
    return coder


def _gaps(positions: NDArray[np.int64], counts: Counts) -> NDArray[np.int64]:
    """Elements left out before each position [M]."""
    gaps = np.diff(positions, prepend=-1) - 1
    opens = (np.cumsum(counts) - counts)[counts > 0]
    gaps[opens] = positions[opens]
    return gaps


def _from_gaps(gaps: NDArray[np.int64], counts: Counts) -> NDArray[np.int64]:
    """The reverse."""
    steps = np.concatenate([[0], np.cumsum(gaps + 1)])
    positions: NDArray[np.int64] = steps[1:] - 1 - np.repeat(steps[np.cumsum(counts) - counts], counts)
    return positions


def _best_parameters(gaps: NDArray[np.int64], counts: Counts) -> NDArray[np.uint8]:
    """The lowest of the parameters of the shortest codes of each chunk [K]."""
    ends = np.cumsum(counts)
    best, bits = np.zeros(len(counts), dtype=np.uint8), np.full(len(counts), np.iinfo(np.int64).max)
    for parameter in range(_MAX_RICE + 1):
        unary = np.concatenate([[0], np.cumsum(gaps >> parameter)])
        rice_bits = counts * (parameter + 1) + unary[ends] - unary[ends - counts]
        shorter = rice_bits < bits
        best[shorter], bits[shorter] = parameter, rice_bits[shorter]
    return best


def _unary(stream: NDArray[np.uint8], num: int) -> NDArray[np.int64]:
    """Zeros before each of exactly `num` ones, the last of them in the last byte of the stream.

    The ones are counted before there is a number for each.
    """
    bits = np.unpackbits(stream, bitorder="little")
    found = np.count_nonzero(bits)
    if found != num:
        raise InvalidPayload(f"{found} bits are set for {num} positions")
    ones = np.flatnonzero(bits)
    used = int(ones[-1]) + 1 if len(ones) else 0
    if len(stream) != -(-used // 8):
        raise InvalidPayload(f"the unary parts of {num} positions end elsewhere than expected")
    return np.diff(ones, prepend=-1) - 1


def _low_bits(stream: NDArray[np.uint8], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of these widths that stand one after the other in a stream."""
    used = int(widths.sum())
    if used % 8 and stream[-1] >> used % 8:
        raise InvalidPayload("padding bits after the positions are not zero")
    padded = np.concatenate([stream, np.zeros(3, dtype=np.uint8)]).astype(np.uint32)
    starts = np.cumsum(widths) - widths
    byte = starts >> 3
    words = padded[byte] | padded[byte + 1] << 8 | padded[byte + 2] << 16
    numbers: NDArray[np.int64] = (words >> (starts & 7).astype(np.uint32)).astype(np.int64) & ((1 << widths) - 1)
    return numbers


@lru_cache(maxsize=256)
def _expected_bits(grid: ChunkGrid) -> float:
    """Expected bits of the shortest code for one chunk, the number of positions itself being uncertain."""
    odds = grid.count_odds()
    counts = np.flatnonzero(odds > 1e-9 * odds.max())
    counts = counts[:: max(1, len(counts) // 64)]
    bits = [_expected_rice_bits(grid.chunk_size, int(count)) for count in counts]
    return float(np.average(bits, weights=odds[counts]))


def _expected_rice_bits(size: int, count: int) -> float:
    """Of the shortest code for `count` random positions, where P(gap >= m) = C(size - m, count) / C(size, count)."""
    if count == 0:
        return 0.0
    reached = np.arange(size - count + 1)
    factors = (size - count - reached[:-1]) / (size - reached[:-1])
    longer = np.concatenate([[1.0], np.cumprod(factors)])  # P(gap >= m), m = 0 ... size - count
    rice = [count * (b + 1 + longer[2**b :: 2**b].sum()) for b in range(_MAX_RICE + 1)]
    return float(min(rice))
