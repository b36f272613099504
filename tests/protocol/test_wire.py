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

from covsim.protocol.base import Claims, InvalidPayload
from covsim.protocol.codec import TensorCodec
from covsim.protocol.compressors import Compressor, Dct, Dense, RandomK, Threshold, TopK
from covsim.protocol.indices import IndexCoding
from covsim.protocol.values import BinMean, Fp4, Fp16, Fp32, Sign, Uniform, ValueFormat
from covsim.protocol.wire import Message, Packing

SHAPES = [(48, 64), (7, 9), (32,), (63,), (1,)]
START, GRID, HEADER = 72, 20, 28  # bytes of the start, of a tensor's grid and of its header
NAME, NAME_OF_VALUES, FRAGMENT, TENSORS, TOKENS = 12, 28, 44, 48, 56  # where the start holds them
KEPT = START + 16  # where the grid of tensor 0 holds it
HEADERS = START + len(SHAPES) * GRID
POSITIONS = HEADERS + len(SHAPES) * HEADER
MEAN, SCALE, OFFSET, TABLE = 0, 4, 8, 12  # where a tensor's header holds them


def codec(packing: Packing = "packed") -> TensorCodec:
    return TensorCodec(SHAPES, TopK(k=64), BinMean(), "bits12", packing, most_tokens=10**6)


def row() -> torch.Tensor:
    return torch.randn(1, codec().num_parameters, generator=torch.Generator().manual_seed(1))


def regular_payload(packing: Packing = "packed") -> bytes:
    return codec(packing).compress(row())[0][0]


def sealed(body: bytes | bytearray) -> bytes:
    """A body, its last four bytes replaced by a checksum that holds."""
    return bytes(body[:-4]) + struct.pack("<I", zlib.crc32(bytes(body[:-4])))


def with_number(field: int, number: float, tensor: int = 1, payload: bytes | None = None) -> bytes:
    """A payload, by default the regular one, with one float of a tensor's header replaced."""
    body = bytearray(payload or regular_payload())
    at = HEADERS + tensor * HEADER + field
    body[at : at + 4] = struct.pack("<f", number)
    return sealed(body)


def with_byte(at: int, byte: int) -> bytes:
    body = bytearray(regular_payload())
    body[at] = byte
    return sealed(body)


def with_positions(change: Callable[[int], int]) -> bytes:
    """The regular payload with its positions, seen as one long number, changed."""
    body = bytearray(regular_payload())
    end = POSITIONS + codec().chunks.full.num_positions * 3 // 2
    body[POSITIONS:end] = change(int.from_bytes(body[POSITIONS:end], "little")).to_bytes(end - POSITIONS, "little")
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
    "damaged": (lambda: regular_payload()[:350] + bytes(9) + regular_payload()[359:], "checksum"),
    "damaged checksum": (lambda: regular_payload()[:-1] + bytes([regular_payload()[-1] ^ 1]), "checksum"),
    "other magic": (lambda: with_byte(0, 0x50), "does not begin"),
    "other version": (lambda: with_byte(4, 1), "format version 1, expected 2"),
    "other bits": (lambda: with_byte(5, 4), "bits per code 4, expected 2"),
    "other grouping": (lambda: with_byte(6, 1), "grouping 1, expected 0"),
    "other index coding": (lambda: with_byte(7, 3), "index coding 3, expected 0"),
    "unknown index coding": (lambda: with_byte(7, 99), "index coding 99, expected 0"),
    "other packing": (lambda: with_byte(8, 1), "packing 1, expected 0"),
    "reserved byte": (lambda: with_byte(11, 1), "reserved bytes"),
    "other compressor": (lambda: with_byte(NAME, ord("p")), "compressor b'popk"),
    "after the name": (lambda: with_byte(NAME + 15, 1), "compressor b'topk"),
    "other values": (lambda: with_byte(NAME_OF_VALUES, ord("p")), "value format b'pin_mean"),
    "other fragment": (lambda: with_byte(FRAGMENT, 2), "fragment 2, expected 0"),
    "missing tensor": (lambda: with_byte(TENSORS, 4), "an expected tensor is missing: 4 of 5"),
    "added tensor": (lambda: with_byte(TENSORS, 6), "6 tensors, expected 5"),
    "billions of tensors": (lambda: with_byte(TENSORS + 3, 0xFF), "tensors, expected 5"),
    "tokens": (lambda: with_byte(TOKENS + 7, 0xFF), "claims 18374686479671623680 tokens, more than 1000000"),
    "other rows": (lambda: with_byte(START + GRID, 9), "tensor 1 has other rows"),
    "other columns": (lambda: with_byte(START + GRID + 4, 7), "tensor 1 has other columns"),
    "other height": (lambda: with_byte(START + 8, 24), "tensor 0 has chunks of another height"),
    "other width": (lambda: with_byte(START + 12, 32), "tensor 0 has chunks of another width"),
    "wrong k": (lambda: with_byte(KEPT, 62), "tensor 0 keeps another number per chunk"),
    "a tensor without values": (lambda: with_byte(KEPT, 0), "expected tensors are missing: 0"),
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
    other = TensorCodec([(48, 64), (9, 7), (32,), (63,), (1,)], TopK(k=64), BinMean(), "bits12", "packed")
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


# Forged values and sections, of formats that have them ----------------------------------------------------------------


def forged(reader: TensorCodec, change: Callable[[bytearray], object], numbers: torch.Tensor | None = None) -> bytes:
    """A payload of the codec, changed and sealed; `change` sees everything but the checksum."""
    numbers = torch.linspace(-1, 1, reader.num_parameters)[None] if numbers is None else numbers
    body = bytearray(reader.compress(numbers)[0][0][:-4])
    change(body)
    return sealed(body + bytes(4))


def put(at: int, data: bytes) -> Callable[[bytearray], object]:
    """Overwrites."""
    return lambda body: body.__setitem__(slice(at, at + len(data) if at + len(data) else None), data)


def dense_of_8(values: ValueFormat) -> TensorCodec:
    return TensorCodec([(8,)], Dense(), values, "bits12", "packed")


AFTER_GRID = START + GRID  # of one tensor
FLOATS: dict[str, tuple[ValueFormat, int, bytes, str]] = {
    "fp32 nan": (Fp32(), -4, struct.pack("<f", np.nan), "value 7 is not finite"),
    "fp32 negative zero": (Fp32(), -4, struct.pack("<f", -0.0), "value 7 is a negative zero"),
    "fp16 infinite": (Fp16(), -2, struct.pack("<e", np.inf), "value 7 is not finite"),
    "fp16 negative zero": (Fp16(), -2, struct.pack("<e", -0.0), "value 7 is a negative zero"),
    "fp4 negative zero": (Fp4(), -1, b"\x87", "code 7 is a negative zero"),
    "fp4 size infinite": (Fp4(), AFTER_GRID, struct.pack("<f", np.inf), "tensor 0 has a size that is not finite"),
    "fp4 size negative": (Fp4(), AFTER_GRID, struct.pack("<f", -1), "tensor 0 has a negative size"),
    "fp4 size -0": (Fp4(), AFTER_GRID, struct.pack("<f", -0.0), "tensor 0 has a negative size"),
    "fp4 size 0": (Fp4(), AFTER_GRID, struct.pack("<f", 0), "a tensor of size 0 has values"),
    "sign size 0": (Sign(), AFTER_GRID, struct.pack("<f", 0), "a tensor of size 0 has values"),
    "sign size nan": (Sign(group="chunk"), AFTER_GRID, struct.pack("<f", np.nan), "chunk 0 has a size that is not"),
    "uniform negative": (Uniform(), AFTER_GRID + 4, struct.pack("<f", -1), "tensor 0 has a negative scale"),
}


@pytest.mark.parametrize("name", FLOATS)
def test_refuses_values(name: str) -> None:
    values, at, data, reason = FLOATS[name]
    reader = dense_of_8(values)
    reader.decode(forged(reader, lambda body: None))
    with pytest.raises(InvalidPayload, match=reason):
        reader.decode(forged(reader, put(at, data)))


@pytest.mark.parametrize("values", [Fp32(), Fp16(), Fp4(), Sign(), BinMean(), Uniform()], ids=repr)
def test_subnormal_values_and_zeros_are_read(values: ValueFormat) -> None:
    reader = dense_of_8(values)
    small = torch.tensor([[1e-45, -1e-45, 2e-39, 0.0, -0.0, 1e-7, -6e-8, 0.0]])
    for numbers in (small, torch.zeros(1, 8), -torch.zeros(1, 8)):
        (payload,), sent = reader.compress(numbers)
        assert torch.equal(reader.decode(payload).value, sent[0])


def threshold_codec(indices: IndexCoding = "bits16") -> TensorCodec:
    """Of the chunks of 4096 and 32 elements, 204 and 1 may be sent."""
    return TensorCodec([(64, 64), (32,)], Threshold(), Sign(), indices, "packed")


COUNTS = START + 2 * GRID + 2 * 4


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((205, 0), "chunk 0 has more values than may be sent"),
        ((65535, 65535), "chunk 0 has more values than may be sent"),
        ((204, 1), "205 values are announced, more than the payload has room for"),
        ((1, 0), "bytes of positions, expected 2 to 2"),
        ((0, 0), "bytes of positions, expected 0 to 0"),
    ],
)
def test_refuses_counts(counts: tuple[int, int], reason: str) -> None:
    numbers = torch.zeros(1, 4096 + 32)
    numbers[0, 5:15] = 1
    reader = threshold_codec()
    assert len(reader.decode(forged(reader, lambda body: None, numbers)).index) == 10
    with pytest.raises(InvalidPayload, match=reason):
        reader.decode(forged(reader, put(COUNTS, struct.pack("<HH", *counts)), numbers))


def test_a_tensor_of_which_nothing_is_sent_says_nothing() -> None:
    reader = threshold_codec()
    nothing = torch.zeros(1, 4096 + 32)
    assert len(reader.decode(forged(reader, lambda body: None, nothing)).index) == 0
    with pytest.raises(InvalidPayload, match="a group without values says something"):
        reader.decode(forged(reader, put(COUNTS - 4, struct.pack("<f", 1)), nothing))


ENTROPY = START + GRID + 4  # where positions begin, behind one size


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(ENTROPY, b"\x10"), "positioned chunk 0 has an unknown code"),
        (put(ENTROPY, b"\xff"), "positioned chunk 0 has an unknown code"),
        (put(ENTROPY, b"\x0f"), "positions are longer than their bytes"),
        (put(ENTROPY, b"\x00"), "bits are set for 8 positions"),
        (lambda body: body.insert(-1, 0), "end elsewhere"),
        (lambda body: body.pop(-2), "bits are set for 8 positions"),
        (put(-2, b"\xff"), "bits are set for 8 positions"),
    ],
)
def test_refuses_entropy_coded_positions(change: Callable[[bytearray], object], reason: str) -> None:
    """Eight of 64 positions; behind them one byte of codes."""
    reader = TensorCodec([(64,)], TopK(k=8), Sign(), "entropy", "packed")
    numbers = torch.arange(64)[None] % 8 == 3
    reader.decode(forged(reader, lambda body: None, numbers.float()))
    with pytest.raises(InvalidPayload, match=reason):
        reader.decode(forged(reader, change, numbers.float()))


def test_the_shortest_code_only() -> None:
    """Gaps 3 7 7 7 7 7 7 7 take 8 x 2 bits + 7 zeros + 8 ones, or with a parameter more 8 x 3 bits + 8 ones."""
    reader = TensorCodec([(64,)], TopK(k=8), Sign(), "entropy", "packed")
    numbers = (torch.arange(64)[None] % 8 == 3).float()
    honest = reader.compress(numbers)[0][0]
    gaps = [3, *[7] * 7]
    streams = {
        b: bytes([b])
        + sum((gap % 2**b) << (b * place) for place, gap in enumerate(gaps)).to_bytes(b, "little")
        + int("0" + "".join("0" * (gap >> b) + "1" for gap in gaps)[::-1], 2).to_bytes(
            -(-sum((gap >> b) + 1 for gap in gaps) // 8), "little"
        )
        for b in (2, 3)
    }
    assert honest[ENTROPY:-5] == streams[2]
    with pytest.raises(InvalidPayload, match="has not the shortest code"):
        reader.decode(sealed(honest[:ENTROPY] + streams[3] + honest[-5:]))


def test_an_odd_number_of_12_bit_positions_leaves_half_a_byte() -> None:
    reader = TensorCodec([(64,)], Dct(k=3), Fp32(), "bits12", "packed")
    at = AFTER_GRID + 4
    assert len(reader.compress(torch.randn(1, 64))[0][0]) == at + 1 + 3 * 4 + 4
    with pytest.raises(InvalidPayload, match="padding bits after the positions"):
        reader.decode(forged(reader, lambda body: body.__setitem__(at, body[at] | 0x80)))


# Mutations ------------------------------------------------------------------------------------------------------------


def assert_refused_or_canonical(reader: TensorCodec, payload: bytes) -> bool:
    """True if accepted; nothing but InvalidPayload may come out, and what is accepted encodes to the same bytes."""
    try:
        decoded = reader.decode(payload)
    except InvalidPayload:
        return False
    assert decoded.value.isfinite().all()
    assert len(decoded.index.unique()) == len(decoded.index) == len(decoded.value)
    message, claims, _ = reader.wire.decode(payload)
    one = Message(message.headers[None], message.counts, message.positions[None], message.codes[None])
    assert reader.wire.encode(one, [claims]) == [payload]
    return True


def mutated(payload: bytes, dice: random.Random) -> bytes:
    """One of the ways a payload can be damaged or forged, most of them with a checksum that holds."""
    body = bytearray(payload)
    for _ in range(dice.choice([1, 1, 1, 2, 8])):
        way, at = dice.randrange(7), dice.randrange(START, len(body))
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
            at, other = dice.randrange(len(body)), dice.randrange(len(body))
            body[at : at + 3] = body[other : other + 3]
    return sealed(body) if dice.random() < 0.95 and len(body) >= 4 else bytes(body)


FUZZED: list[tuple[Compressor, ValueFormat, IndexCoding, Packing]] = [
    (TopK(k=64), BinMean(), "bits12", "packed"),
    (TopK(k=64), BinMean(), "bits12", "byte_per_value"),
    (TopK(k=16), Sign(group="chunk"), "entropy", "packed"),
    (Threshold(factor=1.5), Uniform(bits=4), "entropy", "packed"),
    (Threshold(factor=2.0), Fp4(group="chunk"), "bits12", "packed"),
    (RandomK(k=32), Fp16(), "bits16", "packed"),
    (Dct(k=5), Fp32(), "int64", "packed"),
]


def fuzz(num: int, seed: int) -> int:
    """Number of accepted mutations that differ from the original."""
    dice = random.Random(seed)
    accepted = 0
    for parts in FUZZED:
        reader = TensorCodec(SHAPES, *parts)
        payload = reader.compress(row())[0][0]
        assert assert_refused_or_canonical(reader, payload)
        for _ in range(num // len(FUZZED)):
            forgery = mutated(payload, dice)
            accepted += assert_refused_or_canonical(reader, forgery) and forgery != payload
    return accepted


def test_mutations() -> None:
    assert fuzz(4_000, seed=1) > 100, "mutations should also reach what lies behind the checks"


@pytest.mark.slow
def test_mutations_by_the_hundred_thousand() -> None:
    assert fuzz(200_000, seed=2) > 5_000


@pytest.mark.parametrize("parts", FUZZED, ids=repr)
def test_reading_stays_within_the_declared_memory(
    parts: tuple[Compressor, ValueFormat, IndexCoding, Packing],
) -> None:
    reader = TensorCodec([(256, 512), (1000,), (30, 30)], *parts)
    payload = reader.compress(torch.randn(1, reader.num_parameters))[0][0]
    dice = random.Random(3)
    tracemalloc.start()
    try:
        for forgery in [payload, *(mutated(payload, dice) for _ in range(10))]:
            tracemalloc.reset_peak()
            assert_refused_or_canonical(reader, forgery)
            assert tracemalloc.get_traced_memory()[1] < reader.wire.limit_bytes
    finally:
        tracemalloc.stop()


def test_bits_that_are_set_are_counted_before_they_get_a_number_each() -> None:
    """Two of 4096 elements are sent, and a million bits are claimed."""
    reader = TensorCodec([(1024, 1024)], TopK(k=2), Sign(), "entropy", "packed")
    streams = bytes(256) + b"\xff" * 130_000
    forgery = forged(reader, lambda body: body.__setitem__(slice(ENTROPY, -64), streams))
    assert len(forgery) <= reader.wire.most_bytes
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPayload, match="1040000 bits are set for 512 positions"):
            reader.decode(forgery)
        assert tracemalloc.get_traced_memory()[1] < reader.wire.limit_bytes
        assert tracemalloc.get_traced_memory()[1] < 10 * len(forgery)
    finally:
        tracemalloc.stop()


def test_claims_survive() -> None:
    claims = Claims(tokens=10**6, base=3, seed=17)
    assert codec().decode(codec().compress(row(), [claims])[0][0]).claims == claims
