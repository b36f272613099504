"""What every node shares: the clock, the store, the boards, the chain, and the machinery behind the seam."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import simpy

from covsim.events import Event
from covsim.gauntlet.checks import submission_status
from covsim.gauntlet.evidence import Status
from covsim.nodes.board import Board, SyncSamples
from covsim.nodes.chain_node import ChainNode
from covsim.nodes.conspiracy import Conspiracy
from covsim.nodes.encoder import Encoder
from covsim.nodes.learning import Exchanges, Trains
from covsim.nodes.mishaps import Mishaps
from covsim.nodes.purse import Purses
from covsim.nodes.roster import Roster
from covsim.nodes.seam import Seam
from covsim.nodes.shelf import Shelf
from covsim.nodes.spent import Spent
from covsim.protocol.base import Decoded, InvalidPayload
from covsim.protocol.lineage import Lineages
from covsim.randomness import Label, Streams
from covsim.world.clock import Clock
from covsim.world.store import ObjectStore, StoredObject

if TYPE_CHECKING:
    from covsim.nodes.bundles import Bundles
    from covsim.nodes.collective import Collectives


@dataclass(frozen=True)
class Charges:
    """What the deployment charges for the work that the model does.

    A payload as long as the model's regular payload is charged the deployment's regular payload, any other in
    proportion: truncated, oversized or dense payloads keep their relation.
    """

    regular_model_bytes: float
    regular_deployment_bytes: float
    evaluation_s: float

    def payload(self, model_bytes: int) -> float:
        """Bytes on the wire of the deployment for a payload of the model."""
        return model_bytes / self.regular_model_bytes * self.regular_deployment_bytes


@dataclass
class Commons:
    """The parts that the composition root builds once and hands to every node.

    With `trusts_reserves` a reserve's payload may leave out tensors (`gauntlet.quirks.reserve_unchecked`), with
    `trusts_everybody` any (`gauntlet.past`). A gather below `quorum` of its list moves no theta. The leading
    validator is the one named `leader`, and measures on `own_sequences` of each peer's shard; peers who are omniscient
    know. `mishaps` spoil a peer's training without its knowing.
    """

    env: simpy.Environment
    clock: Clock
    store: ObjectStore
    board: Board
    samples: SyncSamples
    shelf: Shelf
    roster: Roster
    chain: ChainNode
    purses: Purses
    streams: Streams
    seam: Seam
    trainer: Trains
    encoder: Encoder
    exchange: Exchanges
    lineages: Lineages
    charges: Charges
    emit: Callable[[Event], None]
    inner_steps: int
    tokens_per_step: int
    num_rounds: int
    poll_s: float
    gather_timeout_s: float
    trusts_reserves: bool
    trusts_everybody: bool
    quorum: float
    conspiracy: Conspiracy
    leader: str
    own_sequences: int
    mishaps: Mishaps
    bundles: Bundles | None = None  # where nobody waits for another's bytes
    collectives: Collectives | None = None  # where payloads go from peer to peer
    decoded: DecodedPayloads = field(init=False)

    def __post_init__(self) -> None:
        self.decoded = DecodedPayloads(self.exchange)

    def has_begun(self, window: int) -> bool:
        """Whether a window is known to be open, so that nobody need say that it is ready for it.

        Only where transfers are bundled: elsewhere the clock may want to hear of it.
        """
        return self.bundles is not None and self.clock.opens_at(window) <= self.env.now

    def until_window(self, who: str, window: int, spent: Spent) -> Generator[simpy.Event, Any, None]:
        """Somebody has nothing more to do before a window opens, and waits until it does."""
        if not self.has_begun(window):
            with spent.on("idle_window_s", self.env):
                yield self.clock.ready(who, window)

    def on_time(self, stored: StoredObject, round: int) -> bool:
        """True if the store's stamp lies in the half-open put window of the round."""
        return self.status(stored, round) == "ok"

    def status(self, stored: StoredObject | None, round: int) -> Status:
        """What the store's stamp makes of a submission, or of there being none."""
        window = round + 1
        stamp = None if stored is None else stored.stored_s
        return submission_status(stamp, self.clock.opens_at(window), self.clock.put_closes_at(window))

    def next_poll(self, since_s: float) -> simpy.Event:
        """Fires when a reader that polls from `since_s` on looks next; at once if it looks right now."""
        ticks = math.ceil((self.env.now - since_s) / self.poll_s)
        return self.env.timeout(max(0.0, since_s + ticks * self.poll_s - self.env.now))

    def until(self, time_s: float) -> simpy.Event:
        """Fires at a simulated time; at once if it has passed."""
        return self.env.timeout(max(0.0, time_s - self.env.now))


def own_sample(label: str, round: int, uid: int) -> tuple[Label, ...]:
    """The address of the stream by which a validator draws sequences of the shard of (uid, round)."""
    return ("own sample", label, round, uid)


def object_key(round: int, uid: int) -> str:
    """Where the payload of a uid for a round lies in the store."""
    return f"round-{round}/uid-{uid}"


def checkpoint_key(round: int, label: str) -> str:
    """Where the checkpoint lies that a validator made after a round."""
    return f"round-{round}/checkpoint-{label}"


def aside_key(round: int, uid: int, name: str) -> str:
    """Where something of a uid lies beside its payload of a round."""
    return f"{object_key(round, uid)}/{name}"


def round_of_key(key: str) -> int:
    """The round of an object's key."""
    return _round_of_folder(key.partition("/")[0])


@lru_cache(maxsize=1024)
def _round_of_folder(folder: str) -> int:
    return int(folder.removeprefix("round-"))


class DecodedPayloads:
    """Each payload is decoded once, however many nodes read it; keeps those of the rounds that are still open."""

    def __init__(self, exchange: Exchanges) -> None:
        self._exchange = exchange
        self._known: dict[tuple[int, str, bool], Decoded | InvalidPayload] = {}
        self._sha256: dict[bytes, str] = {}  # of the payloads of late: many nodes read the same one

    def read(self, payload: bytes, round: int, allow_missing: bool = False) -> tuple[str, Decoded]:
        """The sha256 of a payload and what it says as a payload of this round.

        Raises InvalidPayload; with `allow_missing` not for tensors that are left out.
        """
        sha256 = self._sha256.get(payload)
        if sha256 is None:
            sha256 = self._sha256[payload] = hashlib.sha256(payload).hexdigest()
        key = (round, sha256, allow_missing)
        decoded = self._known.get(key)
        if decoded is None:
            decoded = self._known[key] = self._decode(payload, round, allow_missing)
        if isinstance(decoded, InvalidPayload):
            raise decoded
        return sha256, decoded

    def _decode(self, payload: bytes, round: int, allow_missing: bool) -> Decoded | InvalidPayload:
        try:
            return self._exchange.decode(round, payload, allow_missing=allow_missing)
        except InvalidPayload as problem:
            return problem

    def forget_before(self, round: int) -> None:
        """Drop what was decoded for earlier rounds."""
        self._sha256.clear()
        self._known = {key: decoded for key, decoded in self._known.items() if key[0] >= round}
