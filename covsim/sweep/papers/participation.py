"""D8: how many peers take part at a time, and in all, when they come and go. A calibration: the rates were fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from covsim.record.runner import Run
from covsim.report import style
from covsim.sweep.interval import interval
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables, headed
from covsim.sweep.papers.study import Arm, Scale
from covsim.sweep.papers.tables import shown
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "covenant72b-live"
CONTRIBUTING, SUBMITTING, DISTINCT = 16.9, 24.4, 70
NEAR = 0.1
"""How far off a mean may be, relative to the published one."""


def _arms(_: Scale) -> list[Arm]:
    return [Arm("live", BASE, {}, {})]


def read(run: Run, _: Scale) -> Tables:
    """A row per round: how many contributed and submitted, and how many have done so until then."""
    peers = pd.read_parquet(run.folder / "peers.parquet")
    submitted = pd.read_parquet(run.folder / "submissions.parquet")[["round", "uid"]].drop_duplicates()
    entered = peers.loc[peers["contributed"].fillna(False), ["round", "uid"]].drop_duplicates()
    rounds = sorted(peers["round"].unique())
    return {
        "": pd.DataFrame(
            {
                "round": rounds,
                "contributing": [int((entered["round"] == round).sum()) for round in rounds],
                "submitting": [int((submitted["round"] == round).sum()) for round in rounds],
                "distinct": [submitted.loc[submitted["round"] <= round, "uid"].nunique() for round in rounds],
            }
        )
    }


def derive(tables: Tables) -> Tables:
    """Means over the rounds of each seed."""
    of_seed = tables[""].groupby("seed").agg({"contributing": "mean", "submitting": "mean", "distinct": "max"})
    return {"-means": of_seed.reset_index()}


def judge(tables: Tables) -> list[Verdict]:
    """Reproduced: both means within 10 % and distinct peers enough, in every seed. Not: one is outside in all seeds."""
    seeds = derive(tables)["-means"]
    each = {
        "contributing": (seeds["contributing"] / CONTRIBUTING - 1).abs() <= NEAR,
        "submitting": (seeds["submitting"] / SUBMITTING - 1).abs() <= NEAR,
        "distinct": seeds["distinct"] >= DISTINCT,
    }
    found = {name: interval(seeds[name].tolist()) for name in each}
    off = max(found["contributing"].mean / CONTRIBUTING - 1, found["submitting"].mean / SUBMITTING - 1, key=abs)
    return [
        Verdict(
            id="D8",
            kind="report",
            claim="participation, cap 20, 10 in reserve; how often peers come and go, how long, and how their links "
            "differ was fitted to these figures on seed 1",
            source="Covenant-72B",
            expected=f"{CONTRIBUTING:g} contributing, {SUBMITTING:g} submitting, {DISTINCT} distinct or more",
            rule=f"means within {100 * NEAR:g} % and {DISTINCT} distinct in every seed; not: one is off in all seeds",
            ours=f"{shown(found['contributing'], 1)} contributing, {shown(found['submitting'], 1)} submitting, "
            f"{int(seeds['distinct'].min())} to {int(seeds['distinct'].max())} distinct over {len(seeds)} seeds",
            error=f"{100 * off:+.1f} %",
            status=ruled(all(good.all() for good in each.values()), any(not good.any() for good in each.values())),
        )
    ]


def draw(tables: Tables, verdicts: Sequence[Verdict]) -> Mapping[str, Figure]:
    """Peers by round, a line per seed, beside the published means."""
    table = tables[""]
    figure = headed(
        "How many peers take part when nobody is obliged to stay?",
        "A line per seed. Dashed: the published means; dotted: the published least number of distinct peers. The rates "
        "at which peers come and go were fitted to them.",
        verdicts,
        9.5,
        4.4,
    )
    left, right = figure.subplots(1, 2)
    labels = []
    for name, color, published in (
        ("submitting", style.BLUE, SUBMITTING),
        ("contributing", style.GREEN, CONTRIBUTING),
    ):
        for _, own in table.groupby("seed"):
            left.plot(own["round"], own[name], color=color, lw=1.2)
        left.axhline(published, color=color, lw=1.0, ls=(0, (4, 3)))
        labels.append((float(table.loc[table["round"] == table["round"].max(), name].mean()), name, color))
    left.set(xlabel="Round", ylabel="Peers in a round", ylim=(0, None))
    style.label_lines(left, labels)
    for _, own in table.groupby("seed"):
        right.plot(own["round"], own["distinct"], color=style.BLUE, lw=1.2)
    right.axhline(DISTINCT, color=style.FAINT, lw=1.0, ls=(0, (1, 2)))
    right.set(xlabel="Round", ylabel="Distinct peers so far", ylim=(0, None))
    return {"": figure}


STUDY = ScoringStudy("d8", range(101, 104), _arms, read, derive, judge, draw)
