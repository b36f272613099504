"""D1: does the rating order peers by what they contribute, as in figure 2 of the Gauntlet paper?

One peer has twice the data, some what they are asked for, one is three rounds stale. The gate has that paper's setting:
DeMo's coefficients after every gradient, steps by signs, the paper's rules, five peers a match. Reports ask the same of
a match of three, and of SparseLoCo, with twice the inner steps for twice the data.

Tried before, on eight seeds or fewer: a rate that falls to a tenth over 60 rounds, under the rules of v2.1.28, gave the
order in seven of eight; there, score differences shrink with the rate, and the overlap rule reset two of the three. The
setting was chosen for what figure 2 shows, a slice of a long run under that paper's rules. That choice was made
after trials on seeds up to 20. With a match of three it then gave the order in 16 of seeds 101 to 120. Five a match,
as the paper evaluates, and the mean of three baseline peers were chosen after that, by trials on seeds up to 20, so the
study runs over seeds that no trial has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covsim.record.runner import Run
from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables, headed, of_arm, share_interval, shown_share
from covsim.sweep.papers.study import Arm, Scale
from covsim.sweep.papers.verdicts import Verdict, ruled

FIGURE_2, THREE = "figure 2: DeMo, signs", "the same, three peers"
CLIPPED, UNCLIPPED = "SparseLoCo, clipped", "SparseLoCo, no clip"
ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    FIGURE_2: ("gauntlet/d1", {}),
    THREE: ("gauntlet/d1", {"peers": 3}),
    CLIPPED: ("gauntlet/d1-sparseloco", {}),
    UNCLIPPED: ("gauntlet/d1-sparseloco", {"aggregate.clip": "none"}),
}
COHORTS = MORE_DATA, BASELINE, STALE = "more_data", "honest", "stale"
EVALUATIONS = 50
NEEDED = 0.9
EVERY = 5
"""Rounds from one row of the published table to the next."""

_COLORS = {MORE_DATA: style.GREEN, BASELINE: style.BLUE, STALE: style.VERMILLION}
_WORDS = {MORE_DATA: "twice the data", BASELINE: "baseline", STALE: "3 rounds stale"}


def _arms(_: Scale) -> list[Arm]:
    return [Arm(name, base, overrides, {}) for name, (base, overrides) in ARMS.items()]


def read(run: Run, _: Scale) -> Tables:
    """Rating and evaluations so far by cohort, the mean over its peers, after every fifth round and after the last."""
    verdicts = pd.read_parquet(run.folder / "verdicts.parquet")
    peers = pd.read_parquet(run.folder / "peers.parquet")[["uid", "cohort"]].drop_duplicates()
    rows = verdicts.merge(peers, on="uid").sort_values(["round", "uid"])
    rows["evaluations"] = rows["gradient_score"].notna().groupby(rows["uid"]).cumsum()
    last = rows["round"].max()
    kept = rows[(rows["round"] % EVERY == EVERY - 1) | (rows["round"] == last) | (rows["round"] == 0)]
    columns = ["evaluations", "mu", "sigma", "final_score"]
    return {"": kept.groupby(["cohort", "round"])[columns].mean().reset_index()}


def ends(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """mu at the end, a row per seed and a column per cohort."""
    rows = of_arm(table, arm=arm)
    last = rows[rows["round"] == rows["round"].max()]
    return pd.DataFrame(last.pivot(index="seed", columns="cohort", values="mu"))


def in_order(last: pd.DataFrame) -> tuple[int, int]:
    """In how many seeds, of how many, ratings end more data > baseline > stale."""
    right = (last[MORE_DATA] > last[BASELINE]) & (last[BASELINE] > last[STALE])
    return int(right.sum()), len(right)


def derive(tables: Tables) -> Tables:
    """Mean rating at the end, by arm and cohort, with its interval, and how often each order was seen."""
    rows = []
    for arm in tables[""]["arm"].unique():
        last = ends(tables[""], arm)
        hits, seeds = in_order(last)
        row: dict[str, Any] = {"arm": arm, "seeds": seeds, "in order": hits}
        row["stale last"] = int((last[[MORE_DATA, BASELINE]].min(axis=1) > last[STALE]).sum())
        for cohort in COHORTS:
            measured = interval(last[cohort].tolist())
            row |= {f"mu {cohort}": measured.mean, f"mu {cohort} +-": measured.half_width}
        rows.append(row)
    return {"-means": pd.DataFrame(rows)}


def judge(tables: Tables) -> list[Verdict]:
    """The gate in figure 2's setting, and three reports."""
    return [
        _verdict(tables[""], "D1", "gate", FIGURE_2, "one, three and one; setting chosen after trials"),
        _verdict(tables[""], "D1b", "report", THREE, "the paper's rules"),
        _verdict(tables[""], "D1c", "report", CLIPPED, "three peers, rules of v2.1.28, clip to the median norm"),
        _verdict(tables[""], "D1d", "report", UNCLIPPED, "three peers, rules of v2.1.28"),
    ]


def _verdict(table: pd.DataFrame, id: str, kind: Literal["gate", "report"], arm: str, rules: str) -> Verdict:
    """Reproduced: in order in nine of ten seeds. Not: the whole interval of that share is below."""
    last = ends(table, arm)
    hits, seeds = in_order(last)
    means = ", ".join(f"{_WORDS[cohort]} {interval(last[cohort].tolist()).mean:.1f}" for cohort in COHORTS)
    above = share_interval(hits, seeds)
    behind = int((last[[MORE_DATA, BASELINE]].min(axis=1) > last[STALE]).sum())
    evaluations = int(of_arm(table, arm=arm)["evaluations"].max())
    return Verdict(
        id=id,
        kind=kind,
        claim=f"peers with twice the data, baseline, 3 rounds stale; all evaluated, c = 0.2; {arm}; {rules}",
        source="Gauntlet, figure 2 (order)",
        expected=f"ratings end more data > baseline > stale in 90 % of seeds or more, by {EVALUATIONS} evaluations",
        rule="in 90 % of seeds or more; not: the whole 95 % interval (Wilson) of the share is below",
        ours=f"{shown_share(hits, seeds)} after {evaluations} evaluations; mu {means}; stale last in {behind}",
        error="-",
        status=ruled(hits >= NEEDED * seeds and evaluations >= EVALUATIONS, above.high < NEEDED),
    )


def draw(tables: Tables, verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """Ratings over the rounds, a panel per arm: single seeds, their mean, and the validator's own sigma as a band."""
    table = tables[""]
    figure = headed(
        "Does the rating order peers by what they contribute?",
        "mu of peers who are all evaluated in every round; baseline is the mean of its peers. Thin: one seed. "
        "Bold: mean over seeds. Band: mean sigma of the rating.",
        verdicts,
        14.0,
        4.6,
    )
    arms = list(table["arm"].unique())
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        rows = of_arm(table, arm=arm)
        labels = [(_trajectories(axes, rows, cohort), _WORDS[cohort], _COLORS[cohort]) for cohort in COHORTS]
        axes.set(title=arm, xlabel="Rounds")
        axes.margins(x=0)
    panels[0].set_ylabel("Rating (mu)")
    style.label_lines(panels[-1], labels)
    return {"": figure}


def _trajectories(axes: Axes, rows: pd.DataFrame, cohort: str) -> float:
    """Draw one cohort; returns where its mean ends."""
    own, color = of_arm(rows, cohort=cohort), _COLORS[cohort]
    for _, seed in own.groupby("seed"):
        axes.plot(seed["round"] + 1, seed["mu"], color=color, lw=0.6, alpha=0.3)
    mean = own.groupby("round")[["mu", "sigma"]].mean()
    x = np.asarray(mean.index) + 1
    axes.fill_between(x, mean["mu"] - mean["sigma"], mean["mu"] + mean["sigma"], color=color, alpha=0.12, lw=0)
    axes.plot(x, mean["mu"], color=color, lw=2.4)
    return float(mean["mu"].iloc[-1])


STUDY = ScoringStudy("d1", range(201, 221), _arms, read, derive, judge, draw)
