"""What nodes share, as one process sees it: each thing asks the chain process, and offers what the original has.

The originals are `nodes.chain_node.ChainNode`, `nodes.board.Board`, `nodes.board.SyncSamples`, `nodes.shelf.Shelf` and
`nodes.conspiracy.Conspiracy`; only what nodes use of them is here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import simpy
import torch
from torch import Tensor

from covsim.chain.extrinsics import Call
from covsim.chain.settings import ChainSettings
from covsim.emulation.control import Caller
from covsim.learning.update import Update
from covsim.nodes.board import GatherList, SyncSample
from covsim.nodes.chain_node import Member
from covsim.nodes.conspiracy import Conspiracy, Waiting
from covsim.nodes.shelf import Checkpoint, Shelf
from covsim.protocol.lineage import Lineage
from covsim.scenario.population import PeerSpec
from covsim.world.clock import Clock, alarm


class RemoteChain:
    """The chain over the control network; the chain process keeps everybody's keys."""

    def __init__(self, caller: Caller, env: simpy.Environment, clock: Clock, settings: ChainSettings) -> None:
        self.settings = settings
        self._caller, self._env, self._clock = caller, env, clock

    @property
    def chain(self) -> Any:
        """What is public of the last epoch."""
        return SimpleNamespace(epochs=self._caller.call("chain.epochs"))

    @property
    def peers(self) -> frozenset[int]:
        """The uids of all peers with a slot."""
        uids: frozenset[int] = self._caller.call("chain.peers")
        return uids

    def register(self, member: Member) -> None:
        """Ask for a slot."""
        self._caller.call("chain.register", member)

    def next_block(self) -> simpy.Event:
        """Fires when the next block is due; what is asked afterwards is answered behind it."""
        return alarm(self._env, self._clock.block_at(self._clock.height_at(self._env.now) + 1))

    def is_registered(self, node: str) -> bool:
        """True while a node has a slot."""
        return bool(self._caller.call("chain.is_registered", node))

    def submit(self, node: str, call: Call) -> None:
        """Hand in a call."""
        self._caller.tell("chain.submit", node, call)

    def may_set_weights(self, node: str) -> bool:
        """False while the rate limit of a validator has not run out."""
        return bool(self._caller.call("chain.may_set_weights", node))

    def set_weights(self, node: str, round: int, weights: Mapping[int, float], burned: float) -> None:
        """Set a validator's weights, or commit to them."""
        self._caller.tell("chain.set_weights", node, round, dict(weights), burned)

    def weights_of_others(self, node: str) -> dict[int, float]:
        """The stake-weighted mean of what the other validators have on the chain."""
        weights: dict[int, float] = self._caller.call("chain.weights_of_others", node)
        return weights


class RemoteBoard:
    """The board of gather lists."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def last_round(self) -> int | None:
        """The round after which the newest list was made."""
        round: int | None = self._caller.call("board.last_round")
        return round

    def publish(self, published: GatherList, round: int) -> None:
        """Put up a list."""
        self._caller.call("board.publish", published, round)

    def in_force(self, window: int) -> GatherList:
        """The newest list whose time has come in a window."""
        wanted: GatherList = self._caller.call("board.in_force", window)
        return wanted


class Sampled:
    """Stands for a theta of which only some elements [S] are known."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __getitem__(self, places: Tensor) -> Tensor:
        assert len(places) == len(self.values), "everybody publishes the same elements"
        return self.values


class RemoteSamples:
    """Some elements of the thetas from which peers train, as they publish them.

    Args:
        places: which elements [S].
    """

    def __init__(self, caller: Caller, places: Tensor) -> None:
        self._caller, self._places = caller, places

    def publish(self, round: int, uid: int, sample: SyncSample) -> None:
        """Put up a peer's sample for a round."""
        lineage = sample.lineage
        values = lineage.theta[self._places].cpu().numpy()
        self._caller.tell("samples.publish", round, uid, sample.published_s, lineage.key, lineage.depth, values)

    def of(self, round: int, uid: int, by_s: float = math.inf) -> SyncSample | None:
        """A peer's sample for a round, or None; its history knows the published elements only.

        All that is published is of the past, whatever `by_s` is.
        """
        found = self._caller.call("samples.of", round, uid)
        if found is None:
            return None
        published_s, key, depth, values = found
        return SyncSample(published_s, Lineage(key, depth, Sampled(torch.from_numpy(values))))

    def forget_before(self, round: int) -> None:
        """The chain process keeps them all."""


@dataclass(frozen=True)
class Offered:
    """A checkpoint that lies in the store; its history is known when it has been downloaded."""

    round: int
    key: str
    provider: str
    fetched: Mapping[str, Lineage]

    @property
    def lineage(self) -> Lineage:
        """The history in it."""
        return self.fetched[self.key]


class RemoteShelf:
    """The shelf of checkpoints: what they say comes out of the store, which one is the newest from the chain process.

    Args:
        own: says how often, how large, and whether at all.
    """

    def __init__(self, caller: Caller, own: Shelf) -> None:
        self._caller, self._own = caller, own
        self._fetched: dict[str, Lineage] = {}
        self.every, self.num_bytes, self.wanted = own.every, own.num_bytes, own.wanted
        self.check_wanted, self.is_due = own.check_wanted, own.is_due

    @property
    def newest(self) -> Checkpoint | Offered:
        """The newest one that lies whole in the store, or the theta of the start."""
        found = self._caller.call("shelf.newest")
        return self._own.newest if found is None else Offered(found[0], found[1], found[2], self._fetched)

    def add(self, checkpoint: Checkpoint) -> None:
        """Put up a checkpoint."""
        self._caller.tell("shelf.add", checkpoint.round, checkpoint.key, checkpoint.provider)

    def take(self, key: str, content: bytes) -> None:
        """Have a checkpoint that was downloaded."""
        if content:
            self._fetched[key] = lineage_of(content)


def lineage_bytes(lineage: Lineage) -> bytes:
    """A history as a checkpoint holds it."""
    content = io.BytesIO()
    torch.save({"key": lineage.key, "depth": lineage.depth, "theta": lineage.theta, "outer": lineage.outer}, content)
    return content.getvalue()


def lineage_of(content: bytes) -> Lineage:
    """The history in a checkpoint."""
    saved = torch.load(io.BytesIO(content), weights_only=True)
    return Lineage(saved["key"], saved["depth"], saved["theta"], tuple(saved["outer"]))


class SharedConspiracy:
    """What fellows tell each other, over the control network; nobody here is omniscient.

    Args:
        env: of the node's loop.
        specs: all peers, each of which belongs to its cohort.
        me: the uid that enrolls itself.
    """

    def __init__(self, caller: Caller, env: simpy.Environment, specs: tuple[PeerSpec, ...], me: int | None) -> None:
        self._caller, self._local = caller, Conspiracy(env, omniscient=False)
        for spec in specs:
            if spec.uid != me:
                self._local.enroll(spec.uid, spec.cohort)
        self.enroll, self.withdraw, self.fellows = self._local.enroll, self._local.withdraw, self._local.fellows
        self.note, self.updates_of_others = self._local.note, self._local.updates_of_others
        self.forget_before = self._local.forget_before

    def tell(self, uid: int, round: int, key: str, value: Any) -> None:
        """Say something to the cohort of a uid."""
        packed = ("update", value.value().numpy()) if isinstance(value, Update) else ("plain", value)
        self._caller.tell("push", None, "said", uid, round, key, packed)

    def hear(self, uid: int, round: int, key: str, packed: tuple[str, Any]) -> None:
        """Take note of what somebody has said; it comes to the speaker, too."""
        kind, value = packed
        said = Update.of(torch.from_numpy(value)) if kind == "update" else value
        self._local.tell(uid, round, key, said)

    def heard(self, uid: int, round: int, key: str, until_s: float) -> Waiting:
        """Wait until something is said under a key, and return it; None if nothing is until a time."""
        return self._local.heard(uid, round, key, until_s)
