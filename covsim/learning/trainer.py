"""Lazy training: ask now, compute together when the first answer is needed.

The simulation asks for many peers' updates one after another. Nothing is computed until somebody needs a value; then
all pending jobs run in one batch, and a peer's result does not depend on who shared it. Optimizer moments persist per
uid from job to job, are never shared, and are gone when a peer restarts.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import OptimizerState, Training, run_inner_steps
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


class Job:
    """Inner steps that a peer was asked for; `value` is its pseudo-gradient [N] once they are done."""

    def __init__(self, key: JobKey, theta: Tensor, batches: Batches, steps: int) -> None:
        self.key, self.theta, self.batches, self.steps = key, theta, batches, steps
        self.value: Tensor | None = None

    @property
    def uid(self) -> int:
        """The peer whose moments the steps use."""
        return self.key[0]

    @property
    def round(self) -> int:
        """The round that fixes the place in the learning-rate schedule."""
        return self.key[1]


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
        self._states: dict[int, OptimizerState] = {}  # by uid, of one peer each
        self._pending: list[Job] = []
        self._jobs: weakref.WeakValueDictionary[JobKey, Job] = weakref.WeakValueDictionary()
        self._num_jobs: Counter[int] = Counter()  # by uid
        self.wall_s = 0.0
        self.replaying = False

    def train(self, uid: int, round: int, theta: Tensor, batches: Batches, steps: int) -> Update:
        """Register `steps` inner steps of a peer from theta [N] and return the pseudo-gradient to come.

        Jobs of one uid are done in the order in which they were registered, because its moments persist.
        """
        assert steps >= 0
        assert theta.shape == (self._model.num_parameters,)
        job = Job((uid, round, self._num_jobs[uid]), theta, batches, steps)
        self._num_jobs[uid] += 1
        if not self.replaying:
            self._pending.append(job)
        self._jobs[job.key] = job
        return Update(lambda: self._value(job))

    def run_pending(self) -> None:
        """Do all pending jobs: the first of every uid together, then the second of every uid, and so on."""
        if not self._pending:
            return
        started = time.perf_counter()
        while self._pending:
            wave, self._pending = first_of_each_uid(self._pending)
            self._run_wave(wave)
        self.wall_s += time.perf_counter() - started

    def state(self) -> dict[str, Any]:
        """Plain tensors and ints: each uid's moments and step count, and the values of jobs still referred to."""
        self.run_pending()
        moments = {
            uid: (state.first[0], state.second[0], int(state.counts)) for uid, state in sorted(self._states.items())
        }
        return {"moments": moments, "values": {key: job.value for key, job in self._jobs.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Put the moments and the values back after a replay; a job without a value was no longer needed by anybody."""
        self._states = {
            uid: OptimizerState(
                first[None].clone(), second[None].clone(), torch.tensor([float(count)], device=self._device)
            )
            for uid, (first, second, count) in state["moments"].items()
        }
        for key, job in self._jobs.items():
            job.value = state["values"].get(key)
        self.replaying = False

    def _value(self, job: Job) -> Tensor:
        if job.value is None:
            assert not self.replaying, "a value was asked for while a run is replayed from its tape"
            self.run_pending()
        assert job.value is not None, f"the value of job {job.key} was not in the checkpoint"
        return job.value

    def _run_wave(self, jobs: Sequence[Job]) -> None:
        """Train jobs of different uids in chunks of about equal length, longest first."""
        longest_first = sorted(jobs, key=lambda job: -job.steps)
        side_by_side(lambda part: self._run(longest_first[part]), len(jobs), self._chunk)

    def _run(self, jobs: Sequence[Job]) -> None:
        """Train jobs of different uids side by side, longest first, and store their pseudo-gradients [N]."""
        theta = torch.stack([job.theta for job in jobs])
        states = [self._states.get(job.uid) or self._fresh_state() for job in jobs]
        state = OptimizerState.stack(states)
        first_steps = [job.round * self._inner_steps for job in jobs]
        batches = [self._corpus.batches(job.batches, job.steps, self._training.batch) for job in jobs]
        done = 0
        for steps in sorted({job.steps for job in jobs} - {0}):
            p = sum(job.steps >= steps for job in jobs)  # the shorter jobs are a tail that falls away
            tokens = torch.stack([batch[done:steps] for batch in batches[:p]]).to(self._device)
            theta[:p] = run_inner_steps(
                self._model,
                self._training.inner,
                theta[:p],
                state.head(p),
                tokens,
                [step + done for step in first_steps[:p]],
                self._total_steps,
            )
            done = steps
        for job, row, after in zip(jobs, state.rows(), theta, strict=True):
            job.value = job.theta - after
            self._states[job.uid] = row

    def _fresh_state(self) -> OptimizerState:
        return OptimizerState.zeros(1, self._model.num_parameters, self._device)


def first_of_each_uid(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Split what belongs to uids, in order, into the first of every uid and the rest."""
    first: dict[int, Item] = {}
    rest = []
    for item in items:
        if first.setdefault(item.uid, item) is not item:
            rest.append(item)
    return list(first.values()), rest
