"""Stances: what validators have said of the slots, open or hidden, and the matrices that consensus is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from covsim.chain.extrinsics import RevealWeights, Weights
from covsim.chain.slots import Holder, Slots
from covsim.chain.yuma import Floats

HIGHEST = 65535  # of weights in 16 bits


@dataclass(frozen=True, slots=True)
class Stance:
    """Weights in force: by slot, and the height at which they were decided."""

    weights: dict[int, float]
    decided_at: int


@dataclass(frozen=True, slots=True)
class Commitment:
    """Hidden weights: the digest of what will be shown, the height of the commitment, and the epoch that shows it."""

    digest: str
    height: int
    epoch: int


@dataclass
class Stances:
    """What all validators have said, by public key."""

    shown: dict[str, Stance] = field(default_factory=dict)
    hidden: dict[str, list[Commitment]] = field(default_factory=dict)
    last_set: dict[str, int] = field(default_factory=dict)
    bonds: dict[str, Floats] = field(default_factory=dict)  # by public key, [n]

    def show(self, public: str, weights: Weights, decided_at: int) -> None:
        """Put weights in force."""
        self.shown[public] = Stance(dict(weights), decided_at)

    def match(self, public: str, reveal: RevealWeights, epoch: int) -> Commitment | None:
        """The commitment that a reveal keeps, if its time has come; it is taken off."""
        for commitment in self.hidden.get(public, []):
            if commitment.digest == reveal.digest and commitment.epoch <= epoch:
                self.hidden[public].remove(commitment)
                return commitment
        return None

    def forget(self, holder: Holder) -> None:
        """A slot has a new holder: what was said by the old one, and bonds to it, are gone."""
        self.shown.pop(holder.public, None)
        self.hidden.pop(holder.public, None)
        self.last_set.pop(holder.public, None)
        self.bonds.pop(holder.public, None)
        for row in self.bonds.values():
            if holder.slot < len(row):
                row[holder.slot] = 0.0

    def in_force(self, public: str, slots: Slots) -> dict[int, float]:
        """A validator's open weights by slot, without those decided before the slot's holder came, or in that block."""
        stance = self.shown.get(public)
        if stance is None:
            return {}
        since = stance.decided_at
        return {slot: weight for slot, weight in stance.weights.items() if slots.holders[slot].registered_at < since}

    def matrix(self, slots: Slots, validators: Sequence[Holder], n: int) -> Floats:
        """Weights in force [V, n]; entries to oneself count as 0."""
        weights = np.zeros((len(validators), n))
        for row, validator in zip(weights, validators, strict=True):
            given = self.in_force(validator.public, slots)
            row[list(given)] = list(given.values())
            row[validator.slot] = 0.0
        return weights

    def bond_matrix(self, validators: Sequence[Holder], n: int) -> Floats:
        """Bonds [V, n]."""
        bonds = np.zeros((len(validators), n))
        for row, validator in zip(bonds, validators, strict=True):
            known = self.bonds.get(validator.public)
            if known is not None:
                row[: len(known)] = known
        return bonds


def quantized(weights: Weights) -> Weights:
    """Weights in 16 bits: the largest becomes 65535, the others keep their proportion, rounded."""
    largest = max((weight for _, weight in weights), default=0.0)
    if largest <= 0:
        return tuple((slot, 0) for slot, _ in weights)
    return tuple((slot, round(weight / largest * HIGHEST)) for slot, weight in weights)
