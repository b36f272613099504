"""Learning by the answers of an earlier run: the clock runs anew, and what was computed then is looked up.

Time reaches learning only through who trained how many steps from which theta, whose upload landed, and who was
gathered and drawn. Every answer is kept under a digest of just that: a payload under the formula of its update and the
history of its sender's moments and error buffer, losses under the history, the payload and the set that was gathered.
A run that asks for what was never answered has another schedule, and says so by `ScheduleChanged`: it must be trained.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from covsim.chain.signatures import Signatures
from covsim.events import UpdatesCompared
from covsim.gauntlet.checks import Overlap, overlap_matrix, overlaps_of
from covsim.gauntlet.loss_score import LossEvidence
from covsim.learning.corpus import Batches
from covsim.learning.tasks import Task
from covsim.learning.update import Update
from covsim.nodes.diagnostics import compare_updates
from covsim.nodes.formula import Formula, digest
from covsim.nodes.gather import Submission
from covsim.nodes.learning import Learning, Stride, Trial
from covsim.nodes.recorded_buffers import RecordedBuffers
from covsim.nodes.recorded_judging import Judgements
from covsim.nodes.seam import Seam
from covsim.protocol.base import Claims, Decoded, InvalidPayload
from covsim.protocol.exchange import Exchange
from covsim.protocol.forgery import Flaw
from covsim.protocol.lineage import Lineage, Lineages
from covsim.randomness import Label

MOST_DECODED = 20_000
"""Payloads of which it is kept what they say, at some 10 kB each of a model of 40,000 parameters."""


class ScheduleChanged(Exception):
    """The run asks for something that the recorded one never computed."""


@dataclass
class Answers:
    """What a run's tensors answered, by a digest of what they were asked.

    Attributes:
        labeled: answers by the label under which they crossed the seam, in their order; bound to digests by one
            execution of the recorded scenario, and empty from then on.
        payloads, numbers: by digest.
        root_key: the name of the history that everybody starts from.
        thetas: the parameters [N] of every history that a node was on, by its name.
        stride: begins to count a validator's outer steps, over tensors.
        judgements, signatures: whatever was judged, signed and checked in any of the executions.
    """

    exchange: Exchange
    root_key: str
    tokens_are_bytes: bool
    bigram_nats: float | None
    thetas: dict[str, Tensor]
    stride: Callable[[], Stride]
    labeled: dict[str, deque[Any]] = field(default_factory=lambda: defaultdict(deque))
    payloads: dict[str, bytes] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    binding: bool = True
    label: str = ""
    decoded: dict[tuple[int, bytes, bool], Decoded | InvalidPayload] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # of decoded payloads, by the id of their values
    pure: dict[str, Any] = field(default_factory=dict)  # what follows from payloads alone
    judgements: Judgements = field(default_factory=Judgements)
    signatures: Signatures = field(default_factory=Signatures)

    def joined(self, thetas: Mapping[str, Tensor]) -> Answers:
        """These and, when they are bound, those of another run on these thetas; they themselves stay as they are."""
        return replace(
            self,
            thetas={**thetas, **self.thetas},
            labeled=defaultdict(deque),
            payloads=dict(self.payloads),
            numbers=dict(self.numbers),
            binding=True,
        )

    def make_room(self) -> None:
        """Forget what payloads said if it is a lot, between two executions; it can be read again."""
        if len(self.decoded) > MOST_DECODED:
            self.decoded.clear()
            self.names.clear()

    def payload(self, key: str, label: str) -> bytes:
        """The payload of an update. Raises ScheduleChanged."""
        if self.binding:
            waiting = self.labeled[label]
            return self.payloads.setdefault(key, waiting.popleft()) if waiting else b""  # nobody has fetched it
        if key not in self.payloads:
            raise ScheduleChanged(label)
        return self.payloads[key]

    def number(self, key: str) -> float:
        """A number. Raises ScheduleChanged."""
        return self.row([key])[0]

    def row(self, keys: Sequence[str]) -> list[float]:
        """Numbers that were asked for together. Raises ScheduleChanged."""
        if self.binding:
            row = self.labeled[self.label].popleft()
            assert len(row) == len(keys), f"{self.label}: {len(row)} numbers for {len(keys)} questions"
            self.numbers.update(zip(keys, row, strict=True))
        try:
            return [self.numbers[key] for key in keys]
        except KeyError:
            raise ScheduleChanged(self.label) from None

    def theta(self, key: str) -> Tensor:
        """The parameters [N] of a history. Raises ScheduleChanged."""
        if key not in self.thetas:
            raise ScheduleChanged("a set of payloads that nobody had gathered")
        return self.thetas[key]

    def follows(self, key: str, compute: Callable[[], Any]) -> Any:
        """What follows from payloads alone, computed once however many runs ask."""
        if key not in self.pure:
            self.pure[key] = compute()
        return self.pure[key]


class Labeled:
    """A seam that tells the answers under which label they are asked for.

    Args:
        inner: what the answers go through, such as a tape.
        told: is told the label.
    """

    def __init__(self, inner: Seam, told: Answers) -> None:
        self._inner, self._told = inner, told

    @property
    def replaying(self) -> bool:
        return False

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        return self._inner.payload(label, compute)

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        def asked() -> Sequence[float]:
            self._told.label = label
            return compute()

        return self._inner.numbers(label, asked)


def recorded_learning(answers: Answers) -> Learning:
    """Build what looks up instead of training."""
    exchange = RecordedExchange(answers)
    plan = exchange.plan
    root = Lineage(answers.root_key, 0, Formula(answers.number, "theta", answers.root_key))
    lineages = Lineages(root, exchange.outer_step, buffer=plan.asynchrony.buffer if plan.asynchrony else 1)
    return Learning(
        RecordedTrainer(answers),
        exchange,
        lineages,
        RecordedMeasures(answers),
        lambda lineage: answers.theta(lineage.key).cpu(),
        answers.tokens_are_bytes,
        lambda: answers.bigram_nats,
        answers.judgements.of,
    )


class RecordedTrainer:
    """Names where inner steps lead: by start, batches and steps, and by all the peer did before with its moments."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._moments: dict[int, str] = {}  # by uid
        self._lives: Counter[int] = Counter()
        self.wall_s, self.replaying = 0.0, False

    def train(self, uid: int, round: int, start: Any, batches: Batches, steps: int, skip: int = 0) -> Update:
        before = self._moments.get(uid, f"fresh {uid}")
        named = Formula(self._answers.number, "train", before, uid, round, _key(start), batches, steps, skip)
        if steps:
            self._moments[uid] = named.key
        return _promised(named)

    def gradient(self, uid: int, round: int, start: Any, batches: Batches) -> Update:
        return _promised(Formula(self._answers.number, "gradient", uid, round, _key(start), batches))

    def forget(self, uid: int) -> None:
        self._moments.pop(uid, None)

    def run_pending(self) -> None:
        """Nothing waits."""

    def state(self) -> dict[str, Any]:
        raise AssertionError("a retimed run has no checkpoints")

    def restore(self, state: dict[str, Any]) -> None:
        raise AssertionError("a retimed run has no checkpoints")


class RecordedExchange:
    """Finds payloads by what they say, and reads them as ever."""

    formula_name = "exchange"

    def __init__(self, answers: Answers) -> None:
        self._answers, self._real = answers, answers.exchange
        self.plan, self.most_tokens = self._real.plan, self._real.most_tokens
        self.regular_bytes, self.reads_weights = self._real.regular_bytes, self._real.reads_weights
        feedback = self.plan.error_feedback
        self.buffers = None if feedback is None else RecordedBuffers(feedback)

    def encode_values(
        self, round: int, uids: Sequence[int], values: Sequence[Formula], claims: Sequence[Claims], feedback: bool
    ) -> list[bytes]:
        return [
            self._encoded(round, uid, value, claim, feedback)
            for uid, value, claim in zip(uids, values, claims, strict=True)
        ]

    def _encoded(self, round: int, uid: int, value: Formula, claims: Claims, feedback: bool) -> bytes:
        buffers = self.buffers if feedback else None
        met = "" if buffers is None else buffers.history.get(uid, "empty")
        key = digest("payload", round, uid, value.key, claims, met)
        if buffers is not None:
            buffers.move_on(uid, key)
        return self._answers.payload(key, f"{'payload' if feedback else 'encode'} uid={uid} round={round}")

    def forge(self, round: int, payload: bytes, flaw: Flaw) -> bytes:
        return self._real.forge(round, payload, flaw)

    def decode(self, round: int, payload: bytes, allow_missing: bool = False) -> Decoded:
        known, key = self._answers.decoded, (round, payload, allow_missing)
        if key not in known:
            known[key] = self._read(round, payload, allow_missing)
        found = known[key]
        if isinstance(found, InvalidPayload):
            raise found
        return found

    def _read(self, round: int, payload: bytes, allow_missing: bool) -> Decoded | InvalidPayload:
        try:
            decoded = self._real.decode(round, payload, allow_missing)
        except InvalidPayload as problem:
            return problem
        self._answers.names[id(decoded.value)] = digest(round, payload.hex(), allow_missing)
        return decoded

    def dense_like(self, theta: Formula, round: int, payload: Decoded) -> Formula:
        return Formula(self._answers.number, "dense", round, _name(self._answers, payload))

    def noise_like(self, theta: Formula, scale: float, address: tuple[Label, ...]) -> Formula:
        return Formula(self._answers.number, "noise", scale.hex(), address)

    def merge(self, own: Formula, theta: Formula, round: int) -> Formula:
        return Formula(self._answers.number, "merge", own.key, theta.key, round)

    def outer_step(self, lineage: Lineage, payloads: Sequence[Decoded], round: int) -> tuple[Formula, tuple[()]]:
        names = [f"{_name(self._answers, each)} {each.weight.hex()}" for each in payloads]
        return Formula(self._answers.number, "step", lineage.theta.key, round, *names), ()


class RecordedStride:
    """A real validator's stride over the thetas of the recorded run, which goes only where none has gone before."""

    def __init__(self, answers: Answers) -> None:
        self._answers, self._real = answers, answers.stride()
        self._way = "stride"  # names all steps until now
        self._untaken: list[tuple[Lineage, Lineage]] = []  # steps that the real one has not heard of

    def take(self, before: Lineage, after: Lineage) -> None:
        self._untaken.append((self._found(before), self._found(after)))
        self._way = digest(self._way, before.key, after.key)

    def behind(self, lineages: Sequence[Lineage], own: Lineage) -> list[float]:
        found: list[float] = self._follows("behind", lineages, own)
        return found

    def widest_gap(self, lineages: Sequence[Lineage], own: Lineage) -> float:
        found: float = self._follows("widest_gap", lineages, own)
        return found

    def _follows(self, question: Literal["behind", "widest_gap"], lineages: Sequence[Lineage], own: Lineage) -> Any:
        """What the real stride says after these steps, asked once."""
        among, here = [self._found(lineage) for lineage in lineages], self._found(own)
        key = digest(question, self._way, own.key, *(lineage.key for lineage in lineages))
        return self._answers.follows(key, lambda: getattr(self._caught_up(), question)(among, here))

    def _caught_up(self) -> Stride:
        for before, after in self._untaken:
            self._real.take(before, after)
        self._untaken.clear()
        return self._real

    def _found(self, lineage: Lineage) -> Lineage:
        """A history with its parameters. Raises ScheduleChanged."""
        return Lineage(lineage.key, lineage.depth, self._answers.theta(lineage.key))


class RecordedMeasures:
    """Finds losses by history, payload and what was gathered; what follows from payloads alone is computed."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    @property
    def probes(self) -> Collection[str]:
        return ()

    def stride(self) -> RecordedStride:
        return RecordedStride(self._answers)

    def held_out(self, lineage: Lineage) -> float:
        return self._answers.number(digest("held out", lineage.key))

    def losses(self, trial: Trial) -> LossEvidence:
        gathered = digest(*(f"{each.uid} {each.sha256} {each.decoded.weight.hex()}" for each in trial.entered))
        trials = digest("losses", trial.label, trial.round, trial.lineage.key, gathered)
        drawn = [f"{trials} {each.uid} {each.sha256}" for each in trial.drawn]
        names = ("own before", "own after", "random before", "random after")
        keys = [f"{each} {name}" for name in names for each in drawn]
        return LossEvidence.of(self._answers.row(keys))

    def overlaps(
        self, submissions: Sequence[Submission], previous_stored_s: Sequence[float] | None
    ) -> dict[int, Overlap]:
        key = digest("overlap", *(each.sha256 for each in submissions))
        matrix = self._answers.follows(
            key, lambda: overlap_matrix([submission.decoded for submission in submissions]).tolist()
        )
        stamps = [submission.stored_s for submission in submissions]
        return overlaps_of([submission.uid for submission in submissions], stamps, matrix, previous_stored_s)

    def compare(
        self, time_s: float, round: int, entered: Sequence[Submission], honest: Collection[int], farthest: float
    ) -> UpdatesCompared:
        trusted = [each.uid for each in entered if each.uid in honest]
        key = digest("compare", *trusted, *(each.sha256 for each in entered))
        size = self._answers.exchange.layout.num_parameters
        found = self._answers.follows(key, lambda: compare_updates(0.0, round, entered, honest, size, 0.0))
        return UpdatesCompared(
            time_s, round, found.honest_cosine, found.honest_overlap, found.senders_per_coordinate, farthest
        )

    def probe(self, name: str, updates: Mapping[int, Decoded]) -> float:
        raise AssertionError("runs with probes are not retimed")

    def accuracy(self, task: Task, lineage: Lineage) -> float:
        return self._answers.number(digest("task", task.kind, lineage.key))


def _key(start: Any) -> str:
    value = start.value() if isinstance(start, Update) else start
    assert isinstance(value, Formula)
    return value.key


def _promised(formula: Formula) -> Update:
    return Update(lambda: formula)  # type: ignore[arg-type, return-value]


def _name(answers: Answers, payload: Decoded) -> str:
    return answers.names[id(payload.value)]
