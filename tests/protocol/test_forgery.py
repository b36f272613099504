"""Every flaw is the one that it says: refused by every format for a reason of its own, with a checksum that holds."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import pytest
import torch
from strategies import INDEX_CODINGS, PACKINGS, SMALL_SHAPES, Combination, combinations, normal_rows, num_elements

from covsim.protocol.aggregators import Mean
from covsim.protocol.base import InvalidPayload, Shape
from covsim.protocol.claims import Claims
from covsim.protocol.codec import TensorCodec
from covsim.protocol.compressors import TopK, compressors
from covsim.protocol.diloco import DiLoCo
from covsim.protocol.exchange import Exchange
from covsim.protocol.forgery import FLAWS, HUGE, Flaw, forge, spoiled
from covsim.protocol.sparseloco import SparseLoCo
from covsim.protocol.values import BinMean, value_formats
from covsim.randomness import Streams

FULL_CHUNKS: tuple[Shape, ...] = ((64, 64), (128, 64))
"""Of 4096 elements each, so that no position of 12 bits lies outside."""

EVERY = [(each, shapes) for shapes in (SMALL_SHAPES, FULL_CHUNKS) for each in combinations(shapes, k=6)]
SOME = EVERY[::31]  # a step that shares no factor with the numbers of codings, packings and groups
REFUSED = [flaw for flaw in FLAWS if flaw != "huge"]


def encoded(codec: TensorCodec, seed: int = 1) -> bytes:
    rows = normal_rows(1, codec.num_parameters, seed)
    return codec.compress(rows, [Claims(tokens=7, base=2, seed=5)])[0][0]


def checksum_holds(payload: bytes) -> bool:
    return len(payload) >= 4 and struct.unpack("<I", payload[-4:])[0] == zlib.crc32(payload[:-4])


@pytest.mark.parametrize("flaw", REFUSED)
@pytest.mark.parametrize("formats", [SOME, pytest.param(EVERY, marks=pytest.mark.slow)], ids=["some", "every"])
def test_formats_refuse_it(formats: list[tuple[Combination, tuple[Shape, ...]]], flaw: Flaw) -> None:
    """Whatever the format can say or not: nothing that was forged is read, and nothing but a refusal is raised."""
    for combination, shapes in formats:
        codec = combination.codec(shapes)
        forged = forge(codec, encoded(codec), flaw)
        with pytest.raises(InvalidPayload):
            codec.decode(forged)
        with pytest.raises(InvalidPayload):
            codec.decode(forged, allow_missing=True)
        holds = flaw not in ("bad_checksum", "empty")
        assert checksum_holds(forged) == holds, combination.name


def sparseloco(shapes: tuple[Shape, ...]) -> TensorCodec:
    """As deployed: top-k of blocks, 2 bits, positions of 12 bits."""
    return TensorCodec(shapes, TopK(k=6), BinMean(), "bits12", "packed")


REASONS = {
    "truncated": "bytes, expected",
    "empty": "0 bytes are too few for a payload",
    "oversized": "bytes, expected",
    "nan": "tensor 0 has a mean that is not finite",
    "infinite": "tensor 0 has a mean that is not finite",
    "wrong_indices": "position .* lies outside its chunk",
    "duplicate_indices": "position .* is there twice in its chunk",
    "wrong_shape": "tensor 0 has other rows than expected",
    "wrong_version": "format version 3, expected 2",
    "bad_checksum": "checksum does not match",
}


@pytest.mark.parametrize("flaw", REFUSED)
def test_it_is_refused_for_what_it_is(flaw: Flaw) -> None:
    """And not, say, for a checksum that was forgotten."""
    codec = sparseloco(SMALL_SHAPES)
    with pytest.raises(InvalidPayload, match=REASONS[flaw]):
        codec.decode(forge(codec, encoded(codec), flaw))


def test_where_no_position_lies_outside_they_are_out_of_order() -> None:
    codec = sparseloco(FULL_CHUNKS)
    with pytest.raises(InvalidPayload, match="is followed by a lower one"):
        codec.decode(forge(codec, encoded(codec), "wrong_indices"))


@pytest.mark.parametrize("flaw", ["wrong_indices", "duplicate_indices"])
def test_where_there_are_no_positions_there_are_too_many(flaw: Flaw) -> None:
    drawn = TensorCodec(SMALL_SHAPES, compressors["random_k"](), BinMean(), "bits12", "packed")
    payload = encoded(drawn)
    forged = forge(drawn, payload, flaw)
    assert len(forged) == len(payload) + 3
    with pytest.raises(InvalidPayload, match="bytes, expected"):
        drawn.decode(forged)


def test_sizes_are_what_their_names_say() -> None:
    codec = sparseloco(SMALL_SHAPES)
    payload = encoded(codec)
    assert len(forge(codec, payload, "truncated")) == len(payload) // 2
    assert len(forge(codec, payload, "oversized")) == 2 * len(payload)
    assert forge(codec, payload, "empty") == b""
    for flaw in ("nan", "infinite", "wrong_indices", "duplicate_indices", "wrong_shape", "wrong_version", "huge"):
        assert len(forge(codec, payload, flaw)) == len(payload), flaw


def test_huge_is_valid_and_huge() -> None:
    """Some 1e6 times as long, however coarse the format; half precision has a largest value."""
    for combination, shapes in SOME:
        codec = combination.codec(shapes)
        payload = codec.compress(normal_rows(1, codec.num_parameters) / 1000, [Claims(tokens=7, seed=5)])[0][0]
        before, after = codec.decode(payload), codec.decode(forge(codec, payload, "huge"))
        ratio = (after.norms.norm() / before.norms.norm()).item()
        least = 1e3 if combination.values.kind == "fp16" else HUGE / 10
        assert ratio > least, combination.name
        assert after.claims == before.claims


def test_what_is_invalid_already_is_not_forged() -> None:
    codec = sparseloco(SMALL_SHAPES)
    with pytest.raises(InvalidPayload):
        forge(codec, b"nonsense", "nan")
    with pytest.raises(InvalidPayload):
        forge(codec, forge(codec, encoded(codec), "nan"), "huge")


@pytest.mark.parametrize("protocol", [SparseLoCo(k=6), DiLoCo()], ids=lambda protocol: protocol.kind)
def test_an_exchange_forges_for_its_round(protocol: SparseLoCo | DiLoCo) -> None:
    tensors = tuple((f"block{i}.w", shape) for i, shape in enumerate(SMALL_SHAPES))
    exchange = Exchange(protocol.plan(), tensors, Mean(), 10, 100, Streams(1))
    rows = normal_rows(1, num_elements(SMALL_SHAPES), seed=2)
    payload = exchange.encode(3, [1], rows, [Claims()], feedback=False)[0]
    said = exchange.dense(3, exchange.decode(3, payload))
    if protocol.kind == "diloco":
        assert torch.equal(said, rows[0])
    else:
        assert 0 < said.count_nonzero() < len(said)
    for flaw in REFUSED:
        with pytest.raises(InvalidPayload):
            exchange.decode(3, exchange.forge(3, payload, flaw))


def test_the_forger_needs_no_torch() -> None:
    """So that a decoder can be tried where there is only numpy; the room's doorplate loads the rest of it."""
    program = (
        "import sys, types\n"
        "for name in ('covsim.protocol',):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "    sys.modules[name].__path__ = [sys.argv[1]]\n"
        "import covsim.protocol.forgery\n"
        "assert 'torch' not in sys.modules\n"
    )
    import covsim.protocol as room

    subprocess.run([sys.executable, "-c", program, room.__path__[0]], check=True)


def test_spoiled_is_all_but_huge() -> None:
    codec = sparseloco(SMALL_SHAPES)
    payload = encoded(codec)
    for flaw in REFUSED:
        assert spoiled(codec.wire, payload, flaw) == forge(codec, payload, flaw)


def test_the_formats_tried_have_all_parts() -> None:
    tried = [each for each, _ in SOME]
    assert {each.compressor.kind for each in tried} == set(compressors)
    assert {each.values.kind for each in tried} == set(value_formats)
    assert {each.indices for each in tried} == set(INDEX_CODINGS)
    assert {each.packing for each in tried} == set(PACKINGS)
