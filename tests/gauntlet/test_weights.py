"""From final scores to pay."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
from gauntlet_windows import lots
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.gauntlet.weights import Power, Ramp, Ranked, WeightRule, Weights, rank, weigh, weight_rules

RULES = Ramp()
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
SCORES = st.dictionaries(st.integers(0, 255), ANYTHING, max_size=60)
A_RULE = st.one_of(
    st.builds(
        Ramp,
        burn=st.floats(0, 1),
        gather_share=st.floats(0.01, 1),
        ramp=st.floats(1, 10),
        reserve_ratio=st.floats(0, 1),
    ),
    st.builds(
        Power,
        burn=st.floats(0, 1),
        power=st.floats(0.1, 10),
        floor=st.sampled_from(["zero", "lowest"]),
        top=st.one_of(st.just("none"), st.integers(1, 20)),
    ),
)
PLACES = st.tuples(st.integers(1, 25), st.integers(0, 15))


def weighed(
    scores: dict[int, float], rule: WeightRule = RULES, places: tuple[int, int] = (20, 10), seed: int = 0
) -> Weights:
    return weigh(rule, scores, places, lots(seed))


# The ramp -------------------------------------------------------------------------------------------------------------


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
    rules = Ramp(gather_share=0.9, reserve_ratio=1.0)
    shares = list(weighed({uid: 9.0 - uid for uid in range(6)}, rules, places=(2, 4)).shares.values())
    assert shares == pytest.approx([0.3, 0.15, 0.0125, 0.0125, 0.0125, 0.0125])


def test_few_peers_share_everything_that_is_not_burned() -> None:
    assert weighed({4: 1.0, 7: 2.0, 9: 3.0}).shares == pytest.approx({9: 2 / 9, 7: 1.5 / 9, 4: 1 / 9})
    assert weighed({4: 1.0}).shares == {4: 0.5}


def test_the_ramp_knows_ranks_and_no_scores() -> None:
    assert weighed({1: 3.0, 2: 2.0, 3: 1.0}) == weighed({1: 1e6, 2: 0.002, 3: 0.001, 4: -5.0, 5: 0.0})


# A power --------------------------------------------------------------------------------------------------------------


def test_by_a_power_from_zero() -> None:
    rule = Power(power=2, burn=0)
    assert weighed({1: 1.0, 2: 2.0, 3: 0.0, 4: -9.0}, rule).shares == pytest.approx({1: 0.2, 2: 0.8})
    assert weighed({1: 1.0, 2: 2.0}, Power(power=2.2, burn=0.5)).shares == pytest.approx(
        {1: 0.5 / (1 + 2**2.2), 2: 0.5 * 2**2.2 / (1 + 2**2.2)}
    )


def test_by_a_power_from_the_lowest() -> None:
    """The paper's incentive: (score - lowest)^2 / sum. A score of 0 is paid as soon as one is negative."""
    rule = Power(power=2, floor="lowest", burn=0)
    assert weighed({1: -1.0, 2: 0.0, 3: 1.0}, rule).shares == pytest.approx({2: 0.2, 3: 0.8})
    assert weighed({1: 2.0, 2: 3.0, 3: 5.0}, rule).shares == pytest.approx({2: 0.1, 3: 0.9})


def test_only_the_best_are_paid_and_the_lowest_is_that_of_all() -> None:
    rule = Power(power=1, floor="lowest", top=2, burn=0)
    assert weighed({1: -1.0, 2: 0.0, 3: 1.0, 4: 2.0}, rule).shares == pytest.approx({4: 0.6, 3: 0.4})
    equal = weighed(dict.fromkeys(range(5), 1.0) | {9: 0.0}, rule)
    chosen = sorted(range(5), key=lots(0))[:2]
    assert equal.shares == pytest.approx(dict.fromkeys(chosen, 0.5))


def test_a_power_ignores_the_places() -> None:
    scores = {uid: 1.0 + uid for uid in range(9)}
    assert weighed(scores, Power(), places=(1, 0)) == weighed(scores, Power(), places=(20, 10))


@pytest.mark.parametrize("floor", ["zero", "lowest"])
def test_no_power_overflows(floor: Literal["zero", "lowest"]) -> None:
    rule = Power(power=100, floor=floor, burn=0)
    shares = weighed({1: 1.7e308, 2: -1.7e308, 3: 1.7e308, 4: 5e-324}, rule).shares
    assert shares[1] == shares[3] == pytest.approx(0.5)
    assert weighed({1: 5e-324, 2: 0.0}, rule).shares == {1: 1.0}


def test_when_all_are_equal_the_lowest_is_paid_no_more_than_the_best() -> None:
    assert weighed({1: 2.0, 2: 2.0}, Power(floor="lowest")) == Weights({}, burned=1.0)


# Any rule -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [{}, {1: 0.0, 2: -3.0}, {1: math.nan, 2: math.inf, 3: -math.inf}])
@pytest.mark.parametrize("rule", [Ramp(), Power()])
def test_without_a_positive_peer_everything_is_burned(rule: WeightRule, scores: dict[int, float]) -> None:
    assert weighed(scores, rule) == Weights({}, burned=1.0)


def test_a_full_burn_pays_nobody() -> None:
    for rule in (Ramp(burn=1.0), Power(burn=1.0)):
        assert weighed({1: 1.0, 2: 2.0}, rule) == Weights({1: 0.0, 2: 0.0}, burned=1.0)


def test_equal_scores_share_the_places_by_luck() -> None:
    scores = dict.fromkeys(range(4), 1.0)
    draws = [weighed(scores, seed=seed).shares for seed in range(400)]
    counts = [sum(max(shares, key=shares.__getitem__) == uid for shares in draws) for uid in range(4)]
    assert min(counts) > 60  # 100 expected of each, standard deviation 9


def test_weights_follow_from_scores_places_and_lots_alone() -> None:
    """Whoever reads these from a ledger computes the same, in whatever order they stand there."""
    scores = {3: 1.0, 1: 1.0, 2: 4.0, 7: -1.0}
    given_lots = {1: 0.9, 2: 0.1, 3: 0.2, 7: 0.0}
    for rule in (Ramp(), Power(), Power(floor="lowest", top=2)):
        results = [
            weigh(rule, dict(order), (2, 1), given_lots.__getitem__) for order in itertools.permutations(scores.items())
        ]
        assert all(result == results[0] and list(result.shares) == list(results[0].shares) for result in results)


def test_ranking_is_best_first_ties_by_lots_then_by_uid() -> None:
    scores = {5: 1.0, 4: 1.0, 3: math.nan, 2: 2.0, 1: -1.0, 0: 1.0}
    assert rank(scores, lambda uid: -uid) == [(2, 2.0), (5, 1.0), (4, 1.0), (0, 1.0), (1, -1.0)]
    assert rank(scores, lambda uid: 0.0) == [(2, 2.0), (0, 1.0), (4, 1.0), (5, 1.0), (1, -1.0)]


@given(scores=SCORES, rule=A_RULE, places=PLACES)
def test_weights_are_shares(scores: dict[int, float], rule: WeightRule, places: tuple[int, int]) -> None:
    weights = weighed(scores, rule, places)
    assert all(0 <= share <= 1 and math.isfinite(scores[uid]) for uid, share in weights.shares.items())
    assert sum(weights.shares.values()) + weights.burned == pytest.approx(1)
    ranked = sorted(weights.shares, key=lambda uid: -scores[uid])
    assert [weights.shares[uid] for uid in ranked] == pytest.approx(sorted(weights.shares.values(), reverse=True))
    if not (isinstance(rule, Power) and rule.floor == "lowest"):
        assert all(scores[uid] > 0 for uid in weights.shares)


@given(scores=SCORES, rule=A_RULE, places=PLACES, fall=st.floats(0, 10), data=st.data())
def test_whose_score_alone_falls_is_paid_no_more(
    scores: dict[int, float], rule: WeightRule, places: tuple[int, int], fall: float, data: st.DataObject
) -> None:
    finite = {uid: max(-1e6, min(score, 1e6)) for uid, score in scores.items() if math.isfinite(score)}
    if finite:
        uid = data.draw(st.sampled_from(sorted(finite)))
        before, after = (weighed(each, rule, places) for each in (finite, finite | {uid: finite[uid] - fall}))
        assert after.shares.get(uid, 0.0) <= before.shares.get(uid, 0.0) + 1e-12


# Parts of one's own ---------------------------------------------------------------------------------------------------


def test_the_registry_knows_them_all() -> None:
    assert list(weight_rules) == ["power", "ramp"]


@pytest.mark.parametrize("kind", list(weight_rules))
def test_every_rule_names_its_source(kind: str) -> None:
    assert re.search(r"\n\s+Source: \S", weight_rules[kind].__doc__ or "")


class Broken(WeightRule):
    """Returns what it is told to."""

    shares: dict[int, float]

    def share_out(self, ranked: Ranked, places: tuple[int, int]) -> Mapping[int, float]:
        return self.shares


@pytest.mark.parametrize(
    "shares", [{1: 1.5, 2: -0.5}, {1: 0.5}, {1: math.nan}, {1: 0.5, 3: 0.5}, {1: 1.0, 2: math.inf}, {1: 0.0}]
)
def test_shares_that_are_none_are_refused(shares: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="Broken returned no shares that sum to 1"):
        weighed({1: 1.0, 2: 2.0, 3: math.nan}, Broken.model_construct(shares=shares, burn=0.5))


@pytest.mark.parametrize(
    "section",
    [{"power": 0}, {"floor": "median"}, {"top": 0}, {"top": "all"}, {"burn": 2}, {"set_every_windows": 0}, {"ramp": 2}],
)
def test_absurd_powers_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Power.model_validate(section)
