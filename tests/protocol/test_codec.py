"""The codec against a straight-line reimplementation, and what all its parts promise, over all kinds of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import CONTENTS, INDEX_CODINGS, PACKINGS, content, dense, shapes_strategy
from torch import Tensor

from covsim.protocol.base import Claims, InvalidPayload
from covsim.protocol.chunks import ChunkGrid, cut
from covsim.protocol.codec import TensorCodec, payload_bytes
from covsim.protocol.compressors import (
    Compressor,
    Dct,
    Dense,
    Origin,
    RandomK,
    Selection,
    Threshold,
    TopK,
    UniformDraw,
    largest,
)
from covsim.protocol.indices import IndexCoding
from covsim.protocol.invalid import refuse
from covsim.protocol.values import BinMean, Encoded, Fp4, Fp16, Fp32, Sign, Uniform, ValueFormat
from covsim.protocol.wire import Packing

Shapes = Sequence[tuple[int, ...]]

GPT_SHAPES = [(256, 32), (64, 32), (32,), (96, 32), (32, 32), (32,), (128, 32), (32, 128), (32,), (256, 32)]
ODD_SHAPES = [(1,), (3,), (67,), (63,), (1, 1), (67, 5), (130, 66), (2, 64), (64,), (128,), (61, 61)]
SMALL_SHAPES = [(1,), (67,), (63,), (66, 130), (64, 64), (32,), (64, 64)]

COMPRESSORS = [
    TopK(k=30),
    TopK(k=30, layout="contiguous"),
    TopK(k=30, layout="rows"),
    RandomK(k=30),
    Threshold(),
    Threshold(factor=1.0, most=0.3, layout="contiguous"),
    Dct(k=7),
    Dense(),
]
VALUES = [
    BinMean(),
    BinMean(bits=8),
    BinMean(bits=4, group="chunk"),
    Uniform(bits=4),
    Uniform(group="chunk"),
    Sign(),
    Sign(group="chunk"),
    Fp4(),
    Fp4(group="chunk"),
    Fp16(),
    Fp32(),
]


def sparse_loco(shapes: Shapes, k: int = 64, packing: Packing = "packed") -> TensorCodec:
    return TensorCodec(shapes, TopK(k=k), BinMean(), "bits12", packing)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(shapes_strategy, st.sampled_from([2, 4, 30, 64, 4096]), st.sampled_from(CONTENTS), st.integers(0, 99))
def test_equals_the_naive_code(shapes: Shapes, k: int, kind: str, seed: int) -> None:
    codec = sparse_loco(shapes, k)
    row = content(kind, codec.num_parameters, seed)
    (payload,), sent = codec.compress(row[None])
    expected = naive.compress(row.numpy(), shapes, k)
    assert payload == naive.write(expected)
    assert np.array_equal(sent[0].numpy(), naive.dense(expected, shapes))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    shapes_strategy,
    st.sampled_from(COMPRESSORS),
    st.sampled_from(VALUES),
    st.sampled_from(INDEX_CODINGS),
    st.sampled_from(PACKINGS),
    st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=4),
)
def test_round_trip(
    shapes: Shapes,
    compressor: Compressor,
    values: ValueFormat,
    indices: IndexCoding,
    packing: Packing,
    kinds: list[str],
) -> None:
    """The receiver computes bit for bit what the sender believes, from a payload of the length of the formula."""
    codec = TensorCodec(shapes, compressor, values, indices, packing)
    rows = torch.stack([content(kind, codec.num_parameters, seed) for seed, kind in enumerate(kinds)])
    claims = [Claims(tokens=seed, base=7, seed=2**63 + seed) for seed in range(len(rows))]
    payloads, sent = codec.compress(rows, claims)
    assert codec.regular_bytes == payload_bytes([(1, shape) for shape in shapes], compressor, values, indices, packing)
    for payload, sent_row, claim in zip(payloads, sent, claims, strict=True):
        assert codec.wire.least_bytes <= len(payload) <= codec.wire.most_bytes
        if indices != "entropy" and not isinstance(compressor, Threshold):
            assert len(payload) == codec.regular_bytes
        decoded = codec.decode(payload)
        received = codec.to_theta(dense(decoded, codec.num_parameters))
        assert torch.equal(received.view(torch.int32), sent_row.view(torch.int32))
        assert decoded.claims == claim
        assert len(decoded.index.unique()) == len(decoded.index) == decoded.tensor_bounds[-1]
        for t, norm in enumerate(decoded.norms.tolist()):
            bounds = slice(decoded.tensor_bounds[t], decoded.tensor_bounds[t + 1])
            assert norm == pytest.approx(decoded.value[bounds].double().norm().item())
            assert (decoded.tensor_of[bounds] == t).all()
        assert (decoded.kept_share <= 1).all()
        assert (decoded.kept_share > 0).all()


def test_a_byte_per_value_writes_the_same_values() -> None:
    row = content("normal", sum(math.prod(shape) for shape in ODD_SHAPES), seed=1)
    payload = sparse_loco(ODD_SHAPES, 64, "byte_per_value").compress(row[None])[0][0]
    assert payload == naive.write(naive.compress(row.numpy(), ODD_SHAPES, 64), packed=False)


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("shapes", "k", "batches"),
    [(GPT_SHAPES, 64, (1, 2, 7, 12, 16, 72)), (ODD_SHAPES, 64, (1, 2, 7, 12, 16, 72)), ([(512, 512)], 1024, (1, 9))],
    ids=["gpt", "odd", "large"],
)
def test_a_row_is_bit_equal_whoever_shares_the_batch(shapes: Shapes, k: int, batches: tuple[int, ...]) -> None:
    """The large tensor has values enough for torch to split a sum over threads, and rows enough for two slabs."""
    codec = sparse_loco(shapes, k)
    draw = torch.Generator().manual_seed(8)
    row = content("heavy", codec.num_parameters, seed=7)
    expected = naive.write(naive.compress(row.numpy(), shapes, k))
    for num_rows in batches:
        rows = torch.randn(num_rows, codec.num_parameters, generator=draw)
        for place in {0, num_rows // 2, num_rows - 1}:
            kept, rows[place] = rows[place].clone(), row
            payloads, sent = codec.compress(rows)
            assert payloads[place] == expected
            assert torch.equal(sent[place], dense(codec.decode(expected), codec.num_parameters))
            rows[place] = kept


@pytest.mark.parametrize("values", VALUES, ids=repr)
@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_no_part_sees_the_batch_or_the_threads(compressor: Compressor, values: ValueFormat, threads: None) -> None:
    codec = TensorCodec(SMALL_SHAPES, compressor, values, "entropy", "packed")
    row = content("heavy", codec.num_parameters, seed=7)
    crowd = torch.randn(9, codec.num_parameters, generator=torch.Generator().manual_seed(8))
    crowd[4] = row
    claims = [Claims(seed=seed) for seed in range(9)]
    results = set()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        for rows, place in ((crowd, 4), (row[None], 0)):
            payloads, sent = codec.compress(rows, claims[4 - place : 4 - place + len(rows)])
            results.add((payloads[place], sent[place].numpy().tobytes()))
    assert len(results) == 1


def test_the_transform_does_not_see_the_batch_or_the_threads(threads: None) -> None:
    """Blocks enough for a product of matrices to be split over threads."""
    codec = TensorCodec([(512, 512), (48, 60), (3000,), (64, 1), (50, 67)], Dct(k=64), Fp32(), "bits12", "packed")
    rows = torch.randn(9, codec.num_parameters, generator=torch.Generator().manual_seed(8))
    results = set()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        for place in (8, 0):
            payloads, sent = codec.compress(rows[8 - place :])
            results.add((payloads[place], sent[place].numpy().tobytes()))
    assert len(results) == 1


def test_of_equal_values_the_first_wins() -> None:
    chunk = torch.tensor([[0.0, -1.0, 1.0, 2.0, 1.0, -2.0, 1.0, 0.0]])
    assert largest(chunk, 4).tolist() == [[1, 2, 3, 5]]
    assert largest(torch.zeros(1, 4096), 64).tolist() == [list(range(64))]
    assert largest(torch.zeros(1, 65536), 64).tolist() == [list(range(64))]


def test_the_largest_of_each_block_are_kept() -> None:
    codec = sparse_loco([(128, 128)])
    row = content("normal", codec.num_parameters, seed=3)
    sent = codec.compress(row[None])[1].view(2, 64, 2, 64).transpose(1, 2).reshape(4, 4096)
    blocks = row.view(2, 64, 2, 64).transpose(1, 2).reshape(4, 4096).abs()
    assert torch.equal(sent != 0, blocks >= blocks.topk(64).values[:, -1:])


def test_kept_share_marks_chunks_sent_whole() -> None:
    codec = sparse_loco([(64, 64), (64,)])
    decoded = codec.decode(codec.compress(torch.randn(1, codec.num_parameters))[0][0])
    assert decoded.kept_share.tolist() == [64 / 4096] * 64 + [1.0] * 64


def test_above_the_threshold_and_not_more_than_the_most() -> None:
    """Of a block of 4096 few far out are all sent, of many the largest 5 %, which are 204; the rest is 0."""
    codec = TensorCodec([(64, 192), (10,)], Threshold(factor=1.0), Fp32(), "bits16", "packed")
    row = torch.zeros(64, 192)
    row[5, :3] = torch.tensor([9.0, -8.0, 7.0])
    row[:, 64:70] = 1 + torch.arange(384).view(64, 6) / 384
    decoded = codec.decode(codec.compress(torch.cat([row.flatten(), torch.zeros(10)])[None])[0][0])
    assert decoded.tensor_bounds == (0, 3 + 204, 3 + 204)
    assert decoded.index[:3].tolist() == [960, 961, 962]
    assert sorted(decoded.value[3:].tolist()) == row[:, 64:70].flatten().sort().values[-204:].tolist()
    assert decoded.kept_share.unique().tolist() == [np.float32(3 / 4096), np.float32(204 / 4096)]
    assert decoded.norms[1] == 0


def test_drawn_positions_depend_on_the_seed_and_the_chunks_alone() -> None:
    codec = TensorCodec([(64, 128), (128, 64), (100,)], RandomK(k=16), Fp32(), "bits12", "packed")
    rows = torch.randn(2, codec.num_parameters)
    decoded = [codec.decode(payload) for payload in codec.compress(rows, [Claims(seed=5), Claims(seed=5)])[0]]
    other = codec.decode(codec.compress(rows[:1], [Claims(seed=6)])[0][0])
    assert torch.equal(decoded[0].index, decoded[1].index)
    assert torch.equal(decoded[0].value, rows[0, decoded[0].index])
    assert not torch.equal(decoded[0].index, other.index)
    assert len(set(decoded[0].index.tolist()) & set(other.index.tolist())) < 10
    assert codec.wire.most_bytes == codec.regular_bytes == 72 + 3 * 20 + 6 * 16 * 4 + 4, "no positions travel"


def test_every_position_is_equally_likely_to_be_drawn() -> None:
    """Chi-squared of 64 positions over 20,000 draws of 8; its 99.99 % quantile with 63 degrees of freedom is 116."""
    grid = cut((20_000, 64), "rows").keeping(8)
    drawn = UniformDraw().positions(grid, seed=2**64 - 1, tensor=3)
    assert (np.diff(drawn.astype(int), axis=1) > 0).all()
    expected = 20_000 * 8 / 64
    squares = (np.bincount(drawn.ravel(), minlength=64) - expected) ** 2 / expected
    assert squares.sum() / (1 - 8 / 64) < 116


@pytest.mark.parametrize("poison", [math.nan, -math.inf])
@pytest.mark.parametrize("values", VALUES, ids=repr)
@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_a_row_that_is_not_finite_is_refused_by_the_decoder_and_harms_no_other(
    compressor: Compressor, values: ValueFormat, poison: float
) -> None:
    codec = TensorCodec(SMALL_SHAPES, compressor, values, "bits16", "packed")
    rows = torch.randn(3, codec.num_parameters, generator=torch.Generator().manual_seed(1))
    alone, _ = codec.compress(rows[[0, 2]])
    rows[1, 5] = poison
    payloads, _ = codec.compress(rows)
    assert [payloads[0], payloads[2]] == alone
    with pytest.raises(InvalidPayload, match="not finite"):
        codec.decode(payloads[1])


def test_half_precision_saturates() -> None:
    codec = TensorCodec([(4,)], Dense(), Fp16(), "bits12", "packed")
    sent = codec.compress(torch.tensor([[1e30, -7e4, 0.1, -1e-30]]))[1][0]
    assert sent.tolist() == [65504.0, -65504.0, float(np.float16(0.1)), 0.0]


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (0,), (4, 0)])
@pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
def test_shapes_that_cannot_be_cut(compressor: Compressor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        TensorCodec([shape], compressor, BinMean(), "bits12", "packed")


def test_12_bits_do_not_reach_long_chunks() -> None:
    shapes, rows = [(4, 5000)], TopK(layout="rows")
    with pytest.raises(ValueError, match="bits12 reaches chunks of up to 4096 elements; there is one of 5000"):
        TensorCodec(shapes, rows, BinMean(), "bits12", "packed")
    with pytest.raises(ValueError, match="bits12 reaches chunks of up to 4096 elements; there is one of 5000"):
        payload_bytes([(80, shapes[0])], rows, BinMean(), "bits12", "packed")
    for indices in INDEX_CODINGS[1:]:
        TensorCodec(shapes, rows, BinMean(), indices, "packed")
    TensorCodec(shapes, RandomK(layout="rows"), BinMean(), "bits12", "packed")  # no positions travel


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1), st.integers(0, 99)), min_size=1, max_size=6))
def test_entropy_coding_equals_the_naive_code(chunks: list[tuple[int, float, int]]) -> None:
    """Any number of positions of chunks of any size, none and all included."""
    coder = TensorCodec([(4,)], TopK(k=2), Sign(), "entropy", "packed").wire._coder
    assert coder is not None
    drawn = [np.flatnonzero(np.random.default_rng(seed).random(size) < share) for size, share, seed in chunks]
    counts, sizes = np.array([len(each) for each in drawn]), np.array([size for size, _, _ in chunks])
    positions = np.concatenate(drawn).astype(np.uint16)
    (written,) = coder.encode(positions[None], counts, sizes)
    assert written == naive.entropy_coded([each.tolist() for each in drawn])
    assert len(written) <= coder.most_bytes(len(positions), sizes)
    assert np.array_equal(coder.decode(np.frombuffer(written, np.uint8), counts, sizes), positions)


def test_claims_and_fragments_are_on_the_wire() -> None:
    codec = TensorCodec(GPT_SHAPES, TopK(), BinMean(), "bits12", "packed", fragment=3, most_tokens=100)
    rows = torch.randn(2, codec.num_parameters)
    (honest, braggart), _ = codec.compress(rows, [Claims(100, 2**32 - 1, 2**64 - 1), Claims(101)])
    assert codec.decode(honest).claims == Claims(tokens=100, base=2**32 - 1, seed=2**64 - 1)
    with pytest.raises(InvalidPayload, match="claims 101 tokens, more than 100"):
        codec.decode(braggart)
    other = codec.for_fragment(4)
    with pytest.raises(InvalidPayload, match="fragment 3, expected 4"):
        other.decode(honest)
    assert other.decode(other.compress(rows[:1])[0][0]).claims == Claims()
    assert codec.decode(honest).claims.tokens == 100


def test_the_basis_keeps_norms_and_comes_back() -> None:
    codec = TensorCodec([(96, 64), (50,)], Dct(k=4096), Fp32(), "bits12", "packed")
    row = torch.randn(codec.num_parameters, generator=torch.Generator().manual_seed(2))
    (payload,), sent = codec.compress(row[None])
    assert torch.allclose(sent[0], row, atol=1e-6)
    decoded = codec.decode(payload)
    assert decoded.norms.norm().item() == pytest.approx(row.norm().item())
    zero = codec.to_theta(torch.zeros(codec.num_parameters))
    assert zero.count_nonzero() == 0


# A part that nobody knew: what a file of one's own would hold ---------------------------------------------------------


class EveryThird(Compressor):
    """Every third element of a run."""

    kind: Literal["every_third"] = "every_third"

    def cut(self, shape: tuple[int, ...]) -> ChunkGrid:
        """Runs."""
        grid = cut(shape, "contiguous")
        return grid.keeping(-(-grid.chunk_size // 3))

    def select(self, chunks: Tensor, grid: ChunkGrid, origins: Sequence[Origin]) -> Selection:
        """0, 3, 6, ..."""
        return Selection(torch.arange(0, grid.chunk_size, 3).expand(*chunks.shape[:2], -1))


class Ternary(ValueFormat):
    """-1, 0 or 1 times the largest of the chunk, in 2 bits."""

    kind: Literal["ternary"] = "ternary"

    @property
    def code_bits(self) -> int:
        """Two."""
        return 2

    @property
    def header(self) -> np.dtype[np.void]:
        """The largest."""
        return np.dtype([("largest", "<f4")])

    @property
    def per_chunk(self) -> bool:
        """True."""
        return True

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Rounded."""
        top = values.abs().amax((1, 2))
        code = (values / top.clamp(min=1e-30)[:, None, None]).round().nan_to_num() + 1
        return Encoded({"largest": top}, code.to(torch.uint8), (code - 1) * top[:, None, None])

    def decode(self, headers: Any, codes: Any, group_of: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes 0, 1, 2."""
        refuse(~np.isfinite(headers["largest"]) | (headers["largest"] < 0), "chunk {} has no size")
        refuse(codes > 2, "code {} is none")
        values: NDArray[np.float32] = (codes.astype(np.float32) - np.float32(1)) * headers["largest"][group_of]
        return values


def test_parts_of_ones_own_work_on_the_wire() -> None:
    codec = TensorCodec(SMALL_SHAPES, EveryThird(), Ternary(), "entropy", "packed")
    rows = torch.randn(2, codec.num_parameters)
    payloads, sent = codec.compress(rows)
    for payload, row in zip(payloads, sent, strict=True):
        assert torch.equal(dense(codec.decode(payload), codec.num_parameters), row)
    assert b"every_third" in payloads[0]
    with pytest.raises(InvalidPayload, match="compressor b'every_third"):
        TensorCodec(SMALL_SHAPES, TopK(), Ternary(), "entropy", "packed").decode(payloads[0])
    rows[0, 0] = math.nan
    with pytest.raises(InvalidPayload, match="has no size"):
        codec.decode(codec.compress(rows)[0][0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "seventeen_letters"}, "has up to 16 letters"),
        ({"kind": "brücke"}, "letters of ASCII"),
        ({"code_bits": 3}, "not 3"),
        ({"header": np.dtype([("a", "<f4"), ("b", "<f8")], align=True)}, "gaps between the fields"),
    ],
)
def test_formats_that_cannot_be_written(change: dict[str, Any], reason: str) -> None:
    make: Callable[..., Any] = type("Changed", (), {**_plain(Ternary()), **change, "encode": Ternary.encode})
    with pytest.raises(ValueError, match=reason):
        TensorCodec([(4,)], TopK(), make(), "bits12", "packed")


def _plain(values: ValueFormat) -> dict[str, Any]:
    return {"kind": "ternary", "code_bits": values.code_bits, "header": values.header, "per_chunk": values.per_chunk}
