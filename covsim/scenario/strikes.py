"""Whom the faults of a scenario strike, and when: worked out from its seed, before or while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from covsim.randomness import Streams
from covsim.scenario.faults import labels
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.schema import Scenario
from covsim.world.chain_faults import chain_pauses, with_stalls
from covsim.world.clock import Timeline
from covsim.world.faults import Fault
from covsim.world.pauses import Pause


@dataclass(frozen=True)
class Strike:
    """One time that a fault is there: on these nodes, in `[begins_s, ends_s)`.

    One that ends with a window which nobody can foresee has that window, and no end until it opens.
    """

    label: str
    fault: Fault
    nodes: tuple[str, ...]
    begins_s: float
    ends_s: float
    until_window: int | None = None


class Strikes:
    """The strikes of a scenario's faults.

    Args:
        scenario: gives faults, population and seed.
        opens_at: second at which a window opens, on the timeline that the faults have changed (`timeline`).
    """

    def __init__(self, scenario: Scenario, opens_at: Callable[[int], float]) -> None:
        self._streams = Streams(scenario.seed)
        self._opens_at = opens_at
        self._foresees = scenario.timeline.foresees
        peers = _everybody(scenario) if scenario.faults else ()
        self._faults = [
            (label, fault, _targets(label, fault, scenario, peers, self._streams))
            for label, fault in _labeled(scenario)
        ]
        self._pauses = _pauses(scenario)

    def foreseen(self) -> Iterator[Strike]:
        """Those that are fixed before the run: all but those of a rate, and all of the chain."""
        for label, fault, nodes in self._faults:
            if fault.strikes == "chain":
                for pause in self._pauses[label]:
                    yield Strike(label, fault, nodes, pause.at, pause.ends_s)
            elif fault.at is not None:
                assert fault.lasts is not None
                yield Strike(label, fault, nodes, fault.at, fault.at + fault.lasts)
            elif fault.rate is None and self._foresees:
                first, end = (self._opens_at(round + fault.window_of_round) for round in _span_of_rounds(fault))
                yield Strike(label, fault, nodes, first, end)

    def in_window(self, window: int) -> Iterator[Strike]:
        """Those that a rate brings in a window, and those by rounds that nobody could foresee."""
        for label, fault, nodes in self._faults:
            if not self._foresees and fault.from_round is not None and fault.rate is None:
                begins, ends = (round + fault.window_of_round for round in _span_of_rounds(fault))
                if begins == window:
                    yield Strike(label, fault, nodes, self._opens_at(window), math.inf, until_window=ends)
                continue
            round = window - fault.window_of_round
            end = float("inf") if fault.to_round is None else fault.to_round
            if fault.rate is not None and fault.strikes != "chain" and (fault.from_round or 0) <= round < end:
                yield from self._drawn(label, fault, nodes, round, window)

    def _drawn(self, label: str, fault: Fault, nodes: tuple[str, ...], round: int, window: int) -> Iterator[Strike]:
        """Whom the rate hits in a round: all together for the whole window, or each at a second of its own.

        A fault of the store is drawn once, as if the store were a node.
        """
        assert fault.rate is not None
        candidates = nodes or ("store",)
        draws = {node: self._streams.uniform("fault", label, node, round) for node in candidates}
        struck = tuple(node for node in candidates if draws[node] < fault.rate)
        begins_s, ends_s = self._opens_at(window), self._opens_at(window + 1)
        if fault.lasts is None:
            if struck:
                yield Strike(label, fault, struck if nodes else (), begins_s, ends_s)
            return
        for node in struck:
            drawn = self._streams.uniform("fault when", label, node, round)
            at_s = begins_s + drawn * (ends_s - begins_s)
            yield Strike(label, fault, (node,) if nodes else (), at_s, at_s + fault.lasts)


def timeline_with_faults(scenario: Scenario) -> Timeline:
    """The timeline, on which the chain also rests for the faults that strike it."""
    return with_stalls(scenario.timeline, pauses) if (pauses := _pauses(scenario)) else scenario.timeline


def targets_by_label(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """The nodes that each fault may strike, by its label; none for the store and the chain."""
    streams, peers = Streams(scenario.seed), _everybody(scenario)
    return {label: _targets(label, fault, scenario, peers, streams) for label, fault in _labeled(scenario)}


def _labeled(scenario: Scenario) -> list[tuple[str, Fault]]:
    return list(zip(labels(scenario.faults), scenario.faults, strict=True))


def _span_of_rounds(fault: Fault) -> tuple[int, int]:
    """The rounds that a fault names, half open."""
    assert fault.from_round is not None
    assert fault.to_round is not None
    return fault.from_round, fault.to_round


def _pauses(scenario: Scenario) -> dict[str, list[Pause]]:
    """When each fault of the chain makes it rest; a rate is drawn for the planned rounds."""
    of_chain = [(label, fault) for label, fault in _labeled(scenario) if fault.strikes == "chain"]
    if not of_chain:
        return {}
    return chain_pauses(of_chain, scenario.timeline, scenario.planned_rounds, Streams(scenario.seed))


def _targets(
    label: str, fault: Fault, scenario: Scenario, peers: Iterable[PeerSpec], streams: Streams
) -> tuple[str, ...]:
    """Names of the nodes that a fault may strike.

    A share is rounded: those of the lowest draws from `("fault whom", label, uid)`. It is drawn over all uids, absent
    ones too, so that nobody is struck instead of them.
    """
    if fault.strikes == "validators":
        named = getattr(fault, "validators", None) or (scenario.validators_by_stake[0],)
        return tuple(f"validator:{name}" for name in named)
    if fault.strikes != "peers":
        return ()
    uids = [peer.uid for peer in peers if _is_meant(fault, peer, scenario)]
    if fault.share is not None:
        by_luck = sorted(uids, key=lambda uid: streams.uniform("fault whom", label, uid))
        uids = sorted(by_luck[: round(fault.share * len(uids))])
    there = {peer.uid for peer in population(scenario)}
    return tuple(f"peer:{uid}" for uid in uids if uid in there)


def _everybody(scenario: Scenario) -> tuple[PeerSpec, ...]:
    """The population as if nobody were absent."""
    return population(scenario.model_copy(update={"counterfactual": None}))


def _is_meant(fault: Fault, peer: PeerSpec, scenario: Scenario) -> bool:
    return (
        (fault.uids is None or peer.uid in fault.uids)
        and (fault.cohort is None or peer.cohort == fault.cohort)
        and (fault.region is None or scenario.cohorts[peer.cohort].region == fault.region)
    )
