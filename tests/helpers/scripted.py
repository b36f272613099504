"""Whole runs in which some cohorts play scripts that a test has written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covsim.behaviors import Behavior
from covsim.behaviors.base import Knowledge, Script
from covsim.digest import Digest
from covsim.events import Event
from covsim.nodes.seam import Computed, Seam
from covsim.record.checkers import all_checkers
from covsim.record.tape import Tape
from covsim.scenario import Scenario
from covsim.simulation import Simulation

PeerScript = Callable[[Any], Script]


def scripted(script: PeerScript, knowledge: Knowledge = "own") -> Behavior:
    """A behavior that plays a function of the peer."""

    class Scripted(Behavior):
        kind: str = "scripted"

        def play_round(self, peer: Any) -> Script:
            yield from script(peer)

    Scripted.knowledge = knowledge  # type: ignore[misc]
    return Scripted()


def with_scripts(
    scenario: Scenario, scripts: Mapping[str, PeerScript], rounds: int, knowledge: Knowledge = "own", **counts: int
) -> Scenario:
    """The scenario with the scripts of some cohorts replaced, and the sizes of some changed."""
    cohorts = dict(scenario.cohorts)
    for name, count in counts.items():
        cohorts[name] = cohorts[name].model_copy(update={"count": count})
    for name, script in scripts.items():
        cohorts[name] = cohorts[name].model_copy(update={"behavior": scripted(script, knowledge)})
    stop = scenario.stop.model_copy(update={"rounds": rounds})
    return scenario.model_copy(update={"cohorts": cohorts, "stop": stop})


def simulate(scenario: Scenario, seam: Seam | None = None) -> tuple[Simulation, list[Event], Digest]:
    """Run a scenario in memory with all checkers on."""
    events: list[Event] = []
    digest = Digest()
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    watching = (events.append, digest.add, *(checker.observe for checker in checkers))
    simulation = Simulation(scenario, seam or Computed(), watching)
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    digest.add_final(simulation.final_theta.numpy().tobytes())
    return simulation, events, digest


def resumed_at(scenario: Scenario, tape: Path, step: int) -> tuple[str, str] | None:
    """The digest of a run that is cut at a step and goes on from there; None if nothing may be cut there."""
    first = Tape(tape)
    simulation = Simulation(scenario, first)
    while simulation.num_steps < step:
        simulation.step()
    if not simulation.quiescent:
        first.close()
        return None
    state, position = simulation.state(), first.position
    first.close()
    second = Tape(tape, replay_until=position)
    digest = Digest()
    simulation = Simulation(scenario, second, (digest.add,))
    while simulation.num_steps < step:
        simulation.step()
    simulation.restore(state)
    second.go_live()
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    second.close()
    digest.add_final(simulation.final_theta.numpy().tobytes())
    return digest.clock, digest.learning
