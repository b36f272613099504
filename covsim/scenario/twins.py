"""Scenarios derived from a scenario: the same under another seed, and the same with nobody cheating."""

from __future__ import annotations

from covsim.behaviors import Honest
from covsim.scenario.schema import Scenario


def with_seed(scenario: Scenario, seed: int) -> Scenario:
    """The same scenario under another seed."""
    return scenario.model_copy(update={"seed": seed})


def clean_twin(scenario: Scenario) -> Scenario:
    """The same peers on the same links and machines, every one of them honest; it claims nothing."""
    cohorts = {name: cohort.model_copy(update={"behavior": Honest()}) for name, cohort in scenario.cohorts.items()}
    return scenario.model_copy(update={"cohorts": cohorts, "expect": None})


def seeds(scenario: Scenario) -> list[int]:
    """The seeds over which the scenario's claims are judged; its own one if it claims nothing."""
    return list(range(scenario.seed, scenario.seed + (scenario.expect.seeds if scenario.expect else 1)))
