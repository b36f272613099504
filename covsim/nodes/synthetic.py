"""Learning by a stated rule: no tensor is made, and the clock, the store, the chain and all scoring rules run as ever.

    progress w     outer steps that a history holds, counted in full regular ones: each adds the mean of the `useful`
                   lengths of the payloads that entered, none of them longer than the median of their norms
    loss(w)        floor + (start - floor) (1 + w / half)^-power; before w = 0 the curve goes on as its tangent
    an update      steps / H useful (times `poisoned` on false answers), and spread x that of its own, along the
                   direction of the batches that it was made from
    a payload      its sketch, filled up with zeros to the regular length of the round's fragment, so it is charged what
                   a trained one is; what compression leaves out is taken to come through error feedback, at no delay
    a trial        loss(w + trial_factor x useful x (1 - staleness)^age), age: outer steps that its base is behind; one
                   stream per (validator, round, uid) adds noise to the relative improvement
    own data       improves by own_gap x what the payload has along the batches assigned to its uid for this round
    overlap        likeness between independent payloads, up to 1 for copies, by the cosine of what is their own; none
                   where payloads hold all values

So a flipped sign raises the loss, half the steps improve half as much, a copy overlaps with its victim and shows no gap
on the copier's own batches, and weights that never trained improve nothing. What needs single coordinates (slices,
stuffed norms, ALIE) is refused. The aggregate is taken as that clipped mean, whatever the scenario names.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, median
from typing import Any, Final, cast

from covsim.events import UpdatesCompared
from covsim.gauntlet.checks import Overlap, overlaps_of
from covsim.gauntlet.loss_score import LossEvidence
from covsim.learning.corpus import Batches
from covsim.learning.sketch import Origin, Sketch
from covsim.learning.tasks import Task
from covsim.learning.update import Update
from covsim.nodes.gather import Submission
from covsim.nodes.learning import Buffers, Learning, Trial
from covsim.nodes.trained import exchange_of
from covsim.protocol.base import Claims, Decoded, InvalidPayload
from covsim.protocol.exchange import Exchange
from covsim.protocol.forgery import HUGE, LEFT_OUT
from covsim.protocol.lineage import Lineage, Lineages
from covsim.randomness import Label, Streams
from covsim.scenario.learning import Synthetic
from covsim.scenario.schema import Scenario

_MAGIC: Final = b"sk01"
_HEAD: Final = struct.Struct("<4sIqiBdH")  # magic, round, claimed tokens, claimed base, flaw, useful, number of parts
_PART: Final = struct.Struct("<BIid")  # shard, uid, round, length
_CHECK: Final = struct.Struct("<I")
_SHARDS: Final = ("assigned", "random", "false", "noise")
_FLAWS: Final = (
    "",
    "truncated",
    "empty",
    "oversized",
    "nan",
    "infinite",
    "wrong_indices",
    "duplicate_indices",
    "wrong_shape",
    "wrong_version",
    "bad_checksum",
    LEFT_OUT,
)
LEAST_BYTES: Final = _HEAD.size + _PART.size + _CHECK.size
"""No payload of the model may be shorter, or a sketch does not fit."""

_NORMAL: Final = NormalDist()


def synthetic_learning(scenario: Scenario, rule: Synthetic, streams: Streams) -> Learning:
    """Build what stands for training. Raises ValueError where sketches do not fit the scenario."""
    if scenario.tasks or scenario.probes:
        raise ValueError("learning: synthetic has no theta: tasks and probes need learning: trained")
    exchange = SketchExchange(exchange_of(scenario, streams), rule)
    plan = exchange.plan
    lineages = Lineages(
        Lineage("synthetic", 0, Sketch()),
        exchange.outer_step,
        buffer=plan.asynchrony.buffer if plan.asynchrony else 1,
    )
    trainer = SketchTrainer(rule, plan.inner_steps, scenario.training.batch)
    measures = SketchMeasures(scenario, rule, streams, exchange.selects)
    return Learning(trainer, exchange, lineages, measures, lambda _: None, False, lambda: None)


class SketchTrainer:
    """Says what inner steps bring.

    Args:
        rule: its numbers.
        inner_steps: H, which bring 1.
        batch: sequences of such a step; one on fewer brings as much less.
    """

    def __init__(self, rule: Synthetic, inner_steps: int, batch: int) -> None:
        self._rule, self._inner_steps, self._batch = rule, inner_steps, batch
        self.wall_s, self.replaying = 0.0, False

    def train(self, uid: int, round: int, start: Any, batches: Batches, steps: int, skip: int = 0) -> Update:
        """Where the steps end: start minus what they bring."""
        return Update(lambda: _value(start) - self._brought(batches, steps))  # type: ignore[arg-type, return-value]

    def gradient(self, uid: int, round: int, start: Any, batches: Batches) -> Update:
        """What one step brings."""
        return Update(lambda: self._brought(batches, 1))  # type: ignore[arg-type, return-value]

    def _brought(self, batches: Batches, steps: int) -> Sketch:
        share = steps / self._inner_steps * (batches.size(self._batch) / self._batch)
        false = batches.flips or bool(batches.poisons)
        origin = ("false" if false else batches.shard, batches.uid, batches.round)
        return Sketch(share * (self._rule.poisoned if false else 1.0), {origin: self._rule.spread * share})

    def forget(self, uid: int) -> None:
        """There are no moments."""

    def run_pending(self) -> None:
        """Nothing waits."""

    def state(self) -> dict[str, Any]:
        """Nothing: promises are made of what a re-executed run knows again."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""


@dataclass(frozen=True, eq=False)
class Said:
    """What a payload of sketches says; it stands where a decoded payload stands."""

    sketch: Sketch
    claims: Claims = field(default_factory=Claims)
    missing: tuple[int, ...] = ()
    weight: float = 0.0


class SketchExchange:
    """Writes sketches as payloads of regular length, and applies them.

    Args:
        real: gives plan, lengths and rates.
        rule: the numbers of the rule.

    Raises:
        ValueError: the model's payloads are too short to hold a sketch.
    """

    def __init__(self, real: Exchange, rule: Synthetic) -> None:
        self._real, self._rule = real, rule
        self.plan, self.most_tokens = real.plan, real.most_tokens
        self.regular_bytes, self.reads_weights, self.selects = real.regular_bytes, real.reads_weights, real.selects
        self.buffers: Buffers | None = None
        shortest = min(real.regular_bytes_of(round) for round in range(64))
        if shortest < LEAST_BYTES and not real.plan.stays_home:
            raise ValueError(
                f"the model's payload has {shortest} bytes, and with learning: synthetic it needs {LEAST_BYTES}; "
                "take a larger model"
            )

    def encode_values(
        self, round: int, uids: Sequence[int], values: Sequence[Sketch], claims: Sequence[Claims], feedback: bool
    ) -> list[bytes]:
        length = self._real.regular_bytes_of(round)
        return [_written(value, round, claim, length) for value, claim in zip(values, claims, strict=True)]

    def forge(self, round: int, payload: bytes, flaw: str) -> bytes:
        said, length = self.decode(round, payload), len(payload)
        if flaw == "huge":
            return _written(said.sketch * HUGE, round, said.claims, length)
        lengths = {"truncated": length // 2, "empty": 0, "oversized": 2 * length, LEFT_OUT: 2 * length // 3}
        mark = _FLAWS.index(flaw)
        return _written(said.sketch, round, said.claims, max(lengths.get(flaw, length), 0), mark)

    def decode(self, round: int, payload: bytes, allow_missing: bool = False) -> Any:
        if len(payload) < LEAST_BYTES:
            raise InvalidPayload(f"{len(payload)} bytes are no payload")
        magic, of_round, tokens, base, mark, useful, num_parts = _HEAD.unpack_from(payload)
        body = _HEAD.size + num_parts * _PART.size
        if magic != _MAGIC or len(payload) < body + _CHECK.size:
            raise InvalidPayload("not a payload of this protocol")
        if _CHECK.unpack_from(payload, body)[0] != zlib.crc32(payload[:body]):
            raise InvalidPayload("bad checksum")
        if not self.plan.fragments.whole and self._fragment(of_round) != self._fragment(round):
            raise InvalidPayload("of another fragment")
        flaw = _FLAWS[mark]
        if flaw and not (flaw == LEFT_OUT and allow_missing):
            raise InvalidPayload(flaw.replace("_", " "))
        if not flaw and len(payload) != self._real.regular_bytes_of(round):
            raise InvalidPayload(f"{len(payload)} bytes, where {self._real.regular_bytes_of(round)} were due")
        parts: dict[Origin, float] = {}
        for place in range(num_parts):
            shard, uid, born, part = _PART.unpack_from(payload, _HEAD.size + place * _PART.size)
            parts[_SHARDS[shard], uid, born] = part
        sketch = Sketch(useful, parts)
        if not sketch.is_finite:
            raise InvalidPayload("a value is not finite")
        if tokens > self.most_tokens:
            raise InvalidPayload(f"claims {tokens} tokens")
        missing = (1,) if flaw else ()
        return Said(sketch * (2 / 3) if flaw else sketch, Claims(tokens, base), missing)

    def _fragment(self, round: int) -> int:
        return round % getattr(self.plan.fragments, "num", 1) if not self.plan.fragments.whole else 0

    def dense_like(self, theta: Sketch, round: int, payload: Any) -> Sketch:
        sketch: Sketch = payload.sketch
        return sketch

    def noise_like(self, theta: Sketch, scale: float, address: tuple[Label, ...]) -> Sketch:
        """Of no use, and as long as a regular update at a scale of 1, whatever the model's numbers are."""
        uid, round = int(address[1]), int(address[2])
        return Sketch(0.0, {("noise", uid, round): scale} if scale else {})

    def merge(self, own: Sketch, theta: Sketch, round: int) -> Sketch:
        mixing = self.plan.mixing
        return theta if mixing == 0 else theta * (1 - mixing) + own * mixing

    def outer_step(self, lineage: Lineage, payloads: Sequence[Decoded], round: int) -> tuple[Sketch, tuple[()]]:
        """The history's progress after the payloads of a round."""
        said: Sequence[Any] = payloads
        longest = median(each.sketch.norm() for each in said)
        useful = fmean(
            self.freshness(lineage, each) * each.sketch.useful * min(1.0, _ratio(longest, each.sketch.norm()))
            for each in said
        )
        return Sketch(lineage.theta.useful - useful), ()

    def freshness(self, lineage: Lineage, said: Any) -> float:
        """What a payload is still worth, by how far its base is behind a history."""
        return freshness(self._rule, lineage, said)


def freshness(rule: Synthetic, lineage: Lineage, said: Any) -> float:
    """(1 - staleness) ^ outer steps that a payload's base is behind a history."""
    return float((1 - rule.staleness) ** max(0, lineage.depth - said.claims.base))


class SketchStride:
    """A validator's outer steps, by progress."""

    def __init__(self, decay: float) -> None:
        self._decay, self._last, self._average = decay, math.nan, 0.0

    def take(self, before: Lineage, after: Lineage) -> None:
        self._last = abs(after.theta.useful - before.theta.useful)
        first = self._average == 0
        self._average = self._last if first else self._decay * self._average + (1 - self._decay) * self._last

    def behind(self, lineages: Sequence[Lineage], own: Lineage) -> list[float]:
        size = max(self._average, 1e-9)
        return [abs(lineage.theta.useful - own.theta.useful) / size for lineage in lineages]

    def widest_gap(self, lineages: Sequence[Lineage], own: Lineage) -> float:
        if not self._last > 0:
            return math.nan
        return max((abs(each.theta.useful - own.theta.useful) / self._last for each in lineages), default=math.nan)


class SketchMeasures:
    """Losses, overlaps and comparisons by the rule.

    Args:
        compares: whether payloads can overlap at all; dense ones are not compared.
    """

    def __init__(self, scenario: Scenario, rule: Synthetic, streams: Streams, compares: bool) -> None:
        self._compares = compares
        self._rule, self._gauntlet, self._streams = rule, scenario.gauntlet, streams

    @property
    def probes(self) -> Collection[str]:
        return ()

    def stride(self) -> SketchStride:
        return SketchStride(self._gauntlet.sync.average_decay)

    def held_out(self, lineage: Lineage) -> float:
        return loss_at(self._rule, -lineage.theta.useful)

    def losses(self, trial: Trial) -> LossEvidence:
        before = self.held_out(trial.lineage)
        after = [self._after(trial, submission, before) for submission in trial.drawn]
        befores = (before,) * len(after)
        return LossEvidence(befores, tuple(own for own, _ in after), befores, tuple(random for _, random in after))

    def _after(self, trial: Trial, submission: Submission, before: float) -> tuple[float, float]:
        """The losses on own and on random data after a trial step."""
        rule, said = self._rule, submission.decoded
        sketch: Sketch = said.sketch  # type: ignore[attr-defined]
        reach = self._gauntlet.trial_factor * freshness(rule, trial.lineage, said)
        after = loss_at(rule, -trial.lineage.theta.useful + reach * sketch.useful)
        drawn = self._streams.uniform("synthetic losses", trial.label, trial.round, submission.uid)
        noise = rule.noise * _NORMAL.inv_cdf(min(max(drawn, 1e-12), 1 - 1e-12)) if sketch.norm() > 0 else 0.0
        learned = sketch.parts.get(("assigned", submission.uid, trial.round), 0.0)
        gap = rule.own_gap * _ratio(learned, rule.spread)
        random = max(after - before * noise, 0.0)
        return max(random - before * gap, 0.0), random

    def overlaps(
        self, submissions: Sequence[Submission], previous_stored_s: Sequence[float] | None
    ) -> dict[int, Overlap]:
        return overlaps_of(
            [submission.uid for submission in submissions],
            [submission.stored_s for submission in submissions],
            self._likeness(submissions),
            previous_stored_s,
        )

    def _likeness(self, submissions: Sequence[Submission]) -> list[list[float]]:
        sketches: list[Sketch] = [submission.decoded.sketch for submission in submissions]  # type: ignore[attr-defined]
        least, num = self._rule.likeness if self._compares else math.nan, len(sketches)
        matrix = [[least] * num for _ in range(num)]
        holders: dict[Origin, list[int]] = {}
        for place, sketch in enumerate(sketches):
            for origin in sketch.parts:
                holders.setdefault(origin, []).append(place)
        for i, j in {(i, j) for places in holders.values() if len(places) > 1 for i in places for j in places}:
            matrix[i][j] = least + (1 - least) * max(0.0, sketches[i].likeness(sketches[j]))
        return matrix

    def compare(
        self, time_s: float, round: int, entered: Sequence[Submission], honest: Collection[int], farthest: float
    ) -> UpdatesCompared:
        """Cosines of sketches; senders per coordinate are not known."""
        rows: list[Sketch] = [each.decoded.sketch for each in entered if each.uid in honest]  # type: ignore[attr-defined]
        pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i]]
        likeness = self._rule.likeness
        return UpdatesCompared(
            time_s=time_s,
            round=round,
            honest_cosine=fmean(a.cosine(b) for a, b in pairs) if pairs else math.nan,
            honest_overlap=(
                fmean(likeness + (1 - likeness) * max(0.0, a.likeness(b)) for a, b in pairs) if pairs else math.nan
            ),
            senders_per_coordinate=math.nan,
            steps_behind=farthest,
        )

    def probe(self, name: str, updates: Mapping[int, Decoded]) -> float:
        raise AssertionError("a timing-only run has no probes")

    def accuracy(self, task: Task, lineage: Lineage) -> float:
        raise AssertionError("a timing-only run has no tasks")


def loss_at(rule: Synthetic, progress: float) -> float:
    """Nats per token after so many regular outer steps; before 0 the tangent, so that harm goes on to cost."""
    fall = rule.start - rule.floor
    if progress >= 0:
        return float(rule.floor + fall * (1 + progress / rule.half) ** -rule.power)
    return rule.start - fall * rule.power * progress / rule.half


def _value(start: Any) -> Sketch:
    """A start, or what is promised to be one."""
    return cast(Sketch, start.value() if isinstance(start, Update) else start)


def _written(sketch: Sketch, round: int, claims: Claims, length: int, mark: int = 0) -> bytes:
    """A payload of a length; of many parts only the longest are kept that fit."""
    room = (max(length, LEAST_BYTES) - _HEAD.size - _CHECK.size) // _PART.size
    parts = sketch.parts.items()
    if len(parts) > room:
        parts = sorted(parts, key=lambda entry: (-abs(entry[1]), entry[0]))[:room]  # type: ignore[assignment]
    head = _HEAD.pack(_MAGIC, round, claims.tokens, claims.base, mark, sketch.useful, len(parts))
    body = head + b"".join(_PART.pack(_SHARDS.index(shard), uid, born, part) for (shard, uid, born), part in parts)
    return (body + _CHECK.pack(zlib.crc32(body))).ljust(length, b"\0")[:length]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
