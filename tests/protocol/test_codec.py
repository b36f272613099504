"""The codec against a straight-line reimplementation, over all kinds of shapes and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from covsim.protocol.base import Decoded, InvalidPayload
from covsim.protocol.block_codec import BlockCodec, largest
from covsim.protocol.sparseloco import SparseLoCo

Shapes = Sequence[tuple[int, ...]]

GPT_SHAPES = [(256, 32), (64, 32), (32,), (96, 32), (32, 32), (32,), (128, 32), (32, 128), (32,), (256, 32)]
ODD_SHAPES = [(1,), (3,), (67,), (63,), (1, 1), (67, 5), (130, 66), (2, 64), (64,), (128,), (61, 61)]

shapes_strategy = st.lists(
    st.one_of(st.tuples(st.integers(1, 300)), st.tuples(st.integers(1, 140), st.integers(1, 140))),
    min_size=1,
    max_size=4,
)
CONTENTS = ["normal", "heavy", "zeros", "constant", "few", "ties", "tiny", "subnormal", "huge", "wide"]


def content(kind: str, num: int, seed: int) -> Tensor:
    """A row [N] of a certain kind."""
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(num, generator=draw)
    few = torch.rand(num, generator=draw) < 0.01
    return {
        "normal": normal * 1e-3,
        "heavy": normal / torch.rand(num, generator=draw).clamp(min=1e-6),
        "zeros": torch.zeros(num),
        "constant": torch.full((num,), -0.37),
        "few": torch.where(few, normal, 0.0),
        "ties": normal.mul(2).round(),
        "tiny": normal * 1e-15,
        "subnormal": normal * 1e-41,
        "huge": normal.clamp(-4, 4) * 2e37,
        "wide": normal * torch.randn(num, generator=draw).mul(8).exp(),
    }[kind]


def dense(decoded: Decoded, num_parameters: int) -> Tensor:
    """A decoded payload as a row [N]."""
    row = torch.zeros(num_parameters)
    row[decoded.index] = decoded.value
    return row


@settings(max_examples=120, deadline=None, derandomize=True)
@given(shapes_strategy, st.sampled_from([2, 4, 30, 64, 4096]), st.sampled_from(CONTENTS), st.integers(0, 99))
def test_equals_the_naive_code(shapes: Shapes, k: int, kind: str, seed: int) -> None:
    codec = BlockCodec(shapes, k, bits=2, packing="packed")
    row = content(kind, codec.num_parameters, seed)
    (payload,), sent = codec.compress(row[None])
    expected = naive.compress(row.numpy(), shapes, k)
    assert payload == naive.write(expected)
    assert np.array_equal(sent[0].numpy(), naive.dense(expected, shapes))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    shapes_strategy,
    st.integers(1, 40).map(lambda half: 2 * half),
    st.sampled_from(["packed", "byte_per_value"]),
    st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=5),
)
def test_round_trip(shapes: Shapes, k: int, packing: str, kinds: list[str]) -> None:
    """The receiver computes bit for bit what the sender believes, and every payload has the length of the formula."""
    protocol = SparseLoCo(k=k, packing=packing)
    codec = protocol.codec(shapes)
    rows = torch.stack([content(kind, codec.num_parameters, seed) for seed, kind in enumerate(kinds)])
    payloads, sent = codec.compress(rows)
    for payload, sent_row in zip(payloads, sent, strict=True):
        assert len(payload) == codec.regular_bytes == protocol.regular_bytes(shapes)
        decoded = codec.decode(payload)
        assert torch.equal(dense(decoded, codec.num_parameters), sent_row)
        assert len(decoded.index.unique()) == len(decoded.index) == decoded.tensor_bounds[-1]
        for t, norm in enumerate(decoded.norms.tolist()):
            values = decoded.value[decoded.tensor_bounds[t] : decoded.tensor_bounds[t + 1]]
            assert norm == pytest.approx(values.double().norm().item())
            assert (decoded.tensor_of[decoded.tensor_bounds[t] : decoded.tensor_bounds[t + 1]] == t).all()


def test_a_byte_per_value_writes_the_same_values() -> None:
    row = content("normal", sum(math.prod(shape) for shape in ODD_SHAPES), seed=1)
    payload = BlockCodec(ODD_SHAPES, 64, 2, "byte_per_value").compress(row[None])[0][0]
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
    codec = BlockCodec(shapes, k, 2, "packed")
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


def test_of_equal_values_the_first_wins() -> None:
    chunk = torch.tensor([[0.0, -1.0, 1.0, 2.0, 1.0, -2.0, 1.0, 0.0]])
    assert largest(chunk, 4).tolist() == [[1, 2, 3, 5]]
    assert largest(torch.zeros(1, 4096), 64).tolist() == [list(range(64))]


def test_the_largest_of_each_block_are_kept() -> None:
    codec = BlockCodec([(128, 128)], 64, 2, "packed")
    row = content("normal", codec.num_parameters, seed=3)
    sent = codec.compress(row[None])[1].view(2, 64, 2, 64).transpose(1, 2).reshape(4, 4096)
    blocks = row.view(2, 64, 2, 64).transpose(1, 2).reshape(4, 4096).abs()
    assert torch.equal(sent != 0, blocks >= blocks.topk(64).values[:, -1:])


def test_kept_share_marks_chunks_sent_whole() -> None:
    codec = BlockCodec([(64, 64), (64,)], 64, 2, "packed")
    decoded = codec.decode(codec.compress(torch.randn(1, codec.num_parameters))[0][0])
    assert decoded.kept_share.tolist() == [64 / 4096] * 64 + [1.0] * 64


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_refused_by_the_decoder_and_harms_no_other(poison: float) -> None:
    codec = BlockCodec(GPT_SHAPES, 64, 2, "packed")
    rows = torch.randn(3, codec.num_parameters)
    alone, _ = codec.compress(rows[[0, 2]])
    rows[1, 5] = poison
    payloads, _ = codec.compress(rows)
    assert [payloads[0], payloads[2]] == alone
    with pytest.raises(InvalidPayload, match="not finite"):
        codec.decode(payloads[1])


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (0,), (4, 0)])
def test_shapes_that_cannot_be_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        SparseLoCo().codec([shape])
