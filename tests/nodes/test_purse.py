"""Purses: hand-made events of a few peers, and what each spent and earned in which round."""

from __future__ import annotations

import pytest

from covsim.chain.economics import EconomicsSettings
from covsim.events import EpochSettled, Registered, Trained, Transferred, WindowOpened
from covsim.nodes.purse import Purses
from covsim.schedules import Points

PRICES = EconomicsSettings(compute_per_hour=36.0, upload_per_gb=2.0, download_per_gb=0.5, token_price=10.0)


def purses(prices: EconomicsSettings = PRICES, planned_rounds: int = 4) -> Purses:
    return Purses(prices, planned_rounds)


def window(number: int) -> WindowOpened:
    return WindowOpened(number * 100.0, number, number * 10)


def trained(uid: int, round: int, compute_s: float) -> Trained:
    return Trained(0.0, uid, round, 3, 3, compute_s)


def moved(node: str, direction: str, num_bytes: float, complete: bool = True) -> Transferred:
    return Transferred(0.0, node, "key", "submit", direction, num_bytes, 0.0, complete)


def settled(**tokens: float) -> EpochSettled:
    """An epoch that paid peers by uid (`peer3=1.5`); validators and the owner earned something too."""
    paid = tuple((int(name.removeprefix("peer")), amount) for name, amount in tokens.items())
    return EpochSettled(0.0, 10, 10, paid, (("lead", 4.1),), 1.8, 0.0, ())


def observed(*events: object, prices: EconomicsSettings = PRICES) -> Purses:
    book = purses(prices)
    for event in events:
        book.observe(event)  # type: ignore[arg-type]
    return book


def test_who_did_nothing_has_neither_cost_nor_profit() -> None:
    book = observed(window(0), window(1))
    assert (book.balance(3, 0)[0], book.balance(3, 0)[1], book.earned(3)) == (0.0, 0.0, 0)


def test_compute_is_booked_to_the_round_it_was_done_for() -> None:
    """100 s at 36 an hour cost 1, whenever they end; what is done for one round in two parts adds up."""
    book = observed(window(2), trained(3, 0, 100.0), trained(3, 1, 30.0), trained(3, 1, 20.0), trained(4, 1, 400.0))
    assert [book.balance(3, round)[0] for round in range(3)] == [pytest.approx(1.0), pytest.approx(0.5), 0.0]
    assert book.balance(4, 1)[0] == pytest.approx(4.0)


def test_a_transfer_is_booked_to_the_round_whose_window_it_ended_in() -> None:
    """Round r is exchanged in window r + 1; what ends in window 0 counts for round 0 too."""
    book = observed(
        window(0),
        moved("peer:3", "up", 1e9),
        window(1),
        moved("peer:3", "up", 2e9),
        moved("peer:3", "down", 4e9),
        window(2),
        moved("peer:3", "down", 1e9),
    )
    assert [book.balance(3, round)[0] for round in range(3)] == [pytest.approx(2 * 3 + 2.0), pytest.approx(0.5), 0.0]


def test_bytes_of_a_cut_transfer_are_paid_for() -> None:
    assert observed(window(1), moved("peer:3", "up", 5e8, complete=False)).balance(3, 0)[0] == pytest.approx(1.0)


def test_what_validators_move_costs_no_peer_a_thing() -> None:
    book = observed(window(1), moved("validator:3", "down", 1e12), moved("peer:13", "down", 2e9))
    assert book.balance(3, 0)[0] == 0
    assert book.balance(13, 0)[0] == pytest.approx(1.0)
    assert set(book.accounts) <= {3, 13}


def test_tokens_are_worth_what_they_cost_when_the_epoch_ends() -> None:
    """2 tokens at 10 in round 0, 3 in round 1; one hour of compute for round 1 costs 36."""
    book = observed(window(1), settled(peer3=2.0, peer4=0.0), window(2), settled(peer3=3.0), trained(3, 1, 3600.0))
    assert [book.balance(3, round)[1] for round in range(2)] == [pytest.approx(20.0), pytest.approx(30.0 - 36.0)]
    assert book.profits(3, range(2)) == [book.balance(3, 0)[1], book.balance(3, 1)[1]]
    assert book.earned(3) == 5.0
    assert book.earned(4) == 0.0


def test_a_series_of_prices_is_laid_over_the_planned_rounds() -> None:
    prices = PRICES.model_copy(update={"price_schedule": Points(points=((0, 1.0), (4, 0.0)))})
    book = observed(window(1), settled(peer3=1.0), window(3), settled(peer3=1.0), prices=prices)
    assert [book.price(round) for round in range(5)] == [10.0, 7.5, 5.0, 2.5, 0.0]
    assert book.profits(3, range(4)) == [10.0, 0.0, 5.0, 0.0]


def test_a_slot_is_paid_for_in_tokens_at_the_days_price() -> None:
    prices = PRICES.model_copy(update={"price_schedule": Points(points=((0, 1.0), (4, 0.0)))})
    book = observed(
        window(2),
        Registered(0.0, "peer:3", 3, 7, 0.4),
        Registered(0.0, "validator:new", -1, 8, 0.4),
        prices=prices,
    )
    assert [book.balance(3, round)[0] for round in range(3)] == [0.0, pytest.approx(0.4 * 7.5), 0.0]
    assert book.balance(3, 1)[1] == pytest.approx(-3.0)
    assert set(book.accounts) == {3}


def test_all_together_by_hand() -> None:
    """Round 1 of peer 3: 1800 s of compute 18, 3 GB up 6, 8 GB down 4, a slot of 0.1 tokens 1, and 4 tokens 40."""
    book = observed(
        trained(3, 1, 1800.0),
        window(2),
        Registered(0.0, "peer:3", 3, 7, 0.1),
        moved("peer:3", "up", 3e9),
        *(moved("peer:3", "down", 1e9) for _ in range(8)),
        settled(peer3=1.5, peer4=9.0),
        settled(peer3=2.5),
        window(3),
    )
    assert book.balance(3, 1)[0] == pytest.approx(18 + 6 + 4 + 1)
    assert book.balance(3, 1)[1] == pytest.approx(40 - 29)
    assert book.earned(3) == 4.0
