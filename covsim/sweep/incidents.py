"""The incidents of the live network, before and after their fixes: run all pairs and publish what came of them.

    python -m covsim.sweep.incidents [PAIR...] [--seeds N] [--jobs N]

Pairs are `scenarios/incidents/<pair>-before.yaml` and `-after.yaml`. Of both sides the metrics are read about which one
of them makes a claim. Rows of pairs that are not named stay in the table as they are. Runs that are there already are
not run again. Each row says on what processor it was made, because figures are equal on one platform only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from covsim.record.files import write_whole
from covsim.record.runner import RESULTS, Run
from covsim.scenario import Scenario, clean_twin, load, shipped_scenarios, with_seed
from covsim.scenario.sections import Claim
from covsim.sweep import expect
from covsim.sweep.interval import interval
from covsim.sweep.local import JOBS, FailedRuns
from covsim.sweep.trials import trials

SIDES = ("before", "after")
TABLE = RESULTS / "published" / "incidents.csv"
_FOLDER = "incidents/"
_VERSUS = " versus clean"


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
            name = f"{metric}{_VERSUS}" if versus else metric
            row: dict[str, str | int | float] = {"pair": pair, "side": which, "metric": name, "seed": trial.seed}
            yield row | {"value": value, "platform": platform(trial.run)}


def platform(run: Run) -> str:
    """The processor and the torch that a run's bits depend on."""
    made = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))
    return f"{made['cpu']['model']} {made['cpu']['capability']}, torch {made['versions']['torch']}"


def judged(table: pd.DataFrame, pair: str, which: str) -> list[expect.Ruling]:
    """What becomes of the claims of one side, by the rows of the table and without a run."""
    own = table[(table["pair"] == pair) & (table["side"] == which)]
    return [_judged(claim, own) for claim in claims(pair, which)]


def _judged(claim: Claim, own: pd.DataFrame) -> expect.Ruling:
    """Judge a claim; what is held against the clean twin is in the table as how much worse it is, so the twin is 1."""
    worse = claim.versus is not None
    values = own[own["metric"] == (f"{claim.metric}{_VERSUS}" if worse else claim.metric)]["value"].tolist()
    twins = [{claim.metric: 1.0} for _ in values if worse]
    (ruling,) = expect.judge([claim], [{claim.metric: 1 + value if worse else value} for value in values], twins)
    return ruling


def publish(done: pd.DataFrame, table: Path = TABLE) -> None:
    """Put rows into the published table, instead of those of the same pairs."""
    known = pd.read_csv(table) if table.exists() else done.iloc[:0]
    there = known[~known["pair"].isin(done["pair"]) & known["pair"].isin(pairs())]
    whole = pd.concat([there, done] if len(there) else [done]).sort_values("pair", kind="stable")
    write_whole(table, lambda path: whole.to_csv(path, index=False, float_format="%.6g", lineterminator="\n"))


def markdown(table: pd.DataFrame) -> str:
    """The figures as `docs/incidents.md` has them: means over seeds, 95 % intervals, and what becomes of claims.

    The change is that of the same seed from before to after: what luck both sides share is not in it.
    """
    lines = ["| pair | measured | seeds | before | after | change | claims |", "|---|---|---|---|---|---|---|"]
    for (pair, metric), of_metric in table.groupby(["pair", "metric"], sort=False):
        seen = [of_metric[of_metric["side"] == which]["value"].tolist() for which in SIDES]
        seen.append([after - before for before, after in zip(*seen, strict=True)])
        outcomes = " / ".join(_outcomes(table, str(pair), which, str(metric)) for which in SIDES)
        lines.append(f"| `{pair}` | `{metric}` | {len(seen[0])} | {' | '.join(map(_shown, seen))} | {outcomes} |")
    return "\n".join(lines)


def _outcomes(table: pd.DataFrame, pair: str, which: str, metric: str) -> str:
    rulings = judged(table, pair, which)
    own = [each.outcome for each in rulings if metric == each.claim.metric + (_VERSUS if each.claim.versus else "")]
    return ", ".join(own) or "none"


def _shown(values: Sequence[float]) -> str:
    mean = interval(values)
    return f"{mean.mean:.3g} ± {mean.half_width:.2g}"


def main(arguments: Sequence[str]) -> int:
    """Run the named pairs, or all; returns an exit code as the command line has them, 1 if a claim does not hold."""
    asked = _parser().parse_args(arguments)
    try:
        for pair in asked.pairs or pairs():
            publish(rows(pair, asked.seeds, asked.jobs))
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on where it was", 130)
    except FailedRuns as failed:
        return _complain(failed, 1)
    table = pd.read_csv(TABLE)
    print(markdown(table))
    missed = [each for pair in asked.pairs or pairs() for each in _missed(table, pair)]
    return _complain("\n".join(missed), 1) if missed else 0


def _missed(table: pd.DataFrame, pair: str) -> Iterator[str]:
    """A line for every claim that the table does not bear out."""
    for which in SIDES:
        for ruling in judged(table, pair, which):
            if ruling.outcome not in ("pass", "xfail"):
                seen = expect.shown(ruling)
                yield f"{pair}-{which}: {expect.wording(ruling.claim)}, seen {seen}: {ruling.outcome}"


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
