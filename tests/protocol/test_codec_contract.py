"""What every codec keeps to, whichever registered parts it is made of, in every combination that the library builds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from strategies import (
    CONTENTS,
    INDEX_CODINGS,
    PACKINGS,
    SMALL_SHAPES,
    Combination,
    combinations,
    content,
    contents,
    dense,
    label,
    normal_rows,
    num_elements,
    received,
    refusal,
    variants,
)
from torch import Tensor

from covsim.protocol.base import Codec, Decoded, InvalidPayload, Shape
from covsim.protocol.claims import Claims
from covsim.protocol.codec import TensorCodec, payload_bytes
from covsim.protocol.compressors import Compressor, compressors
from covsim.protocol.error_feedback import ErrorBuffers, ErrorFeedback
from covsim.protocol.values import ValueFormat, value_formats

NUM = num_elements(SMALL_SHAPES)
LEGAL = combinations(SMALL_SHAPES, k=6)
CLAIMS = [Claims(tokens=1000 + row, base=row, seed=2**40 + row) for row in range(len(CONTENTS))]
GPT_SHAPES: tuple[Shape, ...] = ((256, 32), (96, 32), (32,), (128, 48), (1,), (7, 9), (512, 512))
"""The last tensor has values enough for torch to split a sum over threads."""


def _by_parts() -> dict[str, list[Combination]]:
    """The legal combinations of each compressor and value format, by the names of these two."""
    parts: dict[str, list[Combination]] = {}
    for each in LEGAL:
        parts.setdefault(f"{label(each.compressor)}-{label(each.values)}", []).append(each)
    return parts


BY_PARTS = _by_parts()
of_all_parts = pytest.mark.parametrize("parts", BY_PARTS)
of_all_compressors = pytest.mark.parametrize("compressor", variants(compressors, k=6), ids=label)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """True if not even a sign of zero differs."""
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def length_varies(codec: TensorCodec) -> bool:
    """True where the decoder takes payloads of several lengths."""
    return codec.wire.least_bytes < codec.wire.most_bytes


def length_may_vary(combination: Combination) -> bool:
    """True where the length of a payload depends on what is sent."""
    return combination.indices == "entropy" or combination.compressor.kind == "threshold"


def test_every_part_is_in_a_legal_combination() -> None:
    """Or else what follows would say nothing about it. On these shapes the library has no reason to refuse any."""
    assert {each.compressor.kind for each in LEGAL} == set(compressors)
    assert {each.values.kind for each in LEGAL} == set(value_formats)
    assert {each.indices for each in LEGAL} == set(INDEX_CODINGS)
    assert {each.packing for each in LEGAL} == set(PACKINGS)
    every = len(variants(compressors)) * len(variants(value_formats)) * len(INDEX_CODINGS) * len(PACKINGS)
    assert len(LEGAL) == every == len({each.name for each in LEGAL}) > 1000


@of_all_parts
def test_a_receiver_computes_what_the_sender_believes(parts: str) -> None:
    """Bit for bit, for rows of all kinds, and with a length between the limits that the decoder states."""
    rows = contents(NUM)
    for combination in BY_PARTS[parts]:
        codec = combination.codec(SMALL_SHAPES)
        payloads, sent = codec.compress(rows, CLAIMS)
        assert sent.isfinite().all()
        for kind, claim, payload, sent_row in zip(CONTENTS, CLAIMS, payloads, sent, strict=True):
            where = f"{combination.name}, {kind}"
            decoded = codec.decode(payload)
            assert same_bits(codec.to_theta(dense(decoded, NUM)), sent_row), where
            assert decoded.claims == claim, where
            assert codec.wire.least_bytes <= len(payload) <= codec.wire.most_bytes, where


@of_all_parts
def test_what_is_received_and_what_is_left_over_make_up_the_row(parts: str) -> None:
    """Decoded from the wire + error buffer = accumulated, up to the rounding of one float32 difference."""
    combination = BY_PARTS[parts][0]
    codec = combination.codec(SMALL_SHAPES)
    uids = range(len(CONTENTS))
    buffers = ErrorBuffers(ErrorFeedback(decay=0.95))
    for turn in range(3):
        accumulated = buffers.accumulate(uids, contents(NUM, seed=100 * turn))
        payloads, sent = codec.compress(accumulated, CLAIMS)
        buffers.keep(uids, accumulated, sent, NUM)
        for uid, payload in zip(uids, payloads, strict=True):
            buffer = buffers.buffer(uid)
            assert buffer is not None
            arrived = received(codec, payload)
            lost = arrived.double() + buffer.double() - accumulated[uid].double()
            half_a_step = torch.from_numpy(np.spacing(buffer.abs().numpy())).double() / 2
            assert (lost.abs() <= half_a_step).all()
            if combination.compressor.basis is None:
                assert torch.equal(buffer[arrived == 0], accumulated[uid][arrived == 0])


@of_all_parts
def test_lengths_are_those_of_the_formula(parts: str) -> None:
    rows = contents(NUM)[:3]
    for combination in BY_PARTS[parts]:
        codec = combination.codec(SMALL_SHAPES)
        assert codec.regular_bytes == payload_bytes(((1, shape) for shape in SMALL_SHAPES), *combination)
        if not length_may_vary(combination):
            lengths = {len(payload) for payload in codec.compress(rows)[0]}
            assert lengths == {codec.regular_bytes} == {codec.wire.least_bytes} == {codec.wire.most_bytes}


VARYING_SHAPES: tuple[Shape, ...] = ((256, 256), (128, 320), (4096,))
VARYING = [
    Combination(compressor, value_formats["bin_mean"](group=group), indices, "packed")
    for compressor in variants(compressors)
    for group in ("tensor", "chunk")
    for indices in INDEX_CODINGS
]


@pytest.mark.parametrize("combination", [each for each in VARYING if length_may_vary(each)], ids=lambda each: each.name)
def test_lengths_that_vary_are_right_on_average(combination: Combination) -> None:
    """Of Gaussian rows, what is not header is within 2 % of the formula in the mean of 40 seeds.

    That many, because a threshold sends some 310 values of such a row, give or take 18.
    """
    codec = combination.codec(VARYING_SHAPES)
    claims = [Claims(seed=seed) for seed in range(40)]
    payloads, _ = codec.compress(normal_rows(40, codec.num_parameters, seed=9), claims)
    header = codec.wire.least_bytes if length_varies(codec) else 0
    mean = np.mean([len(payload) - header for payload in payloads])
    assert mean == pytest.approx(codec.regular_bytes - header, rel=0.02)


@of_all_parts
def test_decoded_payloads_are_well_formed(parts: str) -> None:
    combination = next(each for each in BY_PARTS[parts] if each.indices == "entropy")
    codec = combination.codec(SMALL_SHAPES)
    for payload in codec.compress(contents(NUM), CLAIMS)[0]:
        decoded = codec.decode(payload)
        num_values = len(decoded.value)
        assert (decoded.index.dtype, decoded.index.shape) == (torch.int64, (num_values,))
        assert (decoded.value.dtype, decoded.value.shape) == (torch.float32, (num_values,))
        assert (decoded.tensor_of.dtype, decoded.tensor_of.shape) == (torch.int64, (num_values,))
        assert (decoded.norms.dtype, decoded.norms.shape) == (torch.float64, (len(SMALL_SHAPES),))
        assert (decoded.kept_share.dtype, decoded.kept_share.shape) == (torch.float32, (num_values,))
        assert len(decoded.index.unique()) == num_values
        assert decoded.value.isfinite().all()
        assert_tensors_are_told_apart(decoded, SMALL_SHAPES, whole=combination.compressor.kind != "threshold")


def assert_tensors_are_told_apart(decoded: Decoded, shapes: Sequence[Shape], whole: bool) -> None:
    """Every value lies in its tensor, and the shares that the chunks kept add up to the tensor, if all kept some."""
    starts = [0, *itertools.accumulate(math.prod(shape) for shape in shapes)]
    assert decoded.tensor_bounds[0] == 0
    assert decoded.tensor_bounds[-1] == len(decoded.value)
    for tensor, (low, high) in enumerate(itertools.pairwise(decoded.tensor_bounds)):
        index, value, share = (field[low:high] for field in (decoded.index, decoded.value, decoded.kept_share))
        assert (decoded.tensor_of[low:high] == tensor).all()
        assert ((starts[tensor] <= index) & (index < starts[tensor + 1])).all()
        assert decoded.norms[tensor].item() == pytest.approx(value.double().norm().item(), rel=1e-12)
        assert ((share > 0) & (share <= 1)).all()
        chunk_elements = (1 / share.double()).sum().item()
        assert chunk_elements <= (starts[tensor + 1] - starts[tensor]) * (1 + 1e-6)
        if whole:
            assert chunk_elements == pytest.approx(starts[tensor + 1] - starts[tensor])


@of_all_parts
def test_what_lies_in_the_values_space_keeps_its_norm(parts: str) -> None:
    """A transform may turn what is sent, but not stretch it; without one, `to_theta` changes nothing."""
    codec = BY_PARTS[parts][0].codec(SMALL_SHAPES)
    row = content("normal", NUM, seed=5)
    turned = codec.to_theta(row)
    assert turned.norm().item() == pytest.approx(row.norm().item(), rel=1e-6)
    if codec.compressor.basis is None:
        assert same_bits(turned, row)


@pytest.mark.usefixtures("threads")
@of_all_parts
def test_a_row_is_bit_equal_whoever_shares_the_batch(parts: str) -> None:
    """And on one thread or two, bytes and values; constants and ties show what rounding leaves of nothing."""
    combination = next(each for each in BY_PARTS[parts] if each.indices == "entropy")
    codec = combination.codec(SMALL_SHAPES)
    kinds = ["normal", "constant", "ties", "heavy", "wide"]
    batch = torch.stack([content(kind, NUM, seed=3) for kind in kinds])
    claims = [Claims(tokens=row, seed=row // 2) for row in range(len(batch))]
    torch.set_num_threads(1)
    alone = [codec.compress(row[None], [claim]) for row, claim in zip(batch, claims, strict=True)]
    for num_threads, num_rows in [(1, len(batch)), (2, len(batch)), (2, 2)]:
        torch.set_num_threads(num_threads)
        payloads, sent = codec.compress(batch[:num_rows], claims[:num_rows])
        for row, payload in enumerate(payloads):
            assert payload == alone[row][0][0]
            assert same_bits(sent[row], alone[row][1][0])
            assert same_bits(received(codec, payload), sent[row])


ONE_OF_EACH = [
    *((compressor, value_formats["sign"](group="chunk")) for compressor in variants(compressors)),
    *((compressors["dense"](), values) for values in variants(value_formats)),
]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("compressor", "values"), ONE_OF_EACH, ids=label)
def test_a_row_of_a_larger_model_is_bit_equal_on_two_threads(compressor: Compressor, values: ValueFormat) -> None:
    codec = Combination(compressor, values, "bits12", "packed").codec(GPT_SHAPES)
    draw = torch.Generator().manual_seed(7)
    rows = torch.randn(9, codec.num_parameters, generator=draw) * torch.randn(9, codec.num_parameters, generator=draw)
    torch.set_num_threads(1)
    (expected,), sent_alone = codec.compress(rows[4:5])
    torch.set_num_threads(2)
    payloads, sent = codec.compress(rows)
    assert payloads[4] == expected
    assert same_bits(sent[4], sent_alone[0])
    assert same_bits(received(codec, expected), sent_alone[0])


@of_all_parts
def test_claims_of_any_size_come_back(parts: str) -> None:
    claims = [Claims(), Claims(tokens=2**64 - 1), Claims(base=2**32 - 1), Claims(seed=2**64 - 1), Claims(1, 2, 3)]
    for combination in BY_PARTS[parts][:2]:
        codec = combination.codec(SMALL_SHAPES)
        payloads, _ = codec.compress(normal_rows(1, NUM).repeat(len(claims), 1), claims)
        assert [codec.decode(payload).claims for payload in payloads] == claims
        by_default = codec.compress(normal_rows(1, NUM))[0]
        assert by_default == payloads[:1]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@of_all_parts
def test_a_row_that_is_not_finite_is_refused_and_harms_no_other(parts: str, poison: float) -> None:
    """Wherever the number is: in what would be sent, in what would not, in a tensor of one element."""
    codec = BY_PARTS[parts][0].codec(SMALL_SHAPES)
    row = normal_rows(1, NUM)[0]
    order = row[:4096].abs().argsort()
    places = [int(order[0]), int(order[2048]), int(order[-1]), 4096 + 5, 4096 + 63 + 33, NUM - 131, NUM - 1]
    batch = row.repeat(len(places) + 2, 1)
    for number, place in enumerate(places):
        batch[1 + number, place] = poison
    batch[-1] = poison
    first, *poisoned = codec.compress(batch)[0]
    assert [first] == codec.compress(row[None])[0]
    for place, payload in zip([*places, "everywhere"], poisoned, strict=True):
        assert_refused(codec, payload, "not finite", str(place))


def assert_refused(codec: Codec, payload: bytes, reason: str, where: str) -> None:
    """The decoder refuses the payload for this reason."""
    found = "accepted"
    try:
        codec.decode(payload)
    except InvalidPayload as refused:
        found = str(refused)
    assert reason in found, where


def test_payloads_of_other_combinations_are_refused() -> None:
    """What a payload says of itself tells every two combinations apart."""
    sample = LEGAL[:: len(LEGAL) // 60]
    codecs = {each.name: each.codec(SMALL_SHAPES) for each in sample}
    rows = normal_rows(1, NUM)
    payloads = {name: codec.compress(rows)[0][0] for name, codec in codecs.items()}
    accepted: Counter[bool] = Counter()
    for (reader, codec), (writer, payload) in itertools.product(codecs.items(), payloads.items()):
        try:
            codec.decode(payload)
            read = True
        except InvalidPayload:
            read = False
        assert read == (reader == writer), f"{reader} reads {writer}: {read}"
        accepted[read] += 1
    assert accepted == {True: len(sample), False: len(sample) * (len(sample) - 1)}


@of_all_compressors
def test_payloads_of_other_fragments_and_claims_of_too_much_are_refused(compressor: Compressor) -> None:
    combination = Combination(compressor, value_formats["bin_mean"](), "bits12", "packed")
    codec = combination.codec(SMALL_SHAPES, fragment=3, most_tokens=1000)
    (fair, greedy), _ = codec.compress(normal_rows(2, NUM), [Claims(tokens=1000), Claims(tokens=1001)])
    assert codec.decode(fair).claims.tokens == 1000
    assert_refused(codec, greedy, "claims 1001 tokens, more than 1000", "most_tokens")
    assert_refused(combination.codec(SMALL_SHAPES), fair, "fragment 3, expected 0", "fragment")
    other = codec.for_fragment(2**32 - 1)
    assert_refused(other, fair, "fragment 3", "fragment")
    assert_refused(other, other.compress(normal_rows(1, NUM), [Claims(tokens=1001)])[0][0], "claims", "most_tokens")
    assert other.decode(other.compress(normal_rows(1, NUM))[0][0]).value.numel()
    assert codec.decode(fair).claims.tokens == 1000, "the codec that was copied reads what it read before"


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (0,), (4, 0), (0, 4)])
@of_all_compressors
def test_shapes_that_cannot_be_cut_are_refused(compressor: Compressor, shape: Shape) -> None:
    reason = refusal(Combination(compressor, value_formats["fp32"](), "bits12", "packed"), [(4, 4), shape])
    assert reason is not None
    assert "cannot be cut" in reason


def test_rows_too_long_for_the_coding_are_refused_unless_no_positions_are_sent() -> None:
    """12 bits reach 4096 elements, 16 bits 65,536; drawn positions and whole chunks need none."""
    bin_mean = value_formats["bin_mean"]()
    for columns, legal in [(4096, set(INDEX_CODINGS)), (4098, set(INDEX_CODINGS) - {"bits12"}), (65_538, set())]:
        rows_of = compressors["topk"](k=6, layout="rows")
        each = {
            coding: refusal(Combination(rows_of, bin_mean, coding, "packed"), [(1, columns)])
            for coding in INDEX_CODINGS
        }
        assert {coding for coding, reason in each.items() if reason is None} == legal
        assert all(str(columns) in reason for reason in each.values() if reason is not None)
    drawn = Combination(compressors["random_k"](k=6, layout="rows"), bin_mean, "bits12", "packed")
    assert refusal(drawn, [(1, 4098)]) is None
    whole = Combination(compressors["topk"](k=65_536, layout="rows"), bin_mean, "bits12", "packed")
    assert refusal(whole, [(2, 5000)]) is None
    for combination, shape in [(drawn, (1, 4098)), (whole, (2, 5000))]:
        with pytest.raises(ValueError, match="65536"):
            payload_bytes([(1, (1, 65_537))], *combination)
        assert payload_bytes([(1, shape)], *combination) == combination.codec([shape]).regular_bytes


@pytest.mark.parametrize("columns", [4098, 65_536])
@pytest.mark.parametrize("indices", ["bits16", "int64", "entropy"])
def test_chunks_longer_than_twelve_bits_come_back(columns: int, indices: str) -> None:
    shapes = [(2, columns), (3,)]
    for compressor in (compressors["topk"](layout="rows"), compressors["threshold"](layout="rows")):
        codec = Combination(compressor, value_formats["fp32"](), indices, "packed").codec(shapes)
        row = content("heavy", codec.num_parameters, seed=4)
        row[2 * columns - 1] = 1e9
        (payload,), sent = codec.compress(row[None])
        assert same_bits(received(codec, payload), sent[0])
        assert sent[0, 2 * columns - 1] == 1e9
