"""What the scoring costs beside the training it judges: Gauntlet in a run of the flagship, forward passes apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from covsim.nodes import validator
from covsim.nodes.books import Books
from covsim.nodes.examination import Examiner
from covsim.nodes.seam import Computed
from covsim.scenario import load
from covsim.simulation import Simulation

ROUNDS = 6


class Stopwatch:
    """Wall-clock seconds inside some functions; a call within a call counts once."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._inside = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            if self._inside:
                return function(*args, **named)
            self._inside, started = True, time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self._inside = False
                self.total_s += time.perf_counter() - started

        return timed


@pytest.mark.slow
def test_scoring_beside_training(benchmark: BenchmarkFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aim: under 5 % of a run. Drawing, overlaps, sync scores, verdicts, weights and lists, signatures included."""
    watch = Stopwatch()
    monkeypatch.setattr(validator, "whom_to_evaluate", watch.around(validator.whom_to_evaluate))
    monkeypatch.setattr(Examiner, "evidence", watch.around(Examiner.evidence))
    for name in ("judge", "set_weights", "publish_list"):
        monkeypatch.setattr(Books, name, watch.around(getattr(Books, name)))
    scenario = load("covenant72b", {"stop.rounds": ROUNDS})

    def played() -> Simulation:
        watch.total_s = 0.0
        simulation = Simulation(scenario, Computed())
        while not simulation.finished:
            simulation.step()
        return simulation

    started = time.perf_counter()
    benchmark.pedantic(played, rounds=1)
    share = watch.total_s / (time.perf_counter() - started)
    benchmark.extra_info["share_of_run"] = round(share, 4)
    assert 0 < share < 0.05
