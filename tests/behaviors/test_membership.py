"""Membership: from which round a peer takes part, and when it has lost enough."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.behaviors.membership import Always, FromRound, Membership, Rational, memberships

EVERY = [
    pytest.param(part(**({"round": 4} if kind == "from_round" else {})), id=kind) for kind, part in memberships.items()
]
PROFITS = st.lists(st.floats(-1e6, 1e6), max_size=40)


@pytest.mark.parametrize("membership", EVERY)
def test_says_what_it_is(membership: Membership) -> None:
    """It names its source and describes its parameters, and nobody leaves before having begun."""
    part = type(membership)
    assert part.__doc__
    assert "Source: " in " ".join(part.__doc__.split())
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")
    assert membership.first_round >= 0
    assert membership.stays([])


@pytest.mark.parametrize(
    ("membership", "first_round"),
    [(Always(), 0), (FromRound(round=0), 0), (FromRound(round=7), 7), (Rational(), 0), (Rational(from_round=5), 5)],
    ids=repr,
)
def test_the_first_round(membership: Membership, first_round: int) -> None:
    assert membership.first_round == first_round


@pytest.mark.parametrize("membership", [Always(), FromRound(round=3)], ids=repr)
@given(PROFITS)
def test_who_does_not_reckon_stays(membership: Membership, profits: list[float]) -> None:
    assert membership.stays(profits)


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
    assert Rational(hopes=4, over=2).stays(profits) is stays


@given(PROFITS, st.integers(1, 12), st.integers(1, 12))
def test_leaves_when_the_last_rounds_lost_money(profits: list[float], hopes: int, over: int) -> None:
    """Over more rounds than there have been, it sums all of them."""
    lost = 0.0
    for profit in profits[max(0, len(profits) - over) :]:
        lost += profit
    assert Rational(hopes=hopes, over=over).stays(profits) == (len(profits) < hopes or lost >= 0)


def test_of_its_last_rounds_those_it_has_count_if_it_sums_more_than_it_hopes() -> None:
    assert not Rational(hopes=2, over=5).stays([3.0, -4.0])
    assert Rational(hopes=2, over=5).stays([5.0, -4.0])


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("from_round", {}),
        ("from_round", {"round": -1}),
        ("rational", {"from_round": -1}),
        ("rational", {"hopes": 0}),
        ("rational", {"over": 0}),
        ("rational", {"over": math.inf}),
        ("always", {"round": 3}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        memberships[kind](**given)
