"""The studies behind the README: run scenarios over seeds and publish small tables and figures.

    python -m covsim.sweep.studies contrast
    python -m covsim.sweep.studies flagship

Runs that are there already are not run again and one that was cut is resumed, so a study that was stopped goes on where
it was. A study takes minutes; the tests check what it published, and run reduced versions of their own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from covsim.record.runner import REFUSALS, RESULTS, Interrupted, Run, run_or_resume
from covsim.report.figures import draw_all
from covsim.scenario import Scenario, clean_twin, load, seeds, with_seed
from covsim.sweep.comparison import draw_comparison
from covsim.sweep.expect import lookup
from covsim.sweep.interval import interval

PUBLISHED = RESULTS / "published"

Arms = dict[str, dict[int, Run]]
"""What is compared: by arm, one run per seed."""

FLAGSHIP_SEEDS = range(1, 6)
FLAGSHIP_METRICS = (
    "loss.final",
    "bits_per_byte.final",
    "lineages.final",
    "time.compute_utilization",
    "late_share",
    *(f"pay_per_peer.{cohort}" for cohort in ("honest", "lazy", "flippers", "copycats")),
    "honest_earning_zero",
)
CONTRAST_METRICS = ("loss.final", "pay_per_peer.flippers", "selected_share.flippers")


def contrast() -> None:
    """14 flippers of 72 at twice the force: Gauntlet, random selection without a clip, and the clean twin of each."""
    runs: Arms = {}
    for name in ("gauntlet", "random"):
        scenario = load(f"contrast/{name}")
        of_seeds = {seed: with_seed(scenario, seed) for seed in seeds(scenario)}
        runs[name] = {seed: _run(each) for seed, each in of_seeds.items()}
        runs[f"{name}, clean"] = {seed: _run(clean_twin(each)) for seed, each in of_seeds.items()}
    _publish("contrast", runs, CONTRAST_METRICS)
    draw_comparison(
        {name: [each.folder for each in of_seeds.values()] for name, of_seeds in runs.items()},
        PUBLISHED / "contrast.png",
        "14 of 72 peers push the other way with twice the force",
    )


def flagship() -> None:
    """The flagship over five seeds, with ties in the match shared as openskill does, and drawn."""
    runs: Arms = {}
    for ties in ("shared", "drawn"):
        scenario = load("covenant72b", {"gauntlet.ties": ties})
        runs[f"ties {ties}"] = {seed: _run(with_seed(scenario, seed)) for seed in FLAGSHIP_SEEDS}
    _publish("flagship", runs, FLAGSHIP_METRICS)
    first = runs["ties shared"][FLAGSHIP_SEEDS[0]].folder
    draw_all(first)
    shutil.copyfile(first / "figures" / "overview.png", PUBLISHED / "covenant72b.png")


STUDIES = {"contrast": contrast, "flagship": flagship}


def _run(scenario: Scenario) -> Run:
    done = run_or_resume(scenario)
    print(f"{scenario.name} seed {scenario.seed}: loss {done.summary['loss.final']:.3f}  {done.folder}", flush=True)
    return done


def _publish(name: str, runs: Arms, metrics: Sequence[str]) -> None:
    """Write one row per arm and seed, and beside it the mean of each metric with its 95 % interval."""
    rows = [
        {"arm": arm, "seed": seed, **_numbers(each.summary, metrics)}
        for arm, of_seeds in runs.items()
        for seed, each in of_seeds.items()
    ]
    means = [_means(arm, list(of_seeds.values()), metrics) for arm, of_seeds in runs.items()]
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(PUBLISHED / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    pd.DataFrame(means).to_csv(PUBLISHED / f"{name}-means.csv", index=False, float_format="%.4g", lineterminator="\n")


def _numbers(summary: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    numbers = {metric: lookup(summary, metric) for metric in metrics}
    return {**numbers, "digest.learning": summary["digest.learning"]}


def _means(arm: str, of_seeds: Sequence[Run], metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "seeds": len(of_seeds)}
    for metric in metrics:
        measured = interval([lookup(each.summary, metric) for each in of_seeds])
        row |= {metric: measured.mean, f"{metric} +-": measured.half_width}
    return row


def main(arguments: Sequence[str]) -> int:
    """Run the named studies, or say which there are; returns an exit code as the command line has them."""
    if not arguments or not set(arguments) <= set(STUDIES):
        return _complain(f"name one or more of: {', '.join(STUDIES)}", 2)
    try:
        for name in arguments:
            STUDIES[name]()
    except (Interrupted, KeyboardInterrupt):
        command = " ".join(("python -m covsim.sweep.studies", *arguments))
        return _complain(f"interrupted; go on with: {command}", 130)
    except REFUSALS as refusal:
        return _complain(refusal, 2)
    return 0


def _complain(message: object, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
