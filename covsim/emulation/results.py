"""The folder of an emulation: the same files as a run's, made of the events that the nodes sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import torch
from safetensors.torch import save_file

from covsim.chain.ledger import write_ledger
from covsim.digest import Digest
from covsim.emulation.journal import NAME, in_order, kept_events
from covsim.emulation.supervisor import Outcome
from covsim.events import RunStopped
from covsim.nodes.stop_watch import StopWatch
from covsim.nodes.trained import trained_learning
from covsim.observing import Observers
from covsim.randomness import Streams
from covsim.record.files import write_json, write_whole
from covsim.record.provenance import provenance
from covsim.record.recorder import Recorder
from covsim.record.runner import by_name, summary_of
from covsim.scenario import Scenario, population

BROKEN = "broken off"
"""Why a run ended that was killed, interrupted, or could not go on."""


def write_results(
    scenario: Scenario, identity: str, folder: Path, outcome: Outcome, links: str, total_wall_s: float
) -> dict[str, Any]:
    """Write tables, parameters, ledger, provenance and, last, the summary, which is returned.

    Args:
        identity: what a simulation of the same would be called.
        links: the kind of links.
        total_wall_s: real seconds of the run.
    """
    digest, recorder = Digest(), Recorder.of_scenario(scenario)
    for event in in_order(outcome.events):
        digest.add(event)
        recorder.observe(event)
    digest.add_final(outcome.content)
    theta = torch.from_numpy(np.frombuffer(outcome.content, dtype="<f4").copy())
    tensors = by_name(theta, scenario.model.shapes)
    write_whole(folder / "final.safetensors", lambda part: save_file(tensors, part))
    recorder.write(folder)
    write_whole(folder / "ledger.jsonl", lambda part: write_ledger(part, outcome.blocks))
    write_json(folder / "nodes.json", outcome.numbers)
    write_json(folder / "provenance.json", provenance(identity, total_wall_s, torch.device("cpu")))
    learning = trained_learning(scenario, Streams(scenario.seed), replaying=True)
    training_wall_s = sum(numbers["training_wall_s"] for numbers in outcome.numbers.values())
    result = summary_of(scenario, learning, outcome.blocks, recorder, digest, training_wall_s, total_wall_s)
    result |= emulated(scenario, outcome, links)
    write_json(folder / "summary.json", result)
    (folder / NAME).unlink(missing_ok=True)
    return result


def write_partial(scenario: Scenario, folder: Path) -> tuple[int, float]:
    """Write the tables of what was kept of a run that nobody could end; returns how many events, and until when."""
    events, recorder = kept_events(folder), Recorder.of_scenario(scenario)
    last_s = events[-1].time_s if events else 0.0
    stop = StopWatch(scenario, population(scenario), simpy.Environment())
    observers = Observers([stop, recorder])
    for event in events:
        observers.emit(event)
    if events:
        observers.emit(RunStopped(last_s, stop.rounds_settled, BROKEN))
        recorder.write(folder)
    kept = {"emulated": True, "events": len(events), "until_s": last_s, "rounds": stop.rounds_settled}
    write_json(folder / "partial.json", kept)
    (folder / NAME).unlink(missing_ok=True)
    return len(events), last_s


def emulated(scenario: Scenario, outcome: Outcome, links: str) -> dict[str, Any]:
    """What a summary says of the emulation itself."""
    lags = {name: numbers["most_lag_s"] for name, numbers in outcome.numbers.items()}
    return {
        "emulated": True,
        "emulation.links": links,
        "emulation.seconds_per_second": scenario.emulation.seconds_per_second,
        "emulation.bytes_per_byte": scenario.emulation.bytes_per_byte,
        "emulation.most_lag_s": max(lags.values(), default=math.nan),
        "emulation.waited_for_training_s": _waited_s(scenario, outcome),
        "emulation.remarks": remarks(scenario, outcome),
    }


def remarks(scenario: Scenario, outcome: Outcome) -> list[str]:
    """What was not as asked for, a line each."""
    lines = list(outcome.remarks)
    most_s = scenario.emulation.most_lag
    for name, numbers in outcome.numbers.items():
        lag_s, at_s = numbers["most_lag_s"], numbers["most_lag_at_s"]
        if lag_s > most_s:
            lines.append(f"{name} was {lag_s:.2f} simulated s behind at {at_s:.0f} s: the clock was too fast for it")
    edges_s = _edges_s(scenario)
    if any(abs(edge - round(edge)) > 1e-6 for edge in edges_s):
        lines.append("windows open or close within a wall second, and the store stamps whole ones: on time is ± 1 s")
    return lines


def _edges_s(scenario: Scenario) -> Sequence[float]:
    """Wall seconds from one window to the next, and from its opening to the end of uploads."""
    timeline, scale = scenario.timeline, scenario.emulation.seconds_per_second
    return [timeline.window_s * scale, timeline.put_window * scale]


def _waited_s(scenario: Scenario, outcome: Outcome) -> float:
    """The longest that a node had to wait for its training, in simulated seconds."""
    waits = [waited_s for numbers in outcome.numbers.values() for _, _, waited_s in numbers["efforts"]]
    return max(waits, default=0.0) / scenario.emulation.seconds_per_second
