"""C1: does error feedback matter when 1.56 % of the values are sent in 2 bits?

Without it a payload is smaller, so a larger outer rate makes up for a part of what is lost. The gates compare at the
report's rate; further rows let either side have the best of two rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.drawing import headed, rows_of, spread
from covsim.sweep.papers.study import Arm, Scale, Study
from covsim.sweep.papers.tables import arms, best, border, by_seed, deviation, label_of, mean, paired, shown
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "papers/c1"
RATES = (1.0, 2.0)
"""Outer rates; the first is the report's."""

FEEDBACK, DROPPED, NO_BUFFER = "decay 0.95", "decay 0", "no buffer"
DIVISORS = {"all": "as in the paper", "senders": "as deployed"}
DEVIATIONS = 2
_COLORS = {FEEDBACK: style.BLUE, DROPPED: style.VERMILLION, NO_BUFFER: style.ORANGE}


def _arms(_: pd.DataFrame, scale: Scale) -> list[Arm]:
    """With and without at every rate; no buffer at all, which must be the same as decay 0, at the first."""
    rates = scale.few(RATES)
    tried = [*((FEEDBACK, rate) for rate in rates), *((DROPPED, rate) for rate in rates), (NO_BUFFER, RATES[0])]
    return [_arm(over, feedback, rate) for over in DIVISORS for feedback, rate in tried]


def _arm(over: str, feedback: str, rate: float) -> Arm:
    protocol: dict[str, Any] = {"error_decay": 0.95 if feedback == FEEDBACK else 0.0}
    if feedback == NO_BUFFER:
        protocol = {
            "kind": "composed",
            "inner_steps": 30,
            "compressor": {"kind": "topk", "k": 64},
            "values": {"kind": "bin_mean", "bits": 2},
            "error_feedback": "none",
        }
    return Arm(
        name(over, feedback, rate),
        BASE,
        {"aggregate.over": over, "protocol": {**protocol, "outer": {"kind": "sgd", "lr": rate}}},
        {"over": over, "feedback": feedback, "outer_lr": rate},
    )


def name(over: str, feedback: str, rate: float) -> str:
    """What an arm is called."""
    return f"over {over}, {feedback}, outer rate {rate:g}"


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Without against with, at the report's rate and at the best rates."""
    found = []
    for over in DIVISORS:
        report = [(name(over, each, RATES[0]), name(over, FEEDBACK, RATES[0])) for each in (DROPPED, NO_BUFFER)]
        found += [*report, (best(table, over=over, feedback=DROPPED), best(table, over=over, feedback=FEEDBACK))]
    return found


def judge(table: pd.DataFrame) -> list[Verdict]:
    """Two gates at the report's rate, and two reports at the best rates."""
    rows = []
    for id, over in (("C1", "all"), ("C1b", "senders")):
        without, with_it = name(over, DROPPED, RATES[0]), name(over, FEEDBACK, RATES[0])
        rows.append(_verdict(table, id, "gate", over, without, with_it))
    for id, over in (("C1c", "all"), ("C1d", "senders")):
        without, with_it = (best(table, over=over, feedback=each) for each in (DROPPED, FEEDBACK))
        rows.append(_verdict(table, id, "report", over, without, with_it))
    return rows


def _verdict(
    table: pd.DataFrame, id: str, kind: Literal["gate", "report"], over: str, without: str, with_it: str
) -> Verdict:
    """Reproduced: the mean gain is above 2 seed deviations, its interval above 0. Not: the interval is below them."""
    spread_of_seeds = max(deviation(table, without), deviation(table, with_it))
    border_nats = DEVIATIONS * spread_of_seeds
    gain = interval(paired(table, without, with_it).differences)
    rates = "both at outer rate 1" if kind == "gate" else "each at its best outer rate"
    chosen = ", ".join(
        f"{label_of(table, arm, 'outer_lr'):g}{border(table, arm, 'outer_lr', over=over, feedback=feedback)}"
        for arm, feedback in ((with_it, FEEDBACK), (without, DROPPED))
    )
    return Verdict(
        id=id,
        kind=kind,
        claim=f"error feedback matters at 1.56 % and 2 bits; mean over {over}, {DIVISORS[over]}; {rates}",
        source="SparseLoCo (direction)",
        expected="with it clearly better, beyond 2 seed standard deviations",
        rule="mean gain, paired by seed, above 2 standard deviations over seeds and its interval above 0; "
        "not: the whole interval below 2 standard deviations",
        ours=f"{shown(mean(table, with_it))} with, {shown(mean(table, without))} without: gain {shown(gain)} nats, "
        f"2 standard deviations {border_nats:.3f}{'' if kind == 'gate' else f'; outer rates {chosen}'}",
        error="-",
        status=ruled(gain.mean > border_nats and gain.low > 0, gain.high < border_nats),
    )


def draw(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """A row per arm: loss of every seed, mean and interval."""
    figure = headed(
        "Does error feedback matter when 1.56 % of the values are sent in 2 bits?",
        "8 peers, 20 rounds of 30 steps; outer rate 1 is the report's.",
        verdicts,
        10.5,
        5.2,
    )
    panels = figure.subplots(1, len(DIVISORS), sharex=True)
    for axes, over in zip(panels, DIVISORS, strict=True):
        own = table[table["over"] == over]
        for row, arm in enumerate(arms(own)):
            color = _COLORS[str(own.loc[own["arm"] == arm, "feedback"].iloc[0])]
            spread(axes, row, list(by_seed(own, arm).values()), color, across=True)
        rows_of(axes, [arm.split(", ", 1)[1] for arm in arms(own)])
        axes.set(xlabel="Held-out loss at the end (nats per token)", title=f"Mean over {over}, {DIVISORS[over]}")
    return figure


STUDY = Study("c1", range(1, 6), (_arms,), _pairs, judge, draw)
