"""Faults that cannot do what they are there for, or more than was meant, found by arithmetic before a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from covsim.scenario.faults import labels
from covsim.scenario.rounded import rate_text, size_text, time_text
from covsim.scenario.schema import Scenario
from covsim.scenario.strikes import targets_by_label
from covsim.world.faults import Fault
from covsim.world.link_faults import LinkSlow
from covsim.world.store_faults import StoreRateLimit


def fault_warnings(scenario: Scenario, uplinks: Mapping[str, float]) -> Iterator[str]:
    """Every warning about the faults of a scenario.

    Args:
        scenario: what is to run.
        uplinks: bits per second, by the name of a peer's node.
    """
    targets = targets_by_label(scenario)
    for label, fault in zip(labels(scenario.faults), scenario.faults, strict=True):
        yield from _never_strikes(scenario, label, fault, len(targets[label]))
        if isinstance(fault, LinkSlow):
            yield from _too_slow(scenario, label, fault, [uplinks[node] for node in targets[label] if node in uplinks])
        if isinstance(fault, StoreRateLimit):
            yield from _too_few_requests(scenario, label, fault)


def _never_strikes(scenario: Scenario, label: str, fault: Fault, num_targets: int) -> Iterator[str]:
    rounds = scenario.planned_rounds
    if not num_targets and fault.strikes == "peers":
        whom = f"its share of {fault.share:g} rounds to none" if fault.share else "no peer is where it strikes"
        yield f"fault {label} strikes nobody: {whom}"
    if fault.from_round is not None and fault.from_round >= rounds:
        yield f"fault {label} begins with round {fault.from_round}, and the run ends after {rounds}"
    end_s = (rounds + 1) * scenario.window_s
    if fault.at is not None and fault.at >= end_s:
        yield f"fault {label} begins at {time_text(fault.at)}, and the run ends at about {time_text(end_s)}"


def _too_slow(scenario: Scenario, label: str, fault: LinkSlow, uplinks: list[float]) -> Iterator[str]:
    """Uploads over slowed links that are later than the put window, and would not be so over whole ones."""
    if fault.direction == "down" or not scenario.size_is_known:
        return
    limit, bits = scenario.timeline.put_window, scenario.payload_bytes * 8
    late = sorted(rate for rate in uplinks if bits / rate < limit <= bits / (rate * fault.factor))
    if late:
        rate = late[len(late) // 2] * fault.factor
        took = f"{size_text(scenario.payload_bytes)} takes {time_text(bits / rate)}"
        yield (
            f"{len(late)} of {len(uplinks)} peers cannot land during fault {label}: {took} "
            f"at {rate_text(rate)}, the put window is {time_text(limit)}"
        )


def _too_few_requests(scenario: Scenario, label: str, fault: StoreRateLimit) -> Iterator[str]:
    allowed = fault.requests_per_s * scenario.timeline.put_window
    if scenario.peers > allowed:
        yield (
            f"fault {label} lets {allowed:.3g} requests through in a put window of "
            f"{time_text(scenario.timeline.put_window)}, and {scenario.peers} peers upload in it"
        )
