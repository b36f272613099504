"""The chain on the clock: seals a block where something waits, runs an epoch when it is due, and announces both.

The simulator's uids number its peers; the chain's uids are slots. This is the one place that knows both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import simpy
from simpy.events import URGENT

from covsim.chain.accounts import Account
from covsim.chain.chain import Chain
from covsim.chain.extrinsics import (
    Call,
    CommitBucket,
    CommitWeights,
    Register,
    RevealWeights,
    SetWeights,
    Signed,
    sign,
)
from covsim.chain.ledger import Epoch, Sealed
from covsim.chain.settings import ChainSettings
from covsim.chain.signatures import Signatures
from covsim.chain.stances import quantized
from covsim.events import BlockSealed, Deregistered, EpochSettled, Event, Registered
from covsim.randomness import Streams
from covsim.world.clock import Clock, alarm, on_event

OWNER = "owner"


@dataclass(frozen=True)
class Member:
    """Somebody with an account: `node` is `peer:<uid>` or `validator:<name>`, uid is -1 for a validator."""

    node: str
    uid: int
    role: str
    stake: float = 0.0


class ChainNode:
    """The nodes' way to the chain: they hand in extrinsics, and read what is public.

    Args:
        env, clock: the simulation's; the clock says when a height comes.
        settings: the `chain:` section.
        streams: the seed of the accounts' keys, and of the salts of commits.
        emit: takes the chain's events.
        signatures: those that were made and checked before, if anybody keeps them.
    """

    def __init__(
        self,
        env: simpy.Environment,
        clock: Clock,
        settings: ChainSettings,
        streams: Streams,
        emit: Callable[[Event], None],
        signatures: Signatures | None = None,
    ) -> None:
        self.settings = settings
        self.chain = Chain(settings, streams.seed, signatures)
        self._sign = sign if signatures is None else signatures.sign
        self._account = Account.derive if signatures is None else signatures.account
        self._env, self._clock, self._streams, self._emit = env, clock, streams, emit
        self._accounts: dict[str, Account] = {}
        self._members: dict[str, Member] = {}  # by public key
        self._num_joined = 0  # how often somebody has asked for a slot
        self._peers: frozenset[int] = frozenset()
        self._peers_of = (0, 0)  # the slots given and asked for, of which they are
        self._nonces: dict[str, int] = {}
        self._slots: dict[str, int] = {}  # by node, as announced
        self._spent: dict[str, float] = {}  # by node, for slots, as announced
        self._epochs_announced = 0
        self._sealed = -1
        self._due: set[int] = set()
        self.reachable: Callable[[str], bool] = lambda node: True  # faults say who is cut off
        self._held: list[tuple[str, str, Callable[[], None]]] = []  # what nodes that are cut off would hand in

    # Taking part ----------------------------------------------------------------------------------------------------

    def found(self, members: Collection[Member]) -> None:
        """Seal block 0, in which the owner and these members register, in this order."""
        self._join(Member(OWNER, -1, "owner"))
        for member in members:
            self._join(member)
        self._seal(0)

    def register(self, member: Member) -> None:
        """Ask for a slot; whether it was given shows with the next block."""
        self._hand_in(member.node, "registration", lambda: self._join(member))

    def next_block(self) -> simpy.Event:
        """Fires when the next block is due, and has been sealed if something waited for it."""
        return alarm(self._env, self._clock.block_at(self._next_height))

    def is_registered(self, node: str) -> bool:
        """True while a node has a slot."""
        account = self._accounts.get(node)
        return account is not None and self.chain.holder(account.public) is not None

    @property
    def peers(self) -> frozenset[int]:
        """The uids of all peers with a slot."""
        state = self.chain.slots.num_given, self._num_joined
        if self._peers_of != state:
            members = [member for member in self._members.values() if member.uid >= 0]
            self._peers = frozenset(member.uid for member in members if self.is_registered(member.node))
            self._peers_of = state
        return self._peers

    def submit(self, node: str, call: Call) -> None:
        """Sign a call for a node and hand it in; it enters the next block, or waits until the node is reachable."""
        if self.is_registered(node):
            self._hand_in(node, "call", lambda: self.chain.submit(self._signed(node, call)))

    def hear_again(self) -> None:
        """Hand in what nodes that have become reachable kept back, in its order."""
        held, self._held = self._held, []
        for node, what, action in held:
            self._hand_in(node, what, action)

    def _hand_in(self, node: str, what: str, action: Callable[[], None]) -> None:
        """Hand something in at once, or keep it; a node that asks for a slot again and again asks once."""
        if self.reachable(node):
            action()
            self._wake()
        elif what != "registration" or not any(held[:2] == (node, what) for held in self._held):
            self._held.append((node, what, action))

    # Weights --------------------------------------------------------------------------------------------------------

    def may_set_weights(self, node: str) -> bool:
        """False while the rate limit of a validator has not run out by the next block."""
        last = self.chain.last_set(self._accounts[node].public)
        return last is None or self._next_height - last >= self.settings.rate_limit

    def set_weights(self, node: str, round: int, weights: Mapping[int, float], burned: float) -> None:
        """Set a validator's weights, or commit to them; the burn is the owner's weight, strangers are left out."""
        slots = {self._slots[OWNER]: burned}
        for uid, weight in weights.items():
            account = self._accounts.get(peer_name(uid))
            holder = None if account is None else self.chain.holder(account.public)
            if holder is not None:
                slots[holder.slot] = weight
        entries = tuple(sorted(slots.items()))
        if self.settings.weights == "u16":
            entries = quantized(entries)
        if self.settings.commit_reveal == "none":
            self.submit(node, SetWeights(round, entries))
            return
        reveal = RevealWeights(round, entries, salt=f"{self._streams.uniform('salt', node, round):.17g}")
        commit = CommitWeights(round, reveal.digest)
        signed = self._signed(node, commit)
        shown = self._sign(self._accounts[node], signed.nonce, reveal)
        self.chain.submit_sealed(signed, shown, self._next_height)
        self._wake()

    def weights_of_others(self, node: str) -> dict[int, float]:
        """The stake-weighted mean of what the other validators have on the chain, by peer uid; shares of all pay."""
        others = [member for member in self._members.values() if member.role == "validator" and member.node != node]
        shown = [(member.stake, self.chain.weights_of(self._accounts[member.node].public)) for member in others]
        stake = math.fsum(stake for stake, weights in shown if weights)
        mean: dict[int, float] = {}
        for own_stake, weights in shown:
            total = math.fsum(weights.values())
            for slot, weight in weights.items():
                uid = self._members[self.chain.slots.holders[slot].public].uid
                if uid >= 0:  # not the owner, whose weight is the burn
                    mean[uid] = mean.get(uid, 0.0) + own_stake / stake * weight / total
        return mean

    # Blocks ---------------------------------------------------------------------------------------------------------

    def run(self) -> Any:
        """Run an epoch whenever one is due, for ever."""
        height = self.settings.tempo
        while True:
            yield alarm(self._env, self._clock.block_at(height), URGENT)
            self._seal(height)
            height += self.settings.tempo

    def close(self) -> None:
        """Seal what waits, reveal what is hidden, and pay for the blocks since the last epoch: the end of a run."""
        self._announce_block(self.chain.close(max(self._sealed, self._clock.height_at(self._env.now)) + 1))

    @property
    def _next_height(self) -> int:
        return self._clock.height_at(self._env.now) + 1

    def _wake(self) -> None:
        """See to it that the next block is sealed, before all else of its instant, which the block after holds."""
        height = self._next_height
        if height not in self._due:
            self._due.add(height)
            on_event(alarm(self._env, self._clock.block_at(height), URGENT), lambda _: self._seal(height))

    def _seal(self, height: int) -> None:
        self._due.discard(height)
        if height > self._sealed:
            self._sealed = height
            self._announce_block(self.chain.seal(height))

    def _announce_block(self, sealed: Sealed | None) -> None:
        if sealed is None:
            return
        block = sealed.block
        if any(isinstance(signed.call, Register) for signed in block.extrinsics):  # nobody goes but for who comes
            self._announce_slots()
        self._emit(BlockSealed(self._env.now, block.height, len(block.extrinsics), sealed.sha256))
        for epoch in self.chain.epochs[self._epochs_announced :]:
            self._emit(self._settled(epoch))
        self._epochs_announced = len(self.chain.epochs)

    def _announce_slots(self) -> None:
        """Say who came and who had to go since the last block."""
        for member in self._members.values():
            account = self._accounts[member.node]
            holder, known = self.chain.holder(account.public), self._slots.get(member.node)
            if holder is None and known is not None:
                self._emit(Deregistered(self._env.now, member.node, member.uid, self._slots.pop(member.node)))
            elif holder is not None and known is None:
                self._slots[member.node] = holder.slot
                spent = self.chain.spent[account.public]
                cost = spent - self._spent.get(member.node, 0.0)
                self._spent[member.node] = spent
                self._emit(Registered(self._env.now, member.node, member.uid, holder.slot, cost))

    def _settled(self, epoch: Epoch) -> EpochSettled:
        of = [(self._members[share.public], share) for share in epoch.shares]
        return EpochSettled(
            time_s=self._env.now,
            height=epoch.height,
            blocks=epoch.blocks,
            paid=tuple((member.uid, share.peer_tokens) for member, share in of if member.uid >= 0),
            dividends=tuple(
                (member.node.partition(":")[2], share.peer_tokens + share.validator_tokens)
                for member, share in of
                if member.role == "validator"
            ),
            owner=epoch.owner,
            burned=epoch.burned,
            consensus=tuple((member.uid, share.consensus) for member, share in of if member.uid >= 0),
        )

    def _join(self, member: Member) -> None:
        account = self._accounts[member.node] = self._account(self._streams.seed, member.node)
        self._num_joined += 1
        self._members.pop(account.public, None)
        self._members[account.public] = member  # in the order in which they asked last
        self.chain.submit(self._signed(member.node, Register(member.node, member.role, member.stake)))
        if member.uid >= 0:
            self.chain.submit(self._signed(member.node, CommitBucket(f"bucket of {member.node}")))

    def _signed(self, node: str, call: Call) -> Signed:
        nonce = self._nonces.get(node, 0)
        self._nonces[node] = nonce + 1
        return self._sign(self._accounts[node], nonce, call)


def peer_name(uid: int) -> str:
    """The node of a peer."""
    return f"peer:{uid}"
