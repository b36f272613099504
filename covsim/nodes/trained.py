"""Learning by training: tensors all the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from covsim.events import UpdatesCompared
from covsim.gauntlet.checks import Overlap, find_overlaps
from covsim.gauntlet.loss_score import LossEvidence, measure
from covsim.gauntlet.sync import sample_positions, steps_behind
from covsim.learning.corpus import Corpus
from covsim.learning.evaluate import losses_per_vector
from covsim.learning.model import Model
from covsim.learning.tasks import Task
from covsim.learning.trainer import Trainer
from covsim.nodes.commons import own_sample
from covsim.nodes.diagnostics import compare_updates, widest_gap
from covsim.nodes.gather import Submission
from covsim.nodes.learning import Learning, Trial
from covsim.nodes.probes import Probe
from covsim.protocol.base import Decoded
from covsim.protocol.exchange import Exchange
from covsim.protocol.lineage import Lineage, Lineages, root_lineage
from covsim.randomness import Streams
from covsim.scenario.schema import Scenario


def trained_learning(scenario: Scenario, streams: Streams, replaying: bool) -> Learning:
    """Build what trains. Raises ValueError where model, text, tasks and probes do not fit each other."""
    device, plan = _device(scenario.compute.device), scenario.protocol.plan()
    corpus = Corpus(scenario.data, scenario.model.context, streams)
    scenario.model.check_tokens(corpus.largest_token)
    for task in scenario.tasks:
        task.questions(corpus)  # a context that is too short is an error now, not after the run
    trainer = Trainer(
        scenario.model,
        scenario.training,
        corpus,
        inner_steps=plan.inner_steps,
        total_steps=scenario.planned_rounds * plan.inner_steps,
        device=str(device),
    )
    trainer.replaying = replaying
    exchange = exchange_of(scenario, streams)
    theta = scenario.model.initial(streams.torch("initial theta")).to(device)
    lineages = Lineages(
        root_lineage(theta, plan.outer.initial(theta)),
        exchange.outer_step,
        buffer=plan.asynchrony.buffer if plan.asynchrony else 1,
    )
    measures = TensorMeasures(scenario, streams, corpus, exchange)
    return Learning(trainer, exchange, lineages, measures, _weights, corpus.tokens_are_bytes, corpus.bigram_nats)


def _weights(lineage: Lineage) -> Tensor:
    theta: Tensor = lineage.theta
    return theta.cpu()


def exchange_of(scenario: Scenario, streams: Streams) -> Exchange:
    """The scenario's plan, set to work on its model."""
    plan = scenario.protocol.plan()
    return Exchange(
        plan,
        tuple(scenario.model.shapes.items()),
        scenario.aggregate,
        total_rounds=scenario.planned_rounds,
        most_tokens=plan.inner_steps * scenario.tokens_per_step,
        streams=streams,
    )


class TensorStride:
    """Average and last outer step of one validator.

    Args:
        places: the elements of theta that peers publish [S].
        decay: what the average keeps at every step.
    """

    def __init__(self, places: Tensor, decay: float) -> None:
        self._places, self._decay = places, decay
        self._last: Tensor | None = None  # [N]
        self._average = torch.zeros(len(places))  # [S]

    def take(self, before: Lineage, after: Lineage) -> None:
        """The validator went from one history to another."""
        self._last = after.theta - before.theta
        moved = self._last[self._places].abs()
        first = not bool(self._average.any())
        self._average = moved if first else self._decay * self._average + (1 - self._decay) * moved

    def behind(self, lineages: Sequence[Lineage], own: Lineage) -> list[float]:
        """How far each history lies from the validator's, in average steps."""
        places = self._places
        reference, step = own.theta[places].cpu().double().numpy(), self._average.cpu().double().numpy()
        return [steps_behind(lineage.theta[places].cpu().double().numpy(), reference, step) for lineage in lineages]

    def widest_gap(self, lineages: Sequence[Lineage], own: Lineage) -> float:
        """Of all of theta, in sizes of the last step."""
        return widest_gap(lineages, own, torch.zeros_like(own.theta) if self._last is None else self._last)


class TensorMeasures:
    """Losses, overlaps and comparisons of real updates.

    Args:
        scenario: gives the rules of measuring.
        corpus: what is measured on.
        exchange: what a payload does to a theta.
    """

    def __init__(self, scenario: Scenario, streams: Streams, corpus: Corpus, exchange: Exchange) -> None:
        self._model: Model = scenario.model
        self._rules, self._batch = scenario.gauntlet, scenario.training.batch
        self._streams, self._corpus, self._exchange = streams, corpus, exchange
        self._probes = {name: Probe(path) for name, path in scenario.probes.items()}
        generator = streams.numpy("sync sample")
        drawn = sample_positions(tuple(scenario.model.shapes.values()), self._rules.sync.samples_per_tensor, generator)
        self._places = torch.from_numpy(drawn)  # the elements of theta that peers publish [S]

    @property
    def probes(self) -> Collection[str]:
        return self._probes

    def stride(self) -> TensorStride:
        return TensorStride(self._places, self._rules.sync.average_decay)

    def held_out(self, lineage: Lineage) -> float:
        tokens = self._corpus.held_out()[None]
        return float(losses_per_vector(self._model, lineage.theta[None], tokens).tolist()[0])

    def losses(self, trial: Trial) -> LossEvidence:
        exchange, rules, round = self._exchange, self._rules, trial.round
        own = [self._own_data(trial, submission.uid) for submission in trial.drawn]
        limits = exchange.clip_norms(trial.lineage, [submission.decoded for submission in trial.entered])
        steps = [
            exchange.trial_theta(trial.lineage, submission.decoded, round, rules.trial_factor, limits)
            for submission in trial.drawn
        ]
        return measure(
            self._model,
            trial.lineage.theta,
            steps,
            torch.stack(own) if own else torch.zeros(0, 0, 0),
            self._corpus.random_sample(
                rules.random_sequences, self._streams.numpy("random sample", trial.label, round)
            ),
        )

    def _own_data(self, trial: Trial, uid: int) -> Tensor:
        """Sequences of the shard of a uid [B, T + 1]."""
        rules, generator = self._rules, self._streams.numpy(*own_sample(trial.label, trial.round, uid))
        steps = self._exchange.plan.inner_steps
        return self._corpus.assigned_sample(uid, trial.round, steps, self._batch, rules.own_sequences, generator)

    def overlaps(
        self, submissions: Sequence[Submission], previous_stored_s: Sequence[float] | None
    ) -> dict[int, Overlap]:
        return find_overlaps(
            [submission.uid for submission in submissions],
            [submission.stored_s for submission in submissions],
            [submission.decoded for submission in submissions],
            previous_stored_s,
        )

    def compare(
        self, time_s: float, round: int, entered: Sequence[Submission], honest: Collection[int], farthest: float
    ) -> UpdatesCompared:
        return compare_updates(time_s, round, entered, honest, self._exchange.layout.num_parameters, farthest)

    def probe(self, name: str, updates: Mapping[int, Decoded]) -> float:
        return self._probes[name].look(updates)

    def accuracy(self, task: Task, lineage: Lineage) -> float:
        return task.accuracy(self._model, lineage.theta, self._corpus)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
