"""Rows of numbers to payloads and back: the k largest values of every block, quantized per tensor.

    compress = cut into blocks, top-k of each, quantize each tensor's kept values, write
    decode   = read, look the codes up, place the values

Tensors of equal grid are compressed together, and rows a slab at a time; neither changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from covsim.protocol import wire
from covsim.protocol.base import Codec, Decoded, Layout, Shape
from covsim.protocol.chunks import MAX_CHUNK, ChunkGrid, ChunkMap, cut
from covsim.protocol.quantize import Quantized, quantize
from covsim.protocol.wire import Message, Packing, WireFormat

_SLAB = 2**21  # elements compressed at once: their sort keys, 8 bytes each, stay near the cache


class BlockCodec(Codec):
    """Top-k of blocks of up to 64 x 64, quantized per tensor.

    Args:
        shapes: the model's tensors, in the order of theta.
        k: values kept per chunk, clamped to what a chunk has.
        bits: bits of a code.
        packing: whether codes share bytes.
    """

    def __init__(self, shapes: Sequence[Shape], k: int, bits: int, packing: Packing) -> None:
        self.layout = Layout(tuple(tuple(shape) for shape in shapes))
        self.bits = bits
        self.chunks = ChunkMap([cut(shape, k) for shape in shapes])
        self.wire = WireFormat(self.chunks, bits, packing)
        self.regular_bytes = self.wire.num_bytes
        self._alike = _tensors_of_equal_grid(self.chunks.grids)
        self._order = _ModelOrder(self.chunks, [tensor for alike in self._alike.values() for tensor in alike])
        self._tensor_of = torch.from_numpy(self.chunks.tensor_of)
        self._kept_share = torch.from_numpy(self.chunks.kept_share)
        self._level_bases = self.chunks.tensor_of * 2**bits

    def compress(self, accumulated: Tensor) -> tuple[list[bytes], Tensor]:
        """Encode rows [P, N], float32; also returns what their receivers will decode, dense [P, N].

        Rows that are not finite are encoded as they are, and every decoder refuses them.
        """
        assert len(accumulated) >= 1
        assert accumulated.shape == (len(accumulated), self.num_parameters)
        assert accumulated.dtype == torch.float32
        payloads: list[bytes] = []
        sent = torch.zeros_like(accumulated)
        rows_at_once = max(1, _SLAB // self.num_parameters)
        for start in range(0, len(accumulated), rows_at_once):
            slab = slice(start, start + rows_at_once)
            message, decoded = self._compress_slab(accumulated[slab])
            index = torch.from_numpy(self.chunks.flat_index(message.positions))
            sent[slab].scatter_(1, index.to(sent.device), decoded)
            payloads += self.wire.encode(message)
        return payloads, sent

    def decode(self, payload: bytes) -> Decoded:
        """Read a payload. Raises InvalidPayload."""
        message = self.wire.decode(payload)
        value = wire.levels(message.table, message.mean).ravel()[self._level_bases + message.codes]
        squares = np.add.reduceat(value.astype(np.float64) ** 2, self.chunks.value_bounds[:-1])
        return Decoded(
            index=torch.from_numpy(self.chunks.flat_index(message.positions)),
            value=torch.from_numpy(value),
            tensor_bounds=tuple(self.chunks.value_bounds),
            tensor_of=self._tensor_of,
            norms=torch.from_numpy(np.sqrt(squares)),
            kept_share=self._kept_share,
        )

    def _compress_slab(self, slab: Tensor) -> tuple[Message, Tensor]:
        """What S rows [S, N] say on the wire, and the values that a receiver decodes [S, n]."""
        num_rows = len(slab)
        positions: list[Tensor] = []
        groups: list[Quantized] = []
        for grid, tensors in self._alike.items():
            blocks = _blocks(slab, grid, [self.chunks.tensor_starts[tensor] for tensor in tensors])
            if grid.whole:
                groups.append(quantize(blocks, self.bits))
                continue
            kept = largest(blocks, grid.kept)
            groups.append(quantize(blocks.gather(-1, kept), self.bits))
            positions.append(kept.to(torch.int16).view(num_rows, -1))
        order = self._order
        message = Message(
            mean=order.tensors([group.mean.view(num_rows, -1) for group in groups]).cpu().numpy(),
            scale=order.tensors([group.scale.view(num_rows, -1) for group in groups]).cpu().numpy(),
            table=order.tensors([group.table.view(num_rows, -1, 2**self.bits) for group in groups]).cpu().numpy(),
            positions=order.positions(positions, num_rows).cpu().numpy().view(np.uint16),
            codes=order.values([group.code.view(num_rows, -1) for group in groups]).cpu().numpy(),
        )
        return message, order.values([group.decoded.view(num_rows, -1) for group in groups])


def largest(blocks: Tensor, kept: int) -> Tensor:
    """Positions [..., kept] of the largest absolute values of each chunk [..., chunk size], ascending, int64.

    Of equal values the first wins. To have that on every device, a value's bits (for numbers without sign they order
    like the numbers) and its place from the end are sorted as one integer.
    """
    from_the_end = torch.arange(MAX_CHUNK - 1, MAX_CHUNK - 1 - blocks.shape[-1], -1, device=blocks.device)
    keys = blocks.abs().view(torch.int32).long().mul_(MAX_CHUNK).bitwise_or_(from_the_end)
    top = keys.topk(kept, sorted=False).values
    return (MAX_CHUNK - 1 - top % MAX_CHUNK).sort().values


def _blocks(slab: Tensor, grid: ChunkGrid, starts: Sequence[int]) -> Tensor:
    """The chunks of G tensors of equal grid in S rows [S, N] -> [S * G, C, chunk size]."""
    down, across = grid.rows // grid.height, grid.columns // grid.width
    cut_up = [
        slab[:, start : start + grid.size].reshape(-1, down, grid.height, across, grid.width).transpose(2, 3)
        for start in starts
    ]
    return torch.stack(cut_up, dim=1).view(-1, grid.num_chunks, grid.chunk_size)


def _tensors_of_equal_grid(grids: Sequence[ChunkGrid]) -> dict[ChunkGrid, list[int]]:
    alike: dict[ChunkGrid, list[int]] = {}
    for tensor, grid in enumerate(grids):
        alike.setdefault(grid, []).append(tensor)
    return alike


class _ModelOrder:
    """Brings what was computed group by group back into the order of the model's tensors."""

    def __init__(self, chunks: ChunkMap, tensors: Sequence[int]) -> None:
        self._tensors = _inverse([(tensor, tensor + 1) for tensor in tensors])
        self._values = _inverse([(chunks.value_bounds[t], chunks.value_bounds[t + 1]) for t in tensors])
        self._positions = _inverse([(chunks.position_bounds[t], chunks.position_bounds[t + 1]) for t in tensors])

    def tensors(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts [S, G, ...] to [S, T, ...]."""
        return torch.cat(list(parts), dim=1)[:, self._tensors]

    def values(self, parts: Sequence[Tensor]) -> Tensor:
        """Parts [S, values of the group] to [S, n]."""
        return torch.cat(list(parts), dim=1)[:, self._values]

    def positions(self, parts: Sequence[Tensor], num_rows: int) -> Tensor:
        """Parts [S, positions of the group] to [S, M]."""
        nothing = torch.empty(num_rows, 0, dtype=torch.int16)
        return torch.cat([*parts] or [nothing], dim=1)[:, self._positions]


def _inverse(spans: Sequence[tuple[int, int]]) -> Tensor:
    """Where, in the concatenation of these spans, each number of their union stands."""
    return torch.cat([torch.arange(start, end) for start, end in spans]).argsort()
