"""What the study of noise reads of a run: what each setting of an evaluation would have concluded from its payloads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from covsim.gauntlet.settings import GauntletSettings
from covsim.randomness import Streams
from covsim.record.runner import Run
from covsim.sweep.papers.measured_again import Measured, Setting, judged, measure_round, standings_table
from covsim.sweep.papers.open_loop import Replay
from covsim.sweep.papers.scoring_study import Tables, auc
from covsim.sweep.papers.study import Scale

SEQUENCES = (8, 32, 128)
FACTORS = (0.1, 0.2, 0.5)
POOLS = (0.1875, 1.0)
SETTINGS = tuple(
    Setting(*each) for each in itertools.product(SEQUENCES, FACTORS, POOLS) if each[0] < 128 or each[1] == 0.2
)
"""128 sequences at the deployed factor alone: they are half of the work."""

DEPLOYED = Setting(8, 0.2, 0.1875)
EXACT_POOL = Setting(32, 0.2, 1.0)

BINS = (1, 5)
EVALUATED = 6
"""Of 32 peers, in the comparison of bins: so few that each of five bins can fill an evaluation."""

DRAWS = 8
"""Validators that draw for themselves in it."""

HONEST, WRONG, LAZY = "honest", "wrong_shard", "lazy"


def read(run: Run, scale: Scale) -> Tables:
    """What each setting concludes at the end, and the scores of single peers from which it follows."""
    replay = Replay(run.folder)
    streams, behaviors = Streams(replay.scenario.seed), replay.behaviors
    rounds = [(exchanged.round, measure_round(replay, exchanged, SETTINGS)) for exchanged in replay.rounds()]
    rows, scores = [], []
    for setting in SETTINGS:
        of_setting = [(round, measured[setting]) for round, measured in rounds]
        rules = _rules(setting, evaluated=len(behaviors), bins=1)
        peers = standings_table(judged(rules, of_setting, streams), behaviors)
        labels = {"sequences": setting.sequences, "trial_factor": setting.trial_factor, "pool_used": setting.pool_used}
        rows.append({**labels, **_indicators(of_setting, behaviors), **_separated(peers), **_agreement(of_setting)})
        scores.append(peers.assign(**labels)[[*labels, *peers.columns]])
    deployed = [(round, measured[DEPLOYED]) for round, measured in rounds]
    bins = [{"bins": bins, **_with_bins(deployed, bins, streams, behaviors)} for bins in BINS]
    return {"": pd.DataFrame(rows), "-scores": pd.concat(scores, ignore_index=True), "-bins": pd.DataFrame(bins)}


def _rules(setting: Setting, evaluated: int, bins: int) -> GauntletSettings:
    """The rules of v2.1.28, evaluated so."""
    return GauntletSettings.model_validate(
        {
            "preset": "v2.1.28",
            "own_sequences": setting.sequences,
            "random_sequences": setting.sequences,
            "trial_factor": setting.trial_factor,
            "evaluated_per_window": evaluated,
            "bins": bins,
        }
    )


def _indicators(rounds: Sequence[tuple[int, Measured]], behaviors: Mapping[int, str]) -> dict[str, float]:
    """The mean indicator of either group over peers and rounds, and by how much own data improve more, in 1e-4."""
    found: dict[str, list[float]] = {HONEST: [], WRONG: []}
    advantage: dict[str, list[float]] = {HONEST: [], WRONG: []}
    for _, measured in rounds:
        own = (measured.own_before - measured.own_after) / measured.own_before
        more = own - measured.gradient_scores()
        for uid, value in zip(measured.uids, more, strict=True):
            if behaviors[uid] in found:
                found[behaviors[uid]].append(1.0 if value > 0 else -1.0)
                advantage[behaviors[uid]].append(float(value))
    return {
        **{f"indicator.{group}": float(np.mean(values)) for group, values in found.items()},
        **{f"advantage_e4.{group}": 1e4 * float(np.mean(values)) for group, values in advantage.items()},
    }


def _separated(peers: pd.DataFrame) -> dict[str, float]:
    """How well what a validator ends with tells the behaviors apart."""
    of = {group: peers[peers["behavior"] == group] for group in (HONEST, WRONG, LAZY)}
    threshold = GauntletSettings().indicator_threshold
    return {
        **{f"average.{group}": float(of[group]["average"].mean()) for group in (HONEST, WRONG)},
        **{f"passing.{group}": float((of[group]["average"] >= threshold).mean()) for group in (HONEST, WRONG)},
        "auc.average": auc(of[HONEST]["average"].tolist(), of[WRONG]["average"].tolist()),
        "auc.final_score": auc(of[HONEST]["final_score"].tolist(), of[WRONG]["final_score"].tolist()),
        "auc.mu_of_lazy": auc(of[HONEST]["mu"].tolist(), of[LAZY]["mu"].tolist()),
        "auc.final_score_of_lazy": auc(of[HONEST]["final_score"].tolist(), of[LAZY]["final_score"].tolist()),
    }


def _agreement(rounds: Sequence[tuple[int, Measured]]) -> dict[str, float]:
    """Rank correlation of the gradient scores of one round over two disjoint samples, the mean over the rounds."""
    correlations = [
        float(np.corrcoef(_ranks(measured.gradient_scores()), _ranks(measured.gradient_scores(again=True)))[0, 1])
        for _, measured in rounds
    ]
    negative = [float((measured.gradient_scores() < 0).mean()) for _, measured in rounds]
    return {"agreement": float(np.mean(correlations)), "negative": float(np.mean(negative))}


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def _with_bins(
    rounds: Sequence[tuple[int, Measured]], bins: int, streams: Streams, behaviors: Mapping[int, str]
) -> dict[str, float]:
    """Few evaluations a round at the deployed setting, the mean over validators who draw for themselves."""
    rules = _rules(DEPLOYED, EVALUATED, bins)
    ends = [
        standings_table(judged(rules, rounds, streams, f"validator {number}"), behaviors) for number in range(DRAWS)
    ]
    found = [{**_separated(peers), "evaluations": float(peers["evaluations"].mean())} for peers in ends]
    kept = ("auc.average", "auc.final_score", "auc.mu_of_lazy", "auc.final_score_of_lazy", "evaluations")
    return {name: float(np.mean([each[name] for each in found])) for name in kept}
