"""Timing-only runs: cost grows with peers times rounds, and with nothing else.

Ratios of CPU time, so that a slow or busy machine changes neither side more than the other.
"""

from __future__ import annotations

import time

import pytest

from covsim.digest import Digest
from covsim.nodes.seam import Computed
from covsim.record.recorder import Recorder
from covsim.scenario import load
from covsim.simulation import Simulation


def cpu_s(peers: int, rounds: int) -> float:
    """CPU seconds of a run with its digest and its recorder, built and finished."""
    scenario = load("scale/peers", {"peers": peers, "stop.rounds": rounds})
    stakes = {name: validator.stake for name, validator in scenario.validators.items()}
    recorder = Recorder(scenario.record.level, stakes, scenario.economics, scenario.planned_rounds)
    began = time.process_time()
    simulation = Simulation(scenario, Computed(), (Digest().add, recorder.observe))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return time.process_time() - began


@pytest.fixture(scope="module")
def small() -> float:
    """100 peers, 20 rounds; after a first run that warms up."""
    cpu_s(20, 2)
    return cpu_s(100, 20)


def test_six_times_the_peers_cost_about_six_times(small: float) -> None:
    """Catches anything that every peer does once per peer: a list that is searched, a gather that is not shared."""
    assert cpu_s(600, 20) < 6 * small * 1.6


def test_five_times_the_rounds_cost_about_five_times(small: float) -> None:
    """Catches what grows with the past: accounts that are summed again every round, events that are kept and walked."""
    assert cpu_s(100, 100) < 5 * small * 1.6


@pytest.mark.slow
def test_a_thousand_rounds() -> None:
    """In proportion still. Catches a history that is walked at last."""
    assert cpu_s(100, 1000) < 10 * cpu_s(100, 100) * 1.5
