"""Compressors, value formats and entropy coding against what their definitions say, written down without haste."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, get_args

import naive
import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from numpy.typing import NDArray
from strategies import Combination, content, label, received, variants
from torch import Tensor

from covsim.protocol.base import InvalidPayload, Shape
from covsim.protocol.chunks import ChunkLayout
from covsim.protocol.claims import Claims
from covsim.protocol.codec import TensorCodec, payload_bytes
from covsim.protocol.compressors import Compressor, compressors
from covsim.protocol.values import ValueFormat, value_formats

Row = NDArray[np.float32]
Chunks = list[NDArray[np.int64]]

SHAPES: tuple[Shape, ...] = ((128, 64), (66, 10), (7, 9), (130,), (67,), (4,), (1,), (1, 1), (3, 5000))
LAYOUTS: tuple[ChunkLayout, ...] = get_args(ChunkLayout)
FP32 = value_formats["fp32"]()


def codec_of(
    compressor: Compressor, values: ValueFormat, shapes: Sequence[Shape], indices: str = "bits16"
) -> TensorCodec:
    """The codec whose positions reach everywhere."""
    return Combination(compressor, values, indices, "packed").codec(shapes)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor up to a limit."""
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


def chunks_of(shape: Shape, layout: str = "blocks") -> Chunks:
    """Where in the flat tensor the elements of each chunk lie."""
    places = np.arange(math.prod(shape)).reshape((1, *shape) if len(shape) == 1 else shape)
    if layout == "rows":
        return list(places)
    if layout == "contiguous":
        return list(places.reshape(-1, largest_divisor(places.size, 4096)))
    height, width = (largest_divisor(side, 64) for side in places.shape)
    corners = itertools.product(range(0, places.shape[0], height), range(0, places.shape[1], width))
    return [places[top : top + height, left : left + width].ravel() for top, left in corners]


def flat_chunks(shapes: Sequence[Shape], layout: str = "blocks") -> list[Chunks]:
    """The chunks of each tensor, as places in theta."""
    starts = itertools.accumulate((math.prod(shape) for shape in shapes), initial=0)
    return [[start + chunk for chunk in chunks_of(shape, layout)] for start, shape in zip(starts, shapes, strict=False)]


def even_k(k: int, size: int) -> int:
    """The rule as deployed: at least 2, at most all, even."""
    return 1 if size == 1 else min(max(2, k), size) // 2 * 2


def largest(row: Row, chunk: NDArray[np.int64], num: int) -> list[int]:
    """The places of the largest values of a chunk; of equal ones the first."""
    return sorted(chunk.tolist(), key=lambda place: -abs(row[place]))[:num]


def only(row: Row, places: Iterable[int]) -> Row:
    """The row with all else zero."""
    kept = np.zeros_like(row)
    for place in places:
        kept[place] = row[place]
    return kept


KINDS = ["normal", "ties", "zeros", "wide", "few"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 64, 4096])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_topk_keeps_what_sorting_puts_first(layout: ChunkLayout, k: int, kind: str) -> None:
    codec = codec_of(compressors["topk"](k=k, layout=layout), FP32, SHAPES)
    row = content(kind, codec.num_parameters, seed=1).numpy()
    chunks = list(itertools.chain.from_iterable(flat_chunks(SHAPES, layout)))
    expected = [place for chunk in chunks for place in largest(row, chunk, even_k(k, len(chunk)))]
    (payload,), sent = codec.compress(torch.from_numpy(row)[None])
    assert np.array_equal(sent[0].numpy(), only(row, expected))
    decoded = codec.decode(payload)
    assert sorted(decoded.index.tolist()) == sorted(expected)
    shares = {place: even_k(k, len(chunk)) / len(chunk) for chunk in chunks for place in chunk.tolist()}
    wanted = np.array([shares[place] for place in decoded.index.tolist()], dtype=np.float32)
    assert np.array_equal(decoded.kept_share.numpy(), wanted)


@pytest.mark.parametrize("kind", [*KINDS, "heavy"])
@pytest.mark.parametrize(("factor", "most"), [(3.0, 0.05), (0.5, 0.01), (1.0, 1.0)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threshold_keeps_what_exceeds_it_up_to_the_most(
    layout: ChunkLayout, factor: float, most: float, kind: str
) -> None:
    codec = codec_of(compressors["threshold"](factor=factor, most=most, layout=layout), FP32, SHAPES)
    row = content(kind, codec.num_parameters, seed=2).numpy()
    expected, counts = [], []
    for chunks in flat_chunks(SHAPES, layout):
        tensor = np.concatenate(chunks)
        threshold = factor * math.sqrt(math.fsum(float(row[place]) ** 2 for place in tensor) / len(tensor))
        for chunk in chunks:
            first = largest(row, chunk, max(1, math.floor(most * len(chunk))))
            expected += [place for place in first if abs(float(row[place])) > threshold]
            counts.append(sum(abs(float(row[place])) > threshold for place in first))
    (payload,), sent = codec.compress(torch.from_numpy(row)[None])
    assert np.array_equal(sent[0].numpy(), only(row, expected))
    assert len(codec.decode(payload).value) == len(expected) == sum(counts)
    num_bytes = 2 * len(counts)
    start = 72 + 20 * len(SHAPES)
    assert np.frombuffer(payload, "<u2", len(counts), start).tolist() == counts
    assert len(payload) == start + num_bytes + (2 + 4) * len(expected) + 4


def test_dense_sends_everything() -> None:
    codec = codec_of(compressors["dense"](), FP32, SHAPES)
    row = content("wide", codec.num_parameters, seed=3)
    (payload,), sent = codec.compress(row[None])
    assert torch.equal(sent[0], row)
    decoded = codec.decode(payload)
    assert torch.equal(decoded.index.sort().values, torch.arange(codec.num_parameters))
    assert (decoded.kept_share == 1).all()
    assert len(payload) == 72 + 20 * len(SHAPES) + 4 * codec.num_parameters + 4


def random_index(codec: TensorCodec, seed: int, row: Tensor) -> NDArray[np.int64]:
    """The places in theta that a payload of this seed has values for, in order."""
    return np.sort(codec.decode(codec.compress(row[None], [Claims(seed=seed)])[0][0]).index.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_positions_are_a_function_of_the_seed_alone(layout: ChunkLayout) -> None:
    """Not of the values, of how they are written, of tokens or base, of who shares the batch or of later tensors."""
    random_k = compressors["random_k"](k=6, layout=layout)
    codec = codec_of(random_k, FP32, SHAPES)
    row = content("normal", codec.num_parameters, seed=4)
    expected = random_index(codec, 11, row)
    assert len(expected) == sum(even_k(6, len(chunk)) for chunks in flat_chunks(SHAPES, layout) for chunk in chunks)
    assert np.array_equal(expected, random_index(codec, 11, torch.zeros_like(row)))
    assert not np.array_equal(expected, random_index(codec, 12, row))
    assert not np.array_equal(expected, random_index(codec, 11 + 2**32, row))
    other = Combination(random_k, value_formats["sign"](group="chunk"), "entropy", "byte_per_value").codec(SHAPES)
    assert np.array_equal(expected, random_index(other, 11, row))
    claims = [Claims(tokens=9, base=8, seed=seed) for seed in (3, 11, 3)]
    payloads, _ = codec.compress(row.repeat(3, 1), claims)
    assert np.array_equal(expected, np.sort(codec.decode(payloads[1]).index.numpy()))
    fewer = codec_of(random_k, FP32, SHAPES[:4])
    places = random_index(fewer, 11, row[: fewer.num_parameters])
    assert np.array_equal(places, expected[expected < fewer.num_parameters])


def test_random_sets_of_positions_are_equally_likely() -> None:
    """All ten pairs of five elements, over 40 seeds in a row with 500 chunks each; and which comes next is open."""
    codec = codec_of(compressors["random_k"](k=2, layout="rows"), FP32, [(500, 5)])
    row = torch.ones(2500)
    pairs = np.stack([random_index(codec, seed, row).reshape(500, 2) % 5 for seed in range(40)])
    names = pairs[..., 0] * 5 + pairs[..., 1]
    sets, counts = np.unique(names, return_counts=True)
    assert len(sets) == math.comb(5, 2)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    for first, second in [(names[:, :-1], names[:, 1:]), (names[:-1], names[1:])]:  # chunk to chunk, seed to seed
        table, _, _ = np.histogram2d(first.ravel(), second.ravel(), bins=[[*sets, 99]] * 2)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


def test_random_positions_fill_large_chunks_evenly() -> None:
    """64 of 4096, 2000 times: how often each position comes, and how much two tensors or two seeds overlap."""
    codec = codec_of(compressors["random_k"](), FP32, [(64, 64), (64, 64)])
    row = torch.ones(2 * 4096)
    drawn = np.stack([random_index(codec, seed, row).reshape(2, 64) % 4096 for seed in range(1000)])
    counts = np.bincount(drawn.ravel(), minlength=4096)
    mean, chance = 2000 * 64 / 4096, 64 / 4096
    statistic = ((counts - mean) ** 2 / (mean * (1 - chance))).sum() * 4095 / 4096
    assert 1e-4 < scipy.stats.chi2.sf(statistic, 4095) < 1 - 1e-4
    for first, second in [(drawn[:, 0], drawn[:, 1]), (drawn[:-1, 0], drawn[1:, 0])]:
        overlap = [len(np.intersect1d(one, other)) for one, other in zip(first, second, strict=True)]
        assert np.mean(overlap) == pytest.approx(64 * 64 / 4096, abs=0.15)


def coefficients(row: Row, shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """The two-dimensional DCT-II of each block, put where the block lies, by scipy."""
    out = np.zeros(len(row))
    for shape, chunks in zip(shapes, flat_chunks(shapes), strict=True):
        rows, columns = (1, *shape) if len(shape) == 1 else shape
        sides = largest_divisor(rows, 64), largest_divisor(columns, 64)
        for chunk in chunks:
            block = row[chunk].astype(np.float64).reshape(sides)
            out[chunk] = scipy.fft.dctn(block, type=2, norm="ortho").ravel()
    return out


def inverse(delta: NDArray[np.float64], shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """And back."""
    out = np.zeros(len(delta))
    for shape, chunks in zip(shapes, flat_chunks(shapes), strict=True):
        rows, columns = (1, *shape) if len(shape) == 1 else shape
        sides = largest_divisor(rows, 64), largest_divisor(columns, 64)
        for chunk in chunks:
            out[chunk] = scipy.fft.idctn(delta[chunk].reshape(sides), type=2, norm="ortho").ravel()
    return out


@pytest.mark.parametrize("k", [1, 3, 32, 4096])
def test_dct_keeps_the_largest_coefficients_of_scipy(k: int) -> None:
    """In float32, so that what lies within a rounding of the k-th may fall on either side."""
    codec = codec_of(compressors["dct"](k=k), FP32, SHAPES)
    row = content("normal", codec.num_parameters, seed=5).numpy() * 1e3
    (payload,), sent = codec.compress(torch.from_numpy(row)[None])
    decoded = codec.decode(payload)
    reference = coefficients(row, SHAPES)
    assert np.allclose(decoded.value.numpy(), reference[decoded.index.numpy()], rtol=2e-6, atol=1e-6)
    arrived = np.zeros(len(row), dtype=bool)
    arrived[decoded.index.numpy()] = True
    for chunk in itertools.chain.from_iterable(flat_chunks(SHAPES)):
        kept, left = np.abs(reference[chunk][arrived[chunk]]), np.abs(reference[chunk][~arrived[chunk]])
        assert len(kept) == min(k, len(chunk))
        assert not len(left) or kept.min() >= left.max() - 1e-6
    assert np.allclose(sent[0].numpy(), inverse(np.where(arrived, reference, 0), SHAPES), rtol=0, atol=5e-6)


def test_all_coefficients_give_the_row_back_and_few_give_a_wave() -> None:
    """A constant has one coefficient, c sqrt(4096); so has a cosine along one side."""
    codec = codec_of(compressors["dct"](k=4096), FP32, [(64, 64)])
    row = content("normal", 4096, seed=6)
    assert torch.allclose(codec.compress(row[None])[1][0], row, rtol=0, atol=1e-8)
    one = codec_of(compressors["dct"](k=1), FP32, [(64, 64)])
    wave = torch.cos(math.pi * 5 * (2 * torch.arange(64, dtype=torch.float64) + 1) / 128).float().repeat(64, 1)
    for block, place, size in [
        (torch.full((64, 64), 0.25), 0, 0.25 * 64),
        (wave, 5, math.sqrt(64 * 32)),
        (wave.T, 320, math.sqrt(64 * 32)),
    ]:
        (payload,), sent = one.compress(block.reshape(1, -1))
        decoded = one.decode(payload)
        assert decoded.index.tolist() == [place]
        assert decoded.value.item() == pytest.approx(size, rel=1e-6)
        assert torch.allclose(sent[0], block.flatten(), atol=1e-6)


Group = Sequence[np.float32]


def bin_mean(bits: int, group: Group) -> list[np.float32]:
    """Means of bins beside the mean."""
    mean, _, table, codes = naive.quantize(group, bits)
    return [table[code] + mean for code in codes]


def uniform(bits: int, group: Group) -> list[np.float32]:
    """Centers of the same bins."""
    mean, scale, _, codes = naive.quantize(group, bits)
    return [np.float32(code - 2 ** (bits - 1)) * scale + mean for code in codes]


def sign(group: Group) -> list[np.float32]:
    """Plus or minus the mean size."""
    size = np.float32(math.fsum(abs(float(value)) for value in group) / len(group))
    return [-size if value < 0 else size for value in group]


def fp4(group: Group) -> list[np.float32]:
    """The nearest of 0 and seven powers of two times the largest, of two equally near the larger."""
    size = max(abs(value) for value in group)
    levels = [0.0, *(2.0**-power for power in range(6, -1, -1))]
    decoded = []
    for value in group:
        share = abs(float(value)) / float(size) if size else 0.0
        nearest = min(reversed(levels), key=lambda level: abs(level - share))
        decoded.append(np.float32(math.copysign(nearest, value)) * size)
    return decoded


def fp16(group: Group) -> list[np.float32]:
    """The nearest half, at most 65504."""
    return [np.float32(np.float16(min(max(value, np.float32(-65504)), np.float32(65504)))) for value in group]


NAIVE: dict[str, Callable[[ValueFormat, Group], list[np.float32]]] = {
    "bin_mean": lambda values, group: bin_mean(values.code_bits, group),
    "uniform": lambda values, group: uniform(values.code_bits, group),
    "sign": lambda values, group: sign(group),
    "fp4": lambda values, group: fp4(group),
    "fp16": lambda values, group: fp16(group),
    "fp32": lambda values, group: list(group),
}
VALUE_SHAPES: tuple[Shape, ...] = ((65, 20), (130,), (67,), (1,), (2, 3))


@pytest.mark.parametrize("kind", ["normal", "heavy", "ties", "wide", "zeros", "constant", "tiny"])
@pytest.mark.parametrize("values", variants(value_formats), ids=label)
def test_value_formats_equal_naive_loops(values: ValueFormat, kind: str) -> None:
    """Group by group, to the last bit."""
    codec = codec_of(compressors["dense"](), values, VALUE_SHAPES)
    row = content(kind, codec.num_parameters, seed=7).numpy()
    expected = np.zeros_like(row)
    for chunks in flat_chunks(VALUE_SHAPES):
        groups = chunks if getattr(values, "group", "tensor") == "chunk" else [np.concatenate(chunks)]
        for group in groups:
            expected[group] = NAIVE[values.kind](values, list(row[group]))
    (payload,), sent = codec.compress(torch.from_numpy(row)[None])
    assert np.array_equal(sent[0].numpy(), expected)
    assert np.array_equal(received(codec, payload).numpy(), expected)


def test_naive_loops_know_every_value_format() -> None:
    assert set(NAIVE) == set(value_formats)


@pytest.mark.parametrize("values", variants(value_formats), ids=label)
def test_groups_of_sparse_values_are_those_that_are_sent(values: ValueFormat) -> None:
    """What top-k leaves out does not enter a mean, a table or a largest value."""
    codec = codec_of(compressors["topk"](k=8), values, VALUE_SHAPES)
    row = content("heavy", codec.num_parameters, seed=8).numpy()
    expected = np.zeros_like(row)
    for chunks in flat_chunks(VALUE_SHAPES):
        kept = [sorted(largest(row, chunk, even_k(8, len(chunk)))) for chunk in chunks]
        groups = kept if getattr(values, "group", "tensor") == "chunk" else [list(itertools.chain.from_iterable(kept))]
        for group in groups:
            expected[group] = NAIVE[values.kind](values, list(row[group]))
    assert np.array_equal(codec.compress(torch.from_numpy(row)[None])[1][0].numpy(), expected)


def test_two_bit_edges() -> None:
    """At -2.25, -0.75 and +0.75 deviations: uniform decoding shows the code, -2 to 1 bins from the mean."""
    spread = np.linspace(-4, 4, 2049)
    background = np.random.default_rng(9).standard_normal(2**17 - len(spread))
    row = np.concatenate([spread, background - background.mean()]).astype(np.float32)
    codec = codec_of(compressors["dense"](), value_formats["uniform"](bits=2), [(len(row),)])
    sent = codec.compress(torch.from_numpy(row)[None])[1][0].numpy().astype(np.float64)
    deviation = row.astype(np.float64).std(ddof=1)
    mean = row.astype(np.float64).mean()
    codes = np.rint((sent - mean) / (1.5 * deviation))
    place = (row - mean) / deviation
    expected = -2.0 + (place > -2.25) + (place > -0.75) + (place > 0.75)
    assert np.array_equal(codes[: len(spread)], expected[: len(spread)])
    assert set(codes) == {-2.0, -1.0, 0.0, 1.0}


def test_fp4_has_fifteen_levels() -> None:
    """Of a size of 3: 0 and 3 / 64 ... 3 with either sign; the middle between two goes to the larger."""
    codec = codec_of(compressors["dense"](), value_formats["fp4"](), [(4096,)])
    row = torch.linspace(-3, 3, 4096)
    levels = codec.compress(row[None])[1][0].unique().tolist()
    magnitudes = [3 * 2.0**-power for power in range(7)]
    assert levels == sorted([0.0, *magnitudes, *(-size for size in magnitudes)])
    middles = torch.tensor([1.0, 0.75, -0.75, 0.375, 2.0**-7, 2.0**-7 * (1 - 2**-20), -(2.0**-8), 0.0])
    small = codec_of(compressors["dense"](), value_formats["fp4"](), [(8,)])
    assert small.compress(middles[None])[1][0].tolist() == [1.0, 1.0, -1.0, 0.5, 2.0**-6, 0.0, 0.0, 0.0]


DRAWS = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "laplace": lambda generator, shape: generator.laplace(size=shape),
    "t4": lambda generator, shape: generator.standard_t(4, size=shape),
}


def top_64_in_two_bits(draw: str, seed: int = 10) -> tuple[Row, Row]:
    """The 64 largest of 4096 values, 256 times, of one distribution; and what a receiver makes of them in 2 bits."""
    shapes = [(1024, 1024)]
    row = torch.from_numpy(DRAWS[draw](np.random.default_rng(seed), 1024 * 1024).astype(np.float32))[None]
    exact = codec_of(compressors["topk"](), FP32, shapes).compress(row)[1][0].numpy()
    coarse = codec_of(compressors["topk"](), value_formats["bin_mean"](bits=2), shapes).compress(row)[1][0].numpy()
    return exact[exact != 0], coarse[exact != 0]


@pytest.mark.parametrize(
    ("draw", "expected", "tolerance"), [("normal", 0.11, 0.005), ("laplace", 0.19, 0.01), ("t4", 0.48, 0.06)]
)
def test_error_of_two_bits_on_known_distributions(draw: str, expected: float, tolerance: float) -> None:
    """Relative errors that the protocol's description gives for top-64 of 4096, and through the wire."""
    exact, coarse = top_64_in_two_bits(draw)
    assert len(exact) == 256 * 64
    assert np.linalg.norm(coarse - exact) / np.linalg.norm(exact) == pytest.approx(expected, abs=tolerance)


def test_two_bits_of_gaussian_values_are_signs_and_of_heavy_tails_are_not() -> None:
    """Student-t(4): 29 % of what is sent arrives as nearly zero; Gaussian: nothing does, as if it were one bit."""
    exact, coarse = top_64_in_two_bits("normal")
    assert len(np.unique(coarse)) == 2
    assert np.array_equal(np.sign(coarse), np.sign(exact))
    exact, coarse = top_64_in_two_bits("t4")
    near_zero = np.abs(coarse) < 0.25 * np.abs(exact).mean()
    assert near_zero.mean() == pytest.approx(0.29, abs=0.06)


class NaiveCoding(NamedTuple):
    """The positions of one payload, bit by bit: a Rice parameter per chunk, and two strings of 0 and 1."""

    parameters: list[int]
    low: str
    unary: str

    @property
    def num_bytes(self) -> int:
        """Parameters, and each stream filled to a byte."""
        return len(self.parameters) + math.ceil(len(self.low) / 8) + math.ceil(len(self.unary) / 8)

    def written(self) -> bytes:
        """As bytes, the first bit of each lowest."""
        streams = (stream + "0" * (-len(stream) % 8) for stream in (self.low, self.unary))
        each = [int(stream[at : at + 8][::-1], 2) for stream in streams for at in range(0, len(stream), 8)]
        return bytes(self.parameters) + bytes(each)


Positions = list[list[int]]
"""Of each chunk its positions, ascending."""


def costs(positions: Sequence[int]) -> dict[int, int]:
    """Bits of a chunk with each parameter."""
    gaps = [place - before - 1 for before, place in itertools.pairwise([-1, *positions])]
    return {b: sum(b + (gap >> b) + 1 for gap in gaps) for b in range(16)}


def coded(chunks: Positions, parameters: Sequence[int] | None = None) -> NaiveCoding:
    """Code with the shortest parameters, the lowest of equals, or with given ones."""
    if parameters is None:
        parameters = [min(each, key=lambda b: (each[b], b)) for each in map(costs, chunks)]
    low, unary = "", ""
    for b, positions in zip(parameters, chunks, strict=True):
        before = -1
        for place in positions:
            gap = place - before - 1
            low += "".join(str(gap >> bit & 1) for bit in range(b))
            unary += "0" * (gap >> b) + "1"
            before = place
    return NaiveCoding(list(parameters), low, unary)


CODED_SHAPES: tuple[Shape, ...] = ((64, 128), (48, 64), (130,), (33,), (4,), (1,), (7, 9))
CODED_K = [1, 2, 7, 32, 64, 100, 500, 2000]


def positions_of(codec: TensorCodec, payload: bytes, shapes: Sequence[Shape], whole: int) -> Positions:
    """What each chunk of more than `whole` elements has in a payload."""
    sent = set(codec.decode(payload).index.tolist())
    chunks = itertools.chain.from_iterable(flat_chunks(shapes))
    return [[at for at, place in enumerate(chunk.tolist()) if place in sent] for chunk in chunks if len(chunk) > whole]


def position_bytes(payload: bytes, num_values: int, shapes: Sequence[Shape]) -> bytes:
    """The section of the positions, of a payload of fp32 values without headers or counts."""
    return payload[72 + 20 * len(shapes) : -4 - 4 * num_values]


@pytest.mark.parametrize("kind", ["normal", "zeros", "few", "ties"])
@pytest.mark.parametrize("k", CODED_K)
def test_entropy_coding_equals_a_coder_of_single_bits(k: int, kind: str) -> None:
    """Bytes and lengths, from one position to half of all, from random ones to runs of neighbors."""
    codec = codec_of(compressors["dct"](k=k), FP32, CODED_SHAPES, "entropy")
    row = content(kind, codec.num_parameters, seed=11)
    payload = codec.compress(row[None])[0][0]
    chunks = positions_of(codec, payload, CODED_SHAPES, whole=k)
    expected = coded(chunks)
    num_values = len(codec.decode(payload).value)
    assert len(payload) == 72 + 20 * len(CODED_SHAPES) + expected.num_bytes + 4 * num_values + 4
    assert position_bytes(payload, num_values, CODED_SHAPES) == expected.written()


def test_entropy_coding_chooses_among_many_parameters() -> None:
    """So that the test above has seen several; 0 is a bitmap that ends with its last one, so that none is needed."""
    chosen: set[int] = set()
    for k, kind in itertools.product(CODED_K, ("normal", "zeros")):
        codec = codec_of(compressors["dct"](k=k), FP32, CODED_SHAPES, "entropy")
        payload = codec.compress(content(kind, codec.num_parameters, seed=11)[None])[0][0]
        chosen |= set(coded(positions_of(codec, payload, CODED_SHAPES, whole=k)).parameters)
    assert chosen >= {0, 1, 2, 3, 4, 5, 6}


def test_only_the_shortest_code_is_accepted() -> None:
    """Every other parameter of a chunk says the same positions, and is refused: one set of values has one payload."""
    shapes = [(8, 8), (40,)]
    codec = codec_of(compressors["topk"](k=6), FP32, shapes, "entropy")
    payload = codec.compress(content("normal", codec.num_parameters, seed=12)[None])[0][0]
    head, tail = payload[: 72 + 20 * len(shapes)], payload[-4 - 4 * 12 : -4]
    chunks = positions_of(codec, payload, shapes, whole=6)
    best = coded(chunks)
    assert sealed(head + best.written() + tail) == payload
    for chunk, parameter in itertools.product(range(2), range(16)):
        parameters = best.parameters.copy()
        parameters[chunk] = parameter
        other = sealed(head + coded(chunks, parameters).written() + tail)
        if parameter == best.parameters[chunk]:
            assert other == payload
            continue
        with pytest.raises(InvalidPayload):
            codec.decode(other)
    for stream, last in [(best.low, len(best.parameters) + math.ceil(len(best.low) / 8) - 1), (best.unary, -1)]:
        assert len(stream) % 8, "a stream with room for a bit of padding"
        padded = bytearray(best.written())
        padded[last] |= 0x80
        with pytest.raises(InvalidPayload):
            codec.decode(sealed(head + padded + tail))


def sealed(body: bytes) -> bytes:
    """A body with a checksum."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_true_bits_per_index_of_64_in_4096() -> None:
    """Beside the bound log2(C(4096, 64)) / 64 = 7.36: Rice codes take 7.50 bits, their parameters 0.125 more.

    Top-k of independent values has uniform positions, so this is what a formula of random ones promises within 1 %.
    """
    bound = math.log2(math.comb(4096, 64)) / 64
    assert bound == pytest.approx(7.36, abs=0.01)
    shapes = [(1024, 1024)]
    codec = codec_of(compressors["topk"](), FP32, shapes, "entropy")
    payload = codec.compress(content("normal", codec.num_parameters, seed=13)[None])[0][0]
    num = 256 * 64
    bits = 8 * len(position_bytes(payload, num, shapes)) / num
    assert bound < bits - 8 / 64 < 7.53
    assert bound < bits < 7.65
    fixed = payload_bytes([(1, shapes[0])], compressors["topk"](), FP32, "bits12", "packed")
    formula = codec.regular_bytes - fixed + num * 12 / 8
    assert bits == pytest.approx(8 * formula / num, rel=0.01)
