"""Rows of numbers to payloads and back, by parts: a compressor, a value format, and a way to write positions.

    compress = cut into chunks, transform, select of each, encode the kept values group by group, write
    decode   = read, decode the codes, place the values

Tensors of equal grid are compressed together, and rows a slab at a time; neither changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covsim.protocol import wire
from covsim.protocol.base import Claims, Codec, Decoded, Layout, Shape
from covsim.protocol.chunks import ChunkGrid, ChunkMap, Places
from covsim.protocol.compressors import Compressor, Origin
from covsim.protocol.indices import IndexCoding
from covsim.protocol.invalid import InvalidPayload, refuse
from covsim.protocol.values import Encoded, ValueFormat
from covsim.protocol.wire import Message, Packing, WireFormat, Writing

_SLAB = 2**21  # elements compressed at once: their sort keys, 8 bytes each, stay near the cache


def payload_bytes(
    groups: Iterable[tuple[int, Shape]],
    compressor: Compressor,
    values: ValueFormat,
    indices: IndexCoding,
    packing: Packing,
) -> int:
    """Length of a payload for `count` tensors of each `shape`, by formula, at any size.

    Exact where the length does not depend on what is sent. Entropy coding: expected, for uniformly random positions;
    real ones of those are up to 1 % shorter. Threshold: expected, for Gaussian values in tensors of many elements.
    Raises ValueError for shapes that cannot be cut, for chunks that the index coding cannot reach into, and for parts
    that the wire cannot name.
    """
    grids = [(count, compressor.cut(shape)) for count, shape in groups]
    writing = _writing(compressor, values, indices, packing)
    writing.check()
    return wire.payload_bytes(grids, writing)


class TensorCodec(Codec):
    """Writes and reads the payloads of one model.

    Args:
        shapes: the model's tensors, in the order of theta.
        compressor: which values are sent.
        values: how a value is written.
        indices: how positions are written.
        packing: whether codes share bytes.
        fragment: the number of the fragment of theta that these tensors are; payloads of others are refused.
        most_tokens: payloads that claim more are refused; None believes any number.

    Raises:
        ValueError: for shapes that cannot be cut, and for chunks that the index coding cannot reach into.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        compressor: Compressor,
        values: ValueFormat,
        indices: IndexCoding,
        packing: Packing,
        fragment: int = 0,
        most_tokens: int | None = None,
    ) -> None:
        self.layout = Layout.of(shapes)
        self.compressor, self.values = compressor, values
        self.chunks = ChunkMap([compressor.cut(shape) for shape in self.layout.shapes])
        writing = _writing(compressor, values, indices, packing)
        self.wire = WireFormat(self.chunks, writing, fragment, most_tokens)
        self.regular_bytes = wire.payload_bytes([(1, grid) for grid in self.chunks.grids], writing)
        self._alike = _tensors_of_equal_grid(self.chunks.grids)
        self._order = _ModelOrder(self.chunks, [tensor for alike in self._alike.values() for tensor in alike], values)
        self._tensor_of = torch.from_numpy(self.chunks.full.tensor_of)
        self._kept_share = torch.from_numpy(self.chunks.full.kept_share)
        self._of_nothing = _header_of_nothing(values) if self.chunks.counted else b""

    @property
    def selects(self) -> bool:
        """Whether any chunk is sent in part, so that payloads differ in whose values they hold."""
        return bool((self._kept_share < 1).any()) or bool(self.chunks.counted)

    def for_fragment(self, fragment: int) -> TensorCodec:
        """The same codec for another fragment of the same shapes."""
        other = copy(self)
        other.wire = self.wire.for_fragment(fragment)
        return other

    def compress(self, accumulated: Tensor, claims: Sequence[Claims] | None = None) -> tuple[list[bytes], Tensor]:
        """Encode rows [P, N], float32; also returns what their receivers will apply, dense and in theta's space [P, N].

        Rows that are not finite are encoded as they are, and every decoder refuses them.
        """
        claims = [Claims()] * len(accumulated) if claims is None else claims
        assert len(accumulated) >= 1
        assert accumulated.shape == (len(claims), self.num_parameters)
        assert accumulated.dtype == torch.float32
        payloads: list[bytes] = []
        sent = torch.zeros_like(accumulated)
        rows_at_once = max(1, _SLAB // self.num_parameters)
        for start in range(0, len(accumulated), rows_at_once):
            slab = slice(start, start + rows_at_once)
            coded = self._compress_slab(accumulated[slab], claims[slab])
            index = torch.from_numpy(self.chunks.full.flat_index(coded.positions))
            rows = sent[slab].scatter_(1, index.to(sent.device), coded.decoded)
            rows.copy_(self._inverse(rows))
            payloads += self._write(coded, claims[slab])
        return payloads, sent

    def without_tensors(self, payload: bytes, tensors: Collection[int]) -> bytes:
        """The payload without some of its tensors. Raises ValueError if none would be left, or there are no such."""
        return self.wire.leave_out(payload, tensors)

    def decode(self, payload: bytes, allow_missing: bool = False) -> Decoded:
        """Read a payload. Raises InvalidPayload."""
        message, claims, places = self.wire.decode(payload, allow_missing)
        present, rank = places.chunks.present, places.chunks.rank
        group_of = places.chunk_of if self.values.per_chunk else rank[places.tensor_of]
        value = self.values.decode(message.headers, message.codes, group_of)
        refuse(~np.isfinite(value), "value {} is not finite")
        self._check_groups_of_nothing(message.headers, places)
        regular = places is self.chunks.full
        return Decoded(
            index=torch.from_numpy(places.flat_index(message.positions)),
            value=torch.from_numpy(value),
            tensor_bounds=tuple(places.value_bounds),
            tensor_of=self._tensor_of if regular else torch.from_numpy(places.tensor_of),
            norms=torch.from_numpy(_norms(value, places)),
            kept_share=self._kept_share if regular else torch.from_numpy(places.kept_share),
            claims=claims,
            missing=tuple(np.flatnonzero(~present).tolist()),
        )

    def to_theta(self, delta: Tensor) -> Tensor:
        """From the space of the values to theta's [N]; the identity without a transform."""
        return self._inverse(delta[None])[0]

    def _compress_slab(self, slab: Tensor, claims: Sequence[Claims]) -> _Coded:
        """What S rows [S, N] say on the wire, and the values that a receiver decodes [S, n]."""
        positions: list[Tensor] = []
        used: list[Tensor] = []
        encoded: list[Encoded] = []
        for grid, tensors in self._alike.items():
            chunks = self._forward(_blocks(slab, grid, [self.chunks.tensor_starts[tensor] for tensor in tensors]))
            chunks = chunks.flatten(-2)
            if grid.whole:
                encoded.append(self._encode(chunks))
                continue
            origins = [Origin(claim.seed, tensor) for claim in claims for tensor in tensors]
            selection = self.compressor.select(chunks, grid, origins)
            assert selection.positions.shape == (*chunks.shape[:2], grid.kept), "as many as the grid keeps"
            assert (selection.used is None) == (grid.odds is None), "odds stand for a number that depends on the values"
            values = chunks.gather(-1, selection.positions)
            if self.compressor.draw is not None:
                values = torch.where(chunks.isfinite().all(-1, keepdim=True), values, torch.nan)
            encoded.append(self._encode(values, selection.used))
            positions.append(selection.positions.to(torch.int16))
            used += [] if selection.used is None else [selection.used]
        order, num_rows = self._order, len(slab)
        return _Coded(
            headers=order.headers(encoded, num_rows),
            positions=order.positions(positions, num_rows).cpu().numpy().view(np.uint16),
            codes=_unsigned(order.values([each.code for each in encoded], num_rows).cpu().numpy()),
            decoded=order.values([each.decoded for each in encoded], num_rows),
            used=order.values(used, num_rows).cpu().numpy() if used else None,
        )

    def _encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Values [R, C, k] in groups of one tensor or one chunk each; unused ones count as 0."""
        if used is not None:
            values = torch.where(used, values, 0.0)
        if self.values.per_chunk:
            values = values.flatten(0, 1).unsqueeze(1)
            used = None if used is None else used.flatten(0, 1).unsqueeze(1)
        header, code, decoded = self.values.encode(values, used)
        return Encoded(header, code, decoded if used is None else torch.where(used, decoded, 0.0))

    def _write(self, coded: _Coded, claims: Sequence[Claims]) -> list[bytes]:
        if coded.used is None:
            message = Message(coded.headers, self.chunks.full.counts, coded.positions, coded.codes)
            return self.wire.encode(message, claims)
        payloads: list[bytes] = []
        for row, (used, claim) in enumerate(zip(coded.used, claims, strict=True)):
            counts = np.bincount(self.chunks.full.chunk_of[used], minlength=self.chunks.num_chunks)
            one = slice(row, row + 1)
            message = Message(coded.headers[one], counts, coded.positions[one, used], coded.codes[one, used])
            payloads += self.wire.encode(message, [claim])
        return payloads

    def _check_groups_of_nothing(self, headers: NDArray[np.void], places: Places) -> None:
        counts = places.counts if self.values.per_chunk else np.diff(places.value_bounds)[places.chunks.present]
        said = headers[counts == 0]
        if said.tobytes() != self._of_nothing * len(said):
            raise InvalidPayload("the header of a group without values says something")

    def _forward(self, blocks: Tensor) -> Tensor:
        basis = self.compressor.basis
        return blocks if basis is None else basis.forward(blocks)

    def _inverse(self, rows: Tensor) -> Tensor:
        """Rows [S, N] from the space of the values to theta's."""
        basis = self.compressor.basis
        if basis is None:
            return rows
        theta = torch.empty_like(rows)
        for grid, tensors in self._alike.items():
            starts = [self.chunks.tensor_starts[tensor] for tensor in tensors]
            _put_blocks(theta, basis.inverse(_blocks(rows, grid, starts)), grid, starts)
        return theta


class _Coded(NamedTuple):
    """S rows before they are written: G groups, M positions and n values in the order of the model."""

    headers: NDArray[np.void]  # [S, G]
    positions: NDArray[np.uint16]  # [S, M]
    codes: NDArray[Any]  # [S, n]
    decoded: Tensor  # [S, n]
    used: NDArray[np.bool_] | None  # [S, n], True for values that are sent; None if all are


class _ModelOrder:
    """Brings what was computed for tensors of equal grid together back into the order of the model's tensors."""

    def __init__(self, chunks: ChunkMap, tensors: Sequence[int], values: ValueFormat) -> None:
        self._header = values.header
        bounds = chunks.chunk_bounds if values.per_chunk else range(len(tensors) + 1)
        self._groups = _inverse(bounds, tensors)
        self._values = _inverse(chunks.full.value_bounds, tensors)
        self._positions = _inverse(chunks.full.position_bounds, tensors)

    def headers(self, parts: Sequence[Encoded], num_rows: int) -> NDArray[np.void]:
        """The headers of all groups [S, G]."""
        headers = np.zeros((num_rows, len(self._groups)), dtype=self._header)
        for name in self._header.names or ():
            fields = [part.header[name] for part in parts]
            by_row = [field.view(num_rows, -1, *field.shape[1:]) for field in fields]
            headers[name] = torch.cat(by_row, dim=1)[:, self._groups].cpu().numpy()
        return headers

    def values(self, parts: Sequence[Tensor], num_rows: int) -> Tensor:
        """Parts of [S, values of some tensors] to [S, n]."""
        return torch.cat([part.reshape(num_rows, -1) for part in parts], dim=1)[:, self._values]

    def positions(self, parts: Sequence[Tensor], num_rows: int) -> Tensor:
        """Parts of [S, positions of some tensors] to [S, M]."""
        nothing = torch.empty(num_rows, 0, dtype=torch.int16)
        return torch.cat([part.reshape(num_rows, -1) for part in parts] or [nothing], dim=1)[:, self._positions]


def _writing(compressor: Compressor, values: ValueFormat, indices: IndexCoding, packing: Packing) -> Writing:
    draw = None if compressor.draw is None else compressor.draw.positions
    return Writing(compressor.kind, values.kind, values, indices, packing, draw)


def _tensors_of_equal_grid(grids: Sequence[ChunkGrid]) -> dict[ChunkGrid, list[int]]:
    alike: dict[ChunkGrid, list[int]] = {}
    for tensor, grid in enumerate(grids):
        alike.setdefault(grid, []).append(tensor)
    return alike


def _blocks(rows: Tensor, grid: ChunkGrid, starts: Sequence[int]) -> Tensor:
    """The chunks of G tensors of equal grid in S rows [S, N] -> [S * G, C, height, width]."""
    down, across = grid.rows // grid.height, grid.columns // grid.width
    cut_up = [
        rows[:, start : start + grid.size].reshape(-1, down, grid.height, across, grid.width).transpose(2, 3)
        for start in starts
    ]
    return torch.stack(cut_up, dim=1).view(-1, grid.num_chunks, grid.height, grid.width)


def _put_blocks(rows: Tensor, blocks: Tensor, grid: ChunkGrid, starts: Sequence[int]) -> None:
    """The reverse, in place."""
    down, across = grid.rows // grid.height, grid.columns // grid.width
    put_together = blocks.view(len(rows), len(starts), down, across, grid.height, grid.width).transpose(3, 4)
    for place, start in enumerate(starts):
        rows[:, start : start + grid.size] = put_together[:, place].reshape(len(rows), -1)


def _inverse(bounds: Sequence[int], tensors: Sequence[int]) -> Tensor:
    """Where each number of the spans between bounds stands, when they are laid in the order of `tensors`."""
    return torch.cat([torch.arange(bounds[tensor], bounds[tensor + 1]) for tensor in tensors]).argsort()


def _unsigned(codes: NDArray[Any]) -> NDArray[Any]:
    return codes.view(f"u{codes.itemsize}")


def _header_of_nothing(values: ValueFormat) -> bytes:
    """What the header of a group says of which no value is sent."""
    nothing = torch.zeros(1, 1, 1)
    header = np.zeros(1, dtype=values.header)
    for name, field in values.encode(nothing, nothing.bool()).header.items():
        header[name] = field.numpy()
    return header.tobytes()


def _norms(value: NDArray[np.float32], places: Places) -> NDArray[np.float64]:
    """Euclidean norm of each tensor's values [T], 0 for a tensor of which none were sent."""
    bounds = np.array(places.value_bounds)
    some = bounds[1:] > bounds[:-1]
    squares = np.zeros(len(some))
    squares[some] = np.add.reduceat(value.astype(np.float64) ** 2, bounds[:-1][some]) if some.any() else 0.0
    norms: NDArray[np.float64] = np.sqrt(squares)
    return norms
