"""How many are tolerated, who is chosen, what comes before an aggregator, and the weights of the gather list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from payloads import LAYOUT, N, forms, make, normal, payload_of, payloads_of
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from covsim.protocol.aggregators import (
    Aggregator,
    Bucketing,
    GauntletWeighted,
    Mean,
    Median,
    aggregators,
    clipped,
    falls_short,
    limits,
    pre_aggregators,
    prepared,
    reads_weights,
)
from covsim.protocol.aggregators.caf import filtered
from covsim.protocol.aggregators.columns import gram
from covsim.protocol.aggregators.distances import lowest, squared_distances
from covsim.protocol.aggregators.tolerance import Tolerated, wished
from covsim.protocol.aggregators.vertex_cover import coverable
from covsim.protocol.base import Decoded, Layout

# How many are tolerated -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "f", "tolerated"),
    [
        ("trimmed_mean", 3, {1: 0, 2: 0, 3: 1, 6: 2, 7: 3, 20: 3}),
        ("krum", 3, {1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 8: 2, 9: 3, 20: 3}),
        ("multi_krum", "40 %", {4: 0, 10: 3, 14: 5, 15: 6, 20: 8}),
        ("smea", 10, {15: 7, 20: 6, 24: 5, 70: 2}),  # 6435, 38760, 42504 and 2415 subsets
        ("caf", "20 %", {1: 0, 4: 0, 5: 1, 19: 3, 20: 4}),
    ],
)
def test_what_n_allows(kind: str, f: Any, tolerated: dict[int, int]) -> None:
    method: Any = make(kind, f=f)
    assert {num: method.tolerated(num) for num in tolerated} == tolerated


def test_a_round_of_too_few_can_be_told() -> None:
    """Krum wants 2 f + 3; behind buckets of two there are half as many."""
    assert [falls_short(make("krum", f=3), num) for num in (8, 9, 20)] == [True, False, False]
    bucketed = make("krum", f=3, before=[{"kind": "bucketing", "size": 2}])
    assert [falls_short(bucketed, num) for num in (9, 16, 17)] == [True, True, False]
    assert falls_short(make("median", before=[{"kind": "nnm", "f": 4}]), 4)
    assert not falls_short(make("median", before=["nnm"]), 1)
    assert not falls_short(Mean(), 1)


def test_krum_with_too_few_acts_as_with_the_most_that_n_allows() -> None:
    payloads = payloads_of(normal(8))
    assert torch.equal(make("krum", f=5).combine(payloads, LAYOUT), make("krum", f=2).combine(payloads, LAYOUT))


@pytest.mark.parametrize(("f", "num", "most"), [(3, 10, 3), (0.2, 20, 4), (0.2, 19, 3), (0.29, 100, 29), (0.0, 5, 0)])
def test_shares_are_rounded_down(f: float, num: int, most: int) -> None:
    assert wished(f, num) == most


@pytest.mark.parametrize("written", ["20 %", "0 %", 0, 4, 0.35])
def test_what_is_tolerated_survives_yaml(written: Any) -> None:
    adapter = TypeAdapter(Tolerated)
    read = adapter.validate_python(written)
    again = adapter.validate_python(adapter.dump_python(read, mode="json"))
    assert (again, type(again)) == (read, type(read))
    assert isinstance(read, int) == isinstance(written, int)


@pytest.mark.parametrize("setting", [{"f": -1}, {"f": "50 %"}, {"f": 1.5}, {"f": "many"}, {"before": ["nn"]}, {"g": 1}])
def test_settings_that_mean_nothing(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("multi_krum", **setting)


# Choosing -------------------------------------------------------------------------------------------------------------


def test_who_ties_shares_the_last_places() -> None:
    chosen = lowest(torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0, 9.0], dtype=torch.float64), 3)
    assert chosen.tolist() == pytest.approx([0, 1, 2 / 3, 2 / 3, 2 / 3, 0])


def test_copies_are_at_no_distance() -> None:
    """Long vectors that agree to the bit, among others: 1e-16 of their length is not a distance."""
    rows = 1e3 * normal(40, width=5000)
    rows[7] = rows[31]
    distances = squared_distances(gram(rows))
    assert distances[7, 31] == 0
    assert distances.count_nonzero() == 40 * 39 - 2
    expected = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    torch.testing.assert_close(distances, expected, rtol=1e-9, atol=1e-3)


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20), st.integers(0, 8))
def test_covers_by_all_choices(num: int, edges: list[tuple[int, int]], budget: int) -> None:
    edges = [(a % num, b % num) for a, b in edges if a % num != b % num]
    graph = [0] * num
    for a, b in edges:
        graph[a] |= 1 << b
        graph[b] |= 1 << a
    possible = any(
        all(a in chosen or b in chosen for a, b in edges) for chosen in combinations(range(num), min(budget, num))
    )
    assert coverable(graph, budget) == possible


def test_least_diameter_among_seventy() -> None:
    """14 of 70 lie elsewhere; all subsets would be 2e14."""
    rows = normal(70)
    rows[:14] += 4 + normal(14, seed=2)
    found = make("mda", f=14).combine(payloads_of(rows), LAYOUT)
    torch.testing.assert_close(found, rows[14:].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_filter_comes_to_an_end_however_far_out_one_lies() -> None:
    """With who lost its weight still setting the scale, others would lose theirs in steps of 1e-60."""
    rows = normal(12).double()
    rows[0] *= 1e30
    weights = filtered(rows @ rows.T, 4)
    assert weights[0] == 0
    assert weights.sum() == pytest.approx(1)


# Before, and the whole chain ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsent", ["senders", "zero_filled"])
def test_mixes_of_sparse_payloads_by_hand(unsent: str) -> None:
    payloads = payloads_of(normal(7), 0.4)
    dense, sent = torch.zeros(7, N), torch.zeros(7, N)
    for row, said, each in zip(dense, sent, payloads, strict=True):
        row[each.index], said[each.index] = each.value, 1.0
    part = pre_aggregators["nnm"].model_validate({"f": 3, "unsent": unsent})
    near = torch.cdist(dense.double(), dense.double()).argsort(dim=1)[:, :4]
    for place, mix in enumerate(part.prepare(payloads, LAYOUT, np.random.default_rng(0))):
        said = sent[near[place]].sum(dim=0)
        assert torch.equal(mix.index, (said > 0).nonzero().squeeze(1))
        over = said[mix.index] if unsent == "senders" else 4
        torch.testing.assert_close(mix.value, dense[near[place]].sum(dim=0)[mix.index] / over, rtol=1e-5, atol=1e-6)


def test_buckets_claim_the_tokens_of_all_in_them() -> None:
    everything = torch.ones(N, dtype=torch.bool)
    payloads = [payload_of(row, everything, tokens=10, weight=0.5) for row in normal(5)]
    buckets = Bucketing(size=2).prepare(payloads, LAYOUT, np.random.default_rng(1))
    assert sorted(each.claims.tokens for each in buckets) == [10, 20, 20]
    assert [each.weight for each in buckets] == [0.5] * 3


def test_limits_follow_each_other_until_payloads_are_mixed() -> None:
    payloads = payloads_of(normal(6) * torch.arange(1.0, 7.0)[:, None])
    for before, count, own in (
        ([{"kind": "norm_clip", "norm": 9.0}, "arc"], 2, Mean()),
        ([{"kind": "norm_clip", "norm": 9.0}, "nnm", "arc"], 1, Mean()),
        (["nnm"], 0, Mean()),
        (["median_norm"], 1, Median()),
    ):
        method = type(own).model_validate({"before": before})
        found = limits(method, payloads)
        mixes = any(each == "nnm" for each in before)
        assert len(found) == count + (isinstance(own, Mean) and not mixes)
        if not mixes:
            ready = prepared(method, payloads, LAYOUT, np.random.default_rng)
            applied = payloads
            for limit in found[:count]:
                applied = [clipped(each, limit) for each in applied]
            for one, other in zip(ready, applied, strict=True):
                assert torch.equal(one.value, other.value)
    assert limits(Mean.model_validate({"before": ["arc"]}), []) == ()


def test_a_clip_of_the_whole_keeps_the_direction() -> None:
    (payload,) = payloads_of(normal(1))
    half = clipped(payload, payload.norms.norm() / 2)
    torch.testing.assert_close(half.value, payload.value / 2)
    torch.testing.assert_close(half.norms, payload.norms / 2)
    assert torch.equal(clipped(payload, payload.norms.norm() * 2).value, payload.value)


# Weights from the gather list -----------------------------------------------------------------------------------------


def weighing(rows: Tensor, weights: Sequence[float], density: float = 1.0) -> list[Decoded]:
    draw = torch.rand(rows.shape, generator=torch.Generator().manual_seed(3))
    return [payload_of(row, u < density, weight=weight) for row, u, weight in zip(rows, draw, weights, strict=True)]


def test_heavier_peers_count_for_more() -> None:
    rows = normal(3)
    found = GauntletWeighted(clip="none").combine(weighing(rows, [0.3, 0.1, 0.0]), LAYOUT)
    torch.testing.assert_close(found, 0.75 * rows[0] + 0.25 * rows[1])


def test_where_nobody_has_weight_all_count_alike() -> None:
    payloads = weighing(normal(4), [0.0] * 4, 0.5)
    for clip in ("none", "median_norm"):
        expected = Mean(clip=clip).combine(payloads, LAYOUT)
        torch.testing.assert_close(GauntletWeighted(clip=clip).combine(payloads, LAYOUT), expected)


@pytest.mark.parametrize("over", ["senders", "all"])
def test_tiny_weights_count_as_their_ratio_does(over: str) -> None:
    rows, weights = normal(3), [0.3, 0.1, 0.2]
    method = GauntletWeighted.model_validate({"over": over})
    small = method.combine(weighing(rows, [1e-9 * weight for weight in weights], 0.5), LAYOUT)
    torch.testing.assert_close(small, method.combine(weighing(rows, weights, 0.5), LAYOUT))


def test_only_some_read_weights() -> None:
    assert {kind for kind in aggregators if reads_weights(make(kind))} == {"gauntlet_weighted", "monna"}
    heavy, light = weighing(normal(5), [0.9, 0, 0, 0, 0]), weighing(normal(5), [0.0] * 5)
    for each in forms():
        same = torch.equal(each.combine(heavy, LAYOUT), each.combine(light, LAYOUT))
        assert same or reads_weights(each), each


# A user's own ---------------------------------------------------------------------------------------------------------


def test_an_aggregator_that_knows_nothing_of_rows_stands_behind_mixes() -> None:
    """One that only sees sparse payloads, as a plugin's may: what comes before it is done all the same."""
    seen: list[int] = []

    class Plain(Aggregator):
        kind: str = "plain"

        def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
            seen.append(len(payloads))
            total = torch.zeros(layout.num_parameters)
            for each in payloads:
                total[each.index] += each.value / len(payloads)
            return total

        def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
            return None

    method = Plain.model_validate({"before": [{"kind": "bucketing", "size": 2, "unsent": "zero_filled"}]})
    payloads = payloads_of(normal(6), 0.5)
    found = method.combine(prepared(method, payloads, LAYOUT, np.random.default_rng), LAYOUT)
    assert seen == [3]
    torch.testing.assert_close(found, Mean(over="all", clip="none").combine(payloads, LAYOUT))
    assert not falls_short(method, 6)


@pytest.mark.parametrize("kind", list(pre_aggregators))
def test_what_comes_before_leaves_payloads_as_they_were(kind: str) -> None:
    part = pre_aggregators[kind].model_validate({"kind": kind})
    payloads = payloads_of(normal(6), 0.5)
    kept = [(each.value.clone(), each.norms.clone()) for each in payloads]
    ready = part.prepare(payloads, LAYOUT, np.random.default_rng(0))
    assert len(ready) == part.num_left(6)
    for each, (value, norms) in zip(payloads, kept, strict=True):
        assert torch.equal(each.value, value)
        assert torch.equal(each.norms, norms)
    again = part.prepare(payloads, LAYOUT, np.random.default_rng(0))
    assert all(torch.equal(one.value, other.value) for one, other in zip(ready, again, strict=True))
