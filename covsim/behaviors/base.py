"""What a behavior is, of a peer and of a validator, and the verbs it may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
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


class ValidatorBehavior(Part):
    """A validator's mind. `play_round` is one round: what it looks at, what it measures, what it says."""

    kind: str

    @abstractmethod
    def play_round(self, validator: ValidatorVerbs) -> Script:
        """One round of this validator, as a generator over its verbs; it begins when the round's window opens."""


validator_behaviors: Registry[ValidatorBehavior] = Registry("validator behavior")


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

    def train(self, batches: Batches, steps: int | None = None, rounds_behind: int = 0) -> Verb[Update]:
        """Do up to `steps` inner steps (default H), as many as fit before the window closes.

        They start from the theta of `rounds_behind` rounds ago, or from the oldest that is remembered: a body remembers
        as far back as its script has asked for.
        """

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


class ValidatorVerbs(Protocol):
    """A validator's body as a script sees it. Generators cost simulated time and are used with `yield from`."""

    @property
    def label(self) -> str:
        """The validator's name in the scenario."""

    @property
    def round(self) -> int:
        """The round that is being exchanged and scored."""

    def judged_weights(self) -> Mapping[int, float]:
        """What it last found each peer worth: shares of all pay by uid; the rest is burned. Free, after `evaluate`."""

    def weights_on_chain(self) -> Mapping[int, float]:
        """The stake-weighted mean of what the other validators have on the chain, shares of all pay by uid.

        Public and free; empty while none of them has revealed weights for a peer.
        """

    def cohort(self, name: str) -> Sequence[int]:
        """The uids of a cohort: what somebody who pays for a favor tells. Free."""

    def gather(self) -> Verb[bool]:
        """Fetch the listed payloads; True if something entered.

        Costs a download each, and lasts until the put window has closed at least.
        """

    def evaluate(self) -> Verb[None]:
        """Draw whom to evaluate, fetch what the gather did not, measure, and judge.

        Costs those downloads, and seconds for every submission that is measured.
        """

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Say what each peer is to be paid, shares of all pay by uid; what is missing to 1 is burned.

        Takes no time; the body hands them to the chain when it is time to, and drops them otherwise.
        """

    def publish_list(self) -> None:
        """Put up the next gather list, if this validator leads and one is due. Takes no time."""

    def step(self) -> None:
        """Take the outer step with what was gathered. Takes no time."""

    def sit_out(self) -> Verb[None]:
        """Do nothing in this round and be seen by nobody. Costs nothing, and leaves theta behind."""

    def catch_up(self) -> Verb[None]:
        """Fetch a checkpoint of another validator and go on from there.

        Costs an upload of the other's and a download of one's own, both at the full size of theta.
        """
