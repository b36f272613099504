"""A run's payloads measured again under many evaluation settings at once, and judged by the rules under each of them.

What a setting changes is how many sequences a loss is taken over, how large the trial step is, and how much of its pool
a peer trains on. A peer trains on the beginning of its pool, so one training serves for pools of every size. Smaller
samples are the beginnings of larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from covsim.gauntlet.evidence import Evidence, Standings
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.selection import whom_to_evaluate
from covsim.gauntlet.settings import GauntletSettings
from covsim.learning.corpus import Corpus
from covsim.learning.model import Model
from covsim.learning.workers import side_by_side
from covsim.nodes.books import scoring_lots
from covsim.randomness import Streams
from covsim.sweep.papers.open_loop import Exchanged, Replay

Losses = NDArray[np.float64]

_VECTORS, _SEQUENCES = 2, 32  # computed at once: what fits a processor's cache is six times faster than what does not


@dataclass(frozen=True)
class Setting:
    """How an evaluation is made.

    Attributes:
        sequences: of own and of random data, per loss.
        trial_factor: c.
        pool_used: share of its pool that a peer trains on.
    """

    sequences: int
    trial_factor: float
    pool_used: float


@dataclass(frozen=True)
class Measured:
    """The losses of one round, a value per payload [E]; `random_again` is over other sequences of the same number."""

    uids: tuple[int, ...]
    own_before: Losses
    own_after: Losses
    random_before: float
    random_after: Losses
    again_before: float
    again_after: Losses

    def evidence(self, among: Sequence[int]) -> list[Evidence]:
        """What a validator would have seen of some peers, who are all in sync."""
        return [
            Evidence(
                uid=uid,
                status="ok",
                evaluated=True,
                own_before=float(self.own_before[i]),
                own_after=float(self.own_after[i]),
                random_before=self.random_before,
                random_after=float(self.random_after[i]),
                steps_behind=0.0,
            )
            for i, uid in enumerate(self.uids)
            if uid in among
        ]

    def gradient_scores(self, again: bool = False) -> Losses:
        """Relative improvement on random data [E]."""
        before, after = (self.again_before, self.again_after) if again else (self.random_before, self.random_after)
        return (before - after) / before


def measure_round(replay: Replay, exchanged: Exchanged, settings: Sequence[Setting]) -> dict[Setting, Measured]:
    """Measure all payloads of a round under all settings."""
    model, theta = replay.scenario.model, exchanged.lineage.theta[None]  # [1, N]
    uids = tuple(each.uid for each in exchanged.submissions)
    own = {pool: _own(replay, exchanged, pool, most) for pool, most in _most(settings, "pool_used").items()}
    trials = {factor: _trials(replay, exchanged, factor) for factor in _most(settings, "trial_factor")}
    random, again = _random(replay, exchanged, max(setting.sequences for setting in settings))
    own_before = {pool: _losses(model, theta.expand(len(uids), -1), tokens) for pool, tokens in own.items()}
    random_before, again_before = (_losses(model, theta, tokens)[0] for tokens in (random, again))
    own_after = {
        (pool, factor): _losses(model, trials[factor], own[pool][:, :most])
        for (pool, factor), most in _most(settings, "pool_used", "trial_factor").items()
    }
    random_after, again_after = (
        {
            factor: _losses(model, trials[factor], tokens[:, :most])
            for factor, most in _most(settings, "trial_factor").items()
        }
        for tokens in (random, again)
    )
    return {
        setting: Measured(
            uids=uids,
            own_before=own_before[setting.pool_used][:, :n].mean(axis=1),
            own_after=own_after[setting.pool_used, setting.trial_factor][:, :n].mean(axis=1),
            random_before=float(random_before[:n].mean()),
            random_after=random_after[setting.trial_factor][:, :n].mean(axis=1),
            again_before=float(again_before[:n].mean()),
            again_after=again_after[setting.trial_factor][:, :n].mean(axis=1),
        )
        for setting in settings
        for n in (setting.sequences,)
    }


def judged(
    rules: GauntletSettings, rounds: Sequence[tuple[int, Measured]], streams: Streams, label: str = "lead"
) -> Standings:
    """What a validator concludes over all rounds, who draws anew in each of them whom to evaluate."""
    standings, places = Standings(), (20, 10)
    for round, measured in rounds:
        drawn = whom_to_evaluate(
            rules, standings, measured.uids, round, streams.numpy("whom to evaluate", label, round)
        )
        lots = scoring_lots(streams, label, round)
        evidence = measured.evidence(drawn)
        judgement = judge(rules, standings, evidence, round=round, active=measured.uids, places=places, lots=lots)
        standings = judgement.standings
    return standings


def standings_table(standings: Standings, behaviors: Mapping[int, str]) -> pd.DataFrame:
    """A row per peer."""
    rows: list[dict[str, Any]] = [
        {
            "uid": uid,
            "behavior": behaviors[uid],
            "average": peer.indicator_average,
            "mu": peer.mu,
            "final_score": peer.final_score,
            "evaluations": peer.evaluations,
        }
        for uid, peer in sorted(standings.peers.items())
    ]
    return pd.DataFrame(rows)


def _most(settings: Sequence[Setting], *names: str) -> dict[Any, int]:
    """The most sequences that are needed, by the values of some fields; by a tuple of them if there are several."""
    most: dict[Any, int] = {}
    for setting in settings:
        values = tuple(getattr(setting, name) for name in names)
        key = values if len(names) > 1 else values[0]
        most[key] = max(setting.sequences, most.get(key, 0))
    return most


def _random(replay: Replay, exchanged: Exchanged, n: int) -> tuple[Tensor, Tensor]:
    """Two disjoint samples that all peers share, each [1, n, T + 1]."""
    generator = Streams(replay.scenario.seed).numpy("measured again", "random", exchanged.round)
    scenario = replay.scenario
    corpus = Corpus(scenario.data, scenario.model.context, Streams(scenario.seed))
    both = corpus.random_sample(2 * n, generator)[None]
    return both[:, :n], both[:, n:]


def _own(replay: Replay, exchanged: Exchanged, pool_used: float, n: int) -> Tensor:
    """Sequences of each peer's pool of a size [E, n, T + 1]."""
    scenario, streams = replay.scenario, Streams(replay.scenario.seed)
    corpus = Corpus(scenario.data.model_copy(update={"pool_used": pool_used}), scenario.model.context, streams)
    steps, batch, round = scenario.plan.inner_steps, scenario.training.batch, exchanged.round
    return torch.stack(
        [
            corpus.assigned_sample(
                each.uid, round, steps, batch, n, streams.numpy("measured again", f"{pool_used:g}", round, each.uid)
            )
            for each in exchanged.submissions
        ]
    )


def _trials(replay: Replay, exchanged: Exchanged, factor: float) -> Tensor:
    """Where one trial step with each payload leads [E, N]."""
    exchange, lineage = replay.exchange, exchanged.lineage
    entered = [each.decoded for each in exchanged.submissions if each.uid in exchanged.entered]
    limits = exchange.clip_norms(lineage, entered)
    return torch.stack(
        [exchange.trial_theta(lineage, each.decoded, exchanged.round, factor, limits) for each in exchanged.submissions]
    )


def _losses(model: Model, thetas: Tensor, tokens: Tensor) -> Losses:
    """Nats per token [E, B] of each vector [E, N] on each of its sequences [E, B, T + 1], or on the same for all."""
    pieces = torch.split(tokens.expand(len(thetas), -1, -1), _SEQUENCES, dim=1)
    return torch.cat([_losses_of_few(model, thetas, piece) for piece in pieces], dim=1).double().numpy()


def _losses_of_few(model: Model, thetas: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat(
        side_by_side(lambda part: model.sequence_losses(thetas[part], tokens[part]), len(thetas), _VECTORS)
    )
