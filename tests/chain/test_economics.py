"""Prices and plain arithmetic over them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.chain.economics import EconomicsSettings, break_even_price
from covsim.schedules import Cosine, Points

AMOUNT = st.floats(0, 1e9)


def test_the_cost_of_a_round_of_the_72b_run() -> None:
    """20 min at 30 an hour is 10; 2 GB up at 0.05 is 0.1; 38 GB down at 0.01 is 0.38."""
    prices = EconomicsSettings(compute_per_hour=30, upload_per_gb=0.05, download_per_gb=0.01)
    assert prices.cost(1200, 2e9, 38e9) == pytest.approx(10.48)


def test_a_gigabyte_is_a_thousand_megabytes_and_a_price_counts_for_its_own_direction() -> None:
    prices = EconomicsSettings(compute_per_hour=0, upload_per_gb=1, download_per_gb=3)
    assert prices.cost(1e6, 1e9, 0) == 1
    assert prices.cost(1e6, 0, 1e9) == 3
    assert prices.cost(0, 0, 0) == 0


def test_a_token_is_worth_the_same_in_every_round_unless_told_otherwise() -> None:
    prices = EconomicsSettings(token_price=10)
    assert [prices.price(round, 100) for round in (0, 50, 99, 200)] == [10, 10, 10, 10]


def test_the_price_follows_its_schedule() -> None:
    """From 1 to 3 over 10 rounds: 10 * (1 + 2 * 5 / 10) = 20 in the middle; constant behind the last point."""
    prices = EconomicsSettings(token_price=10, price_schedule=Points(points=((0, 1.0), (10, 3.0))))
    assert [prices.price(round, 10) for round in (0, 5, 10, 20)] == pytest.approx([10, 20, 30, 30])


def test_a_schedule_is_laid_over_the_planned_rounds() -> None:
    """A cosine falls to its last share in the last planned round, however many there are."""
    prices = EconomicsSettings(token_price=10, price_schedule=Cosine(warmup_steps=0, final_share=0.2))
    assert prices.price(40, 40) == pytest.approx(2)
    assert prices.price(40, 80) == pytest.approx(6)
    assert prices.price(0, 40) == pytest.approx(10)


def test_a_schedule_may_be_named_alone() -> None:
    """As in a scenario file: `price_schedule: cosine`."""
    assert EconomicsSettings.model_validate({"price_schedule": "cosine"}).price_schedule == Cosine()


def test_break_even() -> None:
    """12 spent on 3 tokens pay at 4 each; at any price for what cost nothing; never without tokens."""
    assert break_even_price(12, 3) == 4
    assert break_even_price(0, 3) == 0
    assert break_even_price(12, 0) == math.inf
    assert math.isnan(break_even_price(0, 0))


@given(AMOUNT, AMOUNT, AMOUNT, st.floats(1e-3, 1e6))
def test_at_the_break_even_price_tokens_pay_the_cost(compute: float, up: float, down: float, tokens: float) -> None:
    spent = EconomicsSettings(upload_per_gb=0.1, download_per_gb=0.02).cost(compute, up, down)
    assert break_even_price(spent, tokens) * tokens == pytest.approx(spent)


@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT)
def test_costs_add_up(compute: float, up: float, down: float, more: float) -> None:
    """Two bills cost as much as one for both."""
    prices = EconomicsSettings(upload_per_gb=0.1, download_per_gb=0.02)
    both = prices.cost(compute + more, up + more, down + more)
    assert both == pytest.approx(prices.cost(compute, up, down) + prices.cost(more, more, more), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"compute_per_hour": -1},
        {"token_price": math.inf},
        {"upload_per_gb": math.nan},
        {"price_schedule": "constnt"},
        {"token_prize": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_are_no_prices_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EconomicsSettings.model_validate(settings)
