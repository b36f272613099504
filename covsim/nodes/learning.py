"""What nodes ask of learning, whoever does it: real tensors, a stated rule, or the answers of an earlier run.

Nodes move histories, promises of updates and payload bytes about and never look inside. What looks inside stands behind
these interfaces; `trained`, `synthetic` and `recorded` are the three that there are, and no node knows which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from covsim.events import UpdatesCompared
from covsim.gauntlet.checks import Overlap
from covsim.gauntlet.loss_score import LossEvidence
from covsim.learning.corpus import Batches
from covsim.learning.tasks import Task
from covsim.learning.update import Update
from covsim.nodes.books import Gauntlet, Judge
from covsim.protocol.base import Claims, Decoded
from covsim.protocol.forgery import Flaw
from covsim.protocol.lineage import Lineage, Lineages
from covsim.protocol.plan import Plan
from covsim.randomness import Label

if TYPE_CHECKING:
    from covsim.nodes.gather import Submission


class Trains(Protocol):
    """All peers' inner loops; `start` is the theta of a history, or a promise of weights of one's own."""

    wall_s: float
    replaying: bool

    def train(self, uid: int, round: int, start: Any, batches: Batches, steps: int, skip: int = 0) -> Update:
        """The weights after some inner steps, to come. Raises ValueError for batches that cannot be made."""

    def gradient(self, uid: int, round: int, start: Any, batches: Batches) -> Update:
        """The gradient of one step's batch, to come."""

    def forget(self, uid: int) -> None:
        """A peer has lost its moments."""

    def run_pending(self) -> None:
        """Do all that was asked for."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""

    def restore(self, state: dict[str, Any]) -> None:
        """Put it back."""


class Buffers(Protocol):
    """Error buffers by uid."""

    def settle(self, uid: int, landed: bool) -> None:
        """An upload ended."""

    def end_uncounted(self, uid: int) -> None:
        """A round ended in which theta stayed where it was."""

    def forget(self, uid: int) -> None:
        """A uid lost its buffer."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""

    def restore(self, state: Any, /) -> None:
        """Put it back."""


class Exchanges(Protocol):
    """What everybody does with updates under a plan; `protocol.exchange.Exchange` says what each means."""

    @property
    def plan(self) -> Plan:
        """The protocol."""

    @property
    def most_tokens(self) -> int:
        """More than a payload may claim."""

    @property
    def buffers(self) -> Buffers | None:
        """Error buffers, where the plan has any."""

    @property
    def regular_bytes(self) -> float:
        """Length of a regular payload: the mean over the fragments."""

    @property
    def reads_weights(self) -> bool:
        """True if payloads are combined by what the gather list says of their senders."""

    def encode_values(
        self, round: int, uids: Sequence[int], values: Sequence[Any], claims: Sequence[Claims], feedback: bool
    ) -> list[bytes]:
        """The payloads of different peers for the values of their updates."""

    def forge(self, round: int, payload: bytes, flaw: Flaw) -> bytes:
        """A valid payload made wrong in one way. Raises InvalidPayload for one that is not valid."""

    def decode(self, round: int, payload: bytes, allow_missing: bool = False) -> Decoded:
        """What a payload says. Raises InvalidPayload."""

    def dense_like(self, theta: Any, round: int, payload: Decoded) -> Any:
        """What a payload says, as an update of a theta."""

    def noise_like(self, theta: Any, scale: float, address: tuple[Label, ...]) -> Any:
        """An update of a theta that consists of independent normal numbers."""

    def merge(self, own: Any, theta: Any, round: int) -> Any:
        """A peer's own weights when they meet the theta that came of a round's exchange."""


class Stride(Protocol):
    """One validator's outer steps, the unit in which it counts how far others are behind."""

    def take(self, before: Lineage, after: Lineage) -> None:
        """The validator took an outer step."""

    def behind(self, lineages: Sequence[Lineage], own: Lineage) -> list[float]:
        """How far histories lie from its own, by the samples that peers publish."""

    def widest_gap(self, lineages: Sequence[Lineage], own: Lineage) -> float:
        """How far the farthest of them lies from its own, by all of theta; NaN before the first step."""


@dataclass(frozen=True)
class Trial:
    """What a validator measures losses on: the submissions that it drew and could read, each by a step of its own.

    Attributes:
        label: the validator.
        lineage: its history before the outer step of the round.
        drawn: whom to measure, in the order drawn.
        entered: what it gathered; it limits how long a payload's step may be.
    """

    label: str
    round: int
    lineage: Lineage
    drawn: tuple[Submission, ...]
    entered: tuple[Submission, ...]


class Measures(Protocol):
    """What validators and the eyes of the simulator see of learning."""

    @property
    def probes(self) -> Collection[str]:
        """The names of the scenario's probes."""

    def stride(self) -> Stride:
        """For a validator that begins."""

    def held_out(self, lineage: Lineage) -> float:
        """Nats per token on text that nobody trains on."""

    def losses(self, trial: Trial) -> LossEvidence:
        """Losses before and after each trial step."""

    def overlaps(
        self, submissions: Sequence[Submission], previous_stored_s: Sequence[float] | None
    ) -> dict[int, Overlap]:
        """What each payload has in common with an earlier one; see `gauntlet.checks.find_overlaps`."""

    def compare(
        self, time_s: float, round: int, entered: Sequence[Submission], honest: Collection[int], farthest: float
    ) -> UpdatesCompared:
        """The round's figures that do not depend on the model's size."""

    def probe(self, name: str, updates: Mapping[int, Decoded]) -> float:
        """What a user's function says of a round's updates."""

    def accuracy(self, task: Task, lineage: Lineage) -> float:
        """Share of a task's questions that a theta answers right."""


@dataclass(frozen=True)
class Learning:
    """All of a run's learning.

    Attributes:
        weights: the parameters [N] of a history, on the CPU; None where there are none.
        tokens_are_bytes: whether a loss per token is one per byte.
        bigram_nats: gives the loss of the text's own bigrams; None where it says nothing.
        judge_of: gives a validator what makes judgements of its evidence.
    """

    trainer: Trains
    exchange: Exchanges
    lineages: Lineages
    measures: Measures
    weights: Callable[[Lineage], Tensor | None]
    tokens_are_bytes: bool
    bigram_nats: Callable[[], float | None]
    judge_of: Callable[[str], Judge] = lambda label: Gauntlet()

    def content(self, lineage: Lineage) -> bytes:
        """What identifies the end of a history: its parameters as little-endian float32, or its name."""
        weights = self.weights(lineage)
        return lineage.key.encode() if weights is None else weights.numpy().astype("<f4").tobytes()
