"""SparseLoCo written straight down from its formulas, one number at a time: what the fast code is compared with."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass
class NaiveTensor:
    """What is sent for one tensor: the grid, per chunk the kept positions, and the quantized values in order."""

    rows: int
    columns: int
    height: int
    width: int
    kept: int
    whole: bool
    places: list[int]  # in the flat tensor
    positions: list[int]  # in their chunks
    values: list[np.float32]
    mean: np.float32
    scale: np.float32
    table: list[np.float32]
    codes: list[int]

    @property
    def decoded(self) -> list[np.float32]:
        """The values that a receiver computes."""
        return [self.table[code] + self.mean for code in self.codes]


def largest_divisor(side: int) -> int:
    """The largest divisor up to 64."""
    return max(divisor for divisor in range(1, 65) if side % divisor == 0)


def compress_tensor(flat: Floats, shape: Sequence[int], k: int) -> NaiveTensor:
    """Cut, keep the largest, quantize."""
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
    height, width = largest_divisor(rows), largest_divisor(columns)
    kept = min(max(2, k), height * width)
    if kept > 1 and kept % 2 == 1:
        kept -= 1
    places, positions, values = [], [], []
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            chunk = [(top + i) * columns + left + j for i in range(height) for j in range(width)]
            by_size = sorted(range(len(chunk)), key=lambda position: (-abs(flat[chunk[position]]), position))
            for position in sorted(by_size[:kept]):
                places.append(chunk[position])
                positions.append(position)
                values.append(flat[chunk[position]])
    mean, scale, table, codes = quantize(values)
    return NaiveTensor(
        rows, columns, height, width, kept, kept == height * width, places, positions, values, mean, scale, table, codes
    )


def quantize(values: Sequence[np.float32], bits: int = 2) -> tuple[np.float32, np.float32, list[np.float32], list[int]]:
    """Mean, scale, table and codes of one group."""
    mean = np.float32(math.fsum(map(float, values)) / len(values))
    centered = [value - mean for value in values]
    spread = math.sqrt(math.fsum(float(c) ** 2 for c in centered) / (len(values) - 1)) if len(values) > 1 else 0.0
    scale = np.float32(6 * spread / 2**bits)
    scale = np.float32(1) if scale == 0 else min(max(scale, np.float32(1e-12)), np.float32(1e4))
    half = np.float32(2 ** (bits - 1))
    codes = [int(min(max(np.rint(c / scale + half), 0), 2**bits - 1)) for c in centered]
    table = []
    for code in range(2**bits):
        inside = [float(c) for c, its_code in zip(centered, codes, strict=True) if its_code == code]
        table.append(np.float32(math.fsum(inside) / len(inside)) if inside else np.float32(0))
    return mean, scale, table, codes


def compress(row: Floats, shapes: Sequence[Sequence[int]], k: int) -> list[NaiveTensor]:
    """All tensors of a flat row [N]."""
    tensors, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape)
        tensors.append(compress_tensor(row[start:end], shape, k))
        start = end
    assert start == len(row)
    return tensors


def dense(tensors: Sequence[NaiveTensor], shapes: Sequence[Sequence[int]]) -> Floats:
    """What a receiver reconstructs [N]."""
    out = np.zeros(sum(math.prod(shape) for shape in shapes), dtype=np.float32)
    start = 0
    for tensor, shape in zip(tensors, shapes, strict=True):
        for place, value in zip(tensor.places, tensor.decoded, strict=True):
            out[start + place] = value
        start += math.prod(shape)
    return out


def write(tensors: Sequence[NaiveTensor], packed: bool = True) -> bytes:
    """The payload, bit by bit: numbers of 12 and of 2 bits are digits of one long little-endian number."""
    out = b"CVSP" + bytes([2, 2, 0, 0, 0 if packed else 1, 0, 0, 0])
    out += b"topk".ljust(16, b"\0") + b"bin_mean".ljust(16, b"\0")
    out += b"".join(number.to_bytes(4, "little") for number in (0, len(tensors), 0)) + bytes(16)
    for tensor in tensors:
        measures = (tensor.rows, tensor.columns, tensor.height, tensor.width, tensor.kept)
        out += b"".join(number.to_bytes(4, "little") for number in measures)
    for tensor in tensors:
        out += np.array([tensor.mean, tensor.scale, np.float32(2), *tensor.table], dtype="<f4").tobytes()
    positions = [position for tensor in tensors if not tensor.whole for position in tensor.positions]
    codes = [code for tensor in tensors for code in tensor.codes]
    out += _digits(positions, 12) + (_digits(codes, 2) if packed else bytes(codes))
    return out + zlib.crc32(out).to_bytes(4, "little")


def entropy_coded(chunks: Sequence[Sequence[int]]) -> bytes:
    """Positions of chunks, by entropy coding: parameters, low bits, unary parts."""
    parameters, low, unary = b"", "", ""
    for positions in chunks:
        gaps = [place - before - 1 for before, place in zip([-1, *positions], positions, strict=False)]
        costs = {b: sum(b + 1 + (gap >> b) for gap in gaps) for b in range(16)}
        best = min(costs, key=lambda b: (costs[b], b))
        parameters += bytes([best])
        low += "".join(f"{gap % 2**best:0{best}b}"[::-1] if best else "" for gap in gaps)
        unary += "".join("0" * (gap >> best) + "1" for gap in gaps)
    return parameters + b"".join(_bytes_of_bits(stream) for stream in (low, unary))


def _bytes_of_bits(bits: str) -> bytes:
    """Eight bits to a byte, the first the lowest."""
    return int("0" + bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def _digits(numbers: Sequence[int], bits: int) -> bytes:
    long_number = sum(number << (bits * place) for place, number in enumerate(numbers))
    return long_number.to_bytes(-(-len(numbers) * bits // 8), "little")
