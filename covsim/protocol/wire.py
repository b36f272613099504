"""The bytes of a payload, little-endian (numpy only).

    magic "CVSP", version                              5 bytes
    bits per code, grouping, index coding, packing     4 bytes
    zeros                                              3 bytes
    names of compressor and value format               2 x 16 bytes of ASCII, filled with zeros
    fragment, number of tensors T, base                3 x uint32
    tokens, seed                                       2 x uint64
    per tensor: rows, columns, chunk height and width, most kept per chunk     5 x uint32
    per group of values (a tensor or a chunk): what the value format says of it
    values sent of each chunk                          uint16 each, only where the number depends on the values
    positions in their chunks, ascending in each       as `indices` writes them, unless they are drawn from the seed
    codes                                              their bits each, the first lowest, or whole bytes each
    CRC-32 of all that stands before                   4 bytes

Chunks that are always sent whole have no positions. A tensor of which 0 are kept is missing: its measures are all that
is there of it. Such a partial payload is refused unless its reader allows it. The decoder believes nothing: it accepts
exactly the bytes that encoding what it read would give again, and checks every length before it makes anything of that
length.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from covsim.protocol.chunks import ChunkGrid, ChunkMap, Places
from covsim.protocol.claims import Claims
from covsim.protocol.indices import CODERS, IndexCoding, coder_for
from covsim.protocol.invalid import InvalidPayload, refuse

__all__ = ["InvalidPayload", "Message", "Packing", "WireFormat", "Writing", "payload_bytes"]

Packing = Literal["packed", "byte_per_value"]
MAGIC, VERSION = b"CVSP", 2
NAME_BYTES: Final = 16

_PACKINGS: Final[tuple[str, ...]] = get_args(Packing)
_START: Final = struct.Struct("<4sBBBBB3s16s16sIIIQQ")
_TENSOR: Final = np.dtype([(name, "<u4") for name in ("rows", "columns", "height", "width", "kept")])
_CODE_BITS: Final = (1, 2, 4, 8, 16, 32)
_COUNT: Final = np.dtype("<u2")
_CHECKSUM: Final = struct.Struct("<I")
_KINDS: Final = ("bits per code", "grouping", "index coding", "packing", "reserved bytes", "compressor", "value format")
_MEASURES: Final = {
    "rows": "has other rows",
    "columns": "has other columns",
    "height": "has chunks of another height",
    "width": "has chunks of another width",
    "kept": "keeps another number per chunk",
}
_OVERHEAD_BYTES: Final = 2**21  # what one chunk of random positions and the objects around the arrays take


class Numbers(Protocol):
    """What the wire must know of a value format."""

    @property
    def code_bits(self) -> int:
        """Bits of a code: 1, 2, 4, 8, 16 or 32."""

    @property
    def header(self) -> np.dtype[np.void]:
        """What is written once per group, little-endian and without gaps."""

    @property
    def per_chunk(self) -> bool:
        """True if a group is a chunk, False if it is a tensor."""


class Writing(NamedTuple):
    """How payloads are written.

    Attributes:
        compressor, value_format: names, up to 16 letters of ASCII.
        numbers: the value format, as far as it concerns the wire.
        indices: how positions are written.
        packing: whether codes share bytes or have whole ones each.
        draw: the positions that a seed stands for, per chunk [.., kept] of one tensor; None where positions are sent.
    """

    compressor: str
    value_format: str
    numbers: Numbers
    indices: IndexCoding
    packing: Packing
    draw: Callable[[ChunkGrid, int, int], NDArray[np.uint16]] | None = None

    def code_bytes(self, num_values: float) -> int:
        """Length of this many codes."""
        bits = self.numbers.code_bits
        return _ceil_bytes(num_values * (bits if self.packing == "packed" else -(-bits // 8) * 8))

    def check(self) -> None:
        """Raise ValueError for names, codes and headers that do not fit."""
        for name in (self.compressor, self.value_format):
            if not (name.isascii() and 0 < len(name) <= NAME_BYTES):
                raise ValueError(f"{name!r} cannot be written: a part's name has up to {NAME_BYTES} letters of ASCII")
        if self.numbers.code_bits not in _CODE_BITS:
            raise ValueError(f"{self.value_format}: codes have 1, 2, 4, 8, 16 or 32 bits, not {self.numbers.code_bits}")
        header = self.numbers.header
        if header != np.dtype([(name, header[name]) for name in header.names or ()]):
            raise ValueError(f"{self.value_format}: there are gaps between the fields of its header")


class Message(NamedTuple):
    """What a payload says, for one payload or, with a leading dimension P, for many."""

    headers: NDArray[np.void]  # one per group [G]
    counts: NDArray[np.int64]  # values sent of each chunk [K]; never a leading dimension
    positions: NDArray[np.uint16]  # [M], also those that are drawn
    codes: NDArray[Any]  # [n], unsigned, of 8, 16 or 32 bits


def payload_bytes(grids: Iterable[tuple[int, ChunkGrid]], writing: Writing) -> int:
    """Length of a payload for `count` tensors of each grid; expected, where it depends on what is sent.

    Raises ValueError where the index coding cannot reach all of a chunk.
    """
    known = list(grids)
    coder = coder_for(writing.indices, [] if writing.draw else [grid for _, grid in known])
    num_tensors = sum(count for count, _ in known)
    num_chunks = sum(count * grid.num_chunks for count, grid in known)
    counted = sum(count * grid.num_chunks for count, grid in known if grid.odds is not None)
    num_values = sum(count * grid.num_chunks * grid.expected_kept for count, grid in known)
    bits = sum(count * grid.num_chunks * coder.expected_bits(grid) for count, grid in known if not grid.whole)
    return (
        _START.size
        + num_tensors * _TENSOR.itemsize
        + (num_chunks if writing.numbers.per_chunk else num_tensors) * writing.numbers.header.itemsize
        + counted * _COUNT.itemsize
        + (0 if writing.draw else _ceil_bytes(bits))
        + writing.code_bytes(num_values)
        + _CHECKSUM.size
    )


class WireFormat:
    """Writes and reads the payloads of one model.

    Args:
        chunks: the model's chunks; where tensors are missing, of the payloads in which just these are.
        writing: how payloads are written.
        fragment: the number of the fragment of theta; payloads of others are refused.
        most_tokens: payloads that claim more are refused; None believes any number.

    Attributes:
        least_bytes, most_bytes: between these lies the length of every payload that can be accepted.
        limit_bytes: memory that reading any payload takes, longer ones being refused unread: 16 times `most_bytes` for
            the bytes unfolded to bits, 160 bytes for each of the values that the model's longest payload has (places,
            values and what they are computed from), and 2 MiB for all the rest.

    Raises:
        ValueError: the index coding cannot reach all of a chunk, or a name does not fit.
    """

    def __init__(self, chunks: ChunkMap, writing: Writing, fragment: int = 0, most_tokens: int | None = None) -> None:
        writing.check()
        self.chunks, self.writing, self.fragment, self.most_tokens = chunks, writing, fragment, most_tokens
        self._coder = None if writing.draw else coder_for(writing.indices, chunks.grids)
        self._tensors = np.array([(g.rows, g.columns, g.height, g.width, g.kept) for g in chunks.grids], dtype=_TENSOR)
        self._tensors["kept"][~chunks.present] = 0
        self._num_groups = chunks.num_chunks if writing.numbers.per_chunk else int(chunks.present.sum())
        self._sizes = chunks.size[chunks.positioned]
        head_bytes = _START.size + self._tensors.nbytes + self._num_groups * writing.numbers.header.itemsize
        count_bytes = chunks.num_chunks * _COUNT.itemsize if chunks.counted else 0
        bare_bytes = head_bytes + count_bytes + _CHECKSUM.size
        least, most = (self._position_bytes(chunks.full)[end] + self._code_bytes(chunks.full) for end in (0, 1))
        self.least_bytes = bare_bytes + (0 if chunks.counted else least)
        self.most_bytes = bare_bytes + most
        self.limit_bytes = 16 * self.most_bytes + 160 * chunks.full.num_values + _OVERHEAD_BYTES

    def for_fragment(self, fragment: int) -> WireFormat:
        """The same format for another fragment of the same shapes."""
        other = copy(self)
        other.fragment = fragment
        return other

    def tensor_place(self, tensor: int) -> int:
        """Where in a payload the measures of a tensor stand, its rows first."""
        return _START.size + tensor * _TENSOR.itemsize

    def without(self, tensors: Collection[int]) -> WireFormat:
        """The format of the payloads in which some tensors are missing. Raises ValueError if nothing would be left."""
        unknown = set(tensors) - set(range(len(self._tensors)))
        if unknown or len(set(tensors)) == len(self._tensors):
            raise ValueError(f"cannot leave out tensors {sorted(tensors)}: there are {len(self._tensors)}")
        return WireFormat(ChunkMap(self.chunks.grids, tensors), self.writing, self.fragment, self.most_tokens)

    def encode(self, message: Message, claims: Sequence[Claims]) -> list[bytes]:
        """The payloads of P messages, one claim each; all arrays but the counts have a leading dimension P."""
        counts = message.counts.astype(_COUNT).tobytes() if self.chunks.counted else b""
        positions: Iterable[bytes] = (b"" for _ in claims)
        if self._coder is not None:
            positioned = message.counts[self.chunks.positioned]
            positions = self._coder.encode(message.positions, positioned, self._sizes)
        codes = _pack(message.codes, self.writing)
        rows = zip(claims, message.headers, positions, codes, strict=True)
        grids = self._tensors.tobytes()
        return [
            _with_checksum(b"".join([self._start(claim), grids, head.tobytes(), counts, where, code.tobytes()]))
            for claim, head, where, code in rows
        ]

    def leave_out(self, payload: bytes, tensors: Collection[int]) -> bytes:
        """The payload without some of its tensors. Raises InvalidPayload, and ValueError as `without` does."""
        shorter = self.without(tensors)
        message, claims, places = self.decode(payload)
        stays = shorter.chunks.present
        chunks = stays[self.chunks.tensor]
        of_position = np.repeat(chunks[self.chunks.positioned], places.counts[self.chunks.positioned])
        rest = Message(
            message.headers[None, chunks if self.writing.numbers.per_chunk else stays],
            message.counts[chunks],
            message.positions[None, of_position],
            message.codes[None, chunks[places.chunk_of]],
        )
        return shorter.encode(rest, [claims])[0]

    def decode(self, payload: bytes, allow_missing: bool = False) -> tuple[Message, Claims, Places]:
        """What one payload says, and where its values belong. Raises InvalidPayload.

        With `allow_missing` tensors may be missing, but not all of them; what is there counts alone in the numbers of
        tensors and chunks in the reasons that are given then.
        """
        claims = self._check_start(payload)
        missing = self._missing(payload)
        if missing and allow_missing and len(missing) < len(self._tensors):
            return self.without(missing).decode(payload)
        if missing:
            raise InvalidPayload(f"expected tensors are missing: {', '.join(map(str, missing))}")
        self._check_length(payload)
        if self.most_tokens is not None and claims.tokens > self.most_tokens:
            raise InvalidPayload(f"claims {claims.tokens} tokens, more than {self.most_tokens}")
        self._check_tensors(payload)
        body = np.frombuffer(payload, np.uint8, len(payload) - _CHECKSUM.size)[_START.size + self._tensors.nbytes :]
        headers, body = _split(body, self._num_groups * self.writing.numbers.header.itemsize)
        places, body = self._read_counts(body)
        positions, codes = _split(body, len(body) - self._code_bytes(places))
        self._check_position_bytes(places, len(positions))
        message = Message(
            self._as_headers(headers),
            places.counts,
            self._read_positions(positions, places, claims.seed),
            _unpack(codes, places.num_values, self.writing),
        )
        return message, claims, places

    def _drawn(self, seed: int) -> NDArray[np.uint16]:
        """The positions [M] that a seed stands for."""
        assert self.writing.draw is not None
        each = [
            self.writing.draw(grid, seed, tensor).ravel()
            for tensor, grid in enumerate(self.chunks.grids)
            if self.chunks.present[tensor] and not grid.whole
        ]
        return np.concatenate([np.empty(0, dtype=np.uint16), *each])

    def _start(self, claims: Claims) -> bytes:
        writing = self.writing
        return _START.pack(
            MAGIC,
            VERSION,
            writing.numbers.code_bits,
            writing.numbers.per_chunk,
            list(CODERS).index(writing.indices),
            _PACKINGS.index(writing.packing),
            bytes(3),
            writing.compressor.encode(),
            writing.value_format.encode(),
            self.fragment,
            len(self._tensors),
            claims.base,
            claims.tokens,
            claims.seed,
        )

    def _check_start(self, payload: bytes) -> Claims:
        if len(payload) < _START.size:
            raise InvalidPayload(f"{len(payload)} bytes are too few for a payload")
        magic, version, *kinds, fragment, num_tensors, base, tokens, seed = _START.unpack_from(payload)
        claims = Claims(tokens=tokens, base=base, seed=seed)
        if magic != MAGIC:
            raise InvalidPayload(f"does not begin with {MAGIC.decode()}")
        if version != VERSION:
            raise InvalidPayload(f"format version {version}, expected {VERSION}")
        expected = _START.unpack(self._start(claims))[2 : 2 + len(kinds)]
        for name, found, wanted in zip(_KINDS, kinds, expected, strict=True):
            if found != wanted:
                raise InvalidPayload(f"{name} {found!r}, expected {wanted!r}")
        if fragment != self.fragment:
            raise InvalidPayload(f"fragment {fragment}, expected {self.fragment}")
        if num_tensors < len(self._tensors):
            raise InvalidPayload(f"an expected tensor is missing: {num_tensors} of {len(self._tensors)} are there")
        if num_tensors > len(self._tensors):
            raise InvalidPayload(f"{num_tensors} tensors, expected {len(self._tensors)}")
        return claims

    def _missing(self, payload: bytes) -> list[int]:
        """The tensors that a payload leaves out of those that this format has."""
        if len(payload) < _START.size + self._tensors.nbytes:
            return []
        kept = np.frombuffer(payload, _TENSOR, len(self._tensors), _START.size)["kept"]
        return np.flatnonzero((kept == 0) & self.chunks.present).tolist()

    def _check_length(self, payload: bytes) -> None:
        if self.least_bytes == self.most_bytes != len(payload):
            raise InvalidPayload(f"{len(payload)} bytes, expected {self.most_bytes}")
        if not self.least_bytes <= len(payload) <= self.most_bytes:
            raise InvalidPayload(f"{len(payload)} bytes, expected {self.least_bytes} to {self.most_bytes}")
        checksum = _CHECKSUM.unpack_from(payload, len(payload) - _CHECKSUM.size)[0]
        if zlib.crc32(memoryview(payload)[: -_CHECKSUM.size]) != checksum:
            raise InvalidPayload("checksum does not match")

    def _check_tensors(self, payload: bytes) -> None:
        tensors = np.frombuffer(payload, _TENSOR, len(self._tensors), _START.size)
        for name, words in _MEASURES.items():
            refuse(tensors[name] != self._tensors[name], f"tensor {{}} {words} than expected")

    def _as_headers(self, data: NDArray[np.uint8]) -> NDArray[np.void]:
        header = self.writing.numbers.header
        return data.view(header) if header.itemsize else np.zeros(self._num_groups, dtype=header)

    def _read_counts(self, body: NDArray[np.uint8]) -> tuple[Places, NDArray[np.uint8]]:
        """Where the values belong, and what follows."""
        if not self.chunks.counted:
            return self.chunks.full, body
        data, body = _split(body, self.chunks.num_chunks * _COUNT.itemsize)
        counts = data.view(_COUNT).astype(np.int64)
        refuse(counts > self.chunks.kept, "chunk {} has more values than may be sent")
        if self.writing.code_bytes(int(counts.sum())) > len(body):
            raise InvalidPayload(f"{counts.sum()} values are announced, more than the payload has room for")
        return Places(self.chunks, counts), body

    def _code_bytes(self, places: Places) -> int:
        return self.writing.code_bytes(places.num_values)

    def _position_bytes(self, places: Places) -> tuple[int, int]:
        """The least and the most bytes of positions."""
        if self._coder is None or not len(self._sizes):
            return 0, 0
        exact = self._coder.num_bytes(places.num_positions)
        if exact is not None:
            return exact, exact
        return len(self._sizes), self._coder.most_bytes(places.num_positions, self._sizes)

    def _check_position_bytes(self, places: Places, found: int) -> None:
        least, most = self._position_bytes(places)
        if not least <= found <= most:
            raise InvalidPayload(f"{found} bytes of positions, expected {least} to {most}")

    def _read_positions(self, data: NDArray[np.uint8], places: Places, seed: int) -> NDArray[np.uint16]:
        if self._coder is None:
            return self._drawn(seed)
        positions = self._coder.decode(data, places.counts[self.chunks.positioned], self._sizes)
        places.check(positions)
        return positions


def _split(data: NDArray[np.uint8], at: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return data[:at], data[at:]


def _ceil_bytes(bits: float) -> int:
    return math.ceil(bits / 8)


def _with_checksum(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _pack(codes: NDArray[Any], writing: Writing) -> NDArray[Any]:
    """Codes [P, n] as they are, or 8 / bits of them to a byte, the first in the low bits [P, ceil(n bits / 8)]."""
    bits = writing.numbers.code_bits
    if bits >= 8 or writing.packing == "byte_per_value":
        return codes.astype(f"<u{-(-bits // 8)}", copy=False)
    per_byte = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte))).reshape(len(codes), -1, per_byte)
    packed = np.zeros(padded.shape[:2], dtype=np.uint8)
    for place in range(per_byte):
        packed |= padded[..., place] << (place * bits)
    return packed


def _unpack(data: NDArray[np.uint8], num_values: int, writing: Writing) -> NDArray[Any]:
    """The reverse, for one payload: [n]."""
    bits = writing.numbers.code_bits
    if bits >= 8 or writing.packing == "byte_per_value":
        whole = data.view(f"<u{-(-bits // 8)}")
        refuse(whole >= 2**bits, f"code {{}} needs more than {bits} bits")
        return whole
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: NDArray[np.uint8] = (data[:, None] >> shifts & (2**bits - 1)).ravel()
    if codes[num_values:].any():
        raise InvalidPayload("padding bits are not zero")
    return codes[:num_values]
