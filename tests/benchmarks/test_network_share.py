"""What the network costs: its share of a flagship run, and 70 transfers at once through a store that they fill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import simpy
from pytest_benchmark.fixture import BenchmarkFixture

from covsim.nodes.seam import Computed
from covsim.scenario import load
from covsim.simulation import Simulation
from covsim.world.network import Network, NetworkSettings, Resource

ROUNDS = 4
ENTRANCES = ("transfer", "set_capacity", "_join", "_cut", "_settle", "_ring")
"""Whatever calls the network, or is called by the clock for it, comes in by one of these."""


class Stopwatch:
    """Processor seconds of this thread inside some functions, and how often rates changed.

    A call within a call counts once. Processor time, since wall time inside short calls is mostly that of whoever else
    has the core.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total_s = 0.0
        self.num_changes = 0
        self._inside = False
        for name in ENTRANCES:
            monkeypatch.setattr(Network, name, self._around(getattr(Network, name)))
        monkeypatch.setattr(Network, "_set_rate", self._counted(Network._set_rate))

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            if self._inside:
                return function(*args, **named)
            self._inside, started = True, time.thread_time()
            try:
                return function(*args, **named)
            finally:
                self._inside = False
                self.total_s += time.thread_time() - started

        return timed

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.num_changes += 1
            return function(*args)

        return counted


@pytest.mark.slow
def test_share_of_a_flagship_run(benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aim: under 3 % of the processor time of a run of `covenant72b`, and 45 us for a change of a bundle's rate."""
    watch = Stopwatch(monkeypatch)
    scenario = load("covenant72b", {"stop.rounds": ROUNDS})

    def played() -> None:
        simulation = Simulation(scenario, Computed())
        while not simulation.finished:
            simulation.step()

    started = time.process_time()
    benchmark.pedantic(played, rounds=1)
    share = watch.total_s / (time.process_time() - started)
    benchmark.extra_info["share_of_run"] = round(share, 5)
    benchmark.extra_info["changes_a_round"] = watch.num_changes // ROUNDS
    benchmark.extra_info["us_a_change"] = round(1e6 * watch.total_s / watch.num_changes, 1)
    assert watch.num_changes > 100 * ROUNDS, "the run has traffic"
    assert share < 0.03


def crowded(store_bits_per_s: float, num_each: int) -> int:
    """70 nodes upload one object after the other through one store; returns how many landed."""
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    store, landed = Resource("store", store_bits_per_s), 0

    def upload(link: Resource, start_s: float) -> Any:
        nonlocal landed
        yield env.timeout(start_s)
        for _ in range(num_each):
            yield network.transfer((link, store), 1.989e9, 0.05).done
            landed += 1

    for number in range(70):
        env.process(upload(Resource(f"up {number}", 110e6 * (0.7 + number / 100)), 0.3 * number))
    env.run()
    return landed


@pytest.mark.parametrize("store_bits_per_s", [4e9, 1e12], ids=["full store", "ample store"])
def test_seventy_at_once(benchmark: BenchmarkFixture, store_bits_per_s: float) -> None:
    """Through a full store every change is one for all 70; through an ample one it concerns nobody else."""
    assert benchmark.pedantic(crowded, (store_bits_per_s, 10), rounds=3) == 700
    if benchmark.stats:  # none where benchmarks are switched off
        benchmark.extra_info["us_a_transfer"] = round(1e6 * benchmark.stats.stats.min / 700, 1)


def test_ten_thousand_links_of_their_own(benchmark: BenchmarkFixture) -> None:
    """Each transfer is the business of one link: what it costs from end to end, beside the bare event loop."""

    def uploads() -> float:
        env = simpy.Environment()
        network = Network(env, NetworkSettings())
        links = [Resource(f"up {number}", 110e6 * (0.7 + number / 10_000)) for number in range(10_000)]
        transfers = [network.transfer((link,), 1.989e9, 0.05) for link in links]
        env.run()
        return sum(transfer.moved_bytes for transfer in transfers)

    def timeouts() -> float:
        env = simpy.Environment()
        started = time.perf_counter()
        for number in range(10_000):
            env.timeout(number)
        env.run()
        return time.perf_counter() - started

    bare_s = min(timeouts() for _ in range(3))
    assert benchmark.pedantic(uploads, rounds=3) == pytest.approx(1.989e13)
    if benchmark.stats:  # none where benchmarks are switched off
        benchmark.extra_info["us_a_transfer"] = round(1e2 * benchmark.stats.stats.min, 1)
        benchmark.extra_info["over_a_timeout"] = round(benchmark.stats.stats.min / bare_s, 1)
