"""From final scores to shares of the pay: a linear ramp, a geometric reserve, a burn.

Source: `templar` v2.1.28, `update_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covsim.gauntlet.settings import WeightRules


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares of all pay by uid; with the burned share they sum to 1."""

    shares: Mapping[int, float]
    burned: float


def weigh(
    rules: WeightRules, final_scores: Mapping[int, float], places: tuple[int, int], generator: np.random.Generator
) -> Weights:
    """Share out the pay among the peers with a positive final score.

    The best of them take the places on the ramp, the next the reserve; a share that nobody claims (too few peers for
    a reserve) goes to the others in proportion. Equal final scores are put in an order drawn from `generator`; the
    deployed code leaves them in the order of a set.

    Args:
        places: how many the ramp and the reserve can hold.
    """
    ranked = rank(final_scores, generator)
    on_ramp, in_reserve = ranked[: places[0]], ranked[places[0] : sum(places)]
    if not on_ramp:
        return Weights({}, burned=1.0)
    ramp = ramp_profile(rules, len(on_ramp))
    reserve = reserve_profile(rules, len(in_reserve), lowest=ramp[-1])
    profile = np.concatenate([ramp, reserve])
    shares = (1 - rules.burn) * profile / profile.sum()
    return Weights(dict(zip(on_ramp + in_reserve, shares.tolist(), strict=True)), burned=rules.burn)


def rank(final_scores: Mapping[int, float], generator: np.random.Generator) -> list[int]:
    """Uids with a positive, finite final score, best first; ties in drawn order."""
    positive = [uid for uid in sorted(final_scores) if 0 < final_scores[uid] < math.inf]
    luck = dict(zip(positive, generator.permutation(len(positive)).tolist(), strict=True))
    return sorted(positive, key=lambda uid: (-final_scores[uid], luck[uid]))


def ramp_profile(rules: WeightRules, count: int) -> NDArray[np.float64]:
    """Linear from `ramp` down to 1, summing to the ramp's share."""
    profile = np.linspace(rules.ramp, 1.0, count)
    return profile * (rules.gather_share / float(profile.sum()))


def reserve_profile(rules: WeightRules, count: int, lowest: float) -> NDArray[np.float64]:
    """Geometric, summing to the rest; scaled down if its best would exceed the ramp's lowest place.

    When it would, the best reserve gets `reserve_ratio` times that lowest place.
    """
    profile = np.array([rules.reserve_ratio**i for i in range(count)], dtype=np.float64)
    profile *= (1 - rules.gather_share) / max(profile.sum(), 1.0)
    if count and profile[0] > lowest:
        profile *= lowest / profile[0] * rules.reserve_ratio
    return profile
