"""A peer's machine over time: which inner steps it takes on in a round, and how long work lasts that it begins now.

What a machine works at is compute; while it is gone its peer is idle (`idle_preempted_s`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from covsim.events import BatchCut
from covsim.learning.corpus import Batches
from covsim.nodes.commons import Commons
from covsim.nodes.spent import Spent
from covsim.randomness import Streams
from covsim.scenario.population import PeerSpec
from covsim.scenario.schema import Scenario
from covsim.world.machine import Machine
from covsim.world.slow import SlowPolicy, Stint
from covsim.world.unsteady import Unsteadiness

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Pace:
    """What a machine does in which time.

    Args:
        machine: it, at its usual pace.
        policy: what its peer does when not all steps fit.
        unsteadiness: what keeps it from its usual pace.
        streams: of the run.
        number: names its own streams; it keeps it when its peer takes another uid.
        batch: B, sequences of an inner step.
        compression_s: work of making a payload.
        decoding_s: work of reading one payload of a gather.
    """

    def __init__(
        self,
        machine: Machine,
        policy: SlowPolicy,
        unsteadiness: Unsteadiness,
        streams: Streams,
        number: int,
        batch: int,
        compression_s: float = 0.0,
        decoding_s: float = 0.0,
    ) -> None:
        self.machine, self.batch = machine, batch
        self.compression_s, self.decoding_s = compression_s, decoding_s
        self._policy, self._unsteadiness = policy, unsteadiness
        self._streams, self._number = streams, number
        self._absences = unsteadiness.absences(streams, number)

    @classmethod
    def of(cls, scenario: Scenario, spec: PeerSpec, streams: Streams) -> Pace:
        """That of a peer."""
        deployment = scenario.deployment
        return cls(
            Machine(scenario.inner_step_s / spec.speed),
            spec.when_slow,
            spec.unsteadiness,
            streams,
            spec.uid,
            scenario.training.batch,
            compression_s=deployment.compression / spec.speed,
            decoding_s=deployment.decoding / spec.speed,
        )

    @property
    def is_cut(self) -> bool:
        """Whether its steps end with the window."""
        return self._policy.is_cut

    def whole_stint(self, round: int, steps: int) -> Stint:
        """So many steps of a round on whole batches."""
        return Stint(steps, self.batch, self._step_s(round))

    def _step_s(self, round: int) -> float:
        """Seconds of work in a step of a round on a whole batch."""
        return self.machine.seconds_per_step * self._unsteadiness.step_factor(self._streams, self._number, round)

    def stint(self, round: int, steps: int, now_s: float, closes_s: float) -> Stint:
        """The steps of a round that it takes on and gets done; infinite `closes_s` if nothing cuts them.

        The peer chooses by the time that is left; that it will be preempted it does not know.
        """
        chosen = self._policy.stint(closes_s - now_s, self._step_s(round), steps, self.batch)
        if self._absences is None or not self._policy.is_cut or math.isinf(closes_s):
            return chosen
        return self.done(chosen, self.worked_s(now_s, max(now_s, closes_s)))

    def done(self, stint: Stint, worked_s: float) -> Stint:
        """The whole steps of a stint that so much work makes."""
        return Stint(Machine(stint.step_s).steps_within(worked_s, stint.steps), stint.batch, stint.step_s)

    def lasts_s(self, now_s: float, work_s: float) -> float:
        """Seconds until work that begins now is done, time in which the machine is gone among them; 0 for no work."""
        if self._absences is None or not work_s:
            return work_s
        return work_s + self._absences.away_while_working_s(now_s, work_s)

    def worked_s(self, began_s: float, now_s: float) -> float:
        """Seconds of work in a span: those in which the machine is there."""
        return now_s - began_s if self._absences is None else now_s - began_s - self.away_s(began_s, now_s)

    def away_s(self, began_s: float, now_s: float) -> float:
        """Seconds of a span in which the machine is gone."""
        return 0.0 if self._absences is None else self._absences.away_s(began_s, now_s)


class Work:
    """What a body's machine is set to: inner steps, making a payload, reading payloads.

    Args:
        commons: clock and events.
        pace: of the machine.
    """

    def __init__(self, commons: Commons, pace: Pace) -> None:
        self._commons, self._pace = commons, pace
        self._never_cut = commons.exchange.plan.asynchrony is not None or not pace.is_cut

    def steps(self, round: int, wanted: int, spent: Spent) -> Verb[Stint]:
        """Do inner steps of a round until its window closes, foreseen or not; a step that is begun is ended."""
        clock, now_s = self._commons.clock, self._commons.env.now
        if self._never_cut or clock.lets_finish:
            stint = self._pace.stint(round, wanted, now_s, math.inf)
        elif clock.foresees(round + 1):
            stint = self._pace.stint(round, wanted, now_s, clock.closes_at(round))
        else:
            return (yield from self._steps_until_opened(round, wanted, spent))
        with spent.on("compute_s", self._commons.env):
            yield self._commons.env.timeout(self._pace.lasts_s(now_s, stint.work_s))
        self._book_absence(now_s, spent)
        return stint

    def announce(self, uid: int, round: int, stint: Stint) -> None:
        """Say if the batch of a stint that counts for a round was cut."""
        whole, env = self._pace.batch, self._commons.env
        if stint.steps and stint.batch < whole:
            self._commons.emit(BatchCut(env.now, uid, round, stint.steps, stint.batch, whole))

    def tokens(self, stint: Stint) -> int:
        """Tokens of the small model that a stint trains on."""
        return stint.steps * self._commons.tokens_per_step * stint.batch // self._pace.batch

    def named(self, batches: Batches, stint: Stint) -> Batches:
        """What of the named batches a stint trains on."""
        return batches if stint.batch == self._pace.batch else batches.thinned(stint.batch)

    @property
    def compresses(self) -> bool:
        """Whether it takes time to make a payload."""
        return self._pace.compression_s > 0

    @property
    def decodes(self) -> bool:
        """Whether it takes time to read one."""
        return self._pace.decoding_s > 0

    def compress(self, spent: Spent) -> Verb[None]:
        """Make a payload."""
        if self._pace.compression_s:
            yield from self._busy(self._pace.compression_s, spent)

    def decode(self, num_payloads: int, spent: Spent) -> Verb[None]:
        """Read gathered payloads."""
        if self._pace.decoding_s and num_payloads:
            yield from self._busy(num_payloads * self._pace.decoding_s, spent)

    def _busy(self, work_s: float, spent: Spent) -> Verb[None]:
        """Be at work for so long, and idle while the machine is gone meanwhile."""
        env = self._commons.env
        began_s = env.now
        with spent.on("compute_s", env):
            yield env.timeout(self._pace.lasts_s(began_s, work_s))
        self._book_absence(began_s, spent)

    def _steps_until_opened(self, round: int, wanted: int, spent: Spent) -> Verb[Stint]:
        """Do steps until they are done or the next window has opened, which nobody can foresee."""
        env, pace = self._commons.env, self._pace
        began_s, whole = env.now, pace.whole_stint(round, wanted)
        with spent.on("compute_s", env):
            yield env.timeout(pace.lasts_s(began_s, whole.work_s)) | self._commons.clock.opened(round + 1)
            worked_s = pace.worked_s(began_s, env.now)
            stint = pace.done(whole, worked_s)
            if stint.steps < wanted and stint.work_s < worked_s:
                stint = replace(stint, steps=stint.steps + 1)
                yield env.timeout(pace.lasts_s(env.now, max(0.0, stint.work_s - worked_s)))
        self._book_absence(began_s, spent)
        return stint

    def _book_absence(self, began_s: float, spent: Spent) -> None:
        away_s = self._pace.away_s(began_s, self._commons.env.now)
        if away_s:
            spent.move(away_s, "compute_s", "idle_preempted_s", self._commons.env.now)


def work_s(stints: Sequence[Stint]) -> float:
    """Seconds of work in stints of one round."""
    if len({stint.step_s for stint in stints}) == 1:  # rounded once, not once a stint
        return sum(stint.steps for stint in stints) * stints[0].step_s
    return math.fsum(stint.work_s for stint in stints)
