"""What `covsim attribute` does: price what one peer changed, against the same run with it honest or absent."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from covsim.record.runner import REFUSALS
from covsim.scenario.twins import Clean
from covsim.sweep.attribution import FILE, Attribution, CannotAttribute, Price, attribute
from covsim.sweep.local import FailedRuns

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def show_attribution(folder: Path, uid: int, how: Clean | None, seeds: int, jobs: int, out: Path | None) -> int:
    """Run what is missing, print the table, and return an exit code."""
    try:
        found = attribute(folder, uid, how, seeds=seeds, jobs=jobs, out=out, say=lambda line: print(line, flush=True))
    except (CannotAttribute, *REFUSALS) as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    except FailedRuns as failed:
        print(failed, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    console = Console()
    console.print(table(found))
    if len(found.seeds) == 1:
        console.print("one seed: one world; --seeds 5 says whether it holds in others")
    console.print(f"{folder / FILE}", soft_wrap=True)
    return OK


def table(found: Attribution) -> Table:
    """The figures as they were, as they would have been, and what the peer changed."""
    many = len(found.seeds) > 1
    seeds = f", mean over seeds {found.seeds[0]} to {found.seeds[-1]}" if many else ""
    lines = Table(
        Column("figure", no_wrap=True),
        Column("as it was", justify="right"),
        Column(f"with it {found.how}", justify="right"),
        Column("it changed", justify="right", no_wrap=True),
        title=f"uid {found.uid}{_later(found)} of {found.cohort}{seeds}",
        title_justify="left",
    )
    for price in found.prices:
        lines.add_row(price.figure, _number(price.was), _number(price.would_be), _changed(price, many))
    return lines


def _later(found: Attribution) -> str:
    """The further uids that the peer took in its first run, as far as a title has room."""
    later = [str(uid) for uid in found.all_uids[0][1:]]
    more = [*later[:5], "..."] if len(later) > 5 else later
    return f", later {', '.join(more)}," if later else ""


def _changed(price: Price, many: bool) -> str:
    if price.changed is None or price.half_width is None:
        return "n/a"
    sign = "+" if price.changed > 0 else ""
    return f"{sign}{_number(price.changed)}" + (f" ± {_number(price.half_width)}" if many else "")


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"
