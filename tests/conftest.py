"""Shared by all tests: a scenario so small that a whole run takes about a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from hypothesis import settings

from covsim.digest import Digest
from covsim.events import Event
from covsim.nodes.seam import Computed
from covsim.scenario import Scenario, loads
from covsim.simulation import Simulation

settings.register_profile("covsim", deadline=None)
settings.load_profile("covsim")

TINY = """
version: 1
name: tiny
seed: 3
stop: {rounds: 4}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 2}
protocol: {kind: sparseloco, inner_steps: 3, k: 64}
deployment: {preset: covenant-72b, inner_step: 200 s, evaluation: 8 s}
timeline: {blocks_per_window: 100, put_window: 200 s, gather_timeout: 500 s}
store: {read_failure: 10 %, retries: 1}
peers: 10
cohorts:
  honest: {share: rest, uplink: {kind: lognormal, median: 110 Mb/s, sigma: 0.1}, downlink: 500 Mb/s}
  copycats: {count: 1, behavior: copycat, uplink: 1 Gb/s, downlink: 1 Gb/s}
  flippers: {count: 1, behavior: sign_flip}
  lazy: {count: 1, behavior: lazy}
  late: {count: 1, behavior: late}
validators: {lead: {stake: 0.7}, second: {stake: 0.3}}
selection: {kind: gauntlet, gather: 4, reserve: 2}
gauntlet: {evaluated_per_window: 8, own_sequences: 2, random_sequences: 2, overlap: {from_round: 1}}
data: {held_out_sequences: 8}
"""


@pytest.fixture(scope="session")
def tiny() -> Scenario:
    """Ten peers of five behaviors, two validators, four rounds."""
    return loads(TINY)


Play = Callable[..., tuple[list[Event], Digest]]


@pytest.fixture(scope="session")
def play() -> Play:
    """Run a scenario in memory; returns its events and its digest, the final parameters included."""

    def run(scenario: Scenario, observers: Sequence[Callable[[Event], None]] = ()) -> tuple[list[Event], Digest]:
        events: list[Event] = []
        digest = Digest()
        simulation = Simulation(scenario, Computed(), (events.append, digest.add, *observers))
        while not simulation.finished:
            simulation.step()
        simulation.finish()
        digest.add_final(simulation.final_theta.numpy().tobytes())
        return events, digest

    return run


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's thread count back after a test that changes it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
