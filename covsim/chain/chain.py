"""The chain as a state machine: what waits is included at a height, and every multiple of the tempo pays an epoch.

`execute` is all of it: given a height and extrinsics it changes the state and returns the block. `seal` lets it run on
what waits, and verification lets it run again on what a ledger says was included.

At the height that ends an epoch, what is included comes first, then the weights whose time has come are shown, then the
epoch is paid: weights committed in epoch n are shown at the start of epoch n + reveal period, and count from the
payment at that height on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from covsim.chain import ledger
from covsim.chain.accounts import Account
from covsim.chain.emission import share_out
from covsim.chain.extrinsics import (
    Call,
    CloseRun,
    CommitBucket,
    CommitWeights,
    LogVerdicts,
    PayloadHash,
    Register,
    RevealWeights,
    SetWeights,
    Signed,
    Weights,
    kind_of,
)
from covsim.chain.ledger import Block, Epoch, Sealed
from covsim.chain.settings import ChainSettings
from covsim.chain.signatures import Signatures
from covsim.chain.slots import Holder, Slots
from covsim.chain.stances import HIGHEST, Commitment, Stances

ROLES: dict[type, tuple[str, ...]] = {
    CommitBucket: ("peer", "validator"),
    PayloadHash: ("peer",),
    SetWeights: ("validator",),
    CommitWeights: ("validator",),
    RevealWeights: ("validator",),
    LogVerdicts: ("validator",),
    CloseRun: ("validator",),
}
"""Who may say what; to register, one needs no slot."""


class Refused(ValueError):
    """An extrinsic that is included and has no effect; the message says why."""


class Chain:
    """Slots, weights, balances and blocks.

    Args:
        settings: the `chain:` section.
        seed: makes the key of the authority that signs blocks.
        signatures: those that were checked before, if anybody keeps them; then nobody keeps the ledger, and its blocks
            bear none.
    """

    def __init__(self, settings: ChainSettings, seed: int, signatures: Signatures | None = None) -> None:
        self.settings = settings
        self.slots = Slots(settings.slots, settings.immunity)
        self.stances = Stances()
        self.blocks: list[Sealed] = []
        self.epochs: list[Epoch] = []
        self.balances: dict[str, float] = defaultdict(float)  # tokens earned, by public key
        self.spent: dict[str, float] = defaultdict(float)  # tokens paid for slots, by public key
        self._authority = Account.derive(seed, ledger.AUTHORITY) if signatures is None else None
        self._signatures = signatures
        self._nonces: dict[str, int] = defaultdict(int)
        self._paid_until = 0
        self._waiting: list[Signed] = []
        self._sealed: list[tuple[int, Signed]] = []  # (epoch that shows it, reveal)

    # Handing in -----------------------------------------------------------------------------------------------------

    def submit(self, signed: Signed) -> None:
        """Let an extrinsic wait for the next block."""
        self._waiting.append(signed)

    def submit_sealed(self, commit: Signed, reveal: Signed, height: int) -> None:
        """Hand in a commitment for the block at `height`, and with it, time-locked, what it commits to."""
        assert self.settings.commit_reveal != "none", "weights are open on this chain"
        self._waiting.append(commit)
        self._sealed.append((self._epoch(height) + self.settings.commit_reveal, reveal))

    def seal(self, height: int) -> Sealed | None:
        """Include what waits, and pay the epoch that ends here; None if nothing happens at this height."""
        waiting, self._waiting = self._waiting, []
        ends = self._ends_epoch(height)
        if not waiting and not ends:
            return None
        return self.execute(height, [*waiting, *(self._due(self._epoch(height)) if ends else [])])

    def close(self, height: int) -> Sealed:
        """The last block of a run: includes what waits, shows what is hidden, pays for the blocks not paid for yet."""
        waiting, self._waiting = self._waiting, []
        shown = [reveal for _, reveal in self._sealed]
        self._sealed = []
        return self.execute(height, [*waiting, *shown], closing=True)

    def execute(self, height: int, extrinsics: Sequence[Signed], closing: bool = False) -> Sealed:
        """Run a block on the state. Raises ValueError where an epoch ends and nobody owns the chain."""
        assert not self.blocks or height > self.blocks[-1].block.height, "heights rise"
        outcomes = tuple(self._outcome(signed, height, closing) for signed in extrinsics)
        epoch = self._pay(height) if self._ends_epoch(height) or (closing and height > self._paid_until) else None
        parent = self.blocks[-1].sha256 if self.blocks else ledger.GENESIS
        sealed = ledger.seal(
            self._authority, Block(height, parent, closing, tuple(extrinsics), outcomes, epoch, signature="")
        )
        self.blocks.append(sealed)
        return sealed

    # What is public -------------------------------------------------------------------------------------------------

    def holder(self, public: str) -> Holder | None:
        """Who holds a slot under this key, or None."""
        return self.slots.of(public)

    def weights_of(self, public: str) -> dict[int, float]:
        """The weights of a validator that are in force and open, by slot; not those for a former holder."""
        return self.stances.in_force(public, self.slots)

    def last_set(self, public: str) -> int | None:
        """The height at which a validator last set weights or committed to some."""
        return self.stances.last_set.get(public)

    # Including ------------------------------------------------------------------------------------------------------

    def _outcome(self, signed: Signed, height: int, closing: bool) -> str:
        """Apply an extrinsic; empty, or why it was refused."""
        try:
            self._check_signature(signed)
            self._check_role(signed)
            self._apply(signed.public, signed.call, height, closing)
        except Refused as refusal:
            return str(refusal)
        return ""

    def _check_signature(self, signed: Signed) -> None:
        """Who signs with the next nonce has used it up, whatever becomes of the call."""
        known = self._signatures
        if not (signed.is_genuine if known is None else known.is_genuine(signed)):
            raise Refused("the signature does not fit")
        if isinstance(signed.call, RevealWeights):
            return  # it repeats the nonce of its commitment
        expected = self._nonces.get(signed.public, 0)
        if signed.nonce != expected:
            raise Refused(f"nonce {signed.nonce} is not the next one, {expected}")
        self._nonces[signed.public] = expected + 1

    def _check_role(self, signed: Signed) -> None:
        holder = self.slots.of(signed.public)
        if isinstance(signed.call, Register):
            return
        if holder is None:
            raise Refused("the account has no slot")
        if holder.role not in ROLES[type(signed.call)]:
            raise Refused(f"who registered as {holder.role} may not {kind_of(signed.call)}")

    def _apply(self, public: str, call: Call, height: int, closing: bool) -> None:
        if isinstance(call, Register):
            self._register(public, call, height)
        elif isinstance(call, SetWeights):
            if self.settings.commit_reveal != "none":
                raise Refused("weights must be committed to on this chain")
            self._check_turn(public, height)
            self._check_weights(public, call.weights)
            self.stances.last_set[public] = height
            self.stances.show(public, call.weights, height)
        elif isinstance(call, CommitWeights):
            self._commit(public, call, height)
        elif isinstance(call, RevealWeights):
            commitment = self.stances.match(public, call, 2**62 if closing else self._epoch(height))
            if commitment is None:
                raise Refused("no commitment says so, or it is not due")
            self._check_weights(public, call.weights)
            self.stances.show(public, call.weights, commitment.height)

    def _register(self, public: str, call: Register, height: int) -> None:
        if self.slots.of(public) is not None:
            raise Refused("the account has a slot already")
        if call.role not in ("peer", "validator", "owner") or not 0 <= call.stake < math.inf:
            raise Refused("one registers as peer, validator or owner, with a finite stake")
        if call.role == "owner" and self.slots.owner is not None:
            raise Refused("the chain has an owner")
        slot = self.slots.place_for(height)
        if slot is None:
            raise Refused(f"all {self.settings.slots} slots are held by peers in immunity, validators or the owner")
        before = self.slots.holders.get(slot)
        if before is not None:
            self.stances.forget(before)
        self.slots.give(Holder(slot, public, call.name, call.role, call.stake, height))
        if height > 0:
            self.spent[public] += self.settings.registration_cost

    def _commit(self, public: str, call: CommitWeights, height: int) -> None:
        if self.settings.commit_reveal == "none":
            raise Refused("weights are open on this chain")
        self._check_turn(public, height)
        self.stances.last_set[public] = height
        epoch = self._epoch(height) + self.settings.commit_reveal
        self.stances.hidden.setdefault(public, []).append(Commitment(call.digest, height, epoch))

    def _check_turn(self, public: str, height: int) -> None:
        if public not in {holder.public for holder in self._permitted()}:
            raise Refused(f"the validator is not among the {self.settings.permits} of the highest stake")
        last = self.stances.last_set.get(public)
        if last is not None and height - last < self.settings.rate_limit:
            raise Refused(f"weights were set {height - last} blocks ago, {self.settings.rate_limit} must pass")

    def _check_weights(self, public: str, weights: Weights) -> None:
        own, slots = self.slots.of(public), [slot for slot, _ in weights]
        if len(set(slots)) < len(slots):
            raise Refused("a slot has two weights")
        if not all(slot in self.slots.holders for slot in slots):
            raise Refused("a weight is for a slot that nobody holds")
        if own is not None and own.slot in slots:
            raise Refused("a validator gives itself no weight")
        values = [weight for _, weight in weights]
        if self.settings.weights == "u16" and not all(
            isinstance(value, int) and 0 <= value <= HIGHEST for value in values
        ):
            raise Refused(f"weights are whole numbers up to {HIGHEST} on this chain")
        if not all(0 <= value < math.inf for value in values) or not any(values):
            raise Refused("weights are finite numbers from 0 up, not all of them 0")

    # Paying ---------------------------------------------------------------------------------------------------------

    def _pay(self, height: int) -> Epoch:
        """Run the consensus over the weights in force, and emit the tokens of the blocks since the last payment."""
        settings, slots = self.settings, self.slots
        validators, n, owner = slots.validators, len(slots.holders), slots.owner
        if owner is None:
            raise ValueError(f"an epoch ends at height {height}, and nobody owns the chain")
        permitted = {holder.public for holder in self._permitted()}
        stakes = np.array([v.stake if v.public in permitted else 0.0 for v in validators])
        counting = np.where([self._is_active(v.public, height) for v in validators], stakes, 0.0)
        bonds = self.stances.bond_matrix(validators, n) * (stakes > 0)[:, None]  # who loses the permit loses its bonds
        result = settings.consensus.epoch(counting, self.stances.matrix(slots, validators, n), bonds)
        self.stances.bonds = {v.public: row for v, row in zip(validators, result.bonds, strict=True)}
        blocks, self._paid_until = height - self._paid_until, height
        emission = share_out(
            settings.emission_per_block * blocks,
            settings.owner_share,
            settings.peer_share,
            result.incentive,
            result.dividends,
            counting if counting.any() else stakes,
            owner.slot,
        )
        dividends = {
            v.slot: (float(d), float(t))
            for v, d, t in zip(validators, result.dividends, emission.validators, strict=True)
        }
        shares = tuple(
            ledger.Share(
                slot,
                holder.public,
                float(result.consensus[slot]),
                float(result.incentive[slot]),
                dividends.get(slot, (0.0, 0.0))[0],
                float(emission.peers[slot]),
                dividends.get(slot, (0.0, 0.0))[1],
            )
            for slot, holder in sorted(slots.holders.items())
        )
        epoch = Epoch(height, blocks, shares, emission.owner, emission.burned)
        self._book(epoch, owner)
        return epoch

    def _book(self, epoch: Epoch, owner: Holder) -> None:
        for share in epoch.shares:
            self.balances[share.public] += share.peer_tokens + share.validator_tokens
            self.slots.holders[share.slot].incentive = share.incentive
        self.balances[owner.public] += epoch.owner
        self.epochs.append(epoch)

    def _permitted(self) -> list[Holder]:
        """The validators of the highest stake, equals by slot."""
        return sorted(self.slots.validators, key=lambda v: (-v.stake, v.slot))[: self.settings.permits]

    def _is_active(self, public: str, height: int) -> bool:
        last = self.stances.last_set.get(public)
        return last is not None and height - last <= self.settings.activity_cutoff

    def _epoch(self, height: int) -> int:
        return height // self.settings.tempo

    def _ends_epoch(self, height: int) -> bool:
        return height > 0 and height % self.settings.tempo == 0

    def _due(self, epoch: int) -> list[Signed]:
        """The reveals whose time has come, in the order of their commitments."""
        due = [reveal for shows, reveal in self._sealed if shows <= epoch]
        self._sealed = [entry for entry in self._sealed if entry[0] > epoch]
        return due
