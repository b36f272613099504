"""Yuma consensus: what validators' stake agrees on, what each peer is paid for it, and each validator.

    W       weights [V, n]: a row per validator, normalized; entries to itself or to a slot's former holder are masked
    C       consensus [n]: the largest weight that at least kappa of the stake gives
    Wbar    weights clipped to C: weight above consensus buys nothing
    I       incentive [n]: stake-weighted sum of Wbar, normalized
    B       bonds [V, n]: a moving average of (clipped) weights, so early believers in a peer share in what it earns
    D       dividends [V]

What does not count is masked by the caller: the stake of a validator that has no permit or is inactive, and a weight to
oneself or to a slot's former holder, are 0. Sums are written out and not left to a linear algebra library, where their
last bit may depend on the number of threads.

Source: Yuma consensus as in Bittensor's subtensor, versions 2 (bonds scaled by stake) and 3 (liquid alpha).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from covsim.registry import Part, Registry

Floats = NDArray[np.float64]

_ROUNDING = 1e-12
"""Stake that falls short of kappa by this part of it counts as kappa: sums of shares are rounded."""


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch makes of weights.

    By peer [n]: consensus, rank, trust (the part of its rank that clipping left), incentive. By validator [V]: trust
    (the part of its weights that clipping left), dividends. Bonds are [V, n].
    """

    consensus: Floats
    rank: Floats
    trust: Floats
    incentive: Floats
    validator_trust: Floats
    dividends: Floats
    bonds: Floats


class ConsensusRule(Part):
    """How weights become incentive and dividends."""

    kappa: float = Field(
        default=0.5, gt=0, le=1, description="share of the stake that must give a weight for it to count"
    )
    bond_penalty: float = Field(
        default=1.0, ge=0, le=1, description="how much of a bond goes by clipped weights, 1 for all of it"
    )

    def epoch(self, stakes: Floats, weights: Floats, bonds: Floats) -> EpochResult:
        """One epoch. Where nothing is agreed on, incentive and dividends are all 0 and the bonds stay as they are.

        Weights of a validator without stake make no bonds. The chain masks only the rows of those without a permit;
        here that of an inactive validator is masked too, whose bonds would thin out the others' in Yuma 3.

        Args:
            stakes: of validators [V], >= 0; 0 for those without a permit or inactive.
            weights: as they set them [V, n], >= 0, masked; the scale of a row does not matter.
            bonds: as the last epoch left them [V, n].
        """
        share = normalized(stakes)
        own = normalized(np.where(share[:, None] > 0, weights, 0.0), axis=1)
        consensus = agreed(share, own, self.kappa)
        clipped = np.minimum(own, consensus)
        rank = (share[:, None] * clipped).sum(axis=0)
        trust = _divided(rank, (share[:, None] * own).sum(axis=0))
        incentive = normalized(rank)
        dividends = np.zeros_like(share)
        if incentive.any():
            bonded = (1 - self.bond_penalty) * own + self.bond_penalty * clipped
            bonds, claims = self.bond(share, own, bonded, consensus, bonds)
            dividends = normalized((claims * incentive).sum(axis=1))
        return EpochResult(consensus, rank, trust, incentive, clipped.sum(axis=1), dividends, bonds)

    @abstractmethod
    def bond(
        self, share: Floats, weights: Floats, bonded: Floats, consensus: Floats, bonds: Floats
    ) -> tuple[Floats, Floats]:
        """The new bonds [V, n], and each validator's claim on what each peer brings [V, n].

        Args:
            share: of all stake [V].
            weights: normalized rows [V, n].
            bonded: what bonds are made of: weights clipped as far as `bond_penalty` says [V, n].
            consensus: [n].
            bonds: as the last epoch left them [V, n].
        """


consensus_rules: Registry[ConsensusRule] = Registry("consensus rule")


@consensus_rules.register
class Yuma2(ConsensusRule):
    """Bonds grow with stake and fade with one rate.

    Source: Bittensor subtensor, `epoch`, with `bonds_moving_average` of 0.9.
    """

    kind: Literal["yuma2"] = "yuma2"
    bond_rate: float = Field(default=0.1, gt=0, le=1, description="weight of an epoch's bonds in their moving average")

    def bond(
        self, share: Floats, weights: Floats, bonded: Floats, consensus: Floats, bonds: Floats
    ) -> tuple[Floats, Floats]:
        """B <- a dB + (1 - a) B, dB = stake x bonded weight, all with columns that sum to 1 or 0. A claim is a bond.

        So the bonds of a validator whose stake no longer counts pay on and fade by 1 - a per epoch, as on the chain.
        """
        bought = normalized(share[:, None] * bonded, axis=0)
        kept = normalized(self.bond_rate * bought + (1 - self.bond_rate) * normalized(bonds, axis=0), axis=0)
        return kept, kept


@consensus_rules.register
class Yuma3(ConsensusRule):
    """Bonds are moving averages of weights alone, faster where a validator moves away from the others.

    Source: Bittensor subtensor, Yuma 3 with liquid alpha in [0.7, 0.9].
    """

    kind: Literal["yuma3"] = "yuma3"
    alpha_low: float = Field(default=0.7, gt=0, le=1, description="lowest weight of an epoch in the moving average")
    alpha_high: float = Field(default=0.9, gt=0, le=1, description="highest weight of an epoch in the moving average")
    steepness: float = Field(default=10.0, gt=0, le=1e6, description="of the sigmoid between the two")
    midpoint: float = Field(
        default=0.5, ge=0, le=1, description="difference of weights at which the sigmoid is half way"
    )

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        if self.alpha_low > self.alpha_high:
            raise ValueError(f"alpha_low {self.alpha_low} is above alpha_high {self.alpha_high}")
        return self

    def bond(
        self, share: Floats, weights: Floats, bonded: Floats, consensus: Floats, bonds: Floats
    ) -> tuple[Floats, Floats]:
        """B <- a bonded + (1 - a) B entry by entry; a claim is a bond's share of its column, times stake."""
        rate = self._rate(weights, consensus, bonds)
        kept = rate * bonded + (1 - rate) * bonds
        return kept, share[:, None] * normalized(kept, axis=0)

    def _rate(self, weights: Floats, consensus: Floats, bonds: Floats) -> Floats:
        """Liquid alpha [V, n]: by weight above consensus where a validator buys, by bond above weight where it sells.

        Weights are those that were given. The deployed code takes the bonded ones, which at a penalty of 1 are never
        above consensus, so that only selling can be fast there.
        """
        difference = np.where(weights >= bonds, np.maximum(weights - consensus, 0), bonds - weights)
        sigmoid = (1 + np.tanh(self.steepness * (difference - self.midpoint) / 2)) / 2
        return self.alpha_low + sigmoid * (self.alpha_high - self.alpha_low)


def agreed(share: Floats, weights: Floats, kappa: float) -> Floats:
    """Consensus [n]: per column the largest w such that those who give w or more hold at least kappa of the stake.

    A missing weight is 0. Two validators of half the stake each agree, at kappa 0.5, on the higher of their weights: at
    least kappa, as on the chain.

    Args:
        share: of the stake [V], summing to 1 or 0.
        weights: normalized rows [V, n].
    """
    if not share.any():
        return np.zeros(weights.shape[1])
    order = np.argsort(-weights, axis=0, kind="stable")
    backing = np.cumsum(share[order], axis=0)
    enough = np.argmax(backing >= kappa * (1 - _ROUNDING), axis=0)  # kappa <= 1: the last row is enough
    given: Floats = np.take_along_axis(np.take_along_axis(weights, order, axis=0), enough[None], axis=0)[0]
    return given


def normalized(values: Floats, axis: int | None = None) -> Floats:
    """Values >= 0 that sum to 1 along an axis, or over all; all 0 where they are 0.

    They are first taken relative to the largest, so that no finite values are too large or too small to be summed.
    """
    relative = _divided(values, values.max(axis=axis, keepdims=True, initial=0.0))
    return _divided(relative, relative.sum(axis=axis, keepdims=True))


def _divided(values: Floats, totals: Floats) -> Floats:
    """Values over their totals; 0 where a total is 0."""
    quotient: Floats = np.divide(values, totals, out=np.zeros(values.shape), where=totals > 0)
    return quotient
