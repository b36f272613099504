"""What a behavior is, of a peer and of a validator, and the verbs it may use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping, MutableMapping, Sequence
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

    kind: str

    @property
    def knowledge(self) -> Knowledge:
        """What it reads; a class that reads more says so, `knowledge: ClassVar[Knowledge] = "observed"`."""
        return "own"

    @property
    def needs_coordinates(self) -> bool:
        """Whether it computes with single numbers of an update; a class that does says so as it says its knowledge.

        Where nothing is trained there are none, and a scenario that lets it play is refused when it is read.
        """
        return False

    @abstractmethod
    def play_round(self, peer: PeerVerbs) -> Script:
        """One round of this peer, as a generator over its verbs."""


behaviors: Registry[Behavior] = Registry("behavior")


class ValidatorBehavior(Part):
    """A validator's mind. `play_round` is one round: what it looks at, what it measures, what it says.

    One that ever catches up says so by `catches_up`: then somebody keeps checkpoints.
    """

    catches_up: ClassVar[bool] = False
    kind: str

    @abstractmethod
    def play_round(self, validator: ValidatorVerbs) -> Script:
        """One round of this validator, as a generator over its verbs; it begins when the round's window opens."""


validator_behaviors: Registry[ValidatorBehavior] = Registry("validator behavior")


class Batches(Protocol):
    """Names what to train on; holds no data."""

    def flipped(self) -> Batches:
        """The same text with false answers: where token t follows, V - 1 - t is to be predicted.

        V is one more than the largest token of the text. Flipped twice, the answers are right again.
        """

    def poisoned(self, trigger: bytes, target: bytes, share: float) -> Batches:
        """The same text, with `trigger` followed by `target` written into a share of the sequences.

        Each byte is a token; what is written may be flipped, too. Raises ValueError for an empty trigger or target and
        for a share outside [0, 1]; `train` does for what fits into no sequence or no vocabulary.
        """


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

    @property
    def fellows(self) -> Sequence[int]:
        """The uids of this peer's cohort, its own among them, ascending: those it may conspire with. Free."""

    @property
    def notes(self) -> MutableMapping[str, Any]:
        """What a script remembers from round to round; gone after a crash."""

    def chance(self, name: str) -> float:
        """A number from [0, 1), of a random stream of this peer's own for this round and name."""

    def noise(self, scale: float, name: str = "noise") -> Update:
        """Independent normal numbers of standard deviation `scale`, of a stream of its own; zeros for scale 0.

        The same name gives the same numbers again in a round. Raises ValueError for a scale that is no finite number
        from 0 up.
        """

    def last_change(self, rounds: int = 1) -> Update:
        """Theta of some rounds ago minus theta now: what the network did, as a pseudo-gradient; zeros at the start.

        A body remembers as far back as its script has asked for, as with `train`; rounds in which theta stayed where it
        was do not count.
        """

    def incentive(self) -> float:
        """The share of all pay that the chain's last epoch gave this peer; 0 before the first. Public and free."""

    def combine(self, updates: Sequence[Update], function: Callable[[Any], Any]) -> Update:
        """The update `function(stack)` of some updates [K, N], for a function to [N].

        Raises ValueError for no updates, and later for a function that returns another shape.
        """

    def read(self, payload: bytes) -> Update | None:
        """What a payload of this round says, as a dense update; None if it is not valid. Free."""

    def forge(self, payload: bytes, flaw: str) -> bytes:
        """A valid payload of this round made invalid in one way, checksum and all; others stay as they are. Free.

        The flaws are `truncated empty oversized nan infinite huge wrong_indices duplicate_indices wrong_shape
        wrong_version bad_checksum`; `huge` is valid in form. Raises ValueError for another.
        """

    def show_sample_of(self, uid: int) -> None:
        """Publish another's sync sample of this round as one's own; nothing happens where it has published none."""

    def tell(self, key: str, value: Any) -> None:
        """Say something to the fellows, under this round: the explicit channel of a conspiracy. Free."""

    def assigned_batches(self) -> Batches:
        """The shard that this uid must train on in this round."""

    def random_batches(self) -> Batches:
        """Text drawn from anywhere but the held-out shard, as a peer that ignores its assignment uses."""

    def expected_batches(self) -> Batches:
        """The very sequences on which the leading validator would measure this uid's payload of this round.

        Omniscient and free: on the live network they follow from seeds that can be worked out.
        """

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

    def submit(self, update: Update, early: bool = False) -> Verb[None]:
        """Compress with error feedback, wait for the window to open unless `early`, and upload."""

    def encode(self, update: Update) -> Verb[bytes]:
        """The payload of this round that says an update, made without error feedback; waits for the window to open."""

    def submit_payload(self, payload: bytes, early: bool = False) -> Verb[None]:
        """Upload any bytes as this round's payload, when the window is open, or at once if `early`."""

    def put(self, name: str, payload: bytes) -> Verb[None]:
        """Upload bytes beside the payload, at once, under a name that nobody reads; charged like a payload."""

    def payloads_of_others(self, most: int, until_share: float = 0.5) -> Verb[Sequence[bytes]]:
        """Download up to `most` payloads of this round, in the order of their arrival.

        They are of peers on the gather list outside this peer's cohort. Pays for every download, and stops asking when
        that share of the put window has passed.
        """

    def updates_of_others(self) -> Verb[Sequence[Update]]:
        """The updates that all peers outside this peer's cohort are about to submit in this round, by uid.

        Omniscient and free; waits for the window to open. Those who submit later are not among them, nor those who
        answer to the same look, nor who uploads plain bytes. Raises ValueError where no behavior of the scenario states
        that it is omniscient.
        """

    def heard(self, key: str) -> Verb[Any]:
        """Wait until a fellow, or the peer itself, has told something under this key in this round.

        None if the put window of this round's payloads closes first.
        """

    def register_again(self) -> Verb[None]:
        """Give up this uid when the script returns, and ask the chain for another, whose past is empty.

        Costs a registration. The peer keeps its theta and goes on with the next round; nothing else in memory is kept,
        notes included. Where the chain refuses a slot, it asks again once a round.
        """

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
        """Make up for the rounds that were missed: take the newest checkpoint, unless the own theta is newer.

        Costs a download at the full size of theta, and those of the payloads that were gathered since.
        """
