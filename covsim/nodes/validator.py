"""A validator's body: the verbs of `behaviors.base.ValidatorVerbs`, each charged its true bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import simpy

from covsim.behaviors.base import ValidatorBehavior
from covsim.events import HeldOutMeasured, OuterStepTaken, Probed, ValidatorSettled
from covsim.gauntlet.selection import whom_to_evaluate
from covsim.nodes.books import Books, Office
from covsim.nodes.checkpoints import CatchUp, put_checkpoint
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.examination import Examination, Examiner, Seen, held_out_loss
from covsim.nodes.gather import Gather, Submission, take_outer_step
from covsim.nodes.side_by_side import SideBySide
from covsim.protocol.base import InvalidPayload
from covsim.protocol.lineage import Lineage
from covsim.world.network import Resource

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Validator:
    """One scorer with its own theta, random draws and memory of every peer. `run` plays its behavior's script.

    Args:
        rank: its place among the validators by stake, 0 for the highest, which leads.
        lineages: every history that a node is on, for a diagnostic.
        colleagues: all validators, by rank.
    """

    def __init__(
        self,
        commons: Commons,
        examination: Examination,
        label: str,
        behavior: ValidatorBehavior,
        rank: int,
        links: tuple[Resource, Resource],
        lineages: Callable[[], Mapping[str, Lineage]],
        colleagues: Callable[[], Sequence[Validator]],
    ) -> None:
        self.label = label
        self.name = f"validator:{label}"
        self.rank = rank
        self.online = True
        self.uplink, self.downlink = links
        self.lineage: Lineage = commons.lineages.root
        self.round = 0
        self._commons = commons
        self._examination = examination
        self._behavior = behavior
        self._lineages = lineages
        self._colleagues = colleagues
        self._books = Books(_office(commons, examination), label, rank)
        self._seen: Seen | None = None
        self._stepped = -1  # the last round whose exchange is in the lineage
        self._way: CatchUp | None = None  # while it catches up
        self._upload: simpy.Process | None = None  # of a checkpoint
        self._farthest = math.nan
        self._stride = examination.measures.stride()

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this validator may still want to read."""
        return self.round if self._way is None else min(self.round, self._way.round)

    @property
    def measures(self) -> bool:
        """True for the validator of the highest stake that does not sit out: the tables show its theta."""
        return self.online and not any(other.online for other in self._colleagues() if other.rank < self.rank)

    def run(self) -> Generator[Any, Any, None]:
        """Play round after round, the next one at once if its put window has closed already."""
        while self.round < self._commons.num_rounds:
            yield self._commons.clock.opened(self.round + 1)
            self.online, self._seen = True, None
            if self.measures:
                self._farthest = self._stride.widest_gap(list(self._lineages().values()), self.lineage)
            yield from self._behavior.play_round(self)
            if self.measures and (self.round + 1) % self._examination.held_out_every == 0:
                self._measure_progress()
            if self.measures and self._commons.shelf.is_due(self.round):
                self._keep_checkpoint()
            self._commons.emit(ValidatorSettled(self._commons.env.now, self.label, self.round))
            self.round += 1

    # What a script may know -----------------------------------------------------------------------------------------

    def judged_weights(self) -> Mapping[int, float]:
        return self._books.weights

    def weights_on_chain(self) -> Mapping[int, float]:
        return self._commons.chain.weights_of_others(self.name)

    def cohort(self, name: str) -> Sequence[int]:
        return self._examination.cohorts.get(name, ())

    # What a script may do -------------------------------------------------------------------------------------------

    def gather(self) -> Verb[bool]:
        commons = self._commons
        wanted = commons.board.in_force(self.round + 1)
        gather = Gather(commons, self.name, self.downlink, self.round, wanted)
        if commons.collectives is not None:
            entered = yield from commons.collectives.watch(self.round)
            gather.take(entered)
            self._seen = Seen(wanted, gather, entered, valid=dict(gather.submissions))
            return bool(entered)
        entered = yield from gather.run()
        yield commons.until(commons.clock.put_closes_at(self.round + 1))
        self._seen = Seen(wanted, gather, entered, valid=dict(gather.submissions))
        return bool(entered)

    def evaluate(self) -> Verb[None]:
        """Draw, fetch, measure, judge.

        Of a direct exchange nothing is measured, and all whose payloads entered are worth the same. A round whose
        gather brought nothing is not judged, unless `quirks.empty_gather_judged`; one whose gather was
        aborted is not, as on the live network.
        """
        commons, seen = self._commons, self._seen
        assert seen is not None, "a validator evaluates what it has gathered"
        if commons.collectives is not None:
            self._books.pay_equally(self.round, [submission.uid for submission in seen.entered])
            return
        if not seen.entered and (seen.gather.aborted or not self._examination.rules.quirks.empty_gather_judged):
            return
        active = self._active()
        yield from self._look(seen, active)
        measured = [uid for uid in seen.drawn if uid in seen.valid]
        began_s = commons.env.now
        yield commons.env.timeout(commons.charges.evaluation_s * len(measured))
        examiner = Examiner(commons, self._examination, self.label, self.round, self.lineage, self._stride, seen)
        evidence = examiner.evidence(measured, examiner.losses(measured))
        self._books.judge(evidence, self.round, active, len(seen.drawn), commons.env.now - began_s)

    def set_weights(self, weights: Mapping[int, float]) -> None:
        self._books.set_weights(weights, self.round)

    def publish_list(self) -> None:
        self._books.publish_list(self.round, self._active())

    def publish_first_list(self) -> None:
        """Before the first round, of nobody who is known."""
        self._books.put_up_list(-1, self._active(), effective_window=0)

    def step(self) -> None:
        commons, before = self._commons, self.lineage
        entered = () if self._seen is None else self._seen.entered
        self.lineage, self._stepped = take_outer_step(commons, before, entered, self.round), self.round
        if not entered:
            return
        self._stride.take(before, self.lineage)
        commons.emit(OuterStepTaken(commons.env.now, self.name, self.round, self.lineage.key))

    def sit_out(self) -> Verb[None]:
        self.online = False
        if self._upload is not None and self._upload.is_alive:
            self._upload.interrupt("its validator is away")
        yield self._commons.env.timeout(0)

    def catch_up(self) -> Verb[None]:
        """Gather the rounds that it missed, from the newest checkpoint, or from its own theta if that is newer."""
        self._commons.shelf.check_wanted(self.name)
        has_newer = self._stepped >= self._commons.shelf.newest.round
        known, missing = (self.lineage, self._stepped + 1) if has_newer else (None, -1)
        self._way = CatchUp(self._commons, self.name, self.downlink, known, missing)
        self.lineage = yield from self._way.run(until=self.round)
        self._way, self._stepped = None, self.round - 1

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _active(self) -> frozenset[int]:
        """Who counts as taking part, by what lies in the store now."""
        return self._books.active(self.round, self._has_sent)

    def _look(self, seen: Seen, active: Collection[int]) -> Verb[None]:
        """Draw whom to evaluate, and fetch what the gather did not."""
        commons, round = self._commons, self.round
        generator = commons.streams.numpy("whom to evaluate", self.label, round)
        drawn = whom_to_evaluate(self._examination.rules, self._books.standings, active, round, generator)
        if commons.exchange.plan.asynchrony:  # a round expects nobody in particular, so nobody is missing from it
            drawn = tuple(uid for uid in drawn if self._has_sent(uid, round))
            seen.gather.asked = [uid for uid in seen.gather.asked if self._has_sent(uid, round)]
        seen.drawn = drawn
        seen.stored = {uid: commons.store.stat(object_key(round, uid)) for uid in {*drawn, *seen.gather.asked}}
        fetches = [self._fetch(uid, seen) for uid in drawn if uid not in seen.valid]
        yield SideBySide(commons.env, fetches).done

    def _has_sent(self, uid: int, round: int) -> bool:
        return self._commons.store.stat(object_key(round, uid)) is not None

    def _fetch(self, uid: int, seen: Seen) -> Verb[None]:
        """Read a submission that is on time, and note what is wrong with it."""
        commons = self._commons
        if commons.status(seen.stored[uid], self.round) != "ok":
            return
        read = yield from commons.store.get(self.name, self.downlink, object_key(self.round, uid), purpose="evaluate")
        if read is None:
            seen.unreadable.add(uid)
            return
        seen.stored[uid] = read
        if not commons.on_time(read, self.round):  # overwritten since
            return
        try:
            sha256, decoded = commons.decoded.read(read.data, self.round, commons.trusts_everybody)
        except InvalidPayload as problem:
            seen.problems[uid] = str(problem)
            return
        seen.valid[uid] = Submission(uid, sha256, decoded, read.stored_s)

    def _keep_checkpoint(self) -> None:
        """Begin to put the theta of now into the store, for all who come later."""
        upload = put_checkpoint(self._commons, self.name, self.uplink, self.round, self.lineage)
        self._upload = self._commons.env.process(upload)

    def _measure_progress(self) -> None:
        """The held-out loss, and the round's figures that do not depend on the model's size."""
        commons, examination = self._commons, self._examination
        entered = () if self._seen is None else self._seen.entered
        loss = held_out_loss(commons, examination, self.lineage, f"round={self.round}")
        commons.emit(HeldOutMeasured(commons.env.now, self.name, self.round, self.lineage.key, loss))
        measures, farthest = examination.measures, self._farthest
        commons.emit(measures.compare(commons.env.now, self.round, entered, examination.honest, farthest))
        updates = {submission.uid: submission.decoded for submission in entered}
        for name in measures.probes:
            label = f"probe {name} round={self.round}"
            (value,) = commons.seam.numbers(label, lambda name=name: [measures.probe(name, updates)])  # type: ignore[misc]
            commons.emit(Probed(commons.env.now, self.round, name, value))


def _office(commons: Commons, examination: Examination) -> Office:
    return Office(
        env=commons.env,
        clock=commons.clock,
        streams=commons.streams,
        board=commons.board,
        chain=commons.chain,
        emit=commons.emit,
        rules=examination.rules,
        selection=examination.selection,
        expects_everybody=not commons.exchange.plan.asynchrony,
        judge_of=examination.judge_of,
    )
