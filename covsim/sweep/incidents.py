"""The incidents of the live network, before and after their fixes: run all pairs and publish what came of them.

    python -m covsim.sweep.incidents [PAIR...] [--seeds N] [--jobs N]

Pairs are `scenarios/incidents/<pair>-before.yaml` and `-after.yaml`. Of both sides the metrics are read about which one
of them makes a claim. Rows of pairs that are not named stay in the table as they are. Runs that are there already are
not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from covsim.record.files import write_whole
from covsim.record.runner import RESULTS
from covsim.scenario import Scenario, clean_twin, load, shipped_scenarios, with_seed
from covsim.scenario.sections import Claim
from covsim.sweep import expect
from covsim.sweep.interval import interval
from covsim.sweep.local import JOBS, FailedRuns
from covsim.sweep.trials import trials

SIDES = ("before", "after")
TABLE = RESULTS / "published" / "incidents.csv"
_FOLDER = "incidents/"


def pairs() -> list[str]:
    """The names of all pairs."""
    endings = tuple(f"-{side}" for side in SIDES)
    names = [name.removeprefix(_FOLDER) for name in shipped_scenarios() if name.startswith(_FOLDER)]
    return sorted({name.rpartition("-")[0] for name in names if name.endswith(endings)})


def side(pair: str, which: str) -> Scenario:
    """One scenario of a pair."""
    return load(f"{_FOLDER}{pair}-{which}")


def claims(pair: str, which: str) -> list[Claim]:
    """What one side claims."""
    expected = side(pair, which).expect
    assert expected is not None, f"{pair}-{which} claims nothing"
    return list(expected.claims)


def measured(pair: str) -> list[tuple[str, bool]]:
    """Metrics that a side of the pair claims something about, and whether they are held against the clean twin."""
    found = [(claim.metric, claim.versus is not None) for which in SIDES for claim in claims(pair, which)]
    return list(dict.fromkeys(found))


def rows(pair: str, num_seeds: int | None = None, jobs: int = JOBS, out: Path | None = None) -> pd.DataFrame:
    """Run a pair; one row per side, metric and seed. Raises FailedRuns.

    Args:
        pair: its name.
        num_seeds: as many as each side expects, if not given.
        jobs: processes; with 0 everything happens in this one.
        out: the folder of all results; `results` if not given.
    """
    return pd.DataFrame([row for which in SIDES for row in _rows(pair, which, num_seeds, jobs, out)])


def _rows(
    pair: str, which: str, num_seeds: int | None, jobs: int, out: Path | None
) -> Iterator[dict[str, str | int | float]]:
    scenario, metrics = side(pair, which), measured(pair)
    assert scenario.expect is not None, f"{pair}-{which} claims nothing"
    seeds = range(scenario.seed, scenario.seed + (num_seeds or scenario.expect.seeds))
    twin_of = clean_twin if any(versus for _, versus in metrics) else None
    for trial in trials(with_seed(scenario, scenario.seed), seeds, twin_of, jobs=jobs, out=out, say=print):
        for metric, versus in metrics:
            value = expect.lookup(trial.run.summary, metric)
            if versus:
                assert trial.twin is not None, "a claim versus clean has a twin"
                value = expect.worse_by(metric, value, expect.lookup(trial.twin.summary, metric))
            name = f"{metric} versus clean" if versus else metric
            yield {"pair": pair, "side": which, "metric": name, "seed": trial.seed, "value": value}


def publish(done: pd.DataFrame, table: Path = TABLE) -> None:
    """Put rows into the published table, instead of those of the same pairs."""
    known = pd.read_csv(table) if table.exists() else done.iloc[:0]
    there = known[~known["pair"].isin(done["pair"]) & known["pair"].isin(pairs())]
    whole = pd.concat([there, done] if len(there) else [done]).sort_values("pair", kind="stable")
    write_whole(table, lambda path: whole.to_csv(path, index=False, float_format="%.6g", lineterminator="\n"))


def markdown(table: pd.DataFrame) -> str:
    """The figures as `docs/incidents.md` has them: mean over seeds, with its 95 % interval, before and after."""
    lines = ["| pair | measured | seeds | before | after |", "|---|---|---|---|---|"]
    for (pair, metric), of_metric in table.groupby(["pair", "metric"], sort=False):
        seen = [of_metric[of_metric["side"] == which]["value"].tolist() for which in SIDES]
        lines.append(f"| `{pair}` | `{metric}` | {len(seen[0])} | {' | '.join(map(_shown, seen))} |")
    return "\n".join(lines)


def _shown(values: Sequence[float]) -> str:
    mean = interval(values)
    return f"{mean.mean:.3g} ± {mean.half_width:.2g}"


def main(arguments: Sequence[str]) -> int:
    """Run the named pairs, or all; returns an exit code as the command line has them."""
    asked = _parser().parse_args(arguments)
    try:
        for pair in asked.pairs or pairs():
            publish(rows(pair, asked.seeds, asked.jobs))
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on where it was", 130)
    except FailedRuns as failed:
        return _complain(failed, 1)
    print(markdown(pd.read_csv(TABLE)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m covsim.sweep.incidents", description="Run incidents before and after their fixes."
    )
    parser.add_argument("pairs", nargs="*", choices=[[], *pairs()], metavar="PAIR", help="which; all if none is named")
    parser.add_argument("--seeds", type=int, help="of each side; as its file says if not given")
    parser.add_argument("--jobs", type=int, default=JOBS, help="processes of one torch thread each")
    return parser


def _complain(message: object, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
