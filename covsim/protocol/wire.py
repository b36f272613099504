"""The bytes of a payload, little-endian (numpy only).

    magic "CVSP", version, bits per code, packing, 0   8 bytes
    number of tensors T                                4 bytes
    per tensor: rows, columns, kept per chunk          3 x uint32
                mean, scale, offset, table             (3 + 2^bits) x float32
    positions in their chunks, ascending in each       12 bits each, two in 3 bytes
    codes                                              `bits` bits each, or a byte each
    CRC-32 of all that stands before                   4 bytes

Chunks that are sent whole have no positions. The decoder believes nothing: it accepts exactly the bytes that encoding
what it read would give again, and needs no more memory than a regular payload does.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from covsim.protocol.chunks import ChunkMap

Packing = Literal["packed", "byte_per_value"]
MAGIC, VERSION = b"CVSP", 1
MIN_SCALE, MAX_SCALE = 1e-12, 1e4  # a scale outside is refused

_PACKINGS: tuple[Packing, ...] = ("packed", "byte_per_value")
_START = struct.Struct("<4sBBBBI")
_CHECKSUM = struct.Struct("<I")


class InvalidPayload(ValueError):
    """Bytes that no encoder of this protocol writes; the message names one reason."""


class Message(NamedTuple):
    """What a payload says, for one payload or, with a leading dimension P, for many."""

    mean: NDArray[np.float32]  # [T]
    scale: NDArray[np.float32]  # [T]
    table: NDArray[np.float32]  # [T, 2^bits]
    positions: NDArray[np.uint16]  # [M]
    codes: NDArray[np.uint8]  # [n]


def payload_bytes(num_tensors: int, num_positions: int, num_values: int, bits: int, packing: Packing) -> int:
    """Length of a payload."""
    header_bytes = _START.size + num_tensors * _tensor_header(bits).itemsize
    code_bytes = num_values if packing == "byte_per_value" else -(-num_values * bits // 8)
    return header_bytes + num_positions * 3 // 2 + code_bytes + _CHECKSUM.size


class WireFormat:
    """Writes and reads the payloads of one model.

    Args:
        chunks: where the model's values belong.
        bits: bits of a code, a divisor of 8.
        packing: whether codes share bytes or have one each.
    """

    def __init__(self, chunks: ChunkMap, bits: int, packing: Packing) -> None:
        assert 8 % bits == 0
        self.chunks, self.bits, self.packing = chunks, bits, packing
        self._expected = np.zeros(len(chunks.grids), dtype=_tensor_header(bits))
        for slot, grid in zip(self._expected, chunks.grids, strict=True):
            slot["rows"], slot["columns"], slot["kept"] = grid.rows, grid.columns, grid.kept
        self._expected["offset"] = 2 ** (bits - 1)
        self._start = _START.pack(MAGIC, VERSION, bits, _PACKINGS.index(packing), 0, len(chunks.grids))
        self.num_bytes = payload_bytes(len(chunks.grids), chunks.num_positions, chunks.num_values, bits, packing)

    def encode(self, message: Message) -> list[bytes]:
        """The payloads of P messages, each array with a leading dimension P."""
        headers = np.repeat(self._expected[None], len(message.codes), axis=0)
        headers["mean"], headers["scale"], headers["table"] = message.mean, message.scale, message.table
        positions = _pack_positions(message.positions)
        codes = message.codes if self.packing == "byte_per_value" else _pack_codes(message.codes, self.bits)
        bodies = zip(headers, positions, codes, strict=True)
        return [_with_checksum(self._start + b"".join(part.tobytes() for part in body)) for body in bodies]

    def decode(self, payload: bytes) -> Message:
        """What one payload says. Raises InvalidPayload."""
        self._check_start(payload)
        headers = np.frombuffer(payload, self._expected.dtype, len(self._expected), _START.size)
        self._check_headers(headers)
        at = _START.size + headers.nbytes
        packed_positions = np.frombuffer(payload, np.uint8, self.chunks.num_positions * 3 // 2, at)
        at += packed_positions.nbytes
        packed_codes = np.frombuffer(payload, np.uint8, self.num_bytes - _CHECKSUM.size - at, at)
        positions = _unpack_positions(packed_positions)
        self._check_positions(positions)
        codes = self._read_codes(packed_codes)
        return Message(headers["mean"], headers["scale"], headers["table"], positions, codes)

    def _check_start(self, payload: bytes) -> None:
        if len(payload) < _START.size:
            raise InvalidPayload(f"{len(payload)} bytes are too few for a payload")
        magic, version, bits, packing, zero, num_tensors = _START.unpack_from(payload)
        if magic != MAGIC:
            raise InvalidPayload(f"does not begin with {MAGIC.decode()}")
        if version != VERSION:
            raise InvalidPayload(f"format version {version}, expected {VERSION}")
        if (bits, packing, zero) != tuple(self._start[5:8]):
            raise InvalidPayload(
                f"bits, packing and reserved byte {(bits, packing, zero)}, expected {(*self._start[5:8],)}"
            )
        if num_tensors < len(self._expected):
            raise InvalidPayload(f"an expected tensor is missing: {num_tensors} of {len(self._expected)} are there")
        if num_tensors > len(self._expected):
            raise InvalidPayload(f"{num_tensors} tensors, expected {len(self._expected)}")
        if len(payload) != self.num_bytes:
            raise InvalidPayload(f"{len(payload)} bytes, expected {self.num_bytes}")
        if zlib.crc32(memoryview(payload)[: -_CHECKSUM.size]) != _CHECKSUM.unpack_from(payload, self.num_bytes - 4)[0]:
            raise InvalidPayload("checksum does not match")

    def _check_headers(self, headers: NDArray[Any]) -> None:
        _refuse(headers["kept"] == 0, "tensor {} has no values")
        for name in ("rows", "columns"):
            _refuse(headers[name] != self._expected[name], f"tensor {{}} has other {name} than expected")
        _refuse(headers["kept"] != self._expected["kept"], "tensor {} keeps another number per chunk than expected")
        _refuse(headers["offset"] != self._expected["offset"], "tensor {} has another offset than expected")
        _refuse(~np.isfinite(headers["mean"]), "tensor {} has a mean that is not finite")
        _refuse(~np.isfinite(headers["scale"]), "tensor {} has a scale that is not finite")
        size = np.abs(headers["scale"])
        _refuse(size < np.float32(MIN_SCALE), f"tensor {{}} has a scale under {MIN_SCALE:g}")
        _refuse(size > np.float32(MAX_SCALE), f"tensor {{}} has a scale over {MAX_SCALE:g}")
        _refuse(~np.isfinite(headers["table"]).all(axis=1), "tensor {} has a table that is not finite")
        _refuse(
            ~np.isfinite(levels(headers["table"], headers["mean"])).all(axis=1),
            "tensor {} has values that are not finite",
        )

    def _check_positions(self, positions: NDArray[np.uint16]) -> None:
        _refuse(positions >= self.chunks.chunk_size, "position {} lies outside its chunk")
        follows = ~self.chunks.opens_chunk[1:]
        _refuse(follows & (positions[1:] == positions[:-1]), "position {} is there twice in its chunk")
        _refuse(follows & (positions[1:] < positions[:-1]), "position {} is followed by a lower one in its chunk")

    def _read_codes(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.packing == "byte_per_value":
            _refuse(packed >= 2**self.bits, f"code {{}} needs more than {self.bits} bits")
            return packed
        codes = _unpack_codes(packed, self.bits)
        if codes[self.chunks.num_values :].any():
            raise InvalidPayload("padding bits are not zero")
        return codes[: self.chunks.num_values]


def levels(table: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """The decoded value of each code [T, 2^bits]."""
    with np.errstate(over="ignore"):
        return table + mean[:, None]


def _tensor_header(bits: int) -> np.dtype[np.void]:
    grid = [(name, "<u4") for name in ("rows", "columns", "kept")]
    numbers = [(name, "<f4") for name in ("mean", "scale", "offset")]
    return np.dtype([*grid, *numbers, ("table", "<f4", (2**bits,))])


def _refuse(bad: Any, reason: str) -> None:
    """Raise for a vector with a true entry; the place of the first one fills the gap in the reason."""
    if bad.any():
        raise InvalidPayload(reason.format(bad.argmax()))


def _with_checksum(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _pack_positions(positions: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Two numbers of 12 bits to 3 bytes: [P, M] -> [P, 3 M / 2]; the first number fills the low bits."""
    first, second = positions[:, 0::2], positions[:, 1::2]
    packed = np.empty((*first.shape, 3), dtype=np.uint8)
    packed[..., 0] = first & 0xFF
    packed[..., 1] = first >> 8 | (second & 0xF) << 4
    packed[..., 2] = second >> 4
    return packed.reshape(len(positions), -1)


def _unpack_positions(packed: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """[3 M / 2] -> [M]."""
    low, middle, high = packed.reshape(-1, 3).astype(np.uint16).T
    return np.stack([low | (middle & 0xF) << 8, middle >> 4 | high << 4], axis=1).ravel()


def _pack_codes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """8 / bits codes to a byte, the first in the low bits: [P, n] -> [P, ceil(n bits / 8)]."""
    per_byte = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte))).reshape(len(codes), -1, per_byte)
    packed = np.zeros(padded.shape[:2], dtype=np.uint8)
    for place in range(per_byte):
        packed |= padded[..., place] << (place * bits)
    return packed


def _unpack_codes(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """[ceil(n bits / 8)] -> all codes, padding included."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: NDArray[np.uint8] = packed[:, None] >> shifts & (2**bits - 1)
    return codes.ravel()
