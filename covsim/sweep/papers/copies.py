"""D3: does the overlap of top-k indices tell copies from honest work?

All payloads of every round of a run with real training are compared with each other (`overlaps`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from covsim.report import style
from covsim.sweep.papers.overlaps import LEVEL, SHOWN_SEED, read
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables, headed
from covsim.sweep.papers.study import Arm, Scale
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "gauntlet/d3"
FROM_ROUND = 20
"""From which on it does."""

MOST = 0.01
FLOOR = 64 / 4096
"""Overlap of two random choices."""

FEWEST_PAIRS = 2000
EARLY = 3
"""The first rounds, in which a trial saw honest pairs at 0.40 to 0.46."""


def _arms(_: Scale) -> list[Arm]:
    return [Arm("66 honest, 8 copycats", BASE, {}, {})]


def derive(tables: Tables) -> Tables:
    """By round, over all seeds."""
    table, rows = tables[""], []
    for round, own in table.groupby("round"):
        pairs = int(own["pairs"].sum())
        rows.append(
            {
                "round": round,
                "pairs": pairs,
                "mean": float(np.average(own["mean"], weights=own["pairs"])),
                "largest": own["largest"].max(),
                f"at {LEVEL} or above": int(own["at_level"].sum()),
                "share": own["at_level"].sum() / pairs,
                "largest, sent whole counted": own["largest_with_whole"].max(),
                "share, sent whole counted": own["at_level_with_whole"].sum() / pairs,
                "copies": int(own["copies"].sum()),
                "copies flagged": int(own["flagged"].sum()),
            }
        )
    return {"-rounds": pd.DataFrame(rows)}


def judge(tables: Tables) -> list[Verdict]:
    """Two gates, and two reports of what the deployed check makes of it."""
    table = tables[""]
    return [_false_positives(table), _flagged(table), _by_previous_stamps(table), _first_rounds(table)]


def _false_positives(table: pd.DataFrame) -> Verdict:
    """Reproduced: from round 20 on, below 1 % of the pairs in every round of every seed. Not: more in some round."""
    acting = table[table["round"] >= FROM_ROUND]
    shares = acting["at_level"] / acting["pairs"]
    enough = len(acting) > 0 and bool((acting["pairs"] >= FEWEST_PAIRS).all())
    worst = float(shares.max()) if len(acting) else float("nan")
    return Verdict(
        id="D3",
        kind="gate",
        claim=f"honest pairs with an overlap of {LEVEL} or more, by round from round {FROM_ROUND}; "
        "tensors that are sent whole do not count",
        source="code",
        expected=f"< {100 * MOST:g} % of the pairs; random floor {100 * FLOOR:.2f} %",
        rule=f"in every round of every seed, of {FEWEST_PAIRS:,} pairs or more each; not: more in one",
        ours=f"at most {100 * worst:.2g} % of {int(acting['pairs'].min()) if len(acting) else 0:,} pairs a round; "
        f"{int(acting['at_level'].sum()):,} of {int(acting['pairs'].sum()):,} in {acting['seed'].nunique()} seeds; "
        f"mean overlap {acting['mean'].mean():.3f}, largest {acting['largest'].max():.3f}",
        error="-",
        status=ruled(enough and worst < MOST, worst >= MOST),
    )


def _flagged(table: pd.DataFrame) -> Verdict:
    """Reproduced: every exact copy is blamed for it and no original. Not: one is not, or an original is."""
    copies, flagged = int(table["copies"].sum()), int(table["flagged"].sum())
    originals, blamed = int(table["originals"].sum()), int(table["originals_flagged"].sum())
    return Verdict(
        id="D3b",
        kind="gate",
        claim="every exact copy is flagged, as the later uploader by the stamps of its own round; all rounds",
        source="code",
        expected="all copies, no original",
        rule="every copy is blamed for it and no original; not: one is missed, or an original is blamed",
        ours=f"{flagged:,} of {copies:,} copies, {blamed} of {originals:,} originals are blamed for a copy",
        error="-",
        status=ruled(copies > 0 and flagged == copies and blamed == 0, flagged < copies or blamed > 0),
    )


def _by_previous_stamps(table: pd.DataFrame) -> Verdict:
    """Reproduced: by the stamps of the round before, somebody is blamed who was copied. Not: nobody is."""
    acting = table[table["round"] >= 1]
    copies, flagged = int(acting["copies"].sum()), int(acting["flagged_by_previous"].sum())
    originals, blamed = int(acting["originals"].sum()), int(acting["originals_flagged_by_previous"].sum())
    return Verdict(
        id="D3c",
        kind="report",
        claim="the deployed check goes by the stamps of the round before, and may blame the original",
        source="code",
        expected="not always the copy",
        rule="an original is blamed from round 1 on, or a copy is not; not: neither",
        ours=f"{flagged:,} of {copies:,} copies and {blamed:,} of {originals:,} originals are blamed; "
        f"of all copies {int(table['comparable'].sum()):,} of {int(table['copies'].sum()):,} were in one gather with "
        "their original, which alone are compared",
        error="-",
        status=ruled(copies > 0 and (blamed > 0 or flagged < copies), copies > 0 and blamed == 0 and flagged == copies),
    )


def _first_rounds(table: pd.DataFrame) -> Verdict:
    """Reproduced: an honest pair reaches the level in the first three rounds. Not: none does."""
    early = table[table["round"] < EARLY]
    each = [
        f"round {round} {100 * own['at_level'].sum() / own['pairs'].sum():.2g} % (largest {own['largest'].max():.2f})"
        for round, own in table[table["round"].isin((0, 1, 2, 3, 5, 10, 15, 20))].groupby("round")
    ]
    return Verdict(
        id="D3d",
        kind="report",
        claim=f"honest pairs reach {LEVEL} in the first rounds, in which the check does not act",
        source="a trial of ours",
        expected="0.40 to 0.46 in the first three rounds",
        rule=f"a pair at {LEVEL} or above in rounds 0 to {EARLY - 1}; not: none",
        ours=f"{', '.join(each)}; with the {100 * table['sent_whole'].mean():.1f} % that are sent whole counted, "
        f"largest from round {FROM_ROUND} "
        f"{table.loc[table['round'] >= FROM_ROUND, 'largest_with_whole'].max():.2f}",
        error="-",
        status=ruled(bool(early["at_level"].sum()), not early["at_level"].sum()),
    )


def draw(tables: Tables, verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """Overlaps by round; weights and pay of one seed."""
    return {"": _overlaps(tables[""], verdicts), "-pay": _weights_and_pay(tables, verdicts)}


def _overlaps(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    figure = headed(
        "Does the overlap of sent positions tell copies from honest work?",
        "Every pair of payloads of a round, a line per seed. Tensors that are sent whole count only where it says so.",
        verdicts,
        9.5,
        4.6,
    )
    axes = figure.subplots()
    series = (("largest", style.BLUE, "-"), ("mean", style.BLUE, (0, (4, 2))), ("largest_with_whole", style.SKY, "-"))
    words = {"largest": "honest, largest", "mean": "honest, mean", "largest_with_whole": "largest,\nsent whole counted"}
    labels = []
    for name, color, line in series:
        for _, own in table.groupby("seed"):
            axes.plot(own["round"], own[name], color=color, ls=line, lw=1.2)
        labels.append((float(table.loc[table["round"] == table["round"].max(), name].mean()), words[name], color))
    axes.axhline(1.0, color=style.PURPLE)
    axes.axhline(FLOOR, color=style.FAINT, lw=0.8, ls=(0, (1, 2)))
    for level in (0.4, 0.5, 0.6):
        axes.axhline(level, color=style.VERMILLION, lw=0.8)
    axes.axvline(FROM_ROUND, color=style.FAINT, lw=0.8)
    axes.set(xlabel="Round", ylabel="Indices in common", ylim=(0, 1.05))
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    labels += [(1.0, "exact copy", style.PURPLE), (0.4, "halved from here", style.VERMILLION)]
    labels += [(0.5, "reset from here", style.VERMILLION), (0.6, "excluded from here", style.VERMILLION)]
    style.label_lines(axes, [*labels, (FLOOR, "random", style.FAINT)])
    return figure


def _weights_and_pay(tables: Tables, verdicts: Sequence[Verdict]) -> Figure:
    figure = headed(
        "What validators give to honest peers and to copycats, and what the chain pays them",
        f"Seed {SHOWN_SEED}. Left: mean of the validators' weights by stake, a row per peer, in the order of "
        "their sums; below the line the copycats. Right: tokens of a peer so far, mean and range.",
        verdicts,
        11.0,
        5.0,
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _heat_map(left, tables["-weights"])
    labels = []
    for cohort, own in tables["-pay"].groupby("cohort"):
        color = style.PURPLE if cohort == "copycats" else style.BLUE
        right.fill_between(own["round"], own["min"], own["max"], color=color, alpha=0.12, lw=0)
        right.plot(own["round"], own["mean"], color=color, lw=2.2)
        labels.append((float(own["mean"].iloc[-1]), str(cohort), color))
    right.set(xlabel="Round", ylabel="Tokens of a peer")
    style.label_lines(right, labels)
    return figure


def _heat_map(axes: Axes, weights: pd.DataFrame) -> None:
    """Peers by settings; the honest on top."""
    grid = weights.pivot_table(index=["behavior", "uid"], columns="round", values="share", fill_value=0.0)
    sums = grid.sum(axis=1)
    order = sorted(grid.index, key=lambda peer: (peer[0] != "honest", -sums[peer]))
    picture = axes.imshow(100 * grid.loc[order].to_numpy(), aspect="auto", cmap="Blues", interpolation="nearest")
    honest = sum(behavior == "honest" for behavior, _ in order)
    axes.axhline(honest - 0.5, color=style.PURPLE, lw=1)
    axes.set_xticks(range(grid.shape[1]), [str(round) for round in grid.columns])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set(xlabel="Round after which weights were set", ylabel="Peers")
    axes.figure.colorbar(picture, ax=axes, label="Weight (% of all pay)", shrink=0.8)


STUDY = ScoringStudy(
    "d3", range(101, 104), _arms, read, derive, judge, draw, suffixes=("", "-weights", "-pay"), needs_tapes=True
)
