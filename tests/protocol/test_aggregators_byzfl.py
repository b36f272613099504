"""The numbers of ByzFL 0.0.11, method by method; skipped where it is not installed (`pip install --no-deps byzfl`).

ByzFL gets the dense vectors in float64, so that what is compared is the rule. Where it draws at random (bucketing, the
power iterations of CAF and SMEA), the test takes the luck out and says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from byzfl_parts import byzfl
from numpy.typing import NDArray

from covsim.protocol.aggregators import Aggregator, Mean, PreAggregator, Rows, aggregators, pre_aggregators
from covsim.protocol.aggregators.centers import CenteredClipping, GeometricMedian
from covsim.protocol.aggregators.columns import gram
from covsim.protocol.aggregators.krum import nearest_to
from covsim.protocol.aggregators.rows import Header
from covsim.protocol.base import Claims, Decoded, Layout

Floats = NDArray[np.float64]

SIZES = [(11, 2), (16, 3), (9, 3), (23, 10), (5, 1)]


@pytest.fixture(params=SIZES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Floats, int]:
    """n vectors, m of which lie elsewhere, are longer, or repeat another; and f = m."""
    n, m = request.param
    luck = np.random.default_rng(n)
    vectors = luck.normal(size=(n, 57)) + 0.3
    vectors[:m] = -3 * vectors[m : 2 * m] + luck.normal(size=(m, 57))
    return luck.permutation(vectors).astype(np.float32).astype(np.float64), m


def rows_of(vectors: Floats, weights: Sequence[float] = ()) -> Rows:
    """Dense rows, as payloads that leave nothing out."""
    layout = Layout(((vectors.shape[1] - 7,), (7,)))
    headers = [Header(Claims(), weight) for weight in (weights or [0.0] * len(vectors))]
    values = torch.from_numpy(vectors).float()
    sent = torch.ones(values.shape, dtype=torch.bool)
    return Rows(values, sent, torch.arange(vectors.shape[1]), tuple(headers), layout)


def combined(method: Aggregator, vectors: Floats) -> Floats:
    rows = rows_of(vectors)
    return method.combine(rows, rows.layout).double().numpy()


def aggregator(kind: str, **settings: Any) -> Aggregator:
    return aggregators[kind].model_validate({"kind": kind, **settings})


def pre_aggregator(kind: str, **settings: Any) -> PreAggregator:
    return pre_aggregators[kind].model_validate({"kind": kind, **settings})


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("trimmed_mean", "TrMean"), ("krum", "Krum"), ("multi_krum", "MultiKrum"), ("meamed", "Meamed"), ("mda", "MDA")],
)
def test_methods_that_tolerate_f(kind: str, theirs: str, case: tuple[Floats, int]) -> None:
    vectors, f = case
    f = min(f, (len(vectors) - 3) // 2)  # below that both agree; ByzFL goes on with less than Krum's theorem asks for
    f = min(f, 3) if kind == "mda" else f  # ByzFL looks at all subsets
    expected = getattr(byzfl("aggregators.aggregators"), theirs)(f)(vectors)
    np.testing.assert_allclose(combined(aggregator(kind, f=f), vectors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unsent", ["senders", "zero_filled"])
def test_mean_and_median(unsent: str, case: tuple[Floats, int]) -> None:
    """Where everybody sends everything, it makes no difference what is done with the rest."""
    vectors, _ = case
    theirs = byzfl("aggregators.aggregators")
    np.testing.assert_allclose(
        combined(aggregator("median", unsent=unsent), vectors), theirs.Median()(vectors), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(combined(Mean(clip="none"), vectors), theirs.Average()(vectors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("nu", "steps"), [(0.1, 3), (0.1, 1), (9.0, 5), (1e-6, 40)])
def test_geometric_median(nu: float, steps: int, case: tuple[Floats, int]) -> None:
    vectors, _ = case
    expected = byzfl("aggregators.aggregators").GeometricMedian(nu, steps)(vectors)
    ours = GeometricMedian(nu=nu, iterations=steps, start="zero")
    np.testing.assert_allclose(combined(ours, vectors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("tau", "steps"), [(100.0, 1), (4.0, 1), (4.0, 6), (0.5, 20)])
def test_centered_clipping_in_its_first_round(tau: float, steps: int, case: tuple[Floats, int]) -> None:
    vectors, _ = case
    expected = byzfl("aggregators.aggregators").CenteredClipping(None, steps, tau)(vectors)
    ours = CenteredClipping(tau=tau, iterations=steps)
    np.testing.assert_allclose(combined(ours, vectors), expected, rtol=1e-5, atol=1e-6)


def test_monna(case: tuple[Floats, int]) -> None:
    """The heaviest peer's payload is the trusted one."""
    vectors, f = case
    for trusted in range(len(vectors)):
        expected = byzfl("aggregators.aggregators").MoNNA(f, trusted)(vectors)
        rows = rows_of(vectors, [1.0 + (place == trusted) for place in range(len(vectors))])
        found = aggregator("monna", f=f).combine(rows, rows.layout)
        np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-5, atol=1e-6)
        weights = nearest_to(gram(rows.values), torch.arange(len(vectors)) == trusted, len(vectors) - f)
        assert weights.sum() == len(vectors) - f


def on_a_line(along: Floats, monkeypatch: pytest.MonkeyPatch) -> Floats:
    """Vectors that differ in one direction, where ByzFL's power iterations then begin: one is enough.

    From elsewhere it would find that direction too, but estimate its eigenvalue by chance.
    """
    luck = np.random.default_rng(len(along))
    direction = luck.normal(size=33)
    monkeypatch.setattr(np.random, "randn", lambda width: direction[:width])
    vectors = luck.normal(size=33) + np.outer(along, direction)
    return vectors.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(("n", "f"), [(9, 2), (12, 3)])
def test_smea(n: int, f: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = on_a_line(np.random.default_rng(n).normal(size=n) ** 3, monkeypatch)
    expected = byzfl("aggregators.aggregators").SMEA(f)(vectors)
    np.testing.assert_allclose(combined(aggregator("smea", f=f), vectors), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected, vectors.mean(axis=0), rtol=1e-2), "the mean would do"


@pytest.mark.parametrize(("n", "outlier"), [(6, 2.5), (9, 2.6), (14, 2.8)])
def test_caf_until_somebody_has_no_weight_left(n: int, outlier: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With f = 1 and one payload so far out, both look twice, and only then differ in who sets the scale."""
    vectors = on_a_line(np.array([outlier, *np.linspace(-1, 1, n - 1)]), monkeypatch)
    expected = byzfl("aggregators.aggregators").CAF(1)(vectors)
    np.testing.assert_allclose(combined(aggregator("caf", f=1), vectors), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected, vectors.mean(axis=0), rtol=1e-2), "the mean would do"


@pytest.mark.parametrize(("n", "f"), [(9, 2), (12, 4), (20, 6), (31, 12)])
def test_caf_goes_on_as_byzfl_where_all_set_the_scale(n: int, f: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many looks, in which those without weight go on to set the scale."""
    vectors = on_a_line(np.random.default_rng(n).normal(size=n), monkeypatch)
    expected = byzfl("aggregators.aggregators").CAF(f)(vectors)
    ours = combined(aggregator("caf", f=f, scale="all"), vectors)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected, vectors.mean(axis=0), rtol=1e-2), "the mean would do"


def test_caf_ends_where_weights_hardly_shrink() -> None:
    """One payload far out sets the scale for ever, so that the others keep theirs; ByzFL would not end."""
    vectors = np.random.default_rng(3).normal(size=(9, 33))
    vectors[0] += 1e5
    found = combined(aggregator("caf", f=3, scale="all"), vectors)
    assert np.abs(found).max() < 3


# Before ---------------------------------------------------------------------------------------------------------------


def dense(payload: Decoded, width: int) -> Floats:
    vector = np.zeros(width)
    vector[payload.index.numpy()] = payload.value.double().numpy()
    return vector


def prepared(part: PreAggregator, vectors: Floats, luck: np.random.Generator | None = None) -> Floats:
    rows = rows_of(vectors)
    given = list(rows)  # as sparse payloads, so that what is made of them is seen too
    found = part.prepare(given, rows.layout, luck or np.random.default_rng(0))
    return np.stack([dense(payload, vectors.shape[1]) for payload in found])


def test_nearest_neighbor_mixing(case: tuple[Floats, int]) -> None:
    vectors, f = case
    expected = byzfl("aggregators.preaggregators").NNM(f)(vectors)
    np.testing.assert_allclose(prepared(pre_aggregator("nnm", f=f), vectors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [0.5, 7.0, 9.0, 1e3])
def test_static_clipping(norm: float, case: tuple[Floats, int]) -> None:
    vectors, _ = case
    expected = byzfl("aggregators.preaggregators").Clipping(norm)(vectors.copy())
    np.testing.assert_allclose(prepared(pre_aggregator("norm_clip", norm=norm), vectors), expected, rtol=1e-5)


def test_adaptive_robust_clipping(case: tuple[Floats, int]) -> None:
    vectors, f = case
    expected = byzfl("aggregators.preaggregators").ARC(f)(vectors.copy())
    found = prepared(pre_aggregator("arc", f=f), vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.linalg.norm(found, axis=1) < np.linalg.norm(vectors, axis=1) * 0.99).sum() > 0


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_bucketing_by_the_same_draw(size: int, case: tuple[Floats, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """ByzFL draws from numpy's global generator; here from one that deals as ours."""
    vectors, _ = case
    luck = np.random.default_rng(5)
    monkeypatch.setattr(np.random, "permutation", lambda given: given[luck.permutation(len(given))])
    expected = byzfl("aggregators.preaggregators").Bucketing(size)(vectors)
    found = prepared(pre_aggregator("bucketing", size=size), vectors, np.random.default_rng(5))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("after", ["median", "krum", "trimmed_mean", "geometric_median"])
def test_a_chain(after: str, case: tuple[Floats, int]) -> None:
    """Clip, mix, combine: the order is that of the list."""
    vectors, f = case
    f = min(f, (len(vectors) - 3) // 2)
    theirs, before = byzfl("aggregators.aggregators"), byzfl("aggregators.preaggregators")
    last = {
        "median": theirs.Median(),
        "krum": theirs.Krum(f),
        "trimmed_mean": theirs.TrMean(f),
        "geometric_median": theirs.GeometricMedian(),
    }[after]
    expected = last(before.NNM(f)(before.ARC(f)(vectors.copy())))
    rows = rows_of(vectors)
    payloads: Sequence[Decoded] = rows
    for part in (pre_aggregator("arc", f=f), pre_aggregator("nnm", f=f)):
        payloads = part.prepare(payloads, rows.layout, np.random.default_rng(0))
    settings = {"median": {}, "geometric_median": {"nu": 0.1, "iterations": 3, "start": "zero"}}.get(after, {"f": f})
    found = aggregator(after, **settings).combine(payloads, rows.layout)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_bar_is_met() -> None:
    """Every method of ByzFL has a counterpart here: 12 aggregators and 4 pre-aggregators."""
    ours = {
        "Average": "mean",
        "Median": "median",
        "TrMean": "trimmed_mean",
        "GeometricMedian": "geometric_median",
        "Krum": "krum",
        "MultiKrum": "multi_krum",
        "CenteredClipping": "centered_clipping",
        "MDA": "mda",
        "MoNNA": "monna",
        "Meamed": "meamed",
        "CAF": "caf",
        "SMEA": "smea",
    }
    before = {"NNM": "nnm", "Bucketing": "bucketing", "Clipping": "norm_clip", "ARC": "arc"}
    for names, module, registry in (
        (ours, "aggregators.aggregators", aggregators),
        (before, "aggregators.preaggregators", pre_aggregators),
    ):
        theirs = {name for name, part in vars(byzfl(module)).items() if isinstance(part, type)}
        assert theirs == set(names)
        assert set(names.values()) <= set(registry)


def test_least_diameter_by_all_subsets() -> None:
    """Also where several subsets share it: no subset of that size has a smaller one."""
    aggregate = aggregator("mda", f=3)
    for seed in range(20):
        points = np.random.default_rng(seed).integers(0, 4, size=(9, 2)).astype(np.float64)
        distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
        least = min(distances[np.ix_(each, each)].max() for each in combinations(range(9), 6))
        found = combined(aggregate, np.pad(points, ((0, 0), (0, 6))))[:2]
        reached = [
            distances[np.ix_(each, each)].max()
            for each in combinations(range(9), 6)
            if np.allclose(points[list(each)].mean(axis=0), found, atol=1e-6)
        ]
        assert least in reached
