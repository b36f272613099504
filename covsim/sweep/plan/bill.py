"""What a planned run takes: machine hours, traffic, requests, and money where prices are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covsim.registry import did_you_mean
from covsim.scenario import ScenarioError, reader
from covsim.sweep.plan.measures import Measures
from covsim.sweep.plan.setting import CannotPlan

HOUR_S, TERA, MILLION = 3600.0, 1e12, 1e6

PRICES = {
    "gpu_hour": "an hour of one GPU, for as long as the run lasts",
    "machine_hour": "an hour of a peer's machine, for as long as the run lasts",
    "tb_up": "a terabyte sent by a peer or validator",
    "tb_down": "a terabyte fetched by a peer or validator",
    "million_puts": "a million uploads to the store",
    "million_gets": "a million downloads from the store, each range one",
}
"""What may be priced, all in one currency, whichever it is. Nothing has a price that nobody gave."""


@dataclass(frozen=True)
class Bill:
    """Of the whole run.

    Attributes:
        rounds: how many it has.
        hours: simulated time from the first step to the end of the last exchange.
        machine_hours, busy_machine_hours: of all peers, and the part in which they compute.
        gpu_hours: where the deployment says how many GPUs a machine has; None if it does not.
        tb_up, tb_down: of peers and validators.
        puts, gets: requests to the store.
        money: by what it is for, and `total`; None without prices.
    """

    rounds: int
    hours: float
    machine_hours: float
    busy_machine_hours: float
    gpu_hours: float | None
    tb_up: float
    tb_down: float
    puts: float
    gets: float
    money: Mapping[str, float] | None


def bill(measured: Measures, prices: Mapping[str, float] | None) -> Bill:
    """The bill of the planned rounds. Raises CannotPlan if GPU hours have a price and their number is not known."""
    setting = measured.setting
    rounds, num_peers, gpus = setting.rounds, setting.num_peers, setting.scenario.deployment.gpus
    hours = (rounds * measured.round_s + measured.exchange_s) / HOUR_S
    gpu_hours = None if gpus is None else hours * num_peers * gpus
    quantities = {
        "gpu_hour": gpu_hours,
        "machine_hour": hours * num_peers,
        "tb_up": rounds * measured.total(lambda x: x.exchange.up_bytes) / TERA,
        "tb_down": rounds * measured.total(lambda x: x.exchange.down_bytes + x.exchange.read_bytes) / TERA,
        "million_puts": rounds * measured.total(lambda x: x.exchange.puts) / MILLION,
        "million_gets": rounds * measured.total(lambda x: x.exchange.gets) / MILLION,
    }
    return Bill(
        rounds=rounds,
        hours=hours,
        machine_hours=hours * num_peers,
        busy_machine_hours=rounds * measured.total(lambda x: x.compute_s.sum()) / HOUR_S,
        gpu_hours=gpu_hours,
        tb_up=quantities["tb_up"] or 0.0,
        tb_down=quantities["tb_down"] or 0.0,
        puts=(quantities["million_puts"] or 0.0) * MILLION,
        gets=(quantities["million_gets"] or 0.0) * MILLION,
        money=None if prices is None else _money(quantities, prices),
    )


def _money(quantities: Mapping[str, float | None], prices: Mapping[str, float]) -> dict[str, float]:
    if "gpu_hour" in prices and quantities["gpu_hour"] is None:
        raise CannotPlan("a GPU hour has a price, but the deployment does not say how many GPUs a machine has")
    money = {name: price * (quantities[name] or 0.0) for name, price in prices.items()}
    return {**money, "total": math.fsum(money.values())}


def read_prices(given: Sequence[str]) -> dict[str, float]:
    """Prices from `name=number` pairs and YAML files with a `prices:` mapping; later ones replace earlier ones.

    Raises CannotPlan: one line that says what is wrong.
    """
    prices: dict[str, float] = {}
    for text in given:
        name, equals, value = text.partition("=")
        prices |= checked_prices({name.strip(): _number(value)} if equals else _from_file(Path(text)))
    return prices


def checked_prices(prices: Mapping[str, Any]) -> dict[str, float]:
    """The same prices, every one a number from 0 up for something that can be priced. Raises CannotPlan."""
    for name, value in prices.items():
        if name not in PRICES:
            raise CannotPlan(
                f"nothing called {name!r} is priced{did_you_mean(name, PRICES)}; there are {', '.join(PRICES)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise CannotPlan(f"the price of {name} must be a number from 0 up, not {value!r}")
    return {name: float(value) for name, value in prices.items()}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        content = reader.read_file(path, str(path)).plain()
    except ScenarioError as problem:
        raise CannotPlan(str(problem)) from None
    prices = content.get("prices") if isinstance(content, dict) else None
    if not isinstance(prices, dict):
        raise CannotPlan(f"{path}: needs a mapping `prices:`, such as {{gpu_hour: 2, tb_down: 50}}")
    return prices
