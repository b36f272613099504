"""From final scores to shares of the pay: a rule shares it out among peers ranked best first, a part of it is burned.

A weight rule is a part. Weights follow from the rule, the final scores, the places and the lots alone, so whoever knows
those can check them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from covsim.registry import Part, Registry
from covsim.units import Share

Ranked = Sequence[tuple[int, float]]
"""(uid, finite final score), best first."""

TopPlaces = Annotated[int, Field(ge=1, le=100_000)]


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of all pay by uid; with the burned share they sum to 1."""

    shares: Mapping[int, float]
    burned: float


class WeightRule(Part):
    """How the pay that is not burned is shared, and how often it goes to the chain."""

    burn: Share = Field(default=0.5, description="share burned; all of it when nobody is paid")
    set_every_windows: int = Field(default=3, ge=1, le=100_000, description="windows between two settings on the chain")

    @abstractmethod
    def share_out(self, ranked: Ranked, places: tuple[int, int]) -> Mapping[int, float]:
        """Shares by uid, each >= 0, summing to 1; empty if nobody is to be paid.

        Args:
            ranked: all peers with a finite final score, also those whose score is 0 or less.
            places: on the gather and the reserve list.
        """


weight_rules: Registry[WeightRule] = Registry("weight rule")


@weight_rules.register
class Ramp(WeightRule):
    """By rank among positive scores: a linear ramp over the gather list's places, a geometric reserve.

    A share that nobody claims (too few peers for a reserve) goes to the others in proportion.

    Source: `templar` v2.1.28, `update_weights`.
    """

    kind: Literal["ramp"] = "ramp"
    gather_share: Share = Field(default=0.75, gt=0, description="share of the places on the gather list")
    ramp: float = Field(default=2.0, ge=1, le=1_000, description="weight of the first of them over that of the last")
    reserve_ratio: Share = Field(default=0.5, description="weight of a reserve place over the one before it")

    def share_out(self, ranked: Ranked, places: tuple[int, int]) -> Mapping[int, float]:
        """The best take the places on the ramp, the next the reserve; who finds no place gets nothing."""
        uids = [uid for uid, score in ranked if score > 0][: sum(places)]
        if not uids:
            return {}
        ramp = self.ramp_profile(min(len(uids), places[0]))
        reserve = self.reserve_profile(len(uids) - len(ramp), lowest=float(ramp[-1]))
        profile = np.concatenate([ramp, reserve])
        return dict(zip(uids, (profile / profile.sum()).tolist(), strict=True))

    def ramp_profile(self, count: int) -> NDArray[np.float64]:
        """Linear from `ramp` down to 1, summing to the ramp's share."""
        profile = np.linspace(self.ramp, 1.0, count)
        return profile * (self.gather_share / float(profile.sum()))

    def reserve_profile(self, count: int, lowest: float) -> NDArray[np.float64]:
        """Geometric, summing to the rest; scaled down if its best would exceed the ramp's lowest place.

        When it would, the best reserve gets `reserve_ratio` times that lowest place.
        """
        profile = np.array([self.reserve_ratio**i for i in range(count)], dtype=np.float64)
        profile *= (1 - self.gather_share) / max(profile.sum(), 1.0)
        if count and profile[0] > lowest:
            profile *= lowest / profile[0] * self.reserve_ratio
        return profile


@weight_rules.register
class Power(WeightRule):
    """By a power of what a score lies above the floor, for the best `top` peers.

    With `floor: lowest` what counts is the distance from the lowest of all scores, which may be negative: the paper's
    incentive (score - lowest)^2. Then a peer that has earned nothing is paid as soon as another's score is negative.
    `top` cuts the ranking and ignores the places; the lowest is the lowest of all, not of those.

    Source: Gauntlet (arXiv 2505.21684), the incentive; `templar` up to v1.0.6, `power_normalisation`.
    """

    kind: Literal["power"] = "power"
    power: float = Field(default=2.0, gt=0, le=100, description="exponent of the score")
    floor: Literal["zero", "lowest"] = Field(default="zero", description="the score that is paid nothing")
    top: TopPlaces | Literal["none"] = Field(default="none", description="how many of the best are paid; none: all")

    def share_out(self, ranked: Ranked, places: tuple[int, int]) -> Mapping[int, float]:
        """In proportion to (score - floor)^power; computed relative to the best, so that no power overflows."""
        paid = ranked if self.top == "none" else ranked[: self.top]
        largest = max((abs(score) for _, score in ranked), default=0.0)
        if not largest:
            return {}
        floor = 0.0 if self.floor == "zero" else ranked[-1][1] / largest
        above = {uid: score / largest - floor for uid, score in paid if score / largest > floor}
        best = max(above.values(), default=1.0)
        powers = {uid: (height / best) ** self.power for uid, height in above.items()}
        total = math.fsum(powers.values())
        return {uid: value / total for uid, value in powers.items()}


def weigh(
    rule: WeightRule, final_scores: Mapping[int, float], places: tuple[int, int], lots: Callable[[int], float]
) -> Weights:
    """Share out the pay by a rule; what is not paid is burned.

    Scores that are not finite are left out. Equal final scores are ranked by `lots`, lowest first, and then by uid; the
    deployed code leaves them in the order of a set.

    Args:
        places: on the gather and the reserve list.
        lots: a number per uid that orders equals.

    Raises:
        ValueError: what the rule returned are no shares of peers with a finite final score.
    """
    ranked = rank(final_scores, lots)
    shares = rule.share_out(ranked, places)
    if not shares:
        return Weights({}, burned=1.0)
    sound = all(share >= 0 for share in shares.values()) and math.isclose(math.fsum(shares.values()), 1.0, abs_tol=1e-9)
    if not sound or not shares.keys() <= {uid for uid, _ in ranked}:
        raise ValueError(f"{type(rule).__name__} returned no shares that sum to 1: {dict(shares)}")
    return Weights({uid: (1 - rule.burn) * share for uid, share in shares.items()}, burned=rule.burn)


def rank(final_scores: Mapping[int, float], lots: Callable[[int], float]) -> list[tuple[int, float]]:
    """(uid, final score) of all with a finite one, best first; equals by their lots, lowest first, then by uid."""
    finite = [(uid, score) for uid, score in final_scores.items() if math.isfinite(score)]
    return sorted(finite, key=lambda entry: (-entry[1], lots(entry[0]), entry[0]))
