"""What holds for every aggregator whatever the payloads, and what it makes of coordinates that were not sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from payloads import COORDINATES, LAYOUT, TOLERANT, N, forms, make, normal, payload_of, payloads_of

from covsim.protocol.aggregators import (
    Aggregator,
    Mean,
    Median,
    Nnm,
    Rows,
    SignMajority,
    TrimmedMean,
    pre_aggregators,
    prepared,
)
from covsim.protocol.aggregators.columns import BLOCK
from covsim.protocol.base import Claims, Layout


@pytest.fixture(params=list(forms()), ids=lambda each: f"{each.kind}-{getattr(each, 'unsent', '')}")
def aggregator(request: pytest.FixtureRequest) -> Aggregator:
    made = request.param
    assert isinstance(made, Aggregator)
    return made


# For all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_the_order_of_payloads_does_not_matter(aggregator: Aggregator, density: float) -> None:
    """Also where payloads repeat others, which makes ties."""
    payloads = payloads_of(normal(9), density)
    payloads += payloads[:2]
    expected = aggregator.combine(payloads, LAYOUT)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(payloads))
        found = aggregator.combine([payloads[place] for place in order], LAYOUT)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_bits_do_not_depend_on_the_number_of_threads(aggregator: Aggregator, density: float, threads: None) -> None:
    """Over several blocks of columns, the last one short; Nnm first, so that mixing is seen too."""
    layout = Layout(((2 * BLOCK + 1234,), (BLOCK,)))
    payloads = payloads_of(normal(11, width=layout.num_parameters), density, layout)
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        mixed = Nnm(f=3).prepare(payloads, layout, np.random.default_rng(0))
        found.append((aggregator.combine(payloads, layout), aggregator.combine(mixed, layout)))
        assert torch.get_num_threads() == number
    for one, other in found[1:]:
        assert torch.equal(one, found[0][0])
        assert torch.equal(other, found[0][1])


@pytest.mark.parametrize("weights", [[1.0] * 11, list(range(1, 12))])
def test_bits_of_means_do_not_depend_on_the_number_of_threads(weights: list[float], threads: None) -> None:
    """Of whole rows too, whose equal mean is one call; and all ways to it agree."""
    layout = Layout(((5 * BLOCK + 77,),))
    payloads = payloads_of(normal(11, width=layout.num_parameters), 1.0, layout)
    rows, asked = Rows.of(payloads, layout), torch.tensor(weights, dtype=torch.float64)
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(rows.mean(asked, "senders"))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    claiming = [replace(each, claims=Claims(tokens=int(w))) for each, w in zip(payloads, weights, strict=True)]
    method = Mean(clip="none", weights="tokens")
    torch.testing.assert_close(method.combine(claiming, layout), found[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.combine(Rows.of(claiming, layout), layout), found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("f", [0, 1, 5, 0.49])
def test_few_payloads_never_fail_a_round(aggregator: Aggregator, num: int, f: float) -> None:
    """Whatever is to be tolerated, and before whatever: the result is finite, and 0 where nobody sent anything."""
    if "f" in type(aggregator).model_fields:
        aggregator = make(aggregator.kind, f=f)  # type: ignore[attr-defined]
    payloads = payloads_of(normal(num), 0.4)
    for before in ([], [pre_aggregators[kind].model_validate({"kind": kind}) for kind in pre_aggregators]):
        chain = aggregator.model_copy(update={"before": before})
        ready = prepared(chain, payloads, LAYOUT, np.random.default_rng)
        found = chain.combine(ready, LAYOUT)
        assert found.isfinite().all()
        unsent = torch.ones(N, dtype=torch.bool)
        for each in payloads:
            unsent[each.index] = False
        assert (found[unsent] == 0).all()


def test_payloads_that_say_nothing(aggregator: Aggregator) -> None:
    """No values at all, or only zeros."""
    nothing = [payload_of(torch.zeros(N), torch.zeros(N, dtype=torch.bool))] * 3
    zeros = [payload_of(torch.zeros(N), torch.ones(N, dtype=torch.bool))] * 3
    for payloads in (nothing, zeros, [*nothing, *zeros]):
        assert torch.equal(aggregator.combine(payloads, LAYOUT), torch.zeros(N))


def test_where_all_agree_that_is_the_result(aggregator: Aggregator) -> None:
    row = normal(1)[0]
    found = aggregator.combine(payloads_of(row.expand(7, N)), LAYOUT)
    expected = row if aggregator.kind != "sign_majority" else row.sign() * found.abs()  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected)


def test_loud_payloads_cannot_hang_or_fail_it(aggregator: Aggregator) -> None:
    """Some are 1e25 times as long as the others, valid in form."""
    rows = normal(9)
    rows[:2] *= 1e25
    assert not aggregator.combine(payloads_of(rows), LAYOUT).isnan().any()


@pytest.mark.parametrize("kind", [*COORDINATES, "geometric_median", "krum", "multi_krum", "mda", "smea", "caf"])
def test_a_shift_of_all_shifts_the_result(kind: str) -> None:
    rows, shift = normal(9), 3 * normal(1, seed=1)[0]
    method = make(kind)
    there = method.combine(payloads_of(rows + shift), LAYOUT)
    torch.testing.assert_close(there, method.combine(payloads_of(rows), LAYOUT) + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TOLERANT)
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_tolerating_nobody_is_the_mean(kind: str, density: float) -> None:
    payloads = payloads_of(normal(8), density)
    found = make(kind, f=0).combine(payloads, LAYOUT)
    if kind == "krum":  # it chooses one
        assert any(torch.equal(found[each.index], each.value) for each in payloads)
    else:
        torch.testing.assert_close(found, Mean(clip="none").combine(payloads, LAYOUT), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(3, 12), st.sampled_from(["median", "trimmed_mean"]))
def test_as_many_as_tolerated_move_no_coordinate_out_of_the_honest_range(seed: int, num: int, kind: str) -> None:
    f = (num - 1) // 2
    rows = normal(num, seed)
    rows[:f] = 1e4 * normal(f, seed + 1)
    method = make(kind) if kind == "median" else make(kind, f=f)
    found = method.combine(payloads_of(rows), LAYOUT)
    assert (found >= rows[f:].amin(dim=0) - 1e-6).all()
    assert (found <= rows[f:].amax(dim=0) + 1e-6).all()


@pytest.mark.parametrize("kind", [*TOLERANT, "median", "geometric_median", "centered_clipping", "sign_majority"])
def test_a_fifth_that_pushes_the_other_way_does_not_win(kind: str) -> None:
    """Honest payloads share a direction; two of ten send its opposite, ten times as long. The mean turns round."""
    truth = normal(1, seed=5)[0]
    rows = truth + 0.5 * normal(10)
    rows[:2] = -10 * truth
    method = make(kind, f=2) if kind in TOLERANT else make(kind)
    assert torch.dot(method.combine(payloads_of(rows), LAYOUT), truth) > 0.3 * truth.square().sum()
    assert torch.dot(Mean(clip="none").combine(payloads_of(rows), LAYOUT), truth) < 0


# What was not sent ----------------------------------------------------------------------------------------------------


def by_hand(values: list[float], kind: str, f: int) -> float:
    """One coordinate, straight from the definitions."""
    ordered = sorted(values)
    cut = min(f, (len(ordered) - 1) // 2)
    if kind == "trimmed_mean":
        return float(np.mean(ordered[cut : len(ordered) - cut]))
    middle = float(np.median(ordered))
    if kind == "median":
        return middle
    return float(np.mean(sorted(ordered, key=lambda value: abs(value - middle))[: len(ordered) - cut]))


@pytest.mark.parametrize("unsent", ["senders", "zero_filled"])
@pytest.mark.parametrize("kind", COORDINATES)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 9), density=st.floats(0, 1))
def test_coordinates_by_hand(kind: str, unsent: str, seed: int, num: int, density: float) -> None:
    payloads = payloads_of(normal(num, seed), density, seed=seed)
    f = min(2, (num - 1) // 2)
    method = make(kind, unsent=unsent, **({} if kind == "median" else {"f": 2}))
    heard: list[list[float]] = [[] for _ in range(N)]
    for payload in payloads:
        for place, value in zip(payload.index.tolist(), payload.value.tolist(), strict=True):
            heard[place].append(value)
    if unsent == "zero_filled":
        heard = [values + [0.0] * (num - len(values)) for values in heard]
    found = method.combine(payloads, LAYOUT)
    if kind == "meamed" and unsent == "zero_filled":  # zeros tie around a median of 0, and windows that tie share
        heard = [values if values.count(0.0) < 2 else [] for values in heard]
        found = torch.where(torch.tensor([bool(values) for values in heard]), found, 0.0)
    expected = [by_hand(values, kind, f) if values else 0.0 for values in heard]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_zero_filled_medians_of_sparse_payloads_are_zero_and_those_of_senders_are_not() -> None:
    payloads = payloads_of(normal(10), 0.05)
    assert not Median(unsent="zero_filled").combine(payloads, LAYOUT).any()
    assert Median(unsent="senders").combine(payloads, LAYOUT).any()


def test_a_coordinate_that_one_peer_sent_is_that_peers_to_decide() -> None:
    alone = torch.zeros(N, dtype=torch.bool)
    alone[3] = True
    payloads = [payload_of(torch.full((N,), 9.0), alone), *(payload_of(row, ~alone) for row in normal(8))]
    assert TrimmedMean(f=4).combine(payloads, LAYOUT)[3] == 9.0
    assert TrimmedMean(f=4, unsent="zero_filled").combine(payloads, LAYOUT)[3] == 0.0


def test_rows_give_back_what_was_put_in() -> None:
    payloads = payloads_of(normal(5), 0.3)
    rows = Rows.of(payloads, LAYOUT)
    assert rows.values.shape[1] < N
    assert Rows.of(rows, LAYOUT) is rows
    for before, after in zip(payloads, rows, strict=True):
        for name in ("index", "value", "norms", "tensor_of", "kept_share"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name
        assert before.tensor_bounds == after.tensor_bounds
    assert [each.claims for each in rows[1:3]] == [each.claims for each in payloads[1:3]]


@pytest.mark.parametrize(("unsent", "votes"), [("senders", [1, 1, -1, 0, 0]), ("zero_filled", [1, 0, 0, 0, 0])])
def test_signs_by_vote(unsent: str, votes: list[int]) -> None:
    """Three of three for it; one of one; one of one against; one each; nobody. Each payload's rms there is 2."""
    layout = Layout(((5,),))
    said = [{0: 2.0, 1: 2.0, 3: 2.0}, {0: 2.0, 2: -2.0}, {0: 2.0, 3: -2.0}]
    payloads = []
    for each in said:
        row, sent = torch.zeros(5), torch.zeros(5, dtype=torch.bool)
        for place, value in each.items():
            row[place], sent[place] = value, True
        payloads.append(payload_of(row, sent, layout))
    assert make("sign_majority", unsent=unsent).combine(payloads, layout).tolist() == [2.0 * vote for vote in votes]


def test_signs_pay_no_attention_to_length() -> None:
    rows = normal(9)
    loud = rows.clone()
    loud[0] *= 1e6
    plain = SignMajority().combine(payloads_of(rows), LAYOUT)
    torch.testing.assert_close(SignMajority().combine(payloads_of(loud), LAYOUT), plain, rtol=0.2, atol=0)
