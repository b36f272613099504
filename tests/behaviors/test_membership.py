"""Membership: from which round a peer takes part, when it goes, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.behaviors.membership import (
    Absence,
    Always,
    Churn,
    FromRound,
    Membership,
    Rational,
    UntilRound,
    geometric,
    memberships,
)
from covsim.randomness import Streams

NEEDED: dict[str, dict[str, Any]] = {"from_round": {"round": 4}, "until_round": {"round": 4}, "churn": {"leaves": 0.5}}
EVERY = [pytest.param(part(**NEEDED.get(kind, {})), id=kind) for kind, part in memberships.items()]
PROFITS = st.lists(st.floats(-1e6, 1e6), max_size=40)


def luck(*numbers: float) -> Callable[[str], float]:
    """Gives these numbers in turn, whatever it is asked for."""
    left = iter(numbers)
    return lambda name: next(left)


def _drawn(streams: Streams, round: int, name: str) -> float:
    return streams.uniform(name, round)


def no_luck(name: str) -> float:
    raise AssertionError("it draws a number that it does not need")


@pytest.mark.parametrize("membership", EVERY)
def test_says_what_it_is(membership: Membership) -> None:
    """It names its source and describes its parameters, and nobody leaves before having begun."""
    part = type(membership)
    assert part.__doc__
    assert "Source: " in " ".join(part.__doc__.split())
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")
    assert membership.first_round >= 0


@pytest.mark.parametrize(
    ("membership", "first_round", "catches_up"),
    [
        (Always(), 0, False),
        (FromRound(round=0), 0, False),
        (FromRound(round=7), 7, True),
        (UntilRound(round=7), 0, False),
        (UntilRound(from_round=2, round=7), 2, True),
        (Churn(leaves=0.0), 0, False),
        (Churn(leaves=0.1), 0, True),
        (Churn(leaves=0.1, from_round=3), 3, True),
        (Rational(), 0, False),
        (Rational(from_round=5), 5, True),
        (Rational(returns_after=5), 0, True),
    ],
    ids=repr,
)
def test_when_it_comes_and_whether_it_may_miss_something(
    membership: Membership, first_round: int, catches_up: bool
) -> None:
    assert membership.first_round == first_round
    assert membership.catches_up == catches_up


@pytest.mark.parametrize("membership", [Always(), FromRound(round=3), UntilRound(round=100_000)], ids=repr)
@given(PROFITS)
def test_who_does_not_reckon_stays(membership: Membership, profits: list[float]) -> None:
    assert membership.after(len(profits), profits, no_luck) is None


def test_until_a_round() -> None:
    """The last round that it plays is the one before."""
    membership = UntilRound(from_round=1, round=4)
    assert [membership.after(round, [], no_luck) for round in (1, 2, 3)] == [None, None, Absence()]


@pytest.mark.parametrize(
    ("profits", "stays"),
    [
        ([-9, -9, -9], True),  # hopes still
        ([-9, -9, -9, -9], False),
        ([-9, -9, 1, -2], False),  # the last two: -1
        ([-9, -9, 1, -1], True),  # 0 is no loss
        ([9, 9, 1, -2], False),  # what was before does not count
        ([0, 0, 0, 0], True),
        ([-9, -9, -9, -9, 9, -9, 9], True),
    ],
)
def test_hopes_for_four_rounds_and_sums_over_two(profits: list[float], stays: bool) -> None:
    assert (Rational(hopes=4, over=2).after(9, profits, no_luck) is None) is stays


@given(PROFITS, st.integers(1, 20), st.integers(1, 20))
def test_a_rational_peer_goes_by_its_last_rounds(profits: list[float], hopes: int, over: int) -> None:
    """Against a sum in exact order, so a slip in the slice would show."""
    lost = sum(profits[max(0, len(profits) - over) :])
    stays = len(profits) < hopes or lost >= 0
    assert Rational(hopes=hopes, over=over).after(9, profits, no_luck) == (None if stays else Absence())


def test_fewer_rounds_than_it_sums_over_are_all_there_are() -> None:
    assert Rational(hopes=2, over=5).after(1, [3.0, -4.0], no_luck) is not None
    assert Rational(hopes=2, over=5).after(1, [5.0, -4.0], no_luck) is None


def test_a_rational_peer_may_try_again() -> None:
    assert Rational(hopes=1, over=1, returns_after=6).after(0, [-1.0], no_luck) == Absence(6)


def test_churn_goes_by_its_luck() -> None:
    membership = Churn(leaves=0.25, rounds_away=2.0)
    assert membership.after(3, [], luck(0.25)) is None
    assert membership.after(3, [], luck(0.2499, 0.0)) == Absence(1, anew=True)
    assert membership.after(3, [], luck(0.0, 0.5)) == Absence(2, anew=True)
    assert Churn(leaves=1.0, returns_as="same").after(3, [], luck(0.99, 0.0)) == Absence(1)


@pytest.mark.parametrize(("leaves", "away"), [(0.1, 3.0), (1 / 3, 1.0), (0.5, 8.0)])
def test_churn_has_the_rates_that_it_says(leaves: float, away: float) -> None:
    """Over 20,000 rounds, within four standard errors; a geometric span has deviation sqrt(m (m - 1))."""
    streams, n = Streams(1), 20_000
    membership = Churn(leaves=leaves, rounds_away=away)
    after = [membership.after(number, [], partial(_drawn, streams, number)) for number in range(n)]
    gone = [absence.rounds for absence in after if absence is not None]
    assert abs(len(gone) / n - leaves) < 4 * math.sqrt(leaves * (1 - leaves) / n)
    assert all(rounds is not None and rounds >= 1 for rounds in gone)
    mean = sum(rounds or 0 for rounds in gone) / len(gone)
    assert abs(mean - away) <= 4 * math.sqrt(away * (away - 1) / len(gone))


@given(st.floats(0, 1, exclude_max=True), st.floats(1, 1000))
def test_a_geometric_number_is_the_inverse_of_its_distribution(draw: float, mean: float) -> None:
    """P(more than k) = (1 - 1 / mean)^k, so the number k has k - 1 before and k behind the draw."""
    k, q = geometric(draw, mean), 1 - 1 / mean
    assert k >= 1
    assert 1 - q ** (k - 1) <= draw + 1e-9
    assert draw <= 1 - q**k + 1e-9


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("from_round", {}),
        ("from_round", {"round": -1}),
        ("until_round", {"round": 3, "from_round": 3}),
        ("churn", {}),
        ("churn", {"leaves": 1.5}),
        ("churn", {"leaves": 0.5, "rounds_away": 0.5}),
        ("churn", {"leaves": 0.5, "returns_as": "other"}),
        ("rational", {"from_round": -1}),
        ("rational", {"hopes": 0}),
        ("rational", {"over": 0}),
        ("rational", {"returns_after": 0}),
        ("rational", {"over": math.inf}),
        ("always", {"round": 1}),
    ],
)
def test_rejects_what_makes_no_sense(kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        memberships[kind](**settings)
