"""How a payload is made as long on the wire as the scenario charges: its length, itself, and zeros behind it."""

from __future__ import annotations

import struct

_LENGTH = struct.Struct("<Q")


def wire_bytes(charged_bytes: float, bytes_per_byte: float) -> int:
    """How long an object is on the wire."""
    return round(charged_bytes * bytes_per_byte)


def wrapped(payload: bytes, num_bytes: int) -> bytes:
    """A payload in an object of so many bytes, or of as many as it takes at least."""
    content = _LENGTH.pack(len(payload)) + payload
    return content + bytes(max(0, num_bytes - len(content)))


def unwrapped(content: bytes) -> bytes:
    """The payload in an object, or what is left of it in one that was cut short."""
    if len(content) < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack_from(content)
    return content[_LENGTH.size : _LENGTH.size + length]


def smallest(payload_bytes: int) -> int:
    """The fewest bytes of an object that holds a payload."""
    return _LENGTH.size + payload_bytes
