"""Training that begins when the script asks for it, in a thread beside the loop, while its simulated seconds pass.

In a simulation nothing is computed before somebody needs the bytes. Here that would be when the upload is due; so the
inner steps begin with the verb, and whoever asks for their result waits for what is still to be done.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import PrivateAttr
from torch import Tensor

from covsim.behaviors.base import Behavior, PeerVerbs, Script
from covsim.learning.corpus import Batches
from covsim.learning.trainer import Trainer
from covsim.learning.update import Update
from covsim.nodes.body import Body
from covsim.nodes.commons import Commons
from covsim.nodes.pace import Pace

_NICE = 10
"""Training gives way to loops and transfers, which are what is measured."""


@dataclass(frozen=True)
class Effort:
    """What a round's training took: wall seconds of work, and those that the loop had to wait for its end."""

    round: int
    work_s: float
    waited_s: float


class _Ahead:
    """Inner steps that have begun before the trainer was asked for them."""

    def __init__(self, trainer: Trainer, uid: int, round: int, start: Tensor, batches: Batches, steps: int) -> None:
        self.arguments, self.start = (uid, round, batches, steps), start
        self.before = trainer.state()
        self.update = trainer.train(uid, round, start, batches, steps)
        self.work_s = 0.0
        self._trainer = trainer
        self.thread = threading.Thread(target=self._work, daemon=True, name="training")
        self.thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        began_s = time.monotonic()
        self._trainer.run_pending()
        self.work_s = time.monotonic() - began_s


class EarlyTrainer:
    """A trainer whose next job may already be under way; `nodes.learning.Trains`.

    Args:
        trainer: does the work.
        report: takes what each job took that was begun early and asked for.
    """

    def __init__(self, trainer: Trainer, report: Callable[[Effort], None]) -> None:
        self.replaying, self.wall_s = False, 0.0
        self._trainer, self._report = trainer, report
        self._latest: _Ahead | None = None  # whose thread may still be at work
        self._unasked: _Ahead | None = None  # the same, until somebody has asked for it

    def begin(self, uid: int, round: int, start: Tensor, batches: Batches, steps: int) -> None:
        """Begin inner steps that will be asked for; the arguments are those of `train`."""
        self._take_back()
        self._latest = self._unasked = _Ahead(self._trainer, uid, round, start, batches, steps)

    def train(self, uid: int, round: int, start: Any, batches: Batches, steps: int, skip: int = 0) -> Update:
        """The weights after some inner steps, to come; those that have begun, if it is these."""
        ahead = self._unasked
        if ahead is not None and not skip and ahead.arguments == (uid, round, batches, steps) and start is ahead.start:
            self._unasked = None
            return Update(lambda: self._awaited(ahead))
        self._take_back()
        return self._trainer.train(uid, round, start, batches, steps, skip)

    def gradient(self, uid: int, round: int, start: Any, batches: Batches) -> Update:
        """The gradient of one step's batch, to come."""
        self._take_back()
        return self._trainer.gradient(uid, round, start, batches)

    def forget(self, uid: int) -> None:
        """A peer has lost its moments."""
        self._take_back()
        self._trainer.forget(uid)

    def run_pending(self) -> None:
        """Do all that was asked for."""
        self._settle()
        self._trainer.run_pending()
        self.wall_s = self._trainer.wall_s

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        self._settle()
        return self._trainer.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self._settle()
        self._trainer.restore(state)

    def _awaited(self, ahead: _Ahead) -> Tensor:
        self._settle()
        return ahead.update.value()

    def _settle(self) -> None:
        """Let the work under way come to its end."""
        ahead, self._latest = self._latest, None
        if ahead is not None:
            began_s = time.monotonic()
            ahead.thread.join()
            self.wall_s = self._trainer.wall_s
            self._report(Effort(ahead.arguments[1], ahead.work_s, time.monotonic() - began_s))

    def _take_back(self) -> None:
        """The work under way, if nobody has asked for it, is not wanted: have the moments as they were before."""
        self._settle()
        ahead, self._unasked = self._unasked, None
        if ahead is not None:
            self._trainer.restore(ahead.before)


class Foresight:
    """Says which inner steps a peer will do, by what its machine and the clock make of its wish.

    Args:
        commons: the node's.
        pace: of its machine.
        trainer: begins them.
    """

    def __init__(self, commons: Commons, pace: Pace, trainer: EarlyTrainer) -> None:
        self._commons, self._pace, self._trainer = commons, pace, trainer

    def begin(self, body: Body, batches: Batches, steps: int | None, rounds_behind: int) -> None:
        """Begin what `Body.train` will ask for, where that can be foreseen; nothing is lost where it cannot."""
        commons, plan = self._commons, self._commons.exchange.plan
        if rounds_behind or plan.sends == "gradient" or plan.keeps_own_weights or plan.in_background:
            return
        wanted = commons.inner_steps if steps is None else steps
        clock, now_s = commons.clock, commons.env.now
        cut = plan.asynchrony is None and self._pace.is_cut and not clock.lets_finish
        if cut and not clock.foresees(body.round + 1):
            return
        closes_s = clock.closes_at(body.round) if cut else math.inf
        stint = self._pace.stint(body.round, wanted, now_s, closes_s)
        named = batches if stint.batch == self._pace.batch else batches.thinned(stint.batch)
        self._trainer.begin(body.uid, body.round, body.lineage.theta, named, stint.steps)


class _Early:
    """A body whose training begins with the verb."""

    def __init__(self, body: Body, foresight: Foresight) -> None:
        self._body, self._foresight = body, foresight

    def train(self, batches: Any, steps: int | None = None, rounds_behind: int = 0) -> Any:
        self._foresight.begin(self._body, batches, steps, rounds_behind)
        return self._body.train(batches, steps, rounds_behind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class EarlyBehavior(Behavior):
    """A peer's own script, whose training begins early. No part of a scenario."""

    kind: str
    behavior: Behavior
    _foresight: Foresight = PrivateAttr()

    @staticmethod
    def of(behavior: Behavior, foresight: Foresight) -> EarlyBehavior:
        """The same behavior, under the same name."""
        early = EarlyBehavior.model_construct(kind=behavior.kind, behavior=behavior)
        early._foresight = foresight
        return early

    def play_round(self, peer: PeerVerbs) -> Script:
        """The script, over a body that begins early."""
        return self.behavior.play_round(cast(PeerVerbs, _Early(cast(Body, peer), self._foresight)))
