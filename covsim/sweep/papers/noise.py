"""How much of the scores is noise, and does the own-data indicator see peers that train on other data than assigned?

One training a seed, in which everybody's payload enters whatever it scores. Its payloads are then measured under every
setting of an evaluation (open loop): 8 and 32 sequences with three trial factors, 128 with one, and pools of which
18.75 % or all were trained on. All peers are evaluated in every round, but for the comparison of bins, where few are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covsim.report import style
from covsim.sweep.interval import Interval, interval
from covsim.sweep.papers.evaluations import DEPLOYED, EXACT_POOL, FACTORS, HONEST, POOLS, SEQUENCES, WRONG, read
from covsim.sweep.papers.measured_again import Setting
from covsim.sweep.papers.scoring_study import ScoringStudy, Tables, auc, headed, of_arm, roc
from covsim.sweep.papers.study import Arm, Scale
from covsim.sweep.papers.tables import shown
from covsim.sweep.papers.verdicts import Verdict, above, ruled, within

BASE = "gauntlet/noise"
SEEN, MISSED = 0.9, 0.75
"""Area under the curve from which the indicator counts as seeing, and below which as missing."""

QUARTER, POINTS = 0.25, 15
"""How many of those that ignore their data should pass the threshold, and how far off a share may be, in points."""

_COLORS = dict(zip(SEQUENCES, (style.BLUE, style.ORANGE, style.GREEN), strict=True))


def _arms(_: Scale) -> list[Arm]:
    return [Arm("16 honest, 12 wrong shard, 4 lazy", BASE, {}, {})]


def derive(tables: Tables) -> Tables:
    """Means over the seeds with their intervals."""
    keys = ["sequences", "trial_factor", "pool_used"]
    return {
        "-means": _means(tables[""], keys),
        "-bins-means": _means(tables["-bins"], ["bins"]),
    }


def _means(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for labels, own in table.groupby(keys, sort=True):
        row: dict[str, Any] = dict(zip(keys, labels, strict=True)) | {"seeds": own["seed"].nunique()}
        for metric in [name for name in table.columns if name not in ("arm", "seed", *keys)]:
            measured = interval(own[metric].tolist())
            row |= {metric: measured.mean, f"{metric} +-": measured.half_width}
        rows.append(row)
    return pd.DataFrame(rows)


def _of(table: pd.DataFrame, setting: Setting, metric: str) -> Interval:
    return interval(_by_seed(table, setting, metric))


def _by_seed(table: pd.DataFrame, setting: Setting, metric: str) -> list[float]:
    rows = of_arm(
        table, sequences=setting.sequences, trial_factor=setting.trial_factor, pool_used=setting.pool_used
    ).sort_values("seed")
    return [float(value) for value in rows[metric]]


def judge(tables: Tables) -> list[Verdict]:
    """All are reports: no target has numbers for them."""
    table = tables[""]
    return [_misses(table), _sees(table), _passes(table), _steps(table), _sequences(table)]


def _found(table: pd.DataFrame, setting: Setting) -> str:
    """'indicator +0.02 ± 0.03 honest, -0.01 ± 0.02 wrong shard; area 0.55 ± 0.08 by its average, ...'."""
    honest, wrong = (_of(table, setting, f"indicator.{group}") for group in (HONEST, WRONG))
    return (
        f"mean indicator {honest.mean:+.3f} ± {honest.half_width:.3f} honest, {wrong.mean:+.3f} ± "
        f"{wrong.half_width:.3f} wrong shard; area {shown(_of(table, setting, 'auc.average'), 2)} by its average, "
        f"{shown(_of(table, setting, 'auc.final_score'), 2)} by the final score"
    )


def _misses(table: pd.DataFrame) -> Verdict:
    """Reproduced: the area under the curve lies below 0.75 with its interval. Not: above."""
    measured = _of(table, DEPLOYED, "auc.average")
    return Verdict(
        id="noise-1",
        kind="report",
        claim="at the deployed dilution, 8 sequences of a pool five times what is trained, the own-data indicator "
        "misses peers that train on other data",
        source="a trial of ours",
        expected=f"area under the ROC curve below {MISSED:g}",
        rule=f"of the averages at the end, 16 honest against 12: interval over seeds below {MISSED:g}; not: above",
        ours=_found(table, DEPLOYED),
        error="-",
        status=ruled(measured.high < MISSED, measured.low > MISSED),
    )


def _sees(table: pd.DataFrame) -> Verdict:
    """Reproduced: the area lies above 0.9 with its interval. Not: below."""
    return Verdict(
        id="noise-2",
        kind="report",
        claim="with 32 sequences of exactly what was trained on, the indicator sees them",
        source="a trial of ours",
        expected=f"area under the ROC curve above {SEEN:g}",
        rule=f"as above: interval above {SEEN:g}; not: below",
        ours=_found(table, EXACT_POOL),
        error="-",
        status=above(_of(table, EXACT_POOL, "auc.average"), SEEN),
    )


def _passes(table: pd.DataFrame) -> Verdict:
    """Reproduced: the interval lies within 15 points of a quarter. Not: it lies outside."""
    passing = _of(table, DEPLOYED, f"passing.{WRONG}")
    honest = _of(table, DEPLOYED, f"passing.{HONEST}")
    aside = Interval(100 * (passing.mean - QUARTER), 100 * passing.half_width)
    return Verdict(
        id="noise-3",
        kind="report",
        claim="a peer that ignores its data passes the threshold of 0.10 about a quarter of the time",
        source="calc (a stationary average of 0 ± 0.16)",
        expected="25 %",
        rule=f"share that passes at the end: interval over seeds within {POINTS} points of it; not: outside",
        ours=f"{100 * passing.mean:.0f} ± {100 * passing.half_width:.0f} % of those; "
        f"{100 * honest.mean:.0f} ± {100 * honest.half_width:.0f} % of the honest",
        error=f"{aside.mean:+.0f} points",
        status=within(aside, POINTS),
    )


def _steps(table: pd.DataFrame) -> Verdict:
    """Reproduced: scores agree less at 0.5 than at 0.2, with the interval. Not: more."""
    each = {c: _of(table, Setting(8, c, DEPLOYED.pool_used), "agreement") for c in FACTORS}
    pairs = zip(*(_by_seed(table, Setting(8, c, DEPLOYED.pool_used), "agreement") for c in (0.5, 0.2)), strict=True)
    change = interval([large - small for large, small in pairs])
    return Verdict(
        id="noise-4",
        kind="report",
        claim="larger trial steps give less consistent scores",
        source="Gauntlet, section 3",
        expected="c = 0.5 less than c = 0.2",
        rule="rank correlation of a round's scores over two samples of 8 sequences, paired by seed: change below 0; "
        "not: above 0",
        ours=", ".join(f"c = {c:g}: {shown(found, 3)}" for c, found in each.items())
        + f"; change {change.mean:+.3f} ± {change.half_width:.3f}",
        error="-",
        status=ruled(change.high < 0, change.low > 0),
    )


def _sequences(table: pd.DataFrame) -> Verdict:
    """Reproduced: agreement rises with the sequences, each step with its interval. Not: it falls somewhere."""
    found = [_by_seed(table, Setting(n, 0.2, DEPLOYED.pool_used), "agreement") for n in SEQUENCES]
    steps = [
        interval([more - less for more, less in zip(*pair, strict=True)])
        for pair in ((found[1], found[0]), (found[2], found[1]))
    ]
    areas = ", ".join(
        f"{n}: {shown(_of(table, Setting(n, 0.2, DEPLOYED.pool_used), 'auc.average'), 2)} of the diluted, "
        f"{shown(_of(table, Setting(n, 0.2, 1.0), 'auc.average'), 2)} of the exact pool"
        for n in SEQUENCES
    )
    return Verdict(
        id="noise-5",
        kind="report",
        claim="8 sequences make scores noisy: more give more consistent ones",
        source="code",
        expected="agreement rises from 8 over 32 to 128 sequences",
        rule="as above at c = 0.2, paired by seed: both changes above 0; not: one below 0",
        ours=", ".join(f"{n}: {shown(interval(each), 3)}" for n, each in zip(SEQUENCES, found, strict=True))
        + f"; area by the indicator's average, {areas}",
        error="-",
        status=ruled(all(each.low > 0 for each in steps), any(each.high < 0 for each in steps)),
    )


def draw(tables: Tables, verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """ROC curves, and the mean indicator of both groups."""
    return {"": _curves(tables["-scores"], verdicts), "-indicator": _means_of_groups(tables[""], verdicts)}


def _curves(scores: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    figure = headed(
        "Does the own-data indicator see peers that train on other data?",
        "ROC curves over the peers of all seeds at the end of the run, honest against wrong shard; c = 0.2. The area "
        "stands in brackets. Dashed: guessing. Long slopes: peers of equal score, most of them 0.",
        verdicts,
        12.0,
        4.8,
    )
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    shows = itertools.product((("average", "indicator average"), ("final_score", "final score")), POOLS)
    for axes, ((column, word), pool_used) in zip(panels, shows, strict=True):
        own = of_arm(scores, pool_used=pool_used, trial_factor=0.2)
        for sequences in SEQUENCES:
            _curve(axes, of_arm(own, sequences=sequences), column, sequences)
        axes.plot([0, 1], [0, 1], color=style.FAINT, lw=0.8, ls=(0, (4, 3)))
        axes.set(title=f"{word},\n{100 * pool_used:g} % of the pool trained", xlabel="Wrong shard let through")
        axes.legend(loc="lower right", title="Sequences", fontsize=8)
    panels[0].set_ylabel("Honest let through")
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, column: str, sequences: int) -> None:
    honest, wrong = (of_arm(rows, behavior=group)[column].tolist() for group in (HONEST, WRONG))
    false, true = roc(honest, wrong)
    label = f"{sequences} ({auc(honest, wrong):.2f})"
    axes.plot(false, true, color=_COLORS[sequences], label=label, drawstyle="default")


def _means_of_groups(table: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    figure = headed(
        "How far apart are the indicators of peers that use their data and of those that do not?",
        "Mean over peers and rounds, and over seeds with its 95 % interval; c = 0.2. An indicator is +1 or -1.",
        verdicts,
        9.0,
        4.4,
    )
    panels = figure.subplots(1, len(POOLS), sharey=True)
    for axes, pool_used in zip(panels, POOLS, strict=True):
        for group, color, aside in ((HONEST, style.BLUE, -0.08), (WRONG, style.VERMILLION, 0.08)):
            found = [_of(table, Setting(n, 0.2, pool_used), f"indicator.{group}") for n in SEQUENCES]
            axes.errorbar(
                [place + aside for place in range(len(SEQUENCES))],
                [each.mean for each in found],
                yerr=[each.half_width for each in found],
                fmt="o-",
                color=color,
                capsize=4,
                label=group.replace("_", " "),
            )
        axes.axhline(0, color=style.FAINT, lw=0.8)
        axes.set_xticks(range(len(SEQUENCES)), [str(n) for n in SEQUENCES])
        axes.set(title=f"{100 * pool_used:g} % of the pool trained", xlabel="Sequences per loss")
    panels[0].set_ylabel("Mean indicator")
    panels[0].legend(loc="upper left")
    return figure


STUDY = ScoringStudy(
    "noise", range(101, 106), _arms, read, derive, judge, draw, suffixes=("", "-scores", "-bins"), needs_tapes=True
)
