"""What a timeline asks of the rest of a scenario: the first thing that does not go with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from covsim.gauntlet.selection import AllSelection
from covsim.world.barrier import Barrier

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario

Problem: TypeAlias = tuple[str, tuple[Any, ...]]
"""What does not go together, and the path of the key to look at."""


_OF_THE_STORE = frozenset(
    {
        "partition",
        "region_failure",
        "store_outage",
        "store_rate_limit",
        "slow_reads",
        "lost_object",
        "truncated_object",
        "clock_skew",
        "version_split",
    }
)
"""Faults that take hold of the store or of the way to it."""


def timeline_problem(scenario: Scenario) -> Problem | None:
    """The first thing that does not go with windows that nobody can foresee, or with a direct exchange; else None."""
    return next(_problems(scenario), None)


def _problems(scenario: Scenario) -> Iterator[Problem]:
    if not scenario.timeline.foresees:
        yield from _of_barriers(scenario)
    if scenario.topology.direct:
        yield from _of_direct_exchanges(scenario)


def _of_direct_exchanges(scenario: Scenario) -> Iterator[Problem]:
    kind = scenario.topology.kind
    if not isinstance(scenario.timeline, Barrier):
        yield f"a {kind} begins when its peers are there: it needs timeline.kind barrier", ("topology",)
    if not isinstance(scenario.selection, AllSelection):
        yield f"a {kind} is between all peers: it needs selection: all", ("selection",)
    if scenario.stop.bytes is not None:
        yield f"stop.bytes counts uploads to a store, which a {kind} has none of", ("stop", "bytes")
    for name in ("jitter", "request_overhead"):
        if getattr(scenario.network, name):
            yield f"{name} belongs to requests of a store, which a {kind} has none of", ("network", name)
    for position, fault in enumerate(scenario.faults):
        if fault.kind in _OF_THE_STORE:
            yield f"{fault.kind} does nothing to a {kind}: it cuts nodes from the store", ("faults", position)


def _of_barriers(scenario: Scenario) -> Iterator[Problem]:
    timeline, stop = scenario.timeline, scenario.stop
    kind = timeline.kind
    if scenario.plan.asynchrony is not None:
        yield f"{scenario.protocol.kind} waits for nobody: it needs timeline.kind windowed, not {kind}", ("timeline",)
    if stop.rounds is None and stop.tokens is None and stop.bytes is None:
        yield f"how many rounds fit into a time is not known on a {kind}: give rounds, tokens or bytes too", ("stop",)
    for position, fault in enumerate(scenario.faults):
        where = ("faults", position)
        if fault.rate is not None:
            yield f"a rate counts windows that are known before the run, a {kind} has none: say at or from_round", where
        elif fault.strikes == "chain" and fault.at is None:
            yield f"the chain is stalled before the run, when no round of a {kind} is known: say at which second", where
    if isinstance(timeline, Barrier) and (timeline.wait_for.first or 0) > scenario.peers:
        message = f"the first {timeline.wait_for.first} are waited for, there are {scenario.peers} peers"
        yield message, ("timeline", "wait_for", "first")
