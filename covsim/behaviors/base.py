"""What a behavior is, and the verbs it may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

from covsim.registry import Part, Registry

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]
Script: TypeAlias = Generator[Any, Any, None]
Knowledge = Literal["own", "observed", "omniscient"]


class Behavior(Part):
    """A peer's mind. `play_round` is one round: what it trains, what it says, when it listens.

    `knowledge` states what the script reads: `own` work only, `observed` payloads that it downloads and pays for, or
    `omniscient` (the literature's worst case, free of charge and labelled so).
    """

    knowledge: ClassVar[Knowledge] = "own"
    kind: str

    @abstractmethod
    def play_round(self, peer: PeerVerbs) -> Script:
        """One round of this peer, as a generator over its verbs."""


behaviors: Registry[Behavior] = Registry("behavior")


class Batches(Protocol):
    """Names what to train on; holds no data."""


class Scalar(Protocol):
    """A number that comes from tensors and is not computed before someone observes it."""


class Update(Protocol):
    """A pseudo-gradient that is not computed before someone needs its bytes."""

    def __neg__(self) -> Update: ...
    def __add__(self, other: Update, /) -> Update: ...
    def __sub__(self, other: Update, /) -> Update: ...
    def __mul__(self, factor: float, /) -> Update: ...
    def __rmul__(self, factor: float, /) -> Update: ...
    def map(self, function: Callable[[Any], Any], /) -> Update: ...
    def norm(self) -> Scalar: ...


class PeerVerbs(Protocol):
    """The body as a script sees it. Generators cost simulated time and are used with `yield from`."""

    @property
    def uid(self) -> int:
        """Who this peer is on the chain."""

    @property
    def round(self) -> int:
        """The round that is being played; its payload counts in window `round + 1`."""

    @property
    def inner_steps(self) -> int:
        """H, the inner steps that the protocol asks of every peer."""

    def assigned_batches(self) -> Batches:
        """The shard that this uid must train on in this round."""

    def random_batches(self) -> Batches:
        """Text drawn from anywhere but the held-out shard, as a peer that ignores its assignment uses."""

    def gather_list(self) -> Collection[int]:
        """The uids whose payloads the leader asked everyone to gather in this round; public."""

    def train(self, batches: Batches, steps: int | None = None) -> Verb[Update]:
        """Do up to `steps` inner steps (default H), as many as fit before the window closes."""

    def wait_for_uploads(self) -> Verb[None]:
        """Idle until the window in which this round's payload counts is open."""

    def pause(self, seconds: float) -> Verb[None]:
        """Idle for some simulated seconds."""

    def submit(self, update: Update) -> Verb[None]:
        """Compress with error feedback, wait for the window to open, and upload."""

    def submit_payload(self, payload: bytes) -> Verb[None]:
        """Upload any bytes as this round's payload, when the window is open."""

    def first_arrival(self, among: Collection[int]) -> Verb[int | None]:
        """Wait until one of these peers' payloads lies in the store; None if the put window closes before."""

    def download(self, uid: int) -> Verb[bytes | None]:
        """Fetch another peer's payload of this round, paying for it; None if it cannot be read."""

    def sync(self) -> Verb[None]:
        """Gather the listed payloads and take the outer step."""

    def observe(self, scalar: Scalar) -> float:
        """The value of a number that comes from tensors."""
