"""Lazy training: ask now, compute together when the first answer is needed.

The simulation asks for many peers' training one after another. Nothing is computed until somebody needs a value; then
all pending jobs run in batches, and a peer's result does not depend on who shared them. A job may start from a promise:
from where an earlier job ends, say. Optimizer moments persist per uid from job to job, are never shared, and are gone
when a peer restarts.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import Training, run_inner_steps
from covsim.learning.inner_optimizers import OptimizerState
from covsim.learning.model import Model
from covsim.learning.update import Update
from covsim.learning.workers import side_by_side

JobKey = tuple[int, int, int]
"""(uid, round, how many jobs this uid had before): names a job across a resume."""


class OfUid(Protocol):
    """Anything that belongs to a peer."""

    @property
    def uid(self) -> int:
        """Whose it is."""


Item = TypeVar("Item", bound=OfUid)


class _StillPending(Exception):
    """The value of a start depends on a job that has not run yet."""


class Job:
    """Work that a peer was asked for; `value` [N] is its result once it is done.

    Args:
        key: names the job.
        start: the parameters [N] to begin at, or the promise of them; None when nobody will ask for them.
        batches: what to train on.
        steps: inner steps.
        skip: steps of the pool and of the learning-rate schedule that lie before.
        gradient: whether the gradient of the (only) step is asked for, and not where the steps end.
        life: how often the peer had lost its moments before.
    """

    def __init__(
        self,
        key: JobKey,
        start: Tensor | Update | None,
        batches: Batches,
        steps: int,
        skip: int = 0,
        gradient: bool = False,
        life: int = 0,
    ) -> None:
        self.key, self.start, self.batches = key, start, batches
        self.steps, self.skip, self.gradient, self.life = steps, skip, gradient, life
        self.value: Tensor | None = None

    @property
    def uid(self) -> int:
        """The peer whose moments the steps use."""
        return self.key[0]

    @property
    def round(self) -> int:
        """The round that fixes the place in the learning-rate schedule."""
        return self.key[1]

    def begin(self) -> Tensor:
        """The parameters [N] to begin at, worked out."""
        if isinstance(self.start, Update):
            self.start = self.start.value()
        assert self.start is not None
        return self.start

    def finish(self, value: Tensor) -> None:
        """Keep the result [N], and let go of the start, so that no chain of rounds stays in memory."""
        self.value, self.start = value, None


class Trainer:
    """All peers' inner loops.

    Args:
        model: what is trained.
        training: batch size and inner optimizer.
        corpus: where batches come from.
        inner_steps: H, steps of a full round; round r starts at step r * H of the learning-rate schedule.
        total_steps: length of that schedule.
        device: where tensors live.
        chunk: peers computed at once; it changes the speed, never the result.
    """

    def __init__(
        self,
        model: Model,
        training: Training,
        corpus: Corpus,
        inner_steps: int,
        total_steps: int,
        device: str = "cpu",
        chunk: int = 12,
    ) -> None:
        self._model, self._training, self._corpus = model, training, corpus
        self._inner_steps, self._total_steps = inner_steps, total_steps
        self._device, self._chunk = torch.device(device), chunk
        self._states: dict[tuple[int, int], OptimizerState] = {}  # by uid and life, of one peer each
        self._lives: Counter[int] = Counter()  # by uid
        self._pending: list[Job] = []
        self._jobs: weakref.WeakValueDictionary[JobKey, Job] = weakref.WeakValueDictionary()
        self._num_jobs: Counter[int] = Counter()  # by uid
        self._running = False
        self.wall_s = 0.0
        self.replaying = False

    def train(
        self, uid: int, round: int, start: Tensor | Update, batches: Batches, steps: int, skip: int = 0
    ) -> Update:
        """Register inner steps of a peer and return the parameters [N] at their end, to come.

        Jobs of one uid are done in the order in which they were registered, because its moments persist.

        Args:
            uid: whose moments the steps use.
            round: fixes the place in the learning-rate schedule: its first step is step round * H of the run.
            start: the parameters [N] to begin at; a promise of them is asked for its value when the job runs.
            batches: what to train on.
            steps: how many inner steps; with none the end is the start.
            skip: steps of the round that were done before: they move the place in the schedule and in the pool.

        Raises:
            ValueError: the batches are poisoned with something that fits into no sequence or no vocabulary.
        """
        assert steps >= 0
        assert skip >= 0
        return self._register(uid, round, start, batches, steps, skip=skip)

    def gradient(self, uid: int, round: int, start: Tensor | Update, batches: Batches) -> Update:
        """Register one inner step's batch and return its mean gradient at `start` [N], to come.

        No moments are used or changed; other arguments as for `train`.
        """
        return self._register(uid, round, start, batches, steps=1, gradient=True)

    def forget(self, uid: int) -> None:
        """A peer has lost its moments, as in a crash; what it was asked for before is still done with them."""
        self._lives[uid] += 1

    def run_pending(self) -> None:
        """Do all pending jobs: the first of every uid together, then the second of every uid, and so on.

        A job whose start depends on one that is still pending waits for a later wave. A start that calls this while it
        is being worked out changes nothing: the call under way does all jobs.
        """
        if self._running or not self._pending:
            return
        self._running, started = True, time.perf_counter()
        try:
            while self._pending:
                self._run_wave(self._next_wave())
                self._pending = [job for job in self._pending if job.value is None]
            self._bury()
        finally:
            self._running = False
            self.wall_s += time.perf_counter() - started

    def state(self) -> dict[str, Any]:
        """Plain tensors and ints: each uid's moments and step count, and the values of jobs still referred to."""
        self.run_pending()
        self._bury()
        moments = {
            uid: (state.first[0], state.second[0], int(state.counts))
            for (uid, _), state in sorted(self._states.items())
        }
        return {"moments": moments, "values": {key: job.value for key, job in self._jobs.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Put the moments and the values back after a replay; a job without a value was no longer needed by anybody."""
        self._states = {
            (uid, self._lives[uid]): OptimizerState(
                first[None].clone(), second[None].clone(), torch.tensor([float(count)], device=self._device)
            )
            for uid, (first, second, count) in state["moments"].items()
        }
        for key, job in self._jobs.items():
            job.value = state["values"].get(key)
        self.replaying = False

    def _register(
        self,
        uid: int,
        round: int,
        start: Tensor | Update,
        batches: Batches,
        steps: int,
        skip: int = 0,
        gradient: bool = False,
    ) -> Update:
        key = (uid, round, self._num_jobs[uid])
        self._num_jobs[uid] += 1
        self._check(batches)
        job = Job(key, None if self.replaying else start, batches, steps, skip, gradient, self._lives[uid])
        if not self.replaying:
            self._pending.append(job)
        self._jobs[key] = job
        return Update(lambda: self._value(job))

    def _check(self, batches: Batches) -> None:
        """Raise ValueError for a poison that does not fit the model."""
        self._corpus.check(batches)
        for poison in batches.poisons:
            self._model.check_tokens(max(poison.text))

    def _bury(self) -> None:
        """Drop the moments of former lives; no job is pending that would ask for them."""
        self._states = {key: state for key, state in self._states.items() if key[1] == self._lives[key[0]]}

    def _value(self, job: Job) -> Tensor:
        if job.value is None:
            assert not self.replaying, "a value was asked for while a run is replayed from its tape"
            if self._running and job.start is not None:  # a start asks: its own job waits, and nothing recurs
                raise _StillPending
            self.run_pending()
        assert job.value is not None, f"the value of job {job.key} was not in the checkpoint"
        return job.value

    def _next_wave(self) -> list[Job]:
        """The first pending job of every uid, without those whose start is still to come."""
        wave, N = [], self._model.num_parameters
        for job in first_of_each_uid(self._pending)[0]:
            with contextlib.suppress(_StillPending):
                assert job.begin().shape == (N,)
                wave.append(job)
        assert wave, f"jobs wait for each other: {[job.key for job in self._pending]}"
        return wave

    def _run_wave(self, jobs: Sequence[Job]) -> None:
        """Do jobs of different uids in chunks of equal batch and about equal length, longest first."""
        for alike in self._by_batch(jobs):
            self._run_alike(alike)

    def _run_alike(self, jobs: Sequence[Job]) -> None:
        training = sorted((job for job in jobs if not job.gradient), key=lambda job: -job.steps)
        gradients = [job for job in jobs if job.gradient]
        side_by_side(lambda part: self._train(training[part]), len(training), self._chunk)
        side_by_side(lambda part: self._take_gradients(gradients[part]), len(gradients), self._chunk)

    def _by_batch(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """The jobs in groups whose inner steps have as many sequences."""
        groups: dict[int, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.batches.size(self._training.batch), []).append(job)
        return list(groups.values())

    def _train(self, jobs: Sequence[Job]) -> None:
        """Train jobs of different uids side by side, longest first, and store where they end [N]."""
        theta = torch.stack([job.begin() for job in jobs])
        states = [self._states.get((job.uid, job.life)) or self._fresh_state() for job in jobs]
        state = OptimizerState.stack(states)
        first_steps = [job.round * self._inner_steps + job.skip for job in jobs]
        batches = [self._batches(job) for job in jobs]
        done = 0
        for steps in sorted({job.steps for job in jobs} - {0}):
            p = sum(job.steps >= steps for job in jobs)  # the shorter jobs are a tail that falls away
            tokens, targets = self._lessons(jobs[:p], [batch[done:steps] for batch in batches[:p]])
            theta[:p] = run_inner_steps(
                self._model,
                self._training.inner,
                theta[:p],
                state.head(p),
                tokens,
                [step + done for step in first_steps[:p]],
                self._total_steps,
                targets,
            )
            done = steps
        for job, row, end in zip(jobs, state.rows(), theta, strict=True):
            job.finish(end.clone())
            self._states[job.uid, job.life] = row

    def _take_gradients(self, jobs: Sequence[Job]) -> None:
        """Store the gradients [N] of jobs side by side."""
        theta = torch.stack([job.begin() for job in jobs])
        tokens, targets = self._lessons(jobs, [self._batches(job)[0] for job in jobs])
        gradients = self._model.gradients(theta, tokens, torch.empty_like(theta), targets)
        for job, gradient in zip(jobs, gradients, strict=True):
            job.finish(gradient.clone())

    def _lessons(self, jobs: Sequence[Job], tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The tokens of P jobs [P, ..., T + 1], and what is to be predicted [P, ..., T] where that is not what follows.

        Whose answers are right is told so too in the company of others whose are not, with the same result.
        """
        targets = None
        if any(job.batches.flips for job in jobs):
            answers = [self._corpus.answers(job.batches, each) for job, each in zip(jobs, tokens, strict=True)]
            targets = torch.stack(answers).to(self._device)
        return torch.stack(list(tokens)).to(self._device), targets

    def _batches(self, job: Job) -> Tensor:
        """The sequences of a job's steps, int64 [S, B, T + 1], behind those that were skipped."""
        return self._corpus.batches(job.batches, job.skip + job.steps, self._training.batch)[job.skip :]

    def _fresh_state(self) -> OptimizerState:
        moments = self._training.inner.num_moments
        return OptimizerState.zeros(1, self._model.num_parameters, self._device, moments)


def first_of_each_uid(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Split what belongs to uids, in order, into the first of every uid and the rest."""
    first: dict[int, Item] = {}
    rest = []
    for item in items:
        if first.setdefault(item.uid, item) is not item:
            rest.append(item)
    return list(first.values()), rest
