"""A chain with a few accounts that sign by name, for the tests of the chain's room and of its speed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from covsim.chain.accounts import Account
from covsim.chain.chain import Chain
from covsim.chain.extrinsics import (
    Call,
    CommitBucket,
    CommitWeights,
    LogVerdicts,
    PayloadHash,
    Register,
    RevealWeights,
    SetWeights,
    Weights,
    sign,
)
from covsim.chain.ledger import Epoch, Sealed
from covsim.chain.settings import ChainSettings

SEED = 5


class Network:
    """A chain, and who speaks on it. Names that begin with `peer` are peers, `owner` is the owner, others validate.

    Args:
        settings: of the chain; defaults are small: an epoch of 10 blocks, 8 slots, no rate limit, open weights.
    """

    def __init__(self, **settings: Any) -> None:
        small: dict[str, Any] = {"tempo": 10, "slots": 8, "rate_limit": 0, "commit_reveal": "none", "immunity": 0}
        self.settings = ChainSettings(**(small | settings))
        self.chain = Chain(self.settings, SEED)
        self.accounts: dict[str, Account] = {}
        self.nonces: dict[str, int] = defaultdict(int)

    def public(self, name: str) -> str:
        return self.account(name).public

    def account(self, name: str) -> Account:
        if name not in self.accounts:
            self.accounts[name] = Account.derive(SEED, name)
        return self.accounts[name]

    def slot(self, name: str) -> int:
        holder = self.chain.holder(self.public(name))
        assert holder is not None, f"{name} has no slot"
        return holder.slot

    def say(self, name: str, *calls: Call) -> None:
        """Let signed calls wait for the next block."""
        for call in calls:
            self.chain.submit(sign(self.account(name), self.nonces[name], call))
            self.nonces[name] += 1

    def register(self, name: str, stake: float = 0.0) -> None:
        kind = name.rstrip("0123456789")
        self.say(name, Register(name, kind if kind in ("peer", "owner") else "validator", stake))

    def found(self, peers: int, stakes: Mapping[str, float]) -> Network:
        """Seal block 0: the owner in slot 0, the peers in slots 1, 2, ..., then validators with these stakes."""
        self.register("owner")
        for uid in range(1, peers + 1):
            self.register(f"peer{uid}")
        for name, stake in stakes.items():
            self.register(name, stake)
        sealed = self.seal(0)
        assert sealed is not None
        assert not any(sealed.block.outcomes)
        return self

    def commit(self, name: str, weights: Weights, height: int, round: int = 0) -> None:
        """Hand in hidden weights for the block at `height`."""
        reveal = RevealWeights(round, weights, f"salt {round}")
        nonce, account = self.nonces[name], self.account(name)
        self.nonces[name] += 1
        commit = sign(account, nonce, CommitWeights(round, reveal.digest))
        self.chain.submit_sealed(commit, sign(account, nonce, reveal), height)

    def weigh(self, name: str, *values: float, height: int = 1, round: int = 0) -> None:
        """Weights for slots 0, 1, 2, ...: open or hidden, as the chain has it; a 0 is left out."""
        weights = tuple((slot, value) for slot, value in enumerate(values) if value)
        if self.settings.commit_reveal == "none":
            self.say(name, SetWeights(round, weights))
        else:
            self.commit(name, weights, height, round)

    def seal(self, height: int) -> Sealed | None:
        return self.chain.seal(height)

    def paid(self, name: str) -> float:
        """Tokens so far."""
        return self.chain.balances[self.public(name)]

    def outcome(self, height: int) -> str:
        """Seal a block; what came of the last extrinsic in it."""
        sealed = self.seal(height)
        assert sealed is not None
        return sealed.block.outcomes[-1]

    def epoch(self, height: int) -> Epoch:
        """Seal the block that ends an epoch; what it paid."""
        self.seal(height)
        epoch = self.chain.epochs[-1]
        assert epoch.height == height
        return epoch


def incentives(network: Network) -> dict[str, float]:
    """Of the last epoch, by the name of who holds the slot; those above 0."""
    holders = network.chain.slots.holders
    return {holders[share.slot].name: share.incentive for share in network.chain.epochs[-1].shares if share.incentive}


def played() -> Network:
    """A chain with a bit of everything: hidden weights, refusals, a newcomer in another's slot, logs, the end."""
    network = Network(slots=6, commit_reveal=1, rate_limit=3, registration_cost=0.5).found(
        3, {"lead": 2.0, "second": 1}
    )
    network.say("peer1", CommitBucket("here"), PayloadHash(0, "ab" * 32))
    network.weigh("lead", 40000, 65535, 3, height=2)
    network.weigh("second", 65535, 1, 2, 65535, height=2)
    network.seal(2)
    network.weigh("lead", 1, 65535, height=4)  # too soon
    network.say("peer2", LogVerdicts(0, (), (1, 1), ()))  # not a peer's to say
    network.seal(4)
    rows = ((1, "ok", 0.01, 0.5, 25.0, 8.0, 1.5), (2, "missing", float("nan"), 0.0, 24.0, 8.0, 0.0))
    network.say("lead", LogVerdicts(0, ((1, 1.5), (2, 0.0)), (1, 1), rows))
    network.seal(7)
    network.seal(10)
    network.register("peer4")  # takes the slot of the lowest
    network.weigh("lead", 65535, 65535, 65535, height=13, round=1)
    network.seal(13)
    network.seal(20)
    network.say("peer4", PayloadHash(1, "cd" * 32))
    network.weigh("second", 1, 0, 0, 65535, height=24, round=2)
    network.seal(24)
    network.chain.close(26)
    return network
