"""`covsim emulate`: whether a scenario can be set to real processes, and the run from the folder to its results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from covsim.emulation.cleaning import clean
from covsim.emulation.envelope import smallest, wire_bytes
from covsim.emulation.faults import Striking, fault_problems
from covsim.emulation.links import Links, choose
from covsim.emulation.results import write_partial, write_results
from covsim.emulation.supervisor import Supervisor
from covsim.nodes.trained import exchange_of
from covsim.observing import Observer
from covsim.randomness import Streams
from covsim.record.files import write_text
from covsim.record.lock import locked
from covsim.scenario import Scenario, resolved_text, run_id

MOST_NODES = 64
"""Processes of one run; each is a torch of its own."""


class CannotEmulate(ValueError):
    """What a scenario asks for and real processes cannot do, or cannot do yet."""


@dataclass(frozen=True)
class Emulated:
    """A finished emulation: where it lies, and its summary."""

    folder: Path
    summary: dict[str, Any]


def emulate(
    scenario: Scenario,
    source_text: str,
    out: Path,
    observers: Sequence[Observer] = (),
) -> Emulated:
    """Run a scenario on real processes, into the next free folder `<out>/<name>/emulated-<run-id>-<number>`.

    Args:
        source_text: the scenario as the user gave it.
        observers: see every event as it comes in.

    Raises:
        CannotEmulate: before anything is started.
        covsim.emulation.supervisor.Failed: a process ended on the way; what was recorded stays in the folder.
    """
    check(scenario)
    clean()  # what a run that was killed has left behind
    links = _links(scenario)
    identity = run_id(scenario)
    folder = _free_folder(out / scenario.name, identity)
    write_text(folder / "scenario.yaml", source_text)
    write_text(folder / "resolved.yaml", resolved_text(scenario))
    began_s = time.monotonic()
    with locked(folder):
        supervisor = Supervisor(scenario, folder, links, observers)
        if scenario.faults:
            supervisor.before_start(Striking(supervisor).begin)
        try:
            outcome = supervisor.run()
        except BaseException:
            write_partial(scenario, folder)
            raise
        kind, wall_s = supervisor.links.kind, time.monotonic() - began_s
        return Emulated(folder, write_results(scenario, identity, folder, outcome, kind, wall_s))


def _links(scenario: Scenario) -> Links:
    """The links that a scenario asks for, if its faults can be done to them. Raises CannotEmulate."""
    kind = scenario.emulation.links
    if scenario.emulation.store != "local":
        if kind not in ("auto", "open"):
            raise CannotEmulate("links to a store elsewhere are as they are: emulation.links: open")
        kind = "open"
    try:
        links = choose(kind)
    except ValueError as refusal:
        raise CannotEmulate(str(refusal)) from refusal
    for problem in fault_problems(scenario, links.kind):
        raise CannotEmulate(problem)
    return links


def check(scenario: Scenario) -> None:
    """Do nothing if a scenario can be emulated. Raises CannotEmulate."""
    problem = next(_problems(scenario), None)
    if problem is not None:
        raise CannotEmulate(problem)


def _problems(scenario: Scenario) -> Iterator[str]:
    """What stands in the way, the first thing first."""
    for package in ("obstore", *(("moto", "flask") if scenario.emulation.store == "local" else ())):
        if find_spec(package) is None:
            yield f"{package} is not installed; an emulation needs `pip install covsim[emulation]`"
    if scenario.learning.kind != "trained":
        yield "an emulation really trains: leave out learning: synthetic"
    if scenario.timeline.kind != "windowed":
        yield f"the block clock of an emulation knows windows only, not timeline {scenario.timeline.kind}"
    if scenario.topology.direct:
        yield "an emulation passes payloads through the object store: topology: object_store"
    if scenario.compute.transfers != "single":
        yield "an emulation moves every payload by itself: compute.transfers: single"
    if scenario.peers + len(scenario.validators) > MOST_NODES:
        yield f"{scenario.peers + len(scenario.validators)} processes are more than {MOST_NODES}"
    if scenario.stop.rounds is None and scenario.stop.simulated is None:
        yield "an emulation ends after stop.rounds or stop.simulated"
    for name, cohort in scenario.cohorts.items():
        if cohort.behavior.knowledge == "omniscient":
            yield f"cohort {name} is omniscient, and no process knows what others are about to send"
        if cohort.membership.kind not in ("always", "from_round", "until_round"):
            yield f"cohort {name}: membership {cohort.membership.kind} is not emulated"
        if cohort.uplink_varies is not None or cohort.downlink_varies is not None:
            yield f"cohort {name}: links that vary over time are not emulated"
    yield from _problems_of_transfers(scenario)


def _problems_of_transfers(scenario: Scenario) -> Iterator[str]:
    store = scenario.store
    for key in ("ingress", "egress", "ranges", "rate_limit"):
        if getattr(store, key) is not None:
            yield f"store.{key} is not emulated"
    if store.read_failure or store.outages:
        yield "store.read_failure and store.outages are not emulated; write a fault store_outage"
    needed = smallest(round(exchange_of(scenario, Streams(scenario.seed)).regular_bytes))
    there = wire_bytes(scenario.payload_bytes, scenario.emulation.bytes_per_byte)
    if needed > there:
        least = needed / scenario.payload_bytes
        yield (
            f"a payload of the model has {needed} bytes and may have {there} on the wire; "
            f"set emulation.bytes_per_byte to {least:.2g} at least"
        )


def _free_folder(parent: Path, identity: str) -> Path:
    """A folder that is not there yet, made."""
    number = 1
    while True:
        folder = parent / f"emulated-{identity}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
