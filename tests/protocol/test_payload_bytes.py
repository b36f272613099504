"""Payload sizes by formula: at the size of 72 billion parameters, against published figures, and against real bytes."""

from __future__ import annotations

import math

import pytest
from strategies import SMALL_SHAPES, Combination, combinations, label, variants

from covsim.protocol.base import Shape
from covsim.protocol.codec import payload_bytes
from covsim.protocol.compressors import Compressor, compressors
from covsim.protocol.values import value_formats
from covsim.scenario.deployment import COVENANT_72B, Groups, num_parameters
from covsim.sweep.papers.sizes import DEMO_1208M, DEMO_PUBLISHED, DENSE_1B

TOPK = compressors["topk"]()
BIN_MEAN = value_formats["bin_mean"]()


def test_covenant_72b_payload() -> None:
    """Target A1: 1.989 GB per payload, 146.3 times less than fp32, 73.1 times less than bf16."""
    parameters = num_parameters(COVENANT_72B)
    assert parameters == 72_747_327_488
    payload = payload_bytes(COVENANT_72B, TOPK, BIN_MEAN, "bits12", "packed")
    assert payload == pytest.approx(1.989e9, rel=0.01)
    assert 4 * parameters / payload == pytest.approx(146.3, rel=0.01)
    assert 2 * parameters / payload == pytest.approx(73.1, rel=0.01)


def test_covenant_72b_payload_as_deployed() -> None:
    """Target A2: with a byte per code, 2.84 GB and 102 times."""
    payload = payload_bytes(COVENANT_72B, TOPK, BIN_MEAN, "bits12", "byte_per_value")
    assert payload == pytest.approx(2.84e9, rel=0.01)
    assert 4 * num_parameters(COVENANT_72B) / payload == pytest.approx(102, rel=0.01)


def bits_per_index(indices: str) -> float:
    """What one index of 64 in 4096 costs, by the length of payloads with one and with two chunks more of a tensor."""
    groups: list[tuple[Groups, float]] = [(((1, (64, 64 * chunks)),), 64 * chunks) for chunks in (1000, 2000)]
    few, many = (8 * payload_bytes(group, TOPK, BIN_MEAN, indices, "packed") for group, _ in groups)
    return (many - few) / (groups[1][1] - groups[0][1]) - 2


def test_index_entropy_bound() -> None:
    """Target A3: choosing 64 of 4096 takes at least 7.36 bits per index.

    Entropy coding takes 7.62 by formula, of which 0.125 are the byte per chunk that names its Rice parameter; fixed
    widths take what their names say.
    """
    bound = math.log2(math.comb(4096, 64)) / 64
    assert bound == pytest.approx(7.36, abs=0.01)
    assert bound < bits_per_index("entropy") < 7.63
    assert [bits_per_index(indices) for indices in ("bits12", "bits16", "int64")] == [12, 16, 64]


def test_entropy_coding_makes_the_72b_payload_smaller_by_its_bits() -> None:
    """9.6 bits per value instead of 14: 31 % less."""
    coded, fixed = (payload_bytes(COVENANT_72B, TOPK, BIN_MEAN, each, "packed") for each in ("entropy", "bits12"))
    assert coded / fixed == pytest.approx(9.62 / 14, rel=0.01)


@pytest.mark.parametrize(("k", "published"), DEMO_PUBLISHED.items())
def test_demo_traffic_per_step(k: int, published: float) -> None:
    """Target A10: 1.208 B parameters in chunks of 64 x 64. Published: 11.7 bytes per coefficient; here 8 + 4.

    That is 2.6 % more, and for k = 1 the headers of 133 tensors make it 2.9 %.
    """
    assert num_parameters(DEMO_1208M) == pytest.approx(1.208e9, rel=0.001)
    assert all(side % 64 == 0 for _, shape in DEMO_1208M for side in shape)
    sent = payload_bytes(DEMO_1208M, compressors["dct"](k=k), value_formats["fp32"](), "int64", "packed")
    assert sent == pytest.approx(published, rel=0.03)
    assert published / (num_parameters(DEMO_1208M) / 4096 * k) == pytest.approx(11.7, rel=0.01)


@pytest.mark.parametrize("four_bits", [{"kind": "fp4"}, {"kind": "bin_mean", "bits": 4}], ids=["fp4", "bin_mean"])
def test_streaming_diloco_traffic_ratio(four_bits: dict[str, object]) -> None:
    """Target A11: 16 bits at every step against 4 bits at every hundredth: 400 times less."""
    kind = str(four_bits["kind"])
    every_step = payload_bytes(DENSE_1B, compressors["dense"](), value_formats["fp16"](), "bits12", "packed")
    seldom = payload_bytes(
        DENSE_1B, compressors["dense"](), value_formats[kind].model_validate(four_bits), "bits12", "packed"
    )
    assert 100 * every_step / seldom == pytest.approx(400, rel=0.02)


@pytest.mark.parametrize("compressor", variants(compressors), ids=label)
def test_sizes_of_72b_parameters_are_those_of_the_rules(compressor: Compressor) -> None:
    """By formula alone: as many values as the rule says, but for vectors, which some send whole."""
    rows = sum(count * (shape[0] if len(shape) == 2 else 1) for count, shape in COVENANT_72B)
    shares = {"dense": 1.0, "topk": 64 / 4096, "random_k": 64 / 4096, "dct": 32 / 4096, "threshold": 0.0027}
    of_rows = getattr(compressor, "layout", "blocks") == "rows" and hasattr(compressor, "k")
    kept = 64 * rows if of_rows else shares[compressor.kind] * num_parameters(COVENANT_72B)
    fp16, fp32 = (
        payload_bytes(COVENANT_72B, compressor, value_formats[kind](), "entropy", "packed") for kind in ("fp16", "fp32")
    )
    assert (fp32 - fp16) / 2 == pytest.approx(kept, rel=0.002)
    one_more = payload_bytes([*COVENANT_72B, (1, (64, 64))], compressor, value_formats["fp32"](), "entropy", "packed")
    assert 20 < one_more - fp32 <= 20 + 4 * 4096


@pytest.mark.parametrize("combination", combinations(SMALL_SHAPES, k=6), ids=lambda each: each.name)
def test_counts_and_single_tensors_give_the_same_size(combination: Combination) -> None:
    """A count is so many tensors, and the codec says what the formula says."""
    groups: Groups = ((3, (64, 64)), (1, (7, 9)), (2, (33,)), (2, (1,)))
    shapes: list[Shape] = [shape for count, shape in groups for _ in range(count)]
    assert payload_bytes(groups, *combination) == payload_bytes(((1, shape) for shape in shapes), *combination)
    assert payload_bytes(groups, *combination) == combination.codec(shapes).regular_bytes
