"""The payload's bytes, and a decoder that believes nothing: every reason to refuse, and mutations by the thousand."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from covsim.protocol.base import InvalidPayload
from covsim.protocol.block_codec import BlockCodec
from covsim.protocol.wire import Message, Packing, WireFormat

SHAPES = [(48, 64), (7, 9), (32,), (63,), (1,)]
START, TENSOR = 12, 40  # bytes of the start and of a tensor's header
MEAN, SCALE, OFFSET, TABLE = 12, 16, 20, 24  # where a tensor's header holds them


def codec(packing: Packing = "packed") -> BlockCodec:
    return BlockCodec(SHAPES, 64, 2, packing)


def regular_payload(packing: Packing = "packed") -> bytes:
    num_parameters = codec().num_parameters
    row = torch.randn(1, num_parameters, generator=torch.Generator().manual_seed(1))
    return codec(packing).compress(row)[0][0]


def sealed(body: bytes | bytearray) -> bytes:
    """A body, its last four bytes replaced by a checksum that holds."""
    return bytes(body[:-4]) + struct.pack("<I", zlib.crc32(bytes(body[:-4])))


def with_number(field: int, number: float, tensor: int = 1, payload: bytes | None = None) -> bytes:
    """A payload, by default the regular one, with one float of a tensor's header replaced."""
    body = bytearray(payload or regular_payload())
    at = START + tensor * TENSOR + field
    body[at : at + 4] = struct.pack("<f", number)
    return sealed(body)


def with_byte(at: int, byte: int) -> bytes:
    body = bytearray(regular_payload())
    body[at] = byte
    return sealed(body)


def with_positions(change: Callable[[int], int]) -> bytes:
    """The regular payload with its positions, seen as one long number, changed."""
    body = bytearray(regular_payload())
    start = START + len(SHAPES) * TENSOR
    end = start + codec().chunks.num_positions * 3 // 2
    body[start:end] = change(int.from_bytes(body[start:end], "little")).to_bytes(end - start, "little")
    return sealed(body)


def position(place: int, value: int) -> Callable[[int], int]:
    """Sets one 12-bit digit."""
    return lambda number: number & ~(0xFFF << 12 * place) | value << 12 * place


def swapped_neighbors(number: int) -> int:
    """Exchanges the first two 12-bit digits."""
    first, second = number & 0xFFF, number >> 12 & 0xFFF
    return number >> 24 << 24 | first << 12 | second


def doubled(number: int) -> int:
    """Writes the first 12-bit digit twice."""
    return number & ~(0xFFF << 12) | (number & 0xFFF) << 12


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "too few"),
    "a start only": (lambda: regular_payload()[:START], "bytes, expected"),
    "cut": (lambda: regular_payload()[:-1], "bytes, expected"),
    "longer": (lambda: regular_payload() + b"\0", "bytes, expected"),
    "twice": (lambda: regular_payload() * 2, "bytes, expected"),
    "damaged": (lambda: regular_payload()[:300] + bytes(9) + regular_payload()[309:], "checksum"),
    "damaged checksum": (lambda: regular_payload()[:-1] + bytes([regular_payload()[-1] ^ 1]), "checksum"),
    "other magic": (lambda: with_byte(0, 0x50), "does not begin"),
    "other version": (lambda: with_byte(4, 2), "format version 2, expected 1"),
    "other bits": (lambda: with_byte(5, 4), "bits, packing and reserved byte"),
    "other packing": (lambda: with_byte(6, 1), "bits, packing and reserved byte"),
    "reserved byte": (lambda: with_byte(7, 1), "bits, packing and reserved byte"),
    "missing tensor": (lambda: with_byte(8, 4), "an expected tensor is missing: 4 of 5"),
    "added tensor": (lambda: with_byte(8, 6), "6 tensors, expected 5"),
    "billions of tensors": (lambda: with_byte(11, 0xFF), "tensors, expected 5"),
    "other rows": (lambda: with_byte(START + TENSOR, 9), "tensor 1 has other rows"),
    "other columns": (lambda: with_byte(START + TENSOR + 4, 7), "tensor 1 has other columns"),
    "wrong k": (lambda: with_byte(START + 8, 62), "tensor 0 keeps another number per chunk"),
    "no values": (lambda: with_byte(START + 8, 0), "tensor 0 has no values"),
    "mean nan": (lambda: with_number(MEAN, float("nan")), "tensor 1 has a mean that is not finite"),
    "mean infinite": (lambda: with_number(MEAN, float("-inf")), "tensor 1 has a mean that is not finite"),
    "scale nan": (lambda: with_number(SCALE, float("nan")), "tensor 1 has a scale that is not finite"),
    "scale infinite": (lambda: with_number(SCALE, float("inf")), "tensor 1 has a scale that is not finite"),
    "scale zero": (lambda: with_number(SCALE, 0.0), "tensor 1 has a scale under 1e-12"),
    "scale tiny": (lambda: with_number(SCALE, -0.99e-12), "tensor 1 has a scale under 1e-12"),
    "scale large": (lambda: with_number(SCALE, -10001.0), "tensor 1 has a scale over 10000"),
    "offset": (lambda: with_number(OFFSET, 1.5), "tensor 1 has another offset"),
    "offset nan": (lambda: with_number(OFFSET, float("nan")), "tensor 1 has another offset"),
    "table nan": (lambda: with_number(TABLE, float("nan")), "tensor 1 has a table that is not finite"),
    "table infinite": (lambda: with_number(TABLE, float("inf"), tensor=4), "tensor 4 has a table that is not finite"),
    "values overflow": (
        lambda: with_number(MEAN, 3e38, payload=with_number(TABLE, 3e38)),
        "tensor 1 has values that are not finite",
    ),
    "position outside": (lambda: with_positions(position(0, 3072)), "position 0 lies outside its chunk"),
    "position outside a small chunk": (lambda: with_positions(position(64, 63)), "position 64 lies outside"),
    "position twice": (lambda: with_positions(doubled), "position 0 is there twice"),
    "positions descend": (lambda: with_positions(swapped_neighbors), "position 0 is followed by a lower one"),
    "padding": (lambda: with_byte(-5, regular_payload()[-5] | 0xC0), "padding bits are not zero"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    build, reason = REFUSED[name]
    with pytest.raises(InvalidPayload, match=reason):
        codec().decode(build())


def test_regular_payload_is_accepted() -> None:
    """Or else every refusal above would say nothing; three codes of padding must be there to be spoiled."""
    decoded = codec().decode(regular_payload())
    assert len(decoded.index) == 64 + 62 + 32 + 62 + 1


def test_scale_limits_are_accepted() -> None:
    for scale in (1e-12, -1e-12, 1e4, -1e4):
        codec().decode(with_number(SCALE, scale))


def test_a_code_of_a_whole_byte_may_not_exceed_its_bits() -> None:
    body = bytearray(regular_payload("byte_per_value"))
    codec("byte_per_value").decode(bytes(body))
    body[-5] = 4
    with pytest.raises(InvalidPayload, match="needs more than 2 bits"):
        codec("byte_per_value").decode(sealed(body))


def test_payloads_of_another_model_or_packing_are_refused() -> None:
    other = BlockCodec([(48, 64), (9, 7), (32,), (63,), (1,)], 64, 2, "packed")
    with pytest.raises(InvalidPayload):
        other.decode(regular_payload())
    with pytest.raises(InvalidPayload):
        codec("byte_per_value").decode(regular_payload())


def test_a_huge_payload_costs_no_memory() -> None:
    huge = bytes(regular_payload()) + bytes(50_000_000)
    reader = codec()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPayload):
            reader.decode(huge)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def assert_refused_or_canonical(wire_format: WireFormat, payload: bytes) -> bool:
    """True if accepted; nothing but InvalidPayload may come out, and what is accepted encodes to the same bytes."""
    try:
        message = wire_format.decode(payload)
    except InvalidPayload:
        return False
    mean, scale, table, positions, codes = message
    again = wire_format.encode(Message(mean[None], scale[None], table[None], positions[None], codes[None]))
    assert again == [payload]
    return True


def mutated(payload: bytes, dice: random.Random) -> bytes:
    """One of the ways a payload can be damaged or forged, most of them with a checksum that holds."""
    body = bytearray(payload)
    for _ in range(dice.choice([1, 1, 1, 2, 8])):
        way, at = dice.randrange(7), dice.randrange(len(body))
        if way == 0:
            body[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            body[at] = dice.randrange(256)
        elif way == 2:
            body[at : at + 4] = struct.pack("<f", dice.choice([0.0, 1e-13, 1e38, np.nan, np.inf, -1.0, 3e-39]))
        elif way == 3:
            body[at : at + 4] = dice.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"])
        elif way == 4 and dice.random() < 0.2:
            del body[at : at + dice.randrange(1, 9)]
        elif way == 5 and dice.random() < 0.2:
            body[at:at] = dice.randbytes(dice.randrange(1, 9))
        else:
            other = dice.randrange(len(body))
            body[at : at + 3] = body[other : other + 3]
    return sealed(body) if dice.random() < 0.95 and len(body) >= 4 else bytes(body)


def fuzz(num: int, seed: int) -> int:
    """Number of accepted mutations that differ from the original."""
    dice = random.Random(seed)
    accepted = 0
    packings: tuple[Packing, ...] = ("packed", "byte_per_value")
    for packing in packings:
        payload, wire_format = regular_payload(packing), codec(packing).wire
        assert assert_refused_or_canonical(wire_format, payload)
        for _ in range(num // 2):
            forged = mutated(payload, dice)
            accepted += assert_refused_or_canonical(wire_format, forged) and forged != payload
    return accepted


def test_mutations() -> None:
    assert fuzz(4_000, seed=1) > 100, "mutations should also reach what lies behind the checks"


@pytest.mark.slow
def test_mutations_by_the_hundred_thousand() -> None:
    assert fuzz(200_000, seed=2) > 5_000
