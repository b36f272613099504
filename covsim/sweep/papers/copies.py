"""D3: does the overlap of top-k indices tell copies from honest work?

All payloads of every round of a run with real training are compared with each other, whoever was gathered. What the
check would say of them follows from the payloads and the store's stamps alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from covsim.gauntlet.checks import Overlap, find_overlaps, overlap_matrix
from covsim.nodes.gather import Submission
from covsim.record.runner import Run
from covsim.report import style
from covsim.sweep.papers.open_loop import Exchanged, Replay
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables, headed
from covsim.sweep.papers.study import Arm, Scale
from covsim.sweep.papers.verdicts import Verdict, ruled

BASE = "gauntlet/d3"
LEVEL = 0.4
"""The lowest overlap that costs anything, as deployed."""

FROM_ROUND = 20
"""From which on it does."""

MOST = 0.01
FLOOR = 64 / 4096
"""Overlap of two random choices."""

FEWEST_PAIRS = 2000
EARLY = 3
"""The first rounds, in which a trial saw honest pairs at 0.40 to 0.46."""

SHOWN_SEED = 1
"""Whose weights and pay are published."""


def _arms(_: Scale) -> list[Arm]:
    return [Arm("66 honest, 8 copycats", BASE, {}, {})]


def read(run: Run, _: Scale) -> Tables:
    """Honest pairs and copies by round; of one seed also the weights and the pay."""
    replay = Replay(run.folder)
    behaviors = replay.behaviors
    rounds = [(exchanged, _compared(exchanged, behaviors)) for exchanged in replay.rounds()]
    tables = {"": pd.DataFrame([{"round": exchanged.round, **found} for exchanged, found in rounds])}
    if replay.scenario.seed == SHOWN_SEED:
        tables |= {"-weights": _weights(run, behaviors), "-pay": _pay(replay.peers)}
    return tables


def _compared(exchanged: Exchanged, behaviors: Mapping[int, str]) -> dict[str, Any]:
    """What overlaps say of a round."""
    submissions = exchanged.submissions
    honest = [each for each in submissions if behaviors[each.uid] == "honest"]
    own, before = _found(submissions, None), _found(submissions, exchanged.previous_stored_s)
    return {**_honest_pairs(honest), **_copies(submissions, behaviors, exchanged.entered, own, before)}


def _found(submissions: Sequence[Submission], previous_stored_s: Mapping[int, float] | None) -> dict[int, Overlap]:
    """What the check finds among these, by their own stamps or by those of the round before."""
    uids = [each.uid for each in submissions]
    stamps = None if previous_stored_s is None else [previous_stored_s[uid] for uid in uids]
    return find_overlaps(uids, [each.stored_s for each in submissions], [each.decoded for each in submissions], stamps)


def _honest_pairs(honest: Sequence[Submission]) -> dict[str, Any]:
    """Pairs of honest payloads: how many, how alike, and how alike if tensors that are sent whole counted, too."""
    matrix = overlap_matrix([each.decoded for each in honest]).numpy()
    upper = np.triu_indices(len(honest), 1)
    pairs = matrix[upper]
    whole = np.array([float((each.decoded.kept_share == 1).float().mean()) for each in honest])
    share_whole = (whole[:, None] + whole[None]) / 2
    counted = (share_whole + (1 - share_whole) * matrix)[upper]
    return {
        "pairs": len(pairs),
        "mean": pairs.mean(),
        "median": np.median(pairs),
        "largest": pairs.max(),
        "at_level": int((pairs >= LEVEL).sum()),
        "sent_whole": whole.mean(),
        "largest_with_whole": counted.max(),
        "at_level_with_whole": int((counted >= LEVEL).sum()),
    }


def _copies(
    submissions: Sequence[Submission],
    behaviors: Mapping[int, str],
    entered: frozenset[int],
    own: Mapping[int, Overlap],
    before: Mapping[int, Overlap],
) -> dict[str, Any]:
    """Exact copies: how many, and who is blamed for them, by stamps of this round and of the round before.

    A copy's original is the first payload of the same bytes. `comparable` are copies that the deployed check could see:
    both entered the lead validator's gather.
    """
    first: dict[str, Submission] = {}
    for each in sorted(submissions, key=lambda each: (each.stored_s, each.uid)):
        first.setdefault(each.sha256, each)
    copies = [each for each in submissions if first[each.sha256] is not each]
    originals = {each.sha256: first[each.sha256] for each in copies}.values()
    return {
        "copies": len(copies),
        "flagged": sum(_is_flagged(each.uid, own) for each in copies),
        "originals": len(originals),
        "originals_flagged": sum(_is_flagged(each.uid, own) for each in originals),
        "flagged_by_previous": sum(_is_flagged(each.uid, before) for each in copies),
        "originals_flagged_by_previous": sum(_is_flagged(each.uid, before) for each in originals),
        "comparable": sum({each.uid, first[each.sha256].uid} <= entered for each in copies),
        "honest": sum(behaviors[each.uid] == "honest" for each in submissions),
        "honest_flagged": sum(behaviors[each.uid] == "honest" and _is_flagged(each.uid, own) for each in submissions),
    }


def _is_flagged(uid: int, found: Mapping[int, Overlap]) -> bool:
    return uid in found and found[uid].share >= LEVEL


def _weights(run: Run, behaviors: Mapping[int, str]) -> pd.DataFrame:
    """The stake-weighted mean of what validators handed to the chain, by round and peer."""
    weights = pd.read_parquet(run.folder / "weights.parquet")
    stakes = pd.Series({name: each.stake for name, each in Replay(run.folder).scenario.validators.items()})
    weights["share"] = weights["weight"] * weights["validator"].map(stakes / stakes.sum())
    rows = weights[weights["uid"] >= 0].groupby(["round", "uid"], as_index=False)["share"].sum()
    return rows.assign(behavior=rows["uid"].map(behaviors))


def _pay(peers: pd.DataFrame) -> pd.DataFrame:
    """Tokens so far of a peer, by round and cohort: the mean, the least and the most."""
    rows = peers.sort_values("round")
    earned = rows.groupby("uid")["payout"].cumsum().groupby([rows["cohort"], rows["round"]])
    return pd.DataFrame({"mean": earned.mean(), "min": earned.min(), "max": earned.max()}).reset_index()


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
    """Reproduced: every exact copy is flagged and no original. Not: one is not, or an original is."""
    copies, flagged = int(table["copies"].sum()), int(table["flagged"].sum())
    originals, blamed = int(table["originals"].sum()), int(table["originals_flagged"].sum())
    return Verdict(
        id="D3b",
        kind="gate",
        claim="every exact copy is flagged, as the later uploader by the stamps of its own round; all rounds",
        source="code",
        expected="all copies, no original",
        rule="every copy and no original; not: a copy is missed",
        ours=f"{flagged:,} of {copies:,} copies, {blamed} of {originals:,} originals"
        + (" (which overlap with somebody earlier, in the first rounds)" if blamed else ""),
        error="-",
        status=ruled(copies > 0 and flagged == copies and blamed == 0, flagged < copies),
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
        rule="an original is flagged from round 1 on, or a copy is not; not: neither",
        ours=f"{flagged:,} of {copies:,} copies and {blamed:,} of {originals:,} originals are flagged; "
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
        "Every pair of payloads of a round, a line per seed. Tensors that are sent whole count only where that is said.",
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
    "d3", range(1, 4), _arms, read, derive, judge, draw, suffixes=("", "-weights", "-pay"), needs_tapes=True
)
