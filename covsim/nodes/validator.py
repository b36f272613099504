"""A validator: gathers like everyone, evaluates on its own theta, sets weights, and publishes the list if it leads."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from covsim.events import (
    Evaluated,
    HeldOutMeasured,
    ListPublished,
    OuterStepTaken,
    Probed,
    RuleApplied,
    Scored,
    ValidatorSettled,
)
from covsim.gauntlet.checks import find_overlaps
from covsim.gauntlet.evidence import Evidence, Judgement, Standings, Status, Verdict
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.loss_score import LossEvidence, measure
from covsim.gauntlet.selection import Selection, whom_to_evaluate
from covsim.gauntlet.settings import GauntletSettings
from covsim.learning.corpus import Corpus
from covsim.learning.evaluate import losses_per_vector
from covsim.learning.model import Model
from covsim.nodes.board import GatherList
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.diagnostics import compare_updates, widest_gap
from covsim.nodes.gather import Gather, Submission, take_outer_step
from covsim.nodes.probes import Probe
from covsim.protocol.base import InvalidPayload
from covsim.protocol.lineage import Lineage
from covsim.world.network import Resource
from covsim.world.store import StoredObject

Steps = Generator[Any, Any, Any]


@dataclass(frozen=True)
class Examination:
    """What validators need to judge learning, the same for all of them.

    `honest` is the simulator's knowledge; it enters diagnostics and nothing else.
    """

    model: Model
    corpus: Corpus
    rules: GauntletSettings
    selection: Selection
    batch: int
    held_out_every: int
    active: frozenset[int]
    honest: frozenset[int]
    probes: Mapping[str, Probe]


@dataclass
class _Seen:
    """What a validator holds of one round before it judges; `stored` is what lay in the store as it looked."""

    drawn: tuple[int, ...]
    wanted: GatherList
    gather: Gather
    entered: tuple[Submission, ...]
    stored: dict[int, StoredObject | None]
    valid: dict[int, Submission] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    unreadable: set[int] = field(default_factory=set)


class Validator:
    """One scorer with its own theta, random draws and memory of every peer."""

    def __init__(
        self,
        commons: Commons,
        examination: Examination,
        label: str,
        downlink: Resource,
        leads: bool,
        lineages: Callable[[], Mapping[str, Lineage]],
    ) -> None:
        self.label = label
        self.name = f"validator:{label}"
        self.leads = leads
        self.lineage: Lineage = commons.lineages.root
        self.round = 0
        self._commons = commons
        self._examination = examination
        self._downlink = downlink
        self._lineages = lineages
        self._standings = Standings()
        self._last_step = torch.zeros_like(self.lineage.theta)  # [N]
        self._last_published: int | None = None

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this validator may still want to read."""
        return self.round

    def run(self) -> Steps:
        """Score round after round, the next one at once if its put window has closed already."""
        while self.round < self._commons.num_rounds:
            yield self._commons.clock.opened(self.round + 1)
            yield from self._score_round()
            self._commons.emit(ValidatorSettled(self._commons.env.now, self.label, self.round))
            self.round += 1

    def publish_list(self, round: int, effective_window: int) -> None:
        """Choose whom to gather from what is known after `round`, and put it on the board."""
        commons, selection = self._commons, self._examination.selection
        generator = commons.streams.numpy("gather list", round)
        choice = selection.choose(self._standings, self._examination.active, round, generator)
        commons.board.publish(GatherList(effective_window, choice.selected, choice.reserve))
        commons.emit(
            ListPublished(commons.env.now, self.label, round, effective_window, choice.selected, choice.reserve)
        )
        self._last_published = round

    # One round ------------------------------------------------------------------------------------------------------

    def _score_round(self) -> Steps:
        commons, examination = self._commons, self._examination
        farthest = math.nan
        if self.leads:
            farthest = widest_gap(list(self._lineages().values()), self.lineage, self._last_step)
        seen = yield from self._look()
        if seen.entered:
            yield from self._judge(seen)
        if self.leads and examination.selection.due(self.round, self._last_published):
            window = commons.clock.window_at(commons.env.now)
            self.publish_list(self.round, window + examination.selection.delay_windows)
        self._take_outer_step(seen.entered)
        if self.leads and (self.round + 1) % examination.held_out_every == 0:
            self._measure_progress(seen.entered, farthest)

    def _judge(self, seen: _Seen) -> Steps:
        """Evaluate, score and set weights.

        A round whose gather brought nothing is not judged. The live network skips an aborted gather too; after an empty
        one it zeroes everybody who was asked, which in an outage of the store hits the innocent.
        """
        commons, examination = self._commons, self._examination
        measured = [uid for uid in seen.drawn if uid in seen.valid]
        began_s = commons.env.now
        yield commons.env.timeout(commons.charges.evaluation_s * len(measured))
        losses = self._measure(measured, seen)
        judgement = judge(
            examination.rules,
            self._standings,
            self._evidence(seen, measured, losses),
            round=self.round,
            active=examination.active,
            places=examination.selection.places(len(examination.active)),
            generator=commons.streams.numpy("ties", self.label, self.round),
        )
        self._standings = judgement.standings
        self._announce(judgement, len(seen.drawn), commons.env.now - began_s)

    def _look(self) -> Steps:
        """Gather; when the put window has closed, draw whom to evaluate, and fetch what the gather did not."""
        commons = self._commons
        wanted = commons.board.in_force(self.round + 1)
        gather = Gather(commons, self.name, self._downlink, self.round, wanted)
        entered = yield from gather.run()
        yield commons.until(commons.clock.put_closes_at(self.round + 1))
        drawn = whom_to_evaluate(
            self._examination.rules,
            self._standings,
            self._examination.active,
            self.round,
            commons.streams.numpy("whom to evaluate", self.label, self.round),
        )
        if commons.exchange.plan.asynchrony:  # a round expects nobody in particular, so nobody is missing from it
            drawn, gather.asked = tuple(filter(self._has_sent, drawn)), list(filter(self._has_sent, gather.asked))
        stored = {uid: commons.store.stat(object_key(self.round, uid)) for uid in {*drawn, *gather.asked}}
        seen = _Seen(drawn, wanted, gather, entered, stored, valid=dict(gather.submissions))
        if entered:
            fetches = [commons.env.process(self._fetch(uid, seen)) for uid in drawn if uid not in seen.valid]
            yield commons.env.all_of(fetches)
        return seen

    def _has_sent(self, uid: int) -> bool:
        return self._commons.store.stat(object_key(self.round, uid)) is not None

    def _fetch(self, uid: int, seen: _Seen) -> Steps:
        """Read a submission that is on time, and note what is wrong with it."""
        commons = self._commons
        if commons.status(seen.stored[uid], self.round) != "ok":
            return
        read = yield from commons.store.get(self.name, self._downlink, object_key(self.round, uid), purpose="evaluate")
        if read is None:
            seen.unreadable.add(uid)
            return
        seen.stored[uid] = read
        if not commons.on_time(read, self.round):  # overwritten since
            return
        try:
            sha256, decoded = commons.decoded.read(read.data, self.round)
        except InvalidPayload as problem:
            seen.problems[uid] = str(problem)
            return
        seen.valid[uid] = Submission(uid, sha256, decoded, read.stored_s)

    def _measure(self, uids: Sequence[int], seen: _Seen) -> LossEvidence:
        """Losses before and after each trial step, through the seam."""
        commons, examination, rules = self._commons, self._examination, self._examination.rules

        def compute() -> Sequence[float]:
            own = [
                examination.corpus.assigned_sample(
                    uid,
                    self.round,
                    commons.inner_steps,
                    examination.batch,
                    rules.own_sequences,
                    commons.streams.numpy("own sample", self.label, self.round, uid),
                )
                for uid in uids
            ]
            entered = [submission.decoded for submission in seen.entered]
            limits = commons.exchange.clip_norms(self.lineage, entered)
            trials = [
                commons.exchange.trial_theta(
                    self.lineage, seen.valid[uid].decoded, self.round, rules.trial_factor, limits
                )
                for uid in uids
            ]
            return measure(
                examination.model,
                self.lineage.theta,
                trials,
                torch.stack(own) if own else torch.zeros(0, 0, 0),
                examination.corpus.random_sample(
                    rules.random_sequences, commons.streams.numpy("random sample", self.label, self.round)
                ),
            ).flat()

        return LossEvidence.of(commons.seam.numbers(f"losses validator={self.label} round={self.round}", compute))

    def _evidence(self, seen: _Seen, measured: Sequence[int], losses: LossEvidence) -> list[Evidence]:
        """One row for everyone drawn for evaluation or asked in the gather."""
        compared = list(seen.gather.submissions.values())
        if self._examination.rules.overlap.among == "evaluated":
            compared = list(seen.valid.values())
        overlaps = find_overlaps(
            [submission.uid for submission in compared],
            [submission.stored_s for submission in compared],
            [submission.decoded for submission in compared],
        )
        place = {uid: i for i, uid in enumerate(measured)}
        listed = set(seen.wanted.selected)
        rows = []
        for uid in sorted({*seen.drawn, *seen.gather.asked}):
            numbers: dict[str, Any] = {}
            if uid in place:
                i = place[uid]
                numbers |= {name: getattr(losses, name)[i] for name in _LOSSES}
            if uid in overlaps:
                overlap = overlaps[uid]
                numbers |= {
                    "overlap": overlap.share,
                    "overlap_with": overlap.with_uid,
                    "overlap_stored_s": overlap.stored_s,
                }
            rows.append(self._row(uid, seen, listed, numbers))
        return rows

    def _row(self, uid: int, seen: _Seen, listed: set[int], numbers: Mapping[str, Any]) -> Evidence:
        asked, stored = uid in seen.gather.asked, seen.valid.get(uid) or seen.stored[uid]
        return Evidence(
            uid=uid,
            status=self._status(uid, seen),
            problem=seen.problems.get(uid, ""),
            stored_s=stored.stored_s if stored is not None else math.nan,
            evaluated=uid in seen.drawn,
            on_gather_list=asked and uid in listed,
            asked_as_reserve=asked and uid not in listed,
            gathered=uid in seen.gather.submissions,  # all of them entered, or the round is not judged
            **numbers,
        )

    def _status(self, uid: int, seen: _Seen) -> Status:
        """What became of a submission: what was read decides, not what may have been put there since."""
        if uid in seen.valid:
            return "ok"
        if uid in seen.problems:
            return "invalid"
        if uid in seen.unreadable:
            return "unseen"
        return self._commons.status(seen.stored[uid], self.round)

    def _take_outer_step(self, entered: tuple[Submission, ...]) -> None:
        commons, before = self._commons, self.lineage
        self.lineage = take_outer_step(commons, before, entered, self.round)
        if entered:
            self._last_step = self.lineage.theta - before.theta
            commons.emit(OuterStepTaken(commons.env.now, self.name, self.round, self.lineage.key))

    def _measure_progress(self, entered: tuple[Submission, ...], farthest: float) -> None:
        """As the leader: the held-out loss, and the round's figures that do not depend on the model's size."""
        commons = self._commons
        loss = held_out_loss(commons, self._examination, self.lineage, f"round={self.round}")
        commons.emit(HeldOutMeasured(commons.env.now, self.name, self.round, self.lineage.key, loss))
        commons.emit(
            compare_updates(
                commons.env.now,
                self.round,
                entered,
                self._examination.honest,
                commons.exchange.layout.num_parameters,
                farthest,
            )
        )
        updates = {submission.uid: submission.decoded for submission in entered}
        for name, probe in self._examination.probes.items():
            label = f"probe {name} round={self.round}"
            (value,) = commons.seam.numbers(label, lambda probe=probe: [probe.look(updates)])  # type: ignore[misc]
            commons.emit(Probed(commons.env.now, self.round, name, value))

    def _announce(self, judgement: Judgement, num_drawn: int, evaluation_s: float) -> None:
        """Emit the verdicts, the weights, and how often each rule could act and did."""
        commons, now_s = self._commons, self._commons.env.now
        for verdict in judgement.verdicts:
            commons.emit(_evaluated(now_s, self.label, self.round, verdict))
        commons.emit(
            Scored(now_s, self.label, self.round, num_drawn, evaluation_s, judgement.weights, judgement.burned)
        )
        for entry in judgement.coverage:
            commons.emit(RuleApplied(now_s, self.label, self.round, entry.rule, entry.eligible, entry.fired))


_LOSSES = ("own_before", "own_after", "random_before", "random_after")


def held_out_loss(commons: Commons, examination: Examination, lineage: Lineage, label: str) -> float:
    """Nats per token of a lineage on text that nobody trains on, through the seam."""

    def compute() -> Sequence[float]:
        tokens = examination.corpus.held_out()[None]
        return losses_per_vector(examination.model, lineage.theta[None], tokens).tolist()

    return commons.seam.numbers(f"held-out {label}", compute)[0]


def _evaluated(time_s: float, label: str, round: int, verdict: Verdict) -> Evaluated:
    evidence, standing = verdict.evidence, verdict.standing
    return Evaluated(
        time_s=time_s,
        validator=label,
        uid=evidence.uid,
        round=round,
        status=evidence.status,
        stored_s=evidence.stored_s,
        problem=evidence.problem,
        evaluated=evidence.evaluated,
        on_gather_list=evidence.on_gather_list,
        asked_as_reserve=evidence.asked_as_reserve,
        gathered=evidence.gathered,
        own_before=evidence.own_before,
        own_after=evidence.own_after,
        random_before=evidence.random_before,
        random_after=evidence.random_after,
        overlap=evidence.overlap,
        overlap_with=evidence.overlap_with,
        overlap_stored_s=evidence.overlap_stored_s,
        gradient_score=verdict.gradient_score,
        indicator=verdict.indicator,
        indicator_average=standing.indicator_average,
        mu=standing.mu,
        sigma=standing.sigma,
        final_score=standing.final_score,
        reasons=verdict.reasons,
    )
