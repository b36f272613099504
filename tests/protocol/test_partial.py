"""Partial payloads: how one is made, that it is refused by default, and that what is missing contributes nothing."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
import zlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL_SHAPES, Combination, combinations, content, label, normal_rows, num_elements, received

from covsim.gauntlet.checks import overlap_matrix
from covsim.protocol.aggregators import Mean, clipped, median_norms
from covsim.protocol.base import Claims, Decoded, InvalidPayload
from covsim.protocol.codec import TensorCodec
from covsim.protocol.exchange import Exchange
from covsim.protocol.fragments import Layers, RandomShare
from covsim.protocol.lineage import root_lineage
from covsim.protocol.sparseloco import SparseLoCo
from covsim.protocol.wire import Message
from covsim.randomness import Streams

NUM = num_elements(SMALL_SHAPES)
T = len(SMALL_SHAPES)
START, GRID, KEPT, CHECKSUM = 72, 20, 16, 4  # bytes of the start and of a tensor's measures, and where they say 0
MISSING: tuple[tuple[int, ...], ...] = ((0,), (5,), (1, 4), (0, 2, 3, 5), (1, 2, 3, 4, 5))
CLAIMS = Claims(tokens=1000, base=7, seed=2**40 + 3)


def _with_every_part() -> list[Combination]:
    """Legal combinations in which every compressor, value format, index coding and packing appears."""
    chosen: list[Combination] = []
    seen: set[str] = set()
    for each in combinations(SMALL_SHAPES, k=6):
        parts = {label(each.compressor), label(each.values), f"{each.compressor.kind} {each.indices} {each.packing}"}
        if not parts <= seen:
            chosen.append(each)
            seen |= parts
    return chosen


CHOSEN = _with_every_part()
EVERY = [pytest.param(each.codec(SMALL_SHAPES), id=each.name) for each in CHOSEN]
of_every_codec = pytest.mark.parametrize("codec", EVERY)
TENSORS = [("embed", (16, 8)), ("block0.in", (8, 24)), ("block0.out", (24, 8)), ("block1.in", (8, 24)), ("end", (8,))]


def whole_payload(codec: TensorCodec, seed: int = 1) -> bytes:
    return codec.compress(normal_rows(1, codec.num_parameters, seed), [CLAIMS])[0][0]


def exchange_of(**plan: Any) -> Exchange:
    return Exchange(replace(SparseLoCo(k=6).plan(), **plan), TENSORS, Mean(), 10, 10**6, Streams(1))


def sealed(body: bytes | bytearray) -> bytes:
    """A body, its last four bytes replaced by a checksum that holds."""
    return bytes(body[:-CHECKSUM]) + struct.pack("<I", zlib.crc32(bytes(body[:-CHECKSUM])))


def fields_of(decoded: Decoded, tensors: Collection[int]) -> list[tuple[list[float], ...]]:
    """What a payload says of some tensors."""
    bounds = decoded.tensor_bounds
    spans = [slice(bounds[tensor], bounds[tensor + 1]) for tensor in tensors]
    fields = (decoded.index, decoded.value, decoded.tensor_of, decoded.kept_share)
    return [tuple(field[span].tolist() for field in fields) for span in spans]


@of_every_codec
def test_what_is_there_says_what_it_said_before(codec: TensorCodec) -> None:
    payload = whole_payload(codec)
    whole = codec.decode(payload)
    assert whole.missing == ()
    for missing in MISSING:
        shorter = codec.without_tensors(payload, missing)
        assert len(shorter) < len(payload)
        partial = codec.decode(shorter, allow_missing=True)
        there = [tensor for tensor in range(T) if tensor not in missing]
        assert fields_of(partial, there) == fields_of(whole, there)
        assert fields_of(partial, missing) == [([], [], [], [])] * len(missing)
        assert partial.norms.tolist() == [whole.norms[tensor] if tensor in there else 0 for tensor in range(T)]
        assert (partial.missing, partial.claims) == (missing, CLAIMS)
        assert partial.tensor_bounds[-1] == len(partial.value) == len(partial.index)


@of_every_codec
def test_a_partial_payload_is_refused_by_default(codec: TensorCodec) -> None:
    payload = whole_payload(codec)
    for missing in MISSING:
        with pytest.raises(InvalidPayload, match=f"^expected tensors are missing: {', '.join(map(str, missing))}$"):
            codec.decode(codec.without_tensors(payload, missing))


@of_every_codec
def test_a_whole_payload_is_read_alike_either_way(codec: TensorCodec) -> None:
    payload = whole_payload(codec)
    strict, lenient = codec.decode(payload), codec.decode(payload, allow_missing=True)
    assert codec.without_tensors(payload, ()) == payload
    assert fields_of(strict, range(T)) == fields_of(lenient, range(T))
    assert lenient.missing == ()


@of_every_codec
def test_what_is_missing_stays_zero_in_theta(codec: TensorCodec) -> None:
    payload = whole_payload(codec)
    starts = [*codec.chunks.tensor_starts, NUM]
    partial = codec.decode(codec.without_tensors(payload, (1, 4)), allow_missing=True)
    row = torch.zeros(NUM)
    row[partial.index] = partial.value
    row, expected = codec.to_theta(row), received(codec, payload)
    for tensor in range(T):
        span = slice(starts[tensor], starts[tensor + 1])
        assert torch.equal(row[span], torch.zeros_like(row[span]) if tensor in (1, 4) else expected[span])


# Bytes.


def written_again(codec: TensorCodec, payload: bytes, missing: Sequence[int]) -> bytes:
    """What encoding gives for what decoding read."""
    message, claims, _ = codec.wire.decode(payload, allow_missing=True)
    headers, counts, positions, codes = message
    again = Message(headers[None], counts, positions[None], codes[None])
    return codec.wire.without(missing).encode(again, [claims])[0]


@of_every_codec
def test_there_is_one_way_to_write_a_partial_payload(codec: TensorCodec) -> None:
    """Whoever changes a byte is refused, or has written what encoding would write for what he says."""
    payload = codec.without_tensors(whole_payload(codec), (0, 4))
    assert written_again(codec, payload, (0, 4)) == payload
    generator, accepted, refused = random.Random(5), 0, 0
    for _ in range(60):
        forgery = bytearray(payload)
        at = generator.randrange(START + T * GRID, len(payload) - CHECKSUM)
        forgery[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256), forgery[at] ^ 1])
        try:
            decoded = codec.decode(sealed(forgery), allow_missing=True)
        except InvalidPayload:
            refused += 1
            continue
        accepted += 1
        assert written_again(codec, sealed(forgery), (0, 4)) == sealed(forgery)
        assert decoded.value.isfinite().all()
        assert len(decoded.index.unique()) == len(decoded.index)
        assert (decoded.index >= codec.chunks.tensor_starts[1]).all()
    assert accepted + refused == 60
    assert accepted


@of_every_codec
def test_bytes_of_a_missing_tensor_may_not_stay_behind(codec: TensorCodec) -> None:
    """Marking a tensor as missing is not enough, nor is it to drop the bytes of another."""
    payload = whole_payload(codec)
    marked = bytearray(payload)
    marked[START + KEPT : START + KEPT + 4] = bytes(4)
    for forgery in (sealed(marked), codec.without_tensors(payload, (0,)) + b"\0", b"\0" * len(payload)):
        with pytest.raises(InvalidPayload):
            codec.decode(forgery, allow_missing=True)


def small_codec() -> TensorCodec:
    return next(each for each in CHOSEN if each.compressor.kind == "topk").codec(SMALL_SHAPES, most_tokens=10**4)


@pytest.mark.parametrize(
    ("at", "byte", "reason"),
    [
        (START + GRID, 8, "tensor 1 has other rows"),
        (START + KEPT - 4, 32, "tensor 0 has chunks of another width"),  # of the missing one, too
        (START + GRID + KEPT, 3, "tensor 1 keeps another number"),
        (48, 5, "an expected tensor is missing: 5 of 6"),
        (44, 1, "fragment 1, expected 0"),
        (63, 1, "tokens, more than 10000"),
    ],
)
def test_a_partial_payload_is_checked_like_a_whole_one(at: int, byte: int, reason: str) -> None:
    codec = small_codec()
    payload = bytearray(codec.without_tensors(whole_payload(codec), (0,)))
    codec.decode(bytes(payload), allow_missing=True)
    payload[at] = byte
    with pytest.raises(InvalidPayload, match=reason):
        codec.decode(sealed(payload), allow_missing=True)
    with pytest.raises(InvalidPayload, match="checksum"):
        codec.decode(bytes(codec.without_tensors(whole_payload(codec), (0,))[:-1] + b"\0"), allow_missing=True)


def test_a_payload_without_any_tensor_is_none() -> None:
    codec = small_codec()
    payload = bytearray(whole_payload(codec))
    for tensor in range(T):
        payload[START + tensor * GRID + KEPT] = 0
    for allow_missing in (False, True):
        with pytest.raises(InvalidPayload, match="expected tensors are missing: 0, 1, 2, 3, 4, 5"):
            codec.decode(sealed(payload), allow_missing)


@pytest.mark.parametrize("tensors", [range(T), [T], [-1], [0, 17]])
def test_only_some_tensors_of_the_model_can_be_left_out(tensors: Collection[int]) -> None:
    codec = small_codec()
    with pytest.raises(ValueError, match="cannot leave out tensors"):
        codec.without_tensors(whole_payload(codec), tensors)


def test_a_partial_payload_cannot_be_made_of_what_is_none() -> None:
    codec = small_codec()
    partial = codec.without_tensors(whole_payload(codec), [3])
    for payload in (b"", partial):
        with pytest.raises(InvalidPayload):
            codec.without_tensors(payload, [2])


@of_every_codec
def test_reading_takes_no_more_memory_than_is_said(codec: TensorCodec) -> None:
    payload = codec.without_tensors(codec.compress(content("normal", NUM, 3)[None])[0][0], (4,))
    codec.decode(payload, allow_missing=True)
    tracemalloc.start()
    try:
        codec.decode(payload, allow_missing=True)
        assert tracemalloc.get_traced_memory()[1] < codec.wire.limit_bytes
    finally:
        tracemalloc.stop()


@given(missing=st.sets(st.integers(0, T - 1), max_size=T - 1), place=st.integers(0, len(EVERY) - 1))
def test_any_tensors_can_be_left_out_and_the_length_says_how_much_they_took(missing: set[int], place: int) -> None:
    codec: TensorCodec = EVERY[place].values[0]  # type: ignore[assignment]
    payload = whole_payload(codec)
    decoded = codec.decode(codec.without_tensors(payload, missing), allow_missing=True)
    assert decoded.missing == tuple(sorted(missing))
    one_by_one = [len(payload) - len(codec.without_tensors(payload, [tensor])) for tensor in missing]
    saved = len(payload) - len(codec.without_tensors(payload, missing))
    assert abs(saved - sum(one_by_one)) <= 4 * len(missing), "but for bytes that tensors share"


# Beside other payloads.


def test_the_median_norm_is_that_of_the_payloads_that_hold_the_tensor() -> None:
    codec = small_codec()
    payloads = [whole_payload(codec, seed) for seed in range(3)]
    whole = [codec.decode(payload) for payload in payloads]
    partial = codec.decode(codec.without_tensors(payloads[2], (0, 3)), allow_missing=True)
    limits = median_norms([*whole[:2], partial])
    others = torch.stack([each.norms for each in whole[:2]]).median(dim=0).values
    everybody = torch.stack([each.norms for each in whole]).median(dim=0).values
    assert limits.tolist() == [(others if tensor in (0, 3) else everybody)[tensor] for tensor in range(T)]


def test_what_nobody_sent_limits_nobody() -> None:
    codec = small_codec()
    payloads = [whole_payload(codec, seed) for seed in range(3)]
    partial = [codec.decode(codec.without_tensors(each, (0,)), allow_missing=True) for each in payloads[:2]]
    limits = median_norms(partial)
    assert limits[0] == torch.inf
    late = codec.decode(payloads[2])
    assert fields_of(clipped(late, limits), (0,)) == fields_of(late, (0,))
    again = clipped(partial[0], limits)
    assert again.missing == (0,)
    assert again.value.isfinite().all()


def test_a_mean_over_senders_does_not_count_who_left_a_tensor_out() -> None:
    codec = small_codec()
    first, second = (whole_payload(codec, seed) for seed in (1, 1))
    partial = codec.decode(codec.without_tensors(second, (0,)), allow_missing=True)
    mean = Mean(clip="none")
    alone = mean.combine([codec.decode(first)], codec.layout)
    assert torch.equal(mean.combine([codec.decode(first), partial], codec.layout), alone)
    over_all = Mean(clip="none", over="all").combine([codec.decode(first), partial], codec.layout)
    end = codec.chunks.tensor_starts[1]
    assert torch.equal(over_all[:end], alone[:end] / 2)
    assert torch.equal(over_all[end:], alone[end:])


def test_overlap_counts_the_indices_that_are_there() -> None:
    """A copy without some tensors is a whole copy of what is left; its victim has but a part in common with it."""
    codec = small_codec()
    payload = whole_payload(codec, 1)
    victim, stranger = codec.decode(payload), codec.decode(whole_payload(codec, 2))
    copy = codec.decode(codec.without_tensors(payload, (0,)), allow_missing=True)
    matrix = overlap_matrix([victim, copy, stranger])
    chosen = [int((each.kept_share < 1).sum()) for each in (victim, copy)]
    assert matrix[1, 0] == 1
    assert matrix[0, 1].item() == pytest.approx(chosen[1] / chosen[0])
    assert 0 < chosen[1] < chosen[0]
    assert matrix[1, 2] < 1


# In an exchange.


def gradients(num: int) -> torch.Tensor:
    return normal_rows(num, sum(int(np.prod(shape)) for _, shape in TENSORS), seed=4)


def test_an_exchange_steps_with_a_partial_payload_where_it_says_something() -> None:
    exchange = exchange_of()
    whole = exchange.encode(0, [1], gradients(1), [Claims(tokens=10)])[0]
    payload = exchange.without_tensors(0, whole, [1, 4])
    with pytest.raises(InvalidPayload, match="expected tensors are missing: 1, 4"):
        exchange.decode(0, payload)
    partial = exchange.decode(0, payload, allow_missing=True)
    lineage = root_lineage(torch.zeros(exchange.layout.num_parameters))
    bounds = np.cumsum([0, *(int(np.prod(shape)) for _, shape in TENSORS)])
    moved = exchange.outer_step(lineage, [partial], 0)[0]
    expected = exchange.outer_step(lineage, [exchange.decode(0, whole)], 0)[0]
    trial = exchange.trial_theta(lineage, partial, 0, 0.2, exchange.clip_norms(lineage, [partial]))
    for tensor, (low, high) in enumerate(itertools.pairwise(bounds)):
        still = tensor in (1, 4)
        assert torch.equal(moved[low:high], torch.zeros(high - low) if still else expected[low:high])
        assert bool(trial[low:high].any()) != still
    assert trial.isfinite().all()


def test_tensors_are_numbered_within_the_fragment_of_a_round() -> None:
    """Of two strided fragments the second holds the first block and the end: leave out the block's second tensor."""
    exchange = exchange_of(fragments=Layers(num=2))
    whole = exchange.encode(1, [1], gradients(1), [Claims()])[0]
    payload = exchange.without_tensors(1, whole, [1])
    partial = exchange.decode(1, payload, allow_missing=True)
    said, everything = set(partial.index.tolist()), set(exchange.decode(1, whole).index.tolist())
    start = 16 * 8 + 8 * 24
    assert everything - said == {place for place in everything if start <= place < start + 24 * 8}
    assert said < everything


def test_a_fragment_of_one_vector_cannot_be_partial() -> None:
    exchange = exchange_of(fragments=RandomShare(share=0.5))
    whole = exchange.encode(0, [1], gradients(1), [Claims()])[0]
    with pytest.raises(ValueError, match="cannot leave out tensors"):
        exchange.without_tensors(0, whole, [0])
