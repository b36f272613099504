"""Yuma consensus: worked cases with their arithmetic, the properties it is there for, and a slow loop to compare with.

The loop is written from the formulas, in exact fractions where it can be, and shares no code with covsim.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.chain.yuma import ConsensusRule, EpochResult, Floats, Yuma2, Yuma3, agreed, consensus_rules, normalized

RULES = [Yuma2(), Yuma3()]
BY_KIND = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)


def floats(values: Any) -> Floats:
    return np.array(values, dtype=np.float64)


def first_epoch(rule: ConsensusRule, stakes: Any, weights: Any) -> EpochResult:
    """An epoch without any bonds before it."""
    matrix = floats(weights)
    return rule.epoch(floats(stakes), matrix, np.zeros_like(matrix))


def close(found: Floats, expected: Any, abs: float = 1e-12) -> None:
    np.testing.assert_allclose(found, floats(expected), rtol=0, atol=abs)


# Worked cases ---------------------------------------------------------------------------------------------------------


@BY_KIND
def test_one_validator_decides_alone(rule: ConsensusRule) -> None:
    """W = (1, 3) / 4; all the stake gives it, so C = Wbar = R = I = W, nothing is clipped, and D = 1."""
    result = first_epoch(rule, [7.0], [[1.0, 3.0]])
    for found in (result.consensus, result.rank, result.incentive):
        close(found, [0.25, 0.75])
    close(result.trust, [1.0, 1.0])
    close(result.validator_trust, [1.0])
    close(result.dividends, [1.0])


def test_two_equal_validators_agree_on_the_higher_weight() -> None:
    """The higher weight is given by exactly 0.5 of the stake, and at least kappa = 0.5 is what it takes.

    C = (0.8, 0.6), nothing is clipped. R = 0.5 (0.8 + 0.4), 0.5 (0.2 + 0.6) = (0.6, 0.4) = I.
    dB columns: (0.4, 0.2) / 0.6 = (2/3, 1/3) and (0.1, 0.3) / 0.4 = (1/4, 3/4).
    D = 2/3 * 0.6 + 1/4 * 0.4, 1/3 * 0.6 + 3/4 * 0.4 = (0.5, 0.5).
    """
    result = first_epoch(Yuma2(), [0.5, 0.5], [[0.8, 0.2], [0.4, 0.6]])
    close(result.consensus, [0.8, 0.6])
    close(result.incentive, [0.6, 0.4])
    close(result.bonds, [[2 / 3, 1 / 4], [1 / 3, 3 / 4]])
    close(result.dividends, [0.5, 0.5])


def test_two_equal_validators_agree_on_the_lower_weight_above_a_half() -> None:
    """At kappa = 0.51 both must give it: C = (0.4, 0.2) = Wbar of both = R, so I = (2/3, 1/3).

    Validator trust is 0.4 + 0.2; trust is R / (0.5 sum W) = 0.4 / 0.6, 0.2 / 0.4. Equal Wbar make equal dividends.
    """
    result = first_epoch(Yuma2(kappa=0.51), [0.5, 0.5], [[0.8, 0.2], [0.4, 0.6]])
    close(result.consensus, [0.4, 0.2])
    close(result.incentive, [2 / 3, 1 / 3])
    close(result.validator_trust, [0.6, 0.6])
    close(result.trust, [2 / 3, 1 / 2])
    close(result.dividends, [0.5, 0.5])


@pytest.mark.parametrize("validators", [3, 6, 7, 10, 12, 49])
def test_kappa_is_reached_whatever_the_rounding(validators: int) -> None:
    """Shares of 1/v in a sum of m terms reach kappa = m / v for every m, also where floats add up to a bit less."""
    weights = np.arange(validators, 0, -1, dtype=np.float64)[:, None] / validators
    share = np.full(validators, 1 / validators)
    for m in range(1, validators + 1):
        assert agreed(share, weights, m / validators) == weights[m - 1]


def test_the_majority_clips_the_rest() -> None:
    """s = (0.6, 0.4), W = (0.5, 0.5, 0), (0, 0.2, 0.8): whatever 0.6 of the stake gives is C = (0.5, 0.5, 0).

    Wbar of the second = (0, 0.2, 0). R = 0.6 * 0.5, 0.6 * 0.5 + 0.4 * 0.2, 0 = (0.30, 0.38, 0); I = R / 0.68.
    Trust = 1, 1, 0 / 0.32. dB columns: (1, 0), (0.30, 0.08) / 0.38, none.
    D = (0.30 + 0.30) / 0.68, 0.08 / 0.68 = (15/17, 2/17).
    """
    result = first_epoch(Yuma2(), [0.6, 0.4], [[1, 1, 0], [0, 1, 4]])
    close(result.consensus, [0.5, 0.5, 0])
    close(result.rank, [0.30, 0.38, 0])
    close(result.trust, [1, 1, 0])
    close(result.incentive, [15 / 34, 19 / 34, 0])
    close(result.validator_trust, [1, 0.2])
    close(result.bonds, [[1, 15 / 19, 0], [0, 4 / 19, 0]])
    close(result.dividends, [15 / 17, 2 / 17])


def test_without_penalty_bonds_are_made_of_what_was_given() -> None:
    """As above: with p < 1 the second's 0.8 to the third makes a bond to it, of which it has all.

    With p = 0.5 its bonded row is 0.5 (0, 0.2, 0.8) + 0.5 (0, 0.2, 0) = (0, 0.2, 0.4), which Yuma 3 with a = 1 shows.
    """
    for penalty in (0.0, 0.5):
        result = first_epoch(Yuma2(bond_penalty=penalty), [0.6, 0.4], [[1, 1, 0], [0, 1, 4]])
        close(result.bonds, [[1, 15 / 19, 0], [0, 4 / 19, 1]])
        close(result.dividends, [15 / 17, 2 / 17])
    half = first_epoch(Yuma3(bond_penalty=0.5, alpha_low=1, alpha_high=1), [0.6, 0.4], [[1, 1, 0], [0, 1, 4]])
    close(half.bonds, [[0.5, 0.5, 0], [0, 0.2, 0.4]])


@BY_KIND
def test_a_validator_without_permit_has_no_say(rule: ConsensusRule) -> None:
    """Its stake is 0: the second's weights alone are C and I, and it gets no dividends."""
    result = first_epoch(rule, [0.0, 3.0], [[1, 0, 0], [0, 1, 3]])
    close(result.consensus, [0, 0.25, 0.75])
    close(result.incentive, [0, 0.25, 0.75])
    close(result.dividends, [0, 1])


@BY_KIND
@pytest.mark.parametrize(
    ("stakes", "weights"),
    [([1, 2], [[0, 0], [0, 0]]), ([0, 0], [[1, 0], [0, 1]]), ([1, 1, 1], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])],
    ids=["no weights", "no stake", "no majority for anybody"],
)
def test_where_nothing_is_agreed_on_nobody_earns(rule: ConsensusRule, stakes: Any, weights: Any) -> None:
    """All is 0, and the bonds are left alone."""
    bonds = normalized(np.arange(1.0, 1 + floats(weights).size).reshape(floats(weights).shape), axis=0)
    result = rule.epoch(floats(stakes), floats(weights), bonds)
    for found in (result.consensus, result.rank, result.incentive, result.dividends, result.trust):
        assert not found.any()
    assert np.array_equal(result.bonds, bonds)


@BY_KIND
def test_a_chain_without_validators_pays_nobody(rule: ConsensusRule) -> None:
    result = rule.epoch(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))
    assert not result.incentive.any()
    assert result.incentive.shape == (3,)
    assert result.dividends.shape == (0,)


def the_second_changes_its_mind(rule: ConsensusRule) -> list[EpochResult]:
    """Five epochs: s = (0.6, 0.4), the first always gives (0.5, 0.5), the second all to a twice, then all to b.

    C = (0.5, 0.5) always. R at first = 0.3 + 0.2, 0.3, so I = (5/8, 3/8), and from the third on (3/8, 5/8).
    """
    results: list[EpochResult] = []
    bonds = np.zeros((2, 2))
    for epoch in range(5):
        second = [1, 0] if epoch < 2 else [0, 1]
        results.append(rule.epoch(floats([0.6, 0.4]), floats([[0.5, 0.5], second]), bonds))
        bonds = results[-1].bonds
        close(results[-1].consensus, [0.5, 0.5])
        close(results[-1].incentive, [5 / 8, 3 / 8] if epoch < 2 else [3 / 8, 5 / 8])
    return results


def test_bonds_over_five_epochs_of_yuma_2() -> None:
    """dB of the second: at first a: 0.2 / (0.3 + 0.2) = 0.4, b: 0; then a: 0, b: 0.4. The first has the rest of 1.

    a: 0.4, 0.9 * 0.4 + 0.1 * 0.4 = 0.4, 0.9 * 0.4 = 0.36, 0.324, 0.2916.
    b: 0, 0, 0.1 * 0.4 = 0.04, 0.9 * 0.04 + 0.04 = 0.076, 0.9 * 0.076 + 0.04 = 0.1084.
    D = 0.4 * 5/8 = 0.25, 0.25, then a * 3/8 + b * 5/8: 0.135 + 0.025 = 0.16, 0.1215 + 0.0475 = 0.169,
    0.10935 + 0.06775 = 0.1771.
    """
    results = the_second_changes_its_mind(Yuma2())
    second = floats([[0.4, 0], [0.4, 0], [0.36, 0.04], [0.324, 0.076], [0.2916, 0.1084]])
    for result, bonds, dividend in zip(results, second, [0.25, 0.25, 0.16, 0.169, 0.1771], strict=True):
        close(result.bonds, [1 - bonds, bonds])
        close(result.dividends, [1 - dividend, dividend])


def test_bonds_over_five_epochs_of_yuma_3() -> None:
    """a(d) = 0.7 + 0.2 / (1 + e^(-10 (d - 0.5))): a(0) = 0.701339, a(0.5) = 0.8.

    The first, W = C, buys with d = 0: B = 0.5 (1 - 0.298661^t) = 0.350669, 0.455401, 0.486680, 0.496022, 0.498812.
    The second to a, W = 1 above C = 0.5 buys with d = 0.5: 0.8 * 0.5 = 0.4, then 0.8 * 0.5 + 0.2 * 0.4 = 0.48.
    It sells with d = B: a(0.48) = 0.790033, 0.48 * 0.209967 = 0.100784; a(0.100784) = 0.703625, 0.029870;
    a(0.029870) = 0.701800, 0.008907. To b: 0, 0, 0.4, 0.48, 0.8 * 0.5 + 0.2 * 0.48 = 0.496.
    D in the first epoch, of the second: 0.4 * 0.4 / 0.750669 * 5/8 = 0.133215; of the first: 0.6 * (0.350669 / 0.750669
    * 5/8 + 3/8) = 0.400178; so the second has 0.249749 of both. The others likewise.
    """
    results = the_second_changes_its_mind(Yuma3())
    firsts = [0.350669, 0.455401, 0.486680, 0.496022, 0.498812]
    seconds = [[0.4, 0], [0.48, 0], [0.100784, 0.4], [0.029870, 0.48], [0.008907, 0.496]]
    dividends = [0.249749, 0.239406, 0.260981, 0.246072, 0.237300]
    for result, first, second, dividend in zip(results, firsts, seconds, dividends, strict=True):
        close(result.bonds, [[first, first], second], abs=1e-6)
        close(result.dividends, [1 - dividend, dividend], abs=1e-6)


def test_bonds_of_a_validator_that_no_longer_counts() -> None:
    """Yuma 2: they pay on and fade, 0.5, 0.45, 0.405; Yuma 3: a claim is a bond times stake, so they pay nothing."""
    weights = floats([[1.0], [1.0]])
    for rule, expected in ((Yuma2(), (0.45, 0.405)), (Yuma3(), (0.0, 0.0))):
        bonds = rule.epoch(floats([1, 1]), weights, np.zeros((2, 1))).bonds
        for dividend in expected:
            result = rule.epoch(floats([0, 1]), weights, bonds)
            bonds = result.bonds
            close(result.dividends, [dividend, 1 - dividend])


def test_what_clipping_takes_from_one_raises_the_others_shares() -> None:
    """Weight above consensus buys nothing, but incentive is shares: it is as if it had been given to nobody.

    s = (0.6, 0.4), the first gives (0.5, 0.5), so C = (0.5, 0.5). The second gives (1, 0), or (0.5, 0) and 0.5 to
    a peer without consensus: Wbar = (0.5, 0) either way, R = (0.5, 0.3), I = (5/8, 3/8); (0.5, 0.5) would give halves.
    """
    majority = [0.5, 0.5, 0]
    for second in ([1, 0, 0], [0.5, 0, 0.5], [0.75, 0, 0.25]):
        close(first_epoch(Yuma2(), [0.6, 0.4], [majority, second]).incentive, [5 / 8, 3 / 8, 0])
    close(first_epoch(Yuma2(), [0.6, 0.4], [majority, majority]).incentive, [1 / 2, 1 / 2, 0])


def test_steep_sigmoids_do_not_overflow() -> None:
    """At steepness 1e6 liquid alpha is a step: low where the difference is below the midpoint, high above."""
    rule = Yuma3(steepness=1e6, midpoint=0.25, bond_penalty=0)
    result = first_epoch(rule, [0.6, 0.4], [[0.5, 0.5], [1, 0]])  # differences 0, 0, 0.5, 0
    close(result.bonds, [[0.7 * 0.5, 0.7 * 0.5], [0.9, 0]])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("yuma2", {"kappa": 0}),
        ("yuma2", {"kappa": 1.01}),
        ("yuma2", {"kappa": math.nan}),
        ("yuma2", {"bond_rate": 0}),
        ("yuma2", {"bond_penalty": -0.1}),
        ("yuma2", {"alpha_low": 0.7}),
        ("yuma3", {"alpha_low": 0.8, "alpha_high": 0.7}),
        ("yuma3", {"steepness": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: str, settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        consensus_rules[kind](**settings)


# The slow loop --------------------------------------------------------------------------------------------------------

Number = Fraction | float
Rows = list[list[Number]]


def share_of(values: list[Number]) -> list[Number]:
    total = sum(values)
    return [value / total if total else value for value in values]


def columns_normalized(rows: Rows) -> Rows:
    columns = [share_of([row[j] for row in rows]) for j in range(len(rows[0]))]
    return [[column[i] for column in columns] for i in range(len(rows))]


def slow_epoch(rule: ConsensusRule, stakes: list[int], given: list[list[int]], bonds: Rows) -> dict[str, Any]:
    """The formulas, entry by entry: consensus, rank and incentive are exact."""
    V, n, kappa, penalty = len(stakes), len(given[0]), Fraction(str(rule.kappa)), Fraction(str(rule.bond_penalty))
    s = share_of([Fraction(stake) for stake in stakes])
    W = [share_of([Fraction(value if stake else 0) for value in row]) for stake, row in zip(stakes, given, strict=True)]
    C: list[Number] = []
    for j in range(n):
        candidates = {Fraction(0), *(W[i][j] for i in range(V))}
        enough = [w for w in candidates if sum(s[i] for i in range(V) if W[i][j] >= w) >= kappa]
        C.append(max(enough, default=Fraction(0)))
    clipped = [[min(W[i][j], C[j]) for j in range(n)] for i in range(V)]
    R = [sum(s[i] * clipped[i][j] for i in range(V)) for j in range(n)]
    incentive = share_of(R)
    bonded = [[(1 - penalty) * W[i][j] + penalty * clipped[i][j] for j in range(n)] for i in range(V)]
    dividends: list[Number] = [0.0] * V
    if sum(R):
        bonds, claims = slow_bonds(rule, s, W, bonded, C, bonds)
        dividends = share_of([sum(claims[i][j] * float(incentive[j]) for j in range(n)) for i in range(V)])
    return {
        "consensus": C,
        "rank": R,
        "trust": [R[j] / (sum(s[i] * W[i][j] for i in range(V)) or 1) for j in range(n)],
        "incentive": incentive,
        "validator_trust": [sum(row) for row in clipped],
        "dividends": dividends,
        "bonds": bonds,
    }


def slow_bonds(
    rule: ConsensusRule, s: list[Number], W: Rows, bonded: Rows, C: list[Number], bonds: Rows
) -> tuple[Rows, Rows]:
    """The new bonds, and the claims that dividends are made of."""
    V, n = len(W), len(W[0])
    kept: Rows = [[0.0] * n for _ in range(V)]
    if isinstance(rule, Yuma2):
        bought = columns_normalized([[float(s[i] * bonded[i][j]) for j in range(n)] for i in range(V)])
        for i in range(V):
            for j in range(n):
                kept[i][j] = rule.bond_rate * bought[i][j] + (1 - rule.bond_rate) * bonds[i][j]
        kept = columns_normalized(kept)
        return kept, kept
    assert isinstance(rule, Yuma3)
    for i in range(V):
        for j in range(n):
            weight, bond = float(W[i][j]), float(bonds[i][j])
            difference = max(weight - float(C[j]), 0.0) if weight >= bond else bond - weight
            sigmoid = 1 / (1 + math.exp(-rule.steepness * (difference - rule.midpoint)))
            a = rule.alpha_low + sigmoid * (rule.alpha_high - rule.alpha_low)
            kept[i][j] = a * float(bonded[i][j]) + (1 - a) * bond
    return kept, [[float(s[i]) * value for value in row] for i, row in enumerate(columns_normalized(kept))]


@st.composite
def networks(draw: st.DrawFn, epochs: int = 1) -> tuple[list[int], list[list[list[int]]]]:
    """Stakes, and weights for every epoch: few different whole numbers, so that ties and exact halves are common."""
    V, n = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stakes = draw(st.lists(st.integers(0, 6), min_size=V, max_size=V))
    row = st.lists(st.integers(0, 8), min_size=n, max_size=n)
    return stakes, draw(st.lists(st.lists(row, min_size=V, max_size=V), min_size=epochs, max_size=epochs))


ANY_RULE = st.one_of(
    st.builds(
        Yuma2,
        kappa=st.sampled_from([0.01, 0.25, 0.5, 0.51, 0.75, 1.0]),
        bond_penalty=st.sampled_from([0.0, 0.3, 1.0]),
        bond_rate=st.sampled_from([0.1, 0.5, 1.0]),
    ),
    st.builds(
        Yuma3,
        kappa=st.sampled_from([0.01, 0.25, 0.5, 0.51, 0.75, 1.0]),
        bond_penalty=st.sampled_from([0.0, 0.3, 1.0]),
        alpha_low=st.sampled_from([0.1, 0.7]),
        steepness=st.sampled_from([1.0, 10.0]),
        midpoint=st.sampled_from([0.2, 0.5]),
    ),
)


@given(ANY_RULE, networks(epochs=4))
def test_equal_to_the_slow_loop(rule: ConsensusRule, network: tuple[list[int], list[list[list[int]]]]) -> None:
    """Every number of every epoch, the bonds being handed on by each for itself."""
    stakes, epochs = network
    bonds = np.zeros((len(stakes), len(epochs[0][0])))
    slowly: Rows = bonds.tolist()
    for weights in epochs:
        result, expected = rule.epoch(floats(stakes), floats(weights), bonds), slow_epoch(rule, stakes, weights, slowly)
        for name, values in expected.items():
            close(getattr(result, name), values, abs=1e-9)
        bonds, slowly = result.bonds, expected["bonds"]


# Properties -----------------------------------------------------------------------------------------------------------


@st.composite
def states(draw: st.DrawFn) -> tuple[Floats, Floats, Floats]:
    """Stakes [V], weights [V, n] and bonds [V, n] of all sizes of numbers, many of them 0."""
    V, n = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    amount = st.one_of(st.just(0.0), st.floats(1e-3, 1e3), st.integers(1, 5).map(float))

    def matrix(entry: st.SearchStrategy[float]) -> Floats:
        return floats(draw(st.lists(entry, min_size=V * n, max_size=V * n))).reshape(V, n)

    stakes = floats(draw(st.lists(amount, min_size=V, max_size=V)))
    return stakes, matrix(amount), normalized(matrix(amount), axis=0)


@given(ANY_RULE, states())
def test_shares_sum_to_one_or_are_zero(rule: ConsensusRule, state: tuple[Floats, Floats, Floats]) -> None:
    """Incentive and dividends; both or neither. What clipping leaves is a part. Bonds are no debts."""
    stakes, weights, bonds = state
    result = rule.epoch(stakes, weights, bonds)
    total = result.incentive.sum()
    assert total == 0 or total == pytest.approx(1, abs=1e-12)
    assert result.dividends.sum() == pytest.approx(total, abs=1e-12)
    for part in (result.incentive, result.dividends, result.trust, result.validator_trust, result.consensus):
        assert (part >= 0).all()
        assert (part <= 1 + 1e-12).all()
    assert (result.bonds >= 0).all()
    assert not result.incentive[result.consensus == 0].any()
    if isinstance(rule, Yuma2):
        columns = result.bonds.sum(axis=0)
        assert np.all((columns == 0) | (abs(columns - 1) < 1e-12))


@given(ANY_RULE, states(), st.randoms(use_true_random=False))
def test_names_of_peers_and_validators_do_not_matter(
    rule: ConsensusRule, state: tuple[Floats, Floats, Floats], random: Any
) -> None:
    """Permuted peers and validators get what they got before, up to rounding."""
    stakes, weights, bonds = state
    rows, columns = list(range(weights.shape[0])), list(range(weights.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    plain = rule.epoch(stakes, weights, bonds)
    moved = rule.epoch(stakes[rows], weights[np.ix_(rows, columns)], bonds[np.ix_(rows, columns)])
    close(moved.incentive, plain.incentive[columns], abs=1e-9)
    close(moved.consensus, plain.consensus[columns], abs=1e-9)
    close(moved.dividends, plain.dividends[rows], abs=1e-9)
    close(moved.bonds, plain.bonds[np.ix_(rows, columns)], abs=1e-9)


@given(ANY_RULE, states(), st.data())
def test_who_has_no_stake_that_counts_has_no_influence(
    rule: ConsensusRule, state: tuple[Floats, Floats, Floats], data: st.DataObject
) -> None:
    """Other weights of validators without stake change nothing for anybody else; without bonds, they earn nothing."""
    stakes, weights, bonds = state
    idle = data.draw(st.integers(0, len(stakes) - 1))
    row = data.draw(st.lists(st.floats(0, 1e6), min_size=weights.shape[1], max_size=weights.shape[1]))
    stakes[idle], bonds[idle] = 0.0, 0.0
    others = weights.copy()
    others[idle] = row
    one, other = rule.epoch(stakes, weights, bonds), rule.epoch(stakes, others, bonds)
    for name in ("consensus", "rank", "trust", "incentive", "dividends"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.dividends[idle] == 0


@given(ANY_RULE, states(), st.data())
def test_the_scale_of_a_row_and_of_the_stake_does_not_matter(
    rule: ConsensusRule, state: tuple[Floats, Floats, Floats], data: st.DataObject
) -> None:
    """From 1e-290 to 1e290: what a validator says is relative, and nothing overflows."""
    stakes, weights, bonds = state
    powers = st.integers(-290, 290).map(lambda power: 10.0**power)
    rows = floats(data.draw(st.lists(powers, min_size=len(stakes), max_size=len(stakes))))
    one = rule.epoch(stakes, weights, bonds)
    other = rule.epoch(stakes * data.draw(powers), weights * rows[:, None], bonds)
    for name in ("consensus", "incentive", "dividends", "bonds"):
        close(getattr(other, name), getattr(one, name), abs=1e-9)


def _excess(state: tuple[Floats, Floats, Floats], kappa: float) -> tuple[int, Floats, Floats]:
    """The validator with the most weight above consensus at some peer, its row's excess [n], and normalized weights."""
    stakes, weights, _ = state
    own = normalized(weights, axis=1)
    above = own - agreed(normalized(stakes), own, kappa)
    i = int(np.argmax(above.max(axis=1)))
    return i, np.maximum(above[i], 0), own


@given(states(), st.floats(1.1, 100))
def test_more_weight_above_consensus_earns_a_peer_no_rank(state: tuple[Floats, Floats, Floats], factor: float) -> None:
    """Its consensus and rank stay what they are; what it takes from the others may only lower theirs."""
    rule = Yuma2()
    i, excess, weights = _excess(state, rule.kappa)
    assume(excess.max() > 1e-6)
    j = int(np.argmax(excess))
    before = rule.epoch(state[0], weights, state[2])
    weights[i, j] *= factor
    after = rule.epoch(state[0], weights, state[2])
    assert after.rank[j] == pytest.approx(before.rank[j], abs=1e-12)
    assert after.consensus[j] == pytest.approx(before.consensus[j], abs=1e-12)
    assert (after.rank <= before.rank + 1e-12).all()


@given(states(), st.floats(0, 1))
def test_weight_above_consensus_buys_nothing(state: tuple[Floats, Floats, Floats], part: float) -> None:
    """Taken from where it was above consensus too, it leaves every peer's incentive and every dividend as they were."""
    stakes, weights, bonds = state
    wide = np.column_stack([weights, np.zeros(len(weights))])  # a peer whom only one validator gives anything
    i, _, _ = _excess(state, 0.5)
    assume(normalized(stakes)[i] < 0.49)
    assume(wide[i].sum() > 0)
    wide[i, -1] = wide[i].sum()
    own = normalized(wide, axis=1)
    share = normalized(stakes)
    excess = np.maximum(own[i] - agreed(share, own, 0.5), 0)
    j = int(np.argmax(excess[:-1]))
    assume(excess[j] > 1e-6)
    moved = own.copy()
    moved[i, j] += part * own[i, -1]
    moved[i, -1] -= part * own[i, -1]
    around = np.column_stack([bonds, np.zeros(len(bonds))])
    before, after = Yuma2().epoch(stakes, own, around), Yuma2().epoch(stakes, moved, around)
    close(after.incentive, before.incentive, abs=1e-9)
    close(after.dividends, before.dividends, abs=1e-9)


@given(st.lists(st.floats(0, 1e308), max_size=8).map(floats))
def test_normalized_sums_to_one_for_all_finite_values(values: Floats) -> None:
    shares = normalized(values)
    assert shares.sum() == (pytest.approx(1, abs=1e-12) if values.any() else 0)


@BY_KIND
def test_an_epoch_leaves_its_arguments_alone(rule: ConsensusRule) -> None:
    given = (floats([2, 1]), floats([[1, 3], [2, 0]]), floats([[0.5, 1], [0.5, 0]]))
    copies = tuple(value.copy() for value in given)
    result = rule.epoch(*given)
    assert all(np.array_equal(value, copy) for value, copy in zip(given, copies, strict=True))
    assert not np.shares_memory(result.bonds, given[2])
