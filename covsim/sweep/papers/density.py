"""C5: which density is best at how many inner steps, and does SparseLoCo beat tuned DiLoCo?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import Interval, interval
from covsim.sweep.papers.drawing import remark, spread
from covsim.sweep.papers.study import Arm, Scale, Study
from covsim.sweep.papers.tables import best, border, by_seed, label_of, mean, paired, select, signed
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "papers/c5"
CHUNK = 4096
KEPT = (32, 64, 128)
"""Values sent of a chunk: 0.78, 1.56 and 3.13 %."""

INNER_STEPS = (15, 30, 60)
SPARSE_RATES = (1.0, 2.0)
DENSE_RATES = (0.2, 0.4, 0.7, 1.0)
SPARSE, DENSE = "sparseloco", "diloco"


def _arms(_: pd.DataFrame, scale: Scale) -> list[Arm]:
    sparse = [_sparse(H, k, rate) for H in INNER_STEPS for k in KEPT for rate in scale.few(SPARSE_RATES)]
    return sparse + [_dense(H, rate) for H in INNER_STEPS for rate in scale.few(DENSE_RATES)]


def _sparse(inner_steps: int, k: int, rate: float) -> Arm:
    density = 100 * k / CHUNK
    return Arm(
        f"H {inner_steps}, {density:.2f} %, outer rate {rate:g}",
        BASE,
        {"protocol": {"inner_steps": inner_steps, "k": k, "outer": {"kind": "sgd", "lr": rate}}},
        {"family": SPARSE, "inner_steps": inner_steps, "density": density, "outer_lr": rate},
    )


def _dense(inner_steps: int, rate: float) -> Arm:
    outer = {"kind": "nesterov", "lr": rate, "momentum": 0.9}
    return Arm(
        f"H {inner_steps}, diloco, outer rate {rate:g}",
        BASE,
        {"protocol": {"kind": "diloco", "inner_steps": inner_steps, "outer": outer}},
        {"family": DENSE, "inner_steps": inner_steps, "density": 100.0, "outer_lr": rate},
    )


def _densities(table: pd.DataFrame) -> list[float]:
    return sorted(float(each) for each in select(table, family=SPARSE)["density"].unique())


def _sparsest_to_best(table: pd.DataFrame, inner_steps: int) -> str:
    return best(table, family=SPARSE, inner_steps=inner_steps)


def _tuned_dense(table: pd.DataFrame, inner_steps: int) -> str:
    return best(table, family=DENSE, inner_steps=inner_steps)


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(_sparsest_to_best(table, H), _tuned_dense(table, H)) for H in INNER_STEPS]


def excess(table: pd.DataFrame) -> dict[int, Interval]:
    """Percent that the best SparseLoCo is above the best DiLoCo, by H, paired by seed."""
    return {H: interval(paired(table, *pair).percent) for H, pair in zip(INNER_STEPS, _pairs(table), strict=True)}


def judge(table: pd.DataFrame) -> list[Verdict]:
    """Two reports: the sign of SparseLoCo - DiLoCo, and the way of the best density."""
    return [_sign(table), _rise(table)]


def _sign(table: pd.DataFrame) -> Verdict:
    """Reproduced: not above 0 with the whole interval at every H. Not: above 0 with the whole interval at some H."""
    found = excess(table)
    rates = ", ".join(_rates(table, H) for H in INNER_STEPS)
    return Verdict(
        id="C5",
        kind="report",
        claim="SparseLoCo at 0.8 to 3.1 % density is at least as good as tuned DiLoCo",
        source="SparseLoCo (abstract)",
        expected="loss of SparseLoCo minus that of DiLoCo <= 0",
        rule="best density and outer rate of each, paired by seed: intervals at or below 0 at every H; "
        "not: an interval above 0 at some H",
        ours=", ".join(f"H {H}: {signed(each)}" for H, each in found.items()) + f"; outer rates {rates}",
        error=", ".join(f"{each.mean:+.1f}" for each in found.values()) + " points",
        status=ruled(all(each.high <= 0 for each in found.values()), any(each.low > 0 for each in found.values())),
    )


def _rates(table: pd.DataFrame, inner_steps: int) -> str:
    sparse, dense = _sparsest_to_best(table, inner_steps), _tuned_dense(table, inner_steps)
    of_sparse = border(table, sparse, "outer_lr", family=SPARSE, inner_steps=inner_steps)
    of_dense = border(table, dense, "outer_lr", family=DENSE, inner_steps=inner_steps)
    return (
        f"{label_of(table, sparse, 'outer_lr'):g}{of_sparse} against {label_of(table, dense, 'outer_lr'):g}{of_dense}"
    )


def _rise(table: pd.DataFrame) -> Verdict:
    """Reproduced: the best density never falls with H and ends higher. Not: it falls somewhere.

    Inconclusive: it stays, or at an end of H the best density beats that of the other end by less than its interval.
    """
    chosen = {H: label_of(table, _sparsest_to_best(table, H), "density") for H in INNER_STEPS}
    first, last = chosen[INNER_STEPS[0]], chosen[INNER_STEPS[-1]]
    falls = any(chosen[high] < chosen[low] for low, high in itertools.pairwise(INNER_STEPS))
    clear = first != last and all(
        interval(paired(table, _at(table, H, other), _at(table, H, own)).differences).low > 0
        for H, own, other in ((INNER_STEPS[0], first, last), (INNER_STEPS[-1], last, first))
    )
    return Verdict(
        id="C5b",
        kind="report",
        claim="the best density rises with the number of inner steps",
        source="SparseLoCo",
        expected="best density at H 15 <= H 30 <= H 60, and rising",
        rule="lowest means that never fall and end higher, where either end prefers its own beyond the interval; "
        "not: they fall where that is so",
        ours=", ".join(f"H {H}: {density:.2f} %" for H, density in chosen.items())
        + ("" if clear else "; the ends do not differ beyond their intervals"),
        error="-",
        status=ruled(clear and not falls and last > first, clear and (falls or last < first)),
    )


def _at(table: pd.DataFrame, inner_steps: int, density: float) -> str:
    return best(table, family=SPARSE, inner_steps=inner_steps, density=density)


def draw(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """Loss by density, a panel per H, with tuned DiLoCo as a band across."""
    figure = style.headed(
        "How sparse may updates be? SparseLoCo by density and inner steps, beside tuned DiLoCo",
        remark(
            "Blue: SparseLoCo at its best outer rate. Orange: DiLoCo at its best outer rate, with its interval.",
            verdicts,
        ),
        11.5,
        4.4,
    )
    panels = figure.subplots(1, len(INNER_STEPS), sharey=True)
    densities = _densities(table)
    for axes, H in zip(panels, INNER_STEPS, strict=True):
        dense = mean(table, _tuned_dense(table, H))
        axes.axhspan(dense.low, dense.high, color=style.ORANGE, alpha=0.2, lw=0)
        axes.axhline(dense.mean, color=style.ORANGE)
        middles = [
            spread(axes, place, list(by_seed(table, _at(table, H, density)).values()), style.BLUE)
            for place, density in enumerate(densities)
        ]
        axes.plot(range(len(densities)), middles, color=style.BLUE, lw=1)
        axes.set_xticks(range(len(densities)), [f"{density:.2f}" for density in densities])
        axes.set(title=f"H {H}", xlabel="Values sent of a chunk (%)")
    panels[0].set_ylabel("Held-out loss (nats per token)")
    return figure


STUDY = Study("c5", range(1, 4), (_arms,), _pairs, judge, draw)
