"""The decoder against forgers: it refuses with one reason, or has read what would be written like that again.

Most forgeries carry a checksum that holds, for otherwise all would die there; what is counted shows that they do not.
"""

from __future__ import annotations

import itertools
import random
import re
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import (
    CONTENTS,
    INDEX_CODINGS,
    PACKINGS,
    Combination,
    content,
    num_elements,
    received,
    refusal,
    shapes_strategy,
    variants,
)

from covsim.protocol.base import InvalidPayload, Shape
from covsim.protocol.claims import Claims
from covsim.protocol.codec import TensorCodec, payload_bytes
from covsim.protocol.compressors import Compressor, compressors
from covsim.protocol.values import ValueFormat, value_formats
from covsim.protocol.wire import Message

TINY_SHAPES: tuple[Shape, ...] = ((3, 4), (5,), (4,), (1,))  # three chunks with positions: of odd number, if k is odd
LESS_TINY_SHAPES: tuple[Shape, ...] = ((16, 16), (40,), (8, 5), (3,))  # gaps enough for several Rice parameters
START, TENSOR, CHECKSUM = 72, 20, 4  # bytes of the start, of a tensor's measures, and of the end

FLOATS = [0.0, -0.0, 1e-13, 1e-40, 1e38, -1.0, 65504.0, float("nan"), float("inf"), float("-inf")]
LIES = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@dataclass(frozen=True)
class Target:
    """A decoder, and payloads that it accepts."""

    name: str
    codec: TensorCodec = field(repr=False)
    payloads: tuple[bytes, ...] = field(repr=False)


@lru_cache
def every_target() -> tuple[Target, ...]:
    """Every compressor with every value format; index codings and packings take turns. Entropy coding has some more."""
    parts = itertools.product(variants(compressors, k=3, most=0.5), variants(value_formats))
    writings = itertools.cycle(itertools.product(PACKINGS, INDEX_CODINGS))
    turns = [
        target(Combination(compressor, values, indices, packing))
        for (compressor, values), (packing, indices) in zip(parts, writings, strict=False)
    ]
    entropy = [
        target(Combination(compressor, value_formats["sign"](), "entropy", "packed"), LESS_TINY_SHAPES)
        for k in (2, 8, 30)
        for compressor in variants(compressors, k=k, factor=0.5 + 1 / k, most=0.5)
    ]
    return (*turns, *entropy)


def target(combination: Combination, shapes: Sequence[Shape] = TINY_SHAPES) -> Target:
    """A codec with a few payloads of its own."""
    codec = combination.codec(shapes, fragment=1, most_tokens=10**6)
    rows = torch.stack([content(kind, codec.num_parameters, seed=2) for kind in ("normal", "wide", "few", "zeros")])
    claims = [Claims(tokens=10**6, base=row, seed=row + 1) for row in range(len(rows))]
    return Target(combination.name, codec, tuple(codec.compress(rows, claims)[0]))


def sealed(body: bytes | bytearray) -> bytes:
    """A body, its last four bytes replaced by a checksum that holds."""
    return bytes(body[:-CHECKSUM]) + struct.pack("<I", zlib.crc32(bytes(body[:-CHECKSUM])))


def written_again(codec: TensorCodec, payload: bytes) -> bytes:
    """What encoding gives for what decoding read."""
    message, claims, _ = codec.wire.decode(payload)
    headers, counts, positions, codes = message
    (again,) = codec.wire.encode(Message(headers[None], counts, positions[None], codes[None]), [claims])
    return again


def assert_sound(codec: TensorCodec, payload: bytes) -> None:
    """What was read is what a peer may send: no chunk has too much, no position is outside, and all ascend."""
    chunks, (message, _, _) = codec.chunks, codec.wire.decode(payload)
    assert (message.counts <= chunks.kept).all()
    assert chunks.counted or (message.counts == chunks.kept).all()
    start = 0
    for size, count in zip(chunks.size[chunks.positioned], message.counts[chunks.positioned], strict=True):
        positions = message.positions[start : start + count].astype(int)
        assert (np.diff(positions, prepend=-1, append=size) > 0).all()
        start += count
    assert start == len(message.positions)
    assert len(message.codes) == message.counts.sum()


def reason_to_refuse(codec: TensorCodec, payload: bytes) -> str | None:
    """Why the decoder refuses; None if it accepts, and then what it read is sound and is written like that again."""
    try:
        decoded = codec.decode(payload)
    except InvalidPayload as refused:
        return str(refused)
    assert written_again(codec, payload) == payload
    assert_sound(codec, payload)
    assert decoded.value.isfinite().all()
    assert len(decoded.index) == len(decoded.value) == len(set(decoded.index.tolist()))
    assert all(0 <= place < codec.num_parameters for place in decoded.index.tolist())
    return None


Forgery = Callable[[bytearray, random.Random, Target], None]


def _anywhere(body: bytearray, dice: random.Random) -> int:
    """A place, three times of four behind the start, where refusing takes more than a comparison."""
    low = START if dice.random() < 0.75 and len(body) > START else 0
    return dice.randrange(low, max(low + 1, len(body)))


def flip_bits(body: bytearray, dice: random.Random, target: Target) -> None:
    """One bit or some."""
    for _ in range(dice.choice([1, 1, 1, 2, 8])):
        body[_anywhere(body, dice)] ^= 1 << dice.randrange(8)


def random_byte(body: bytearray, dice: random.Random, target: Target) -> None:
    """Anything instead of a byte."""
    body[_anywhere(body, dice)] = dice.randrange(256)


def truncate(body: bytearray, dice: random.Random, target: Target) -> None:
    """Cut off the end: some bytes of it, or from anywhere on."""
    del body[-dice.randrange(1, 12) if dice.random() < 0.5 else dice.randrange(len(body)) :]


def extend(body: bytearray, dice: random.Random, target: Target) -> None:
    """More bytes, random or zero, before the checksum."""
    num = dice.choice([1, 2, 3, 4, 8, 300])
    body[-CHECKSUM:-CHECKSUM] = dice.choice([dice.randbytes(num), bytes(num)])


def cut_out(body: bytearray, dice: random.Random, target: Target) -> None:
    """Fewer bytes in the middle; half of the time as many elsewhere, so that the length still fits."""
    at, num = _anywhere(body, dice), dice.randrange(1, 9)
    gone = bytes(body[at : at + num])
    del body[at : at + num]
    if dice.random() < 0.5:
        place = dice.randrange(len(body) + 1)
        body[place:place] = dice.choice([gone, dice.randbytes(len(gone)), bytes(len(gone))])


def lie_about_a_length(body: bytearray, dice: random.Random, target: Target) -> None:
    """A size, count or offset of 1, 2, 4 or 8 bytes that is small, huge or negative."""
    width = dice.choice([1, 2, 4, 8])
    at = START + 4 * dice.randrange(5 * len(TINY_SHAPES)) if dice.random() < 0.3 else _anywhere(body, dice)
    lie = (dice.choice(LIES) & 2 ** (8 * width) - 1).to_bytes(width, "little")
    body[at : at + width] = lie


def not_a_number(body: bytearray, dice: random.Random, target: Target) -> None:
    """NaN, infinities, zeros, tiny and huge floats, of 4 bytes or of 2."""
    at, form = _anywhere(body, dice), dice.choice(["<f", "<f", "<e"])
    number = dice.choice(FLOATS)
    body[at : at + struct.calcsize(form)] = struct.pack(form, 0.0 if form == "<e" and abs(number) > 65504 else number)


def repeat_a_span(body: bytearray, dice: random.Random, target: Target) -> None:
    """Write what stands somewhere in another place, too: duplicates and swapped order where positions stand."""
    num, here, there = dice.choice([1, 2, 3, 8]), _anywhere(body, dice), _anywhere(body, dice)
    body[here : here + num] = body[there : there + num]


def swap_spans(body: bytearray, dice: random.Random, target: Target) -> None:
    """Exchange two neighboring sections."""
    first, second, third = sorted(_anywhere(body, dice) for _ in range(3))
    body[first:third] = body[second:third] + body[first:second]


def cross(body: bytearray, dice: random.Random, target: Target) -> None:
    """The end of one payload behind the beginning of another, of the same codec."""
    other = dice.choice(target.payloads)
    at = _anywhere(body, dice)
    body[at:] = other[at:]


def disguise(body: bytearray, dice: random.Random, target: Target) -> None:
    """The start of this codec's payloads before the rest of another's."""
    other = dice.choice(dice.choice(every_target()).payloads)
    keep = dice.choice([START, START + TENSOR * len(TINY_SHAPES)])
    body[keep:] = other[keep:]


def noise(body: bytearray, dice: random.Random, target: Target) -> None:
    """Random bytes, altogether or behind what identifies the codec."""
    keep = dice.choice([0, 5, START, START + TENSOR * len(TINY_SHAPES), len(body) // 2 + 30])
    rest = max(0, len(body) - keep)
    body[keep:] = dice.randbytes(rest if dice.random() < 0.7 else dice.randrange(2 * rest + 1))


FORGERIES: list[Forgery] = [
    flip_bits,
    random_byte,
    truncate,
    extend,
    cut_out,
    lie_about_a_length,
    not_a_number,
    repeat_a_span,
    swap_spans,
    cross,
    disguise,
    noise,
]

_DETAIL = re.compile(r"""b'[^']*'|b"[^"]*"|-?\d[\d.e+-]*""")
_IN_THE_START = re.compile("too few for a payload|does not begin|format version|fragment|, expected|checksum|claims")


@dataclass
class Tally:
    """What became of the forgeries.

    Attributes:
        inputs: how many there were.
        forgeries: how many of each sort.
        reasons: refusals by their reason, numbers and names left out.
        accepted: how many were accepted and written again.
        changed: how many of those differ from every payload that was forged from.
    """

    inputs: int = 0
    forgeries: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    changed: int = 0

    @property
    def past_the_checksum(self) -> int:
        """Inputs that were accepted, or refused for what lies behind start and checksum."""
        behind = (num for reason, num in self.reasons.items() if not _IN_THE_START.search(reason))
        return self.accepted + sum(behind)

    def add(self, target: Target, payload: bytes) -> None:
        """Feed one to the decoder."""
        self.inputs += 1
        reason = reason_to_refuse(target.codec, payload)
        if reason is None:
            self.accepted += 1
            self.changed += payload not in target.payloads
        else:
            self.reasons[_DETAIL.sub("#", reason)] += 1


def forged(target: Target, dice: random.Random, tally: Tally) -> bytes:
    """A payload after one forgery or two; of twenty checksums nineteen hold."""
    body = bytearray(dice.choice(target.payloads))
    for _ in range(dice.choice([1, 1, 2])):
        forgery = dice.choice(FORGERIES)
        if body:
            forgery(body, dice, target)
            tally.forgeries[forgery.__name__] += 1
    return sealed(body) if dice.random() < 0.95 and len(body) >= CHECKSUM else bytes(body)


def fuzz(targets: Sequence[Target], num: int, seed: int) -> Tally:
    """Forge so many payloads, the targets taking turns."""
    dice, tally = random.Random(seed), Tally()
    for each in itertools.islice(itertools.cycle(targets), num):
        tally.add(each, forged(each, dice, tally))
    return tally


def assert_not_vacuous(tally: Tally, num: int) -> None:
    """As many as promised; enough got past start and checksum; enough were accepted although they were forged."""
    assert tally.inputs == num == tally.accepted + sum(tally.reasons.values())
    assert tally.past_the_checksum > 0.4 * num
    assert tally.changed > 0.08 * num
    assert len(tally.reasons) >= 40, "many different reasons to refuse"
    assert all(tally.forgeries[forgery.__name__] > num / 20 for forgery in FORGERIES)


def test_sizes_of_the_start_are_what_the_forgers_think() -> None:
    parts = (compressors["topk"](), value_formats["fp32"](), "bits12", "packed")
    assert payload_bytes((), *parts) == START + CHECKSUM
    assert payload_bytes([(1, (1,))], *parts) == START + TENSOR + 4 + CHECKSUM


def test_what_is_forged_from_is_accepted() -> None:
    """By every decoder that is attacked below; all parts are among them, and so they are among every fifth."""
    for targets in (every_target(), every_target()[::5]):
        assert {each.codec.compressor for each in targets} >= set(variants(compressors, k=3, most=0.5))
        assert {type(each.codec.values) for each in targets} == {cls for _, cls in value_formats.items()}
        writings = {(each.codec.wire.writing.indices, each.codec.wire.writing.packing) for each in targets}
        assert writings == set(itertools.product(INDEX_CODINGS, PACKINGS))
    for each in every_target():
        assert [reason_to_refuse(each.codec, payload) for payload in each.payloads] == [None] * 4


def test_forgeries() -> None:
    assert_not_vacuous(fuzz(every_target()[::5], 20_000, seed=1), 20_000)


@pytest.mark.slow
def test_forgeries_by_the_hundred_thousand() -> None:
    assert_not_vacuous(fuzz(every_target(), 200_000, seed=2), 200_000)


def flip_every_bit(targets: Sequence[Target], num: int) -> None:
    """Of what follows the start in one payload each, but of long ones a thousand; `num` or more, and checksums hold."""
    refused: Counter[bool] = Counter()
    for each in targets:
        payload = each.payloads[0]
        bits = range(8 * START, 8 * (len(payload) - CHECKSUM))
        for bit in bits[:: 1 + len(bits) // 1000]:
            body = bytearray(payload)
            body[bit // 8] ^= 1 << bit % 8
            refused[reason_to_refuse(each.codec, sealed(body)) is not None] += 1
    assert sum(refused.values()) > num
    assert min(refused.values()) > 0.1 * num


def test_every_bit_of_some() -> None:
    flip_every_bit(every_target()[::11], num=13_000)


@pytest.mark.slow
def test_every_bit_of_all() -> None:
    flip_every_bit(every_target(), num=140_000)


def test_chunks_cannot_have_more_than_the_most() -> None:
    """A payload of someone who may send half of each chunk, disguised as one of those who may send a tenth."""
    shapes = [(40,), (40,)]
    generous, strict = (
        Combination(compressors["threshold"](factor=0.1, most=most), value_formats["fp32"](), "bits16", "packed").codec(
            shapes
        )
        for most in (0.5, 0.1)
    )
    row = torch.zeros(80)
    row[:5] = 1.0
    body = bytearray(generous.compress(row[None])[0][0])
    for tensor in range(2):
        at = START + TENSOR * tensor + 16
        assert struct.unpack_from("<I", body, at) == (20,)
        struct.pack_into("<I", body, at, 4)
    assert reason_to_refuse(strict, sealed(body)) == "chunk 0 has more values than may be sent"
    row[4] = 0.0
    assert reason_to_refuse(strict, strict.compress(row[None])[0][0]) is None


def test_every_truncation_and_extension_is_refused_or_canonical() -> None:
    """Of a payload of every decoder: cut to each length and filled to some more, with a checksum that holds."""
    for each in every_target():
        payload = each.payloads[0]
        lengths = range(START + CHECKSUM, len(payload))
        refused = [reason_to_refuse(each.codec, sealed(payload[:length])) for length in lengths]
        assert all(refused) or each.codec.chunks.counted
        for num in (1, 2, 3, 4, 7, 8, 64):
            longer = payload[:-CHECKSUM] + bytes(num + CHECKSUM)
            assert reason_to_refuse(each.codec, sealed(longer)) is not None


@pytest.mark.parametrize("indices", INDEX_CODINGS)
@pytest.mark.parametrize("kind", ["fp32", "fp16", "sign"])
def test_counts_that_do_not_fit_what_follows_are_refused(indices: str, kind: str) -> None:
    """Of counted payloads, cut anywhere: for some lengths a careless reader would take codes for positions."""
    threshold = compressors["threshold"](factor=0.1, most=0.5)
    each = target(Combination(threshold, value_formats[kind](), indices, "packed"))
    for payload in each.payloads[:2]:
        counts_start = START + TENSOR * len(TINY_SHAPES) + 4 * len(TINY_SHAPES) * (kind == "sign")
        for length in range(START + CHECKSUM, len(payload)):
            assert reason_to_refuse(each.codec, sealed(payload[:length])) is not None
        for chunk, count in itertools.product(range(len(TINY_SHAPES)), range(8)):
            body = bytearray(payload)
            (before,) = struct.unpack_from("<H", body, counts_start + 2 * chunk)
            struct.pack_into("<H", body, counts_start + 2 * chunk, count)
            assert (reason_to_refuse(each.codec, sealed(body)) is None) == (count == before)


@pytest.mark.parametrize(("kind", "sign"), [("fp4", b"\x08"), ("fp16", b"\x00\x80"), ("fp32", b"\x00\x00\x00\x80")])
def test_zero_is_written_in_one_way(kind: str, sign: bytes) -> None:
    """Without a sign: a row whose first value is -0 has the same payload, and one that says -0 is refused."""
    codec = Combination(compressors["dense"](), value_formats[kind](), "bits12", "packed").codec([(8,)])
    row = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    payload = codec.compress(row[None])[0][0]
    assert codec.compress(torch.where(row == 0, -0.0, row)[None])[0][0] == payload
    codes = len(payload) - CHECKSUM - 8 * codec.values.code_bits // 8
    body = bytearray(payload)
    body[codes : codes + len(sign)] = bytes(old | new for old, new in zip(body[codes:], sign, strict=False))
    assert "negative zero" in str(reason_to_refuse(codec, sealed(body)))


@pytest.mark.parametrize("kind", ["fp4", "sign"])
def test_sizes_have_no_sign_and_nothing_has_no_codes(kind: str) -> None:
    """Else minus a size would turn all signs, or zeros would have as many payloads as codes."""
    codec = Combination(compressors["dense"](), value_formats[kind](), "bits12", "packed").codec([(8,)])
    payload = codec.compress(torch.tensor([[-1.0, 1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0]]))[0][0]
    for size, reason in [(-1.0, "a negative size"), (-0.0, "a negative size"), (0.0, "of size 0 has values")]:
        body = bytearray(payload)
        struct.pack_into("<f", body, START + TENSOR, size)
        assert reason in str(reason_to_refuse(codec, sealed(body)))


LARGER_SHAPES: tuple[Shape, ...] = ((128, 128), (65, 130), (256,), (64, 64))


def hostile(target: Target, dice: random.Random) -> Iterator[bytes]:
    """What could make a decoder allocate: long lies, extremes in every section, and ordinary forgeries."""
    payload = target.payloads[0]
    behind = START + TENSOR * len(LARGER_SHAPES)
    for filler in (b"\0", b"\x0f", b"\xff", b"\x80", b"\x01"):
        for start in (START, behind, target.codec.wire.least_bytes - CHECKSUM):
            for length in {len(payload), target.codec.wire.most_bytes, target.codec.wire.least_bytes}:
                yield sealed(payload[:start] + filler * (length - min(start, len(payload))))
    yield sealed(payload + bytes(20_000_000))
    yield payload[:START] + bytes(20_000_000)
    for _ in range(25):
        yield forged(target, dice, Tally())


@pytest.mark.parametrize("indices", INDEX_CODINGS)
@pytest.mark.parametrize(
    "compressor", variants(compressors), ids=lambda part: f"{part.kind}-{part.__dict__.get('layout')}"
)
def test_memory_stays_under_the_declared_limit(compressor: Compressor, indices: str) -> None:
    """Whatever a forger sends; and the limit is no boast: 2 MiB and some hundred bytes per parameter."""
    dice = random.Random(3)
    for values in (value_formats["bin_mean"](group="chunk"), value_formats["sign"](), value_formats["fp32"]()):
        each = target(Combination(compressor, values, indices, "packed"), LARGER_SHAPES)
        limit = each.codec.wire.limit_bytes
        assert limit < 2**21 + 400 * each.codec.num_parameters
        peaks = [peak_of(each.codec, payload) for payload in (*each.payloads, *hostile(each, dice))]
        assert max(peaks) < limit


def peak_of(codec: TensorCodec, payload: bytes) -> int:
    """Bytes allocated at most at once while reading."""
    tracemalloc.start()
    try:
        codec.decode(payload)
    except InvalidPayload:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_what_is_too_long_is_refused_unread() -> None:
    for each in every_target()[::9]:
        longer = sealed(each.payloads[0] + bytes(30_000_000))
        assert peak_of(each.codec, longer) < 100_000


target_strategy = st.deferred(lambda: st.sampled_from(every_target()))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(target_strategy, st.binary(max_size=300), st.sampled_from([0, 5, START, START + TENSOR * len(TINY_SHAPES)]))
def test_any_bytes_behind_any_part_of_a_start(each: Target, noise: bytes, keep: int) -> None:
    reason_to_refuse(each.codec, sealed(each.payloads[0][:keep] + noise + bytes(CHECKSUM)))
    reason_to_refuse(each.codec, each.payloads[0][:keep] + noise)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    target_strategy,
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(START, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_edits_of_what_lies_behind_the_start(each: Target, which: int, edits: list[tuple[int, int]]) -> None:
    body = bytearray(each.payloads[which])
    for at, byte in edits:
        body[at % len(body)] = byte
    reason_to_refuse(each.codec, sealed(body))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(variants(compressors)),
    st.sampled_from(variants(value_formats)),
    st.sampled_from(INDEX_CODINGS),
    st.sampled_from(PACKINGS),
    shapes_strategy,
    st.integers(1, 100),
    st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=3),
)
@example(compressors["dct"](k=1), value_formats["fp4"](), "entropy", "packed", [(1, 1), (1,)], 1, ["zeros"])
@example(compressors["threshold"](), value_formats["sign"](), "entropy", "packed", [(3,), (2, 2)], 1, ["few"])
def test_any_model_and_any_row_come_back(
    compressor: Compressor,
    values: ValueFormat,
    indices: str,
    packing: str,
    shapes: list[Shape],
    k: int,
    kinds: list[str],
) -> None:
    if hasattr(compressor, "k"):
        compressor = type(compressor).model_validate({**compressor.model_dump(), "k": k})
    combination = Combination(compressor, values, indices, packing)
    assume(refusal(combination, shapes) is None)
    codec = combination.codec(shapes)
    rows = torch.stack([content(kind, num_elements(shapes), seed=k) for kind in kinds])
    claims = [Claims(tokens=k, seed=k + row) for row in range(len(rows))]
    payloads, sent = codec.compress(rows, claims)
    for payload, sent_row in zip(payloads, sent, strict=True):
        assert torch.equal(received(codec, payload), sent_row)
        assert written_again(codec, payload) == payload


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=18, max_size=18), target_strategy)
def test_any_finite_row_is_read_or_refused(numbers: list[float], each: Target) -> None:
    """Numbers up to 3.4e38: what cannot be written within float32 may be refused, but never with another error."""
    codec = each.codec
    row = torch.tensor(numbers, dtype=torch.float32).repeat(codec.num_parameters)[: codec.num_parameters]
    payloads, sent = codec.compress(row[None])
    if reason_to_refuse(codec, payloads[0]) is None:
        assert torch.equal(received(codec, payloads[0]), sent[0])
