"""C5: which density is best at how many inner steps, and does SparseLoCo beat tuned DiLoCo?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.drawing import headed, spread
from covsim.sweep.papers.study import Arm, Scale, Study
from covsim.sweep.papers.tables import best, border, by_seed, label_of, mean, paired, select, signed
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "papers/c5"
CHUNK = 4096
KEPT = (32, 64, 128)
"""Values sent of a chunk: 0.78, 1.56 and 3.13 %."""

INNER_STEPS = (15, 30, 60)
SPARSE_RATES = {"all": (1.0, 2.0), "senders": (0.65,)}
"""Outer rates, by what a coordinate's sum is divided by; over all, what a single peer sends counts an eighth."""

DIVISORS = {"all": "as in the paper", "senders": "as deployed"}
DENSE_RATES = (0.2, 0.4)
SPARSE, DENSE = "sparseloco", "diloco"


def _arms(_: pd.DataFrame, scale: Scale) -> list[Arm]:
    sparse = [
        _sparse(over, H, k, rate)
        for H in INNER_STEPS
        for over in DIVISORS
        for k in KEPT
        for rate in scale.few(SPARSE_RATES[over])
    ]
    return sparse + [_dense(H, rate) for H in INNER_STEPS for rate in scale.few(DENSE_RATES)]


def _sparse(over: str, inner_steps: int, k: int, rate: float) -> Arm:
    density = 100 * k / CHUNK
    return Arm(
        f"H {inner_steps}, {density:.2g} %, over {over}, outer rate {rate:g}",
        BASE,
        {
            "aggregate.over": over,
            "protocol": {"inner_steps": inner_steps, "k": k, "outer": {"kind": "sgd", "lr": rate}},
        },
        {"family": SPARSE, "over": over, "inner_steps": inner_steps, "density": density, "outer_lr": rate},
    )


def _dense(inner_steps: int, rate: float) -> Arm:
    outer = {"kind": "nesterov", "lr": rate, "momentum": 0.9}
    return Arm(
        f"H {inner_steps}, diloco, outer rate {rate:g}",
        BASE,
        {"protocol": {"kind": "diloco", "inner_steps": inner_steps, "outer": outer}},
        {"family": DENSE, "over": "all", "inner_steps": inner_steps, "density": 100.0, "outer_lr": rate},
    )


def _densest(table: pd.DataFrame, inner_steps: int) -> str:
    """DiLoCo at its best outer rate."""
    return best(table, family=DENSE, inner_steps=inner_steps)


def _chosen(table: pd.DataFrame, over: str, inner_steps: int) -> str:
    """SparseLoCo at its best density and outer rate."""
    return best(table, family=SPARSE, over=over, inner_steps=inner_steps)


def _at(table: pd.DataFrame, over: str, inner_steps: int, density: float) -> str:
    """SparseLoCo of a density at its best outer rate."""
    return best(table, family=SPARSE, over=over, inner_steps=inner_steps, density=density)


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(_chosen(table, over, H), _densest(table, H)) for over in DIVISORS for H in INNER_STEPS]


def judge(table: pd.DataFrame) -> list[Verdict]:
    """Reports, for either divisor: the sign of SparseLoCo - DiLoCo, and the way of the best density."""
    return [
        _sign(table, "C5", "all"),
        _rise(table, "C5b", "all"),
        _sign(table, "C5c", "senders"),
        _rise(table, "C5d", "senders"),
    ]


def _sign(table: pd.DataFrame, id: str, over: str) -> Verdict:
    """Reproduced: not above 0 with the whole interval at every H. Not: above 0 with the whole interval at some H."""
    found = {H: interval(paired(table, _chosen(table, over, H), _densest(table, H)).percent) for H in INNER_STEPS}
    return Verdict(
        id=id,
        kind="report",
        claim="SparseLoCo at 0.8 to 3.1 % density is at least as good as tuned DiLoCo; "
        f"mean over {over}, {DIVISORS[over]}",
        source="SparseLoCo (abstract)",
        expected="loss of SparseLoCo minus that of DiLoCo <= 0",
        rule="best density and outer rate of each, paired by seed: intervals at or below 0 at every H; "
        "not: an interval above 0 at some H",
        ours=", ".join(f"H {H}: {signed(each)}" for H, each in found.items())
        + f"; outer rates {', '.join(_rates(table, over, H) for H in INNER_STEPS)}",
        error="-",
        status=ruled(all(each.high <= 0 for each in found.values()), any(each.low > 0 for each in found.values())),
    )


def _rates(table: pd.DataFrame, over: str, inner_steps: int) -> str:
    """'1 against 0.4 (border)'."""
    sparse, dense = _chosen(table, over, inner_steps), _densest(table, inner_steps)
    of_sparse = border(table, sparse, "outer_lr", family=SPARSE, over=over, inner_steps=inner_steps)
    of_dense = border(table, dense, "outer_lr", family=DENSE, inner_steps=inner_steps)
    return (
        f"{label_of(table, sparse, 'outer_lr'):g}{of_sparse} against {label_of(table, dense, 'outer_lr'):g}{of_dense}"
    )


def _rise(table: pd.DataFrame, id: str, over: str) -> Verdict:
    """Reproduced: the best density never falls with H and ends higher. Not: it falls somewhere.

    Inconclusive: it stays, or at an end of H the best density beats that of the other end by less than its interval.
    """
    chosen = {H: label_of(table, _chosen(table, over, H), "density") for H in INNER_STEPS}
    first, last = chosen[INNER_STEPS[0]], chosen[INNER_STEPS[-1]]
    falls = any(chosen[high] < chosen[low] for low, high in itertools.pairwise(INNER_STEPS))
    clear = first != last and all(
        interval(paired(table, _at(table, over, H, other), _at(table, over, H, own)).differences).low > 0
        for H, own, other in ((INNER_STEPS[0], first, last), (INNER_STEPS[-1], last, first))
    )
    return Verdict(
        id=id,
        kind="report",
        claim=f"the best density rises with the number of inner steps; mean over {over}, {DIVISORS[over]}",
        source="SparseLoCo",
        expected="best density at H 15 <= H 30 <= H 60, and rising",
        rule="densities of the lowest means never fall and end higher, and at either end of H the own one beats that "
        "of the other end beyond the interval; not: they fall, and that is so",
        ours=", ".join(f"H {H}: {density:.2g} %" for H, density in chosen.items())
        + ("" if clear else "; the ends do not differ beyond their intervals"),
        error="-",
        status=ruled(clear and not falls, clear and falls),
    )


def draw(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """Loss by density, a panel per H, with tuned DiLoCo as a band across."""
    figure = headed(
        "How sparse may updates be? SparseLoCo by density and inner steps, beside tuned DiLoCo",
        "All at their best outer rate; the band is the interval of DiLoCo.",
        verdicts,
        11.5,
        4.6,
    )
    panels = figure.subplots(1, len(INNER_STEPS), sharey=True)
    densities = sorted(float(each) for each in select(table, family=SPARSE)["density"].unique())
    for axes, H in zip(panels, INNER_STEPS, strict=True):
        dense = mean(table, _densest(table, H))
        axes.axhspan(dense.low, dense.high, color=style.ORANGE, alpha=0.2, lw=0)
        labels = [(dense.mean, "DiLoCo", style.ORANGE)]
        axes.axhline(dense.mean, color=style.ORANGE)
        for over, color, marker, aside in (("all", style.BLUE, "o", -0.12), ("senders", style.GREEN, "s", 0.12)):
            places = [place + aside for place in range(len(densities))]
            own = [list(by_seed(table, _at(table, over, H, density)).values()) for density in densities]
            middles = [spread(axes, *each, color, marker=marker) for each in zip(places, own, strict=True)]
            axes.plot(places, middles, color=color, lw=1)
            labels.append((middles[-1], f"over {over}", color))
        axes.set_xticks(range(len(densities)), [f"{density:.2g}" for density in densities])
        axes.set(title=f"H {H}", xlabel="Values sent of a chunk (%)")
    panels[0].set_ylabel("Held-out loss (nats per token)")
    style.label_lines(panels[-1], labels)
    return figure


STUDY = Study("c5", range(1, 4), (_arms,), _pairs, judge, draw)
