"""From final scores to pay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.gauntlet.settings import WeightRules
from covsim.gauntlet.weights import Weights, weigh

RULES = WeightRules()


def weighed(
    scores: dict[int, float], rules: WeightRules = RULES, places: tuple[int, int] = (20, 10), seed: int = 0
) -> Weights:
    return weigh(rules, scores, places, np.random.default_rng(seed))


def test_thirty_positive_peers_get_the_published_shares() -> None:
    """Target D7: best 3.2 % of all, 20th 1.6 %, first reserve 0.81 %, last 0.002 %, half burned."""
    weights = weighed({uid: 100.0 - uid for uid in range(30)})
    percent = {uid: 100 * share for uid, share in weights.shares.items()}
    assert percent[0] == pytest.approx(3.2, abs=0.05)
    assert percent[19] == pytest.approx(1.6, abs=0.05)
    assert percent[20] == pytest.approx(0.81, abs=0.005)
    assert percent[29] == pytest.approx(0.002, abs=0.0005)
    assert weights.burned == 0.5
    assert sum(weights.shares.values()) == pytest.approx(0.5, abs=1e-12)


def test_the_ramp_is_linear_and_the_reserve_geometric() -> None:
    shares = list(weighed({uid: 50.0 - uid for uid in range(30)}).shares.values())
    assert shares[0] == pytest.approx(2 * shares[19])
    steps = np.diff(shares[:20])
    assert steps == pytest.approx([steps[0]] * 19)
    assert shares[20] == pytest.approx(0.5 * shares[19])
    assert shares[21:] == pytest.approx([share / 2 for share in shares[20:29]])


def test_a_reserve_that_fits_under_the_ramp_is_not_scaled_down() -> None:
    rules = WeightRules(gather_share=0.9, reserve_ratio=1.0)
    shares = list(weighed({uid: 9.0 - uid for uid in range(6)}, rules, places=(2, 4)).shares.values())
    assert shares == pytest.approx([0.3, 0.15, 0.0125, 0.0125, 0.0125, 0.0125])


def test_few_peers_share_everything_that_is_not_burned() -> None:
    assert weighed({4: 1.0, 7: 2.0, 9: 3.0}).shares == pytest.approx({9: 2 / 9, 7: 1.5 / 9, 4: 1 / 9})
    assert weighed({4: 1.0}).shares == {4: 0.5}


@pytest.mark.parametrize("scores", [{}, {1: 0.0, 2: -3.0}, {1: math.nan, 2: math.inf}])
def test_without_a_positive_peer_everything_is_burned(scores: dict[int, float]) -> None:
    assert weighed(scores) == Weights({}, burned=1.0)


def test_a_full_burn_pays_nobody() -> None:
    assert weighed({1: 1.0, 2: 2.0}, WeightRules(burn=1.0)) == Weights({1: 0.0, 2: 0.0}, burned=1.0)


def test_equal_scores_share_the_places_by_luck() -> None:
    best = [max(weights.shares, key=weights.shares.__getitem__) for weights in _draws(dict.fromkeys(range(4), 1.0))]
    counts = [best.count(uid) for uid in range(4)]
    assert min(counts) > 60  # 100 expected of each, standard deviation 9


def _draws(scores: dict[int, float]) -> list[Weights]:
    return [weighed(scores, seed=seed) for seed in range(400)]


@given(
    scores=st.dictionaries(st.integers(0, 255), st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    burn=st.floats(0, 1),
    places=st.tuples(st.integers(1, 25), st.integers(0, 15)),
)
def test_weights_are_shares(scores: dict[int, float], burn: float, places: tuple[int, int]) -> None:
    weights = weighed(scores, WeightRules(burn=burn), places)
    assert all(0 <= share <= 1 and 0 < scores[uid] < math.inf for uid, share in weights.shares.items())
    assert sum(weights.shares.values()) + weights.burned == pytest.approx(1)
    ranked = sorted(weights.shares, key=lambda uid: -scores[uid])
    assert [weights.shares[uid] for uid in ranked] == pytest.approx(sorted(weights.shares.values(), reverse=True))
