"""Whether the tables of the network have an entry for everybody who must get to somebody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario


class Unreachable(ValueError):
    """Somebody is in a region from which there is no way; `path` is the key to look at."""

    def __init__(self, message: str, path: tuple[str, ...]) -> None:
        super().__init__(message)
        self.path = path


def check_reachable(scenario: Scenario) -> None:
    """Every node reaches the store, and every peer the others where payloads go directly. Raises Unreachable."""
    for one, other, path in _pairs(scenario):
        try:
            scenario.network.latency_between(one, other)
        except ValueError as error:
            raise Unreachable(str(error), path) from None


def _pairs(scenario: Scenario) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Regions between which something travels, and the key that makes it so."""
    nodes = {("cohorts", name, "region"): cohort.region for name, cohort in scenario.cohorts.items()}
    nodes |= {("validators", name, "region"): node.region for name, node in scenario.validators.items()}
    placed = {path: region for path, region in nodes.items() if region is not None}
    if scenario.store.region is not None:
        for path, region in placed.items():
            yield region, scenario.store.region, path
    if scenario.topology.direct:
        peers = [(path, region) for path, region in placed.items() if path[0] == "cohorts"]
        for (_, one), (path, other) in combinations_with_replacement(peers, 2):
            yield one, other, path
