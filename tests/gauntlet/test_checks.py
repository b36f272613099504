"""Put window, losses that are not finite, and overlap between payloads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from gauntlet_windows import seen
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.gauntlet.checks import Overlap, find_overlaps, overlap_matrix, settle, submission_status
from covsim.gauntlet.evidence import Evidence
from covsim.protocol.base import Codec, Decoded
from covsim.protocol.codec import TensorCodec
from covsim.protocol.compressors import Threshold, TopK
from covsim.protocol.values import BinMean

SHAPES = [(64, 128), (64,), (32, 64), (16,), (128, 64)]


def codec_of(k: int, shapes: Sequence[tuple[int, ...]]) -> TensorCodec:
    return TensorCodec(shapes, TopK(k=k), BinMean(), "bits12", "packed")


CODEC = codec_of(32, SHAPES)


def payloads(rows: torch.Tensor, codec: Codec = CODEC) -> list[Decoded]:
    return [codec.decode(payload) for payload in codec.compress(rows)[0]]


def noise(count: int, seed: int = 0, num_parameters: int = CODEC.num_parameters) -> torch.Tensor:
    return torch.randn(count, num_parameters, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("stored_s", "status"),
    [(None, "missing"), (99.999, "early"), (100.0, "ok"), (169.999, "ok"), (170.0, "late"), (math.inf, "late")],
)
def test_the_put_window_is_half_open(stored_s: float | None, status: str) -> None:
    assert submission_status(stored_s, opens_s=100.0, closes_s=170.0) == status


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["own_after", "random_after"])
def test_a_loss_that_explodes_after_the_trial_step_is_an_invalid_payload(field: str, loss: float) -> None:
    row = settle(replace(seen(0, gain=0.1), **{field: loss}))
    assert row.status == "invalid"
    assert row.problem.startswith("losses after the trial step are")


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0])
@pytest.mark.parametrize("field", ["own_before", "random_before"])
def test_a_broken_loss_before_is_the_validators_own_trouble(field: str, loss: float) -> None:
    row = settle(replace(seen(0, gain=0.1), **{field: loss}))
    assert row.status == "unseen"
    assert not row.measured


def test_losses_too_far_apart_for_a_score_are_an_invalid_payload() -> None:
    row = replace(seen(0, gain=0.1), random_before=1e-300, random_after=1e300)
    assert settle(row).status == "invalid"


@pytest.mark.parametrize("field", ["own_after", "random_after"])
def test_a_loss_below_0_is_no_improvement_but_a_lie(field: str) -> None:
    assert settle(replace(seen(0, gain=0.1), **{field: -1e-9})).status == "invalid"
    assert settle(replace(seen(0, gain=0.1), **{field: 0.0})).status == "ok"


def test_settled_evidence_stays_as_it_is() -> None:
    for row in (seen(0, gain=-0.5), Evidence(uid=1, status="missing"), Evidence(uid=2, status="ok", gathered=True)):
        assert settle(row) == row


def one_by_one(first: Decoded, second: Decoded, shapes: Sequence[tuple[int, ...]], k: int) -> float:
    """The definition: mean over a tensor's chunks of the share of common indices, weighted by the tensor's indices."""
    total = weight = 0.0
    start = 0
    for shape in shapes:
        rows, columns = (1, shape[0]) if len(shape) == 1 else shape
        high, wide = (next(d for d in range(64, 0, -1) if side % d == 0) for side in (rows, columns))
        if high * wide > k:
            kept: list[dict[tuple[int, int], set[int]]] = [{}, {}]
            for chosen, payload in zip(kept, (first, second), strict=True):
                for place in payload.index.tolist():
                    if start <= place < start + rows * columns:
                        row, column = divmod(place - start, columns)
                        chosen.setdefault((row // high, column // wide), set()).add(place)
            shares = [len(kept[0][chunk] & kept[1][chunk]) / k for chunk in kept[0]]
            total += len(shares) * k * float(np.mean(shares))
            weight += len(shares) * k
        start += rows * columns
    return total / weight


def test_overlap_is_the_mean_share_per_chunk_weighted_by_size() -> None:
    rows = noise(3) + 2 * noise(1, seed=1)  # a common part, so that the three agree somewhat
    rows[2, :8192] = rows[0, :8192]  # and one tensor in common
    decoded = payloads(rows)
    matrix = overlap_matrix(decoded)
    for i in range(3):
        for j in range(3):
            assert float(matrix[i, j]) == pytest.approx(one_by_one(decoded[i], decoded[j], SHAPES, k=32), abs=1e-6)
    assert 0.1 < float(matrix[0, 1]) < float(matrix[0, 2]) < 1


def test_copies_agree_wholly_and_strangers_by_chance() -> None:
    rows = noise(12)
    rows[11] = 0.3 * rows[4]  # a copy under another scale
    matrix = overlap_matrix(payloads(rows))
    assert torch.equal(matrix, matrix.T)
    assert torch.equal(matrix.diagonal(), torch.ones(12))
    assert float(matrix[4, 11]) == 1.0
    strangers = matrix[:11, :11][~torch.eye(11, dtype=torch.bool)]
    chunk_sizes = (4096, 4096, 64, 2048, 4096, 4096)  # the vector of 16 is sent whole
    chance = float(np.mean([32 / size for size in chunk_sizes]))
    assert float(strangers.mean()) == pytest.approx(chance, rel=0.05)
    assert float(strangers.max()) < 0.15


def test_payloads_without_indices_cannot_be_compared() -> None:
    codec = codec_of(64, [(8, 8), (16,)])
    decoded = payloads(noise(2, num_parameters=80), codec)
    assert torch.isnan(overlap_matrix(decoded)).all()
    assert find_overlaps([0, 1], [0.0, 1.0], decoded) == {}


def test_nobody_overlaps_alone() -> None:
    assert overlap_matrix([]).shape == (0, 0)
    assert overlap_matrix(payloads(noise(1))).tolist() == [[1.0]]
    assert find_overlaps([5], [1.0], payloads(noise(1))) == {}


def test_the_later_uploader_is_named_with_the_one_it_resembles_most() -> None:
    rows = noise(3)
    rows[1] = rows[2]
    decoded = payloads(rows)
    found = find_overlaps([10, 20, 30], [5.0, 9.0, 7.0], decoded)
    assert found[20] == Overlap(1.0, 30, 7.0)
    assert found[30].with_uid == 10
    assert found[30].share < 0.15
    assert 10 not in found  # nobody was earlier


def test_on_equal_stamps_both_count_as_later() -> None:
    rows = noise(2)
    rows[1] = rows[0]
    found = find_overlaps([8, 3], [5.0, 5.0], payloads(rows))
    assert (found[8].with_uid, found[3].with_uid) == (3, 8)
    assert found[8].share == found[3].share == 1.0


def test_stamps_of_the_round_before_make_the_victim_the_later_one() -> None:
    """Peer 9 copies 4 and uploads after it, but was the earlier one in the round before."""
    rows = noise(3)
    rows[1] = rows[0]
    decoded, stored_s = payloads(rows), [5.0, 8.0, 6.0]
    honest = find_overlaps([4, 9, 7], stored_s, decoded)
    assert honest[9] == Overlap(1.0, 4, 5.0)
    assert 4 not in honest
    quirk = find_overlaps([4, 9, 7], stored_s, decoded, [3.0, 1.0, 2.0])
    assert quirk[4] == Overlap(1.0, 9, 8.0)  # the stamp reported is that of this round
    assert 9 not in quirk
    assert quirk[7].with_uid == 9


def test_who_had_no_stamp_in_the_round_before_came_before_everybody() -> None:
    rows = noise(3)
    rows[1] = rows[0]
    decoded, stored_s = payloads(rows), [5.0, 8.0, 9.0]
    newcomer_copies = find_overlaps([4, 9, 7], stored_s, decoded, [3.0, math.nan, math.nan])
    assert newcomer_copies[4].with_uid == 9  # the victim
    assert newcomer_copies[9] == Overlap(newcomer_copies[7].share, 7, 9.0)  # later than another newcomer only
    assert newcomer_copies[9].share < 0.15
    two_newcomers = find_overlaps([4, 9, 7], stored_s, decoded, [math.nan, math.nan, 1.0])
    assert two_newcomers[4].share == two_newcomers[9].share == 1.0


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), stamps=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_listing_order_changes_nothing(order: list[int], stamps: list[int]) -> None:
    rows = noise(6)
    rows[3] = rows[1]
    decoded = payloads(rows)
    listed = find_overlaps(range(6), [float(stamp) for stamp in stamps], decoded)
    again = find_overlaps(order, [float(stamps[uid]) for uid in order], [decoded[uid] for uid in order])
    assert listed == again


def test_overlap_of_payloads_of_unequal_length_is_a_share_of_ones_own() -> None:
    """A threshold sends 4 of one row and 2 of another, both of which the first one sends too."""
    codec = TensorCodec([(64, 64)], Threshold(factor=3.0), BinMean(), "bits12", "packed")
    rows = torch.zeros(2, 64 * 64)
    rows[0, [5, 80, 1000, 4000]] = 1.0
    rows[1, [80, 4000]] = 1.0
    assert overlap_matrix(payloads(rows, codec)).tolist() == [[1.0, 0.5], [1.0, 1.0]]
