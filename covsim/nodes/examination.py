"""What a validator holds of a round before it judges, and the evidence that it makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from covsim.gauntlet.evidence import Evidence, Status
from covsim.gauntlet.loss_score import LossEvidence
from covsim.gauntlet.selection import Selection
from covsim.gauntlet.settings import GauntletSettings
from covsim.nodes.board import GatherList
from covsim.nodes.books import Judge
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import Gather, Submission
from covsim.nodes.learning import Measures, Stride, Trial
from covsim.protocol.lineage import Lineage
from covsim.world.store import StoredObject

_LOSSES = ("own_before", "own_after", "random_before", "random_after")


@dataclass(frozen=True)
class Examination:
    """What validators need to judge learning, the same for all of them.

    `honest` and `cohorts` are the simulator's knowledge; they enter diagnostics and what a briber tells, nothing else.
    """

    measures: Measures
    rules: GauntletSettings
    selection: Selection
    held_out_every: int
    honest: Collection[int]
    cohorts: Mapping[str, tuple[int, ...]]
    judge_of: Callable[[str], Judge]


@dataclass
class Seen:
    """What a validator holds of one round; `stored` is what lay in the store as it looked."""

    wanted: GatherList
    gather: Gather
    entered: tuple[Submission, ...]
    drawn: tuple[int, ...] = ()
    stored: dict[int, StoredObject | None] = field(default_factory=dict)
    valid: dict[int, Submission] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    unreadable: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Examiner:
    """One validator's view of one round: its theta before that round's outer step, and what it has seen."""

    commons: Commons
    examination: Examination
    label: str
    round: int
    lineage: Lineage
    stride: Stride
    seen: Seen

    def losses(self, uids: Sequence[int]) -> LossEvidence:
        """Losses before and after each trial step, through the seam."""
        label = f"losses validator={self.label} round={self.round}"
        drawn = tuple(self.seen.valid[uid] for uid in uids)
        trial = Trial(self.label, self.round, self.lineage, drawn, tuple(self.seen.entered))
        measures = self.examination.measures
        return LossEvidence.of(self.commons.seam.numbers(label, lambda: measures.losses(trial).flat()))

    def evidence(self, measured: Sequence[int], losses: LossEvidence) -> list[Evidence]:
        """One row for everyone drawn for evaluation or asked in the gather."""
        uids = sorted({*self.seen.drawn, *self.seen.gather.asked})
        numbers: dict[int, dict[str, Any]] = {uid: {} for uid in uids}
        for i, uid in enumerate(measured):
            numbers[uid] |= {name: getattr(losses, name)[i] for name in _LOSSES}
        for uid, found in self._overlaps().items():
            numbers[uid] |= found
        behind = self._steps_behind(uids)
        return [self._row(uid, {**numbers[uid], "steps_behind": behind[uid]}) for uid in uids]

    def _overlaps(self) -> dict[int, dict[str, Any]]:
        """What each compared payload has in common with an earlier one."""
        rules = self.examination.rules
        among = self.seen.valid if rules.overlap.among == "evaluated" else self.seen.gather.submissions
        compared = list(among.values())
        uids = [submission.uid for submission in compared]
        previous = [self._previous_stamp(uid) for uid in uids] if rules.quirks.overlap_by_previous_stamps else None
        found = self.examination.measures.overlaps(compared, previous)
        return {
            uid: {
                "overlap": each.share,
                "overlap_with": each.with_uid,
                "overlap_stored_s": among[each.with_uid].stored_s,
            }
            for uid, each in found.items()
        }

    def _steps_behind(self, uids: Sequence[int]) -> dict[int, float]:
        """How far each peer's sync sample lies from this theta, through the seam; NaN without a sample in time."""
        lineages = {uid: self._sampled(uid) for uid in uids}
        distinct = {lineage.key: lineage for lineage in lineages.values() if lineage is not None}
        label = f"steps behind validator={self.label} round={self.round}"
        numbers = self.commons.seam.numbers(label, lambda: self.stride.behind(list(distinct.values()), self.lineage))
        of_key = dict(zip(distinct, numbers, strict=True))
        return {uid: math.nan if lineage is None else of_key[lineage.key] for uid, lineage in lineages.items()}

    def _sampled(self, uid: int) -> Lineage | None:
        sample = self.commons.samples.of(self.round, uid, by_s=self.commons.env.now)
        if sample is None:
            return None
        if self.examination.rules.sync.deadline == "none":
            return sample.lineage
        return sample.lineage if sample.published_s < self.commons.clock.put_closes_at(self.round + 1) else None

    def _row(self, uid: int, numbers: Mapping[str, Any]) -> Evidence:
        seen = self.seen
        asked, listed = uid in seen.gather.asked, uid in seen.wanted.selected
        stored = seen.valid.get(uid) or seen.stored[uid]
        return Evidence(
            uid=uid,
            status=self._status(uid),
            problem=seen.problems.get(uid, ""),
            stored_s=stored.stored_s if stored is not None else math.nan,
            previous_stored_s=self._previous_stamp(uid),
            evaluated=uid in seen.drawn,
            on_gather_list=asked and listed,
            asked_as_reserve=asked and not listed,
            gathered=uid in seen.gather.submissions,  # all of them entered, or the round is not judged
            **numbers,
        )

    def _previous_stamp(self, uid: int) -> float:
        stored = self.commons.store.stat(object_key(self.round - 1, uid)) if self.round > 0 else None
        return math.nan if stored is None else stored.stored_s

    def _status(self, uid: int) -> Status:
        """What became of a submission: what was read decides, not what may have been put there since."""
        if uid in self.seen.valid:
            return "ok"
        if uid in self.seen.problems:
            return "invalid"
        if uid in self.seen.unreadable:
            return "unseen"
        return self.commons.status(self.seen.stored[uid], self.round)


def held_out_loss(commons: Commons, examination: Examination, lineage: Lineage, label: str) -> float:
    """Nats per token of a lineage on text that nobody trains on, through the seam."""

    return commons.seam.numbers(f"held-out {label}", lambda: [examination.measures.held_out(lineage)])[0]
