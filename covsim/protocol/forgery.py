"""Payloads that are wrong in one way: what a decoder must refuse, made of a valid payload.

All but `bad_checksum` have a checksum that holds, so that they die of their flaw and not at the door:

    truncated            cut short
    empty                no bytes at all
    oversized            twice as long
    nan, infinite        a number that is not finite, in a header or, where there are none, among the values
    huge                 every value a million times too large; valid in form, so a decoder accepts it
    wrong_indices        a position outside its chunk
    duplicate_indices    a position that is there twice
    wrong_shape          a tensor with a row too many
    wrong_version        of the format
    bad_checksum         the only one whose checksum does not hold

Not every format can say every flaw. A position of 12 bits never lies outside a chunk of 4096 elements: there, wrong
positions are out of order. Entropy coding can say neither that nor a position twice, and a format that sends all values
or draws its positions from a seed has no positions at all: there, more bytes of positions stand than belong there.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from covsim.protocol.chunks import MAX_CHUNK, Places
from covsim.protocol.claims import Claims
from covsim.protocol.indices import CODERS
from covsim.protocol.wire import MAGIC, Message, WireFormat

if TYPE_CHECKING:
    from covsim.protocol.codec import TensorCodec

Flaw = Literal[
    "truncated",
    "empty",
    "oversized",
    "nan",
    "infinite",
    "huge",
    "wrong_indices",
    "duplicate_indices",
    "wrong_shape",
    "wrong_version",
    "bad_checksum",
]
FLAWS: Final[tuple[Flaw, ...]] = get_args(Flaw)

LEFT_OUT: Final = "missing_tensors"
"""Not among the flaws: a payload without every third tensor, which some rules of the past let pass."""

HUGE: Final = 1e6
"""What the values of a huge payload are multiplied by."""

_NUMBERS: Final[dict[Flaw, float]] = {"nan": np.nan, "infinite": np.inf}
_CHECKSUM: Final = struct.Struct("<I")


def forge(codec: TensorCodec, payload: bytes, flaw: Flaw | Literal["missing_tensors"]) -> bytes:
    """A valid payload made wrong in one way, or partial. Raises InvalidPayload for one that is not valid."""
    if flaw == LEFT_OUT:
        return codec.wire.leave_out(payload, range(1, len(codec.wire.chunks.grids), 3))
    return _enlarged(codec, payload) if flaw == "huge" else spoiled(codec.wire, payload, flaw)


def spoiled(wire: WireFormat, payload: bytes, flaw: Flaw) -> bytes:
    """A payload that a format accepts, made so that it refuses it: any flaw but `huge` (numpy only).

    Raises InvalidPayload for a payload that the format refuses already.
    """
    message, claims, places = wire.decode(payload)
    body = payload[: -_CHECKSUM.size]
    if flaw == "empty":
        return b""
    if flaw == "bad_checksum":
        return body + bytes(byte ^ 0xFF for byte in payload[-_CHECKSUM.size :])
    if flaw in ("nan", "infinite", "wrong_indices", "duplicate_indices"):
        wrong = _with_number(message, flaw) if flaw in _NUMBERS else _with_positions(wire, message, places, flaw)
        return _too_long(wire, body, places) if wrong is None else _written(wire, wrong, claims)
    spoil = {
        "truncated": lambda: body[: min(len(payload) // 2, wire.least_bytes - 1) - _CHECKSUM.size],
        "oversized": lambda: body + bytes(max(len(payload), wire.most_bytes + 1 - len(payload))),
        "wrong_shape": lambda: _with_word(body, wire.tensor_place(0), "<I"),
        "wrong_version": lambda: _with_word(body, len(MAGIC), "<B"),
    }
    return _signed(spoil[flaw]())


def _enlarged(codec: TensorCodec, payload: bytes) -> bytes:
    """A payload of the same form that says much larger values."""
    decoded = codec.decode(payload)
    values = decoded.value.new_zeros(codec.num_parameters)
    values[decoded.index] = decoded.value * HUGE
    return codec.compress(codec.to_theta(values)[None], [decoded.claims])[0][0]


def _signed(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(zlib.crc32(body))


def _written(wire: WireFormat, message: Message, claims: Claims) -> bytes:
    row = Message(message.headers[None], message.counts, message.positions[None], message.codes[None])
    return wire.encode(row, [claims])[0]


def _with_word(body: bytes, place: int, form: str) -> bytes:
    """The bytes with a number at some place that is larger by 1."""
    changed = bytearray(body)
    struct.pack_into(form, changed, place, struct.unpack_from(form, body, place)[0] + 1)
    return bytes(changed)


def _with_number(message: Message, flaw: Flaw) -> Message | None:
    """The first float of a header, or else the first value, replaced; None where there is no float to replace."""
    number = _NUMBERS[flaw]
    header = message.headers.dtype
    name = next((name for name in header.names or () if header[name].base.kind == "f"), None)
    if name is not None:
        headers = message.headers.copy()
        headers[name][0] = number
        return message._replace(headers=headers)
    if message.codes.itemsize < 2 or not len(message.codes):
        return None
    codes = message.codes.copy()
    codes.view(f"<f{codes.itemsize}")[0] = number
    return message._replace(codes=codes)


def _with_positions(wire: WireFormat, message: Message, places: Places, flaw: Flaw) -> Message | None:
    """Positions that are wrong or there twice; None where the format cannot say so."""
    if wire.writing.draw is not None or not len(message.positions):
        return None
    sizes, counts = wire.chunks.size[wire.chunks.positioned], places.counts[wire.chunks.positioned]
    ends = np.cumsum(counts)
    positions = message.positions.copy()
    if flaw == "wrong_indices":
        reach = min(CODERS[wire.writing.indices].longest_chunk, MAX_CHUNK)
        short = np.flatnonzero((sizes < reach) & (counts > 0))
        if len(short):
            positions[ends[short[0]] - 1] = sizes[short[0]]  # the last of its chunk, so that the order holds
            return message._replace(positions=positions)
    pairs = np.flatnonzero(counts > 1)
    if wire.writing.indices == "entropy" or not len(pairs):
        return None
    last = ends[pairs[0]] - 1
    _spoil_pair(positions[last - 1 : last + 1], flaw)
    return message._replace(positions=positions)


def _spoil_pair(pair: NDArray[np.uint16], flaw: Flaw) -> None:
    """Two positions, ascending: exchanged, or equal."""
    if flaw == "wrong_indices":
        pair[:] = pair[::-1].copy()
    else:
        pair[0] = pair[1]


def _too_long(wire: WireFormat, body: bytes, places: Places) -> bytes:
    """More bytes of positions than belong to the values: three, so that no coding takes them for its own."""
    codes = wire.writing.code_bytes(places.num_values)
    at = len(body) - codes
    return _signed(body[:at] + bytes(3) + body[at:])
