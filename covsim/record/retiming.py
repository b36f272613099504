"""A finished run under another clock, without training: its answers, bound to what they were asked.

The tape of a run holds every answer that its tensors gave, under a label. `answers_of` executes the run again from its
tape, which computes outer steps but trains nothing, and once more with lookups only, which binds each answer to a
digest of what it depends on and must come to the same digest of the run. `retime` then executes others by lookups.
"""

from __future__ import annotations

import struct
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import Tensor

from covsim.events import Digest
from covsim.nodes.formula import Incomparable
from covsim.nodes.recorded import Answers, Labeled, ScheduleChanged, recorded_learning
from covsim.nodes.trained import exchange_of, trained_learning
from covsim.randomness import Streams
from covsim.record.files import file_sha256
from covsim.record.recorder import Recorder
from covsim.record.runner import scenario_of, summary_of
from covsim.record.tape import Tape, records
from covsim.scenario import Scenario
from covsim.simulation import Simulation

__all__ = ["Answers", "CannotRetime", "ScheduleChanged", "answers_of", "retime"]


class CannotRetime(ValueError):
    """The run's answers cannot be told apart from the clock; the message says why."""


def answers_of(folder: Path, digests: tuple[str, str]) -> Answers:
    """What the tensors of a finished run answered, ready for `retime`.

    Args:
        folder: of the run.
        digests: clock and learning digest of the run, which lookups must come to again.

    Raises:
        CannotRetime: the run has probes or no tape, trained nothing, or its scripts do what cannot be compared.
    """
    scenario, tape = scenario_of(folder), folder / "tape" / "tape.bin"
    if scenario.learning.kind != "trained":
        raise CannotRetime(f"learning: {scenario.learning.kind} is not trained, so there is nothing to look up")
    if scenario.probes:
        raise CannotRetime("runs with probes are not retimed: a probe may look at anything")
    if not tape.is_file():
        raise CannotRetime(f"{folder}: the tape is gone")
    answers = _heard(scenario, tape)
    for kind, label, data in records(tape):
        answers.labeled[label].append(data if kind == "payload" else struct.unpack(f"<{len(data) // 8}d", data))
    try:
        found = retime(scenario, answers)
    except (Incomparable, IndexError, ScheduleChanged) as problem:
        raise CannotRetime(f"{folder}: {problem}") from problem
    if (found["digest.clock"], found["digest.learning"]) != digests:
        raise CannotRetime(f"{folder}: lookups alone do not come to the digest of the run")
    answers.binding = False
    answers.labeled.clear()
    return answers


def retime(scenario: Scenario, answers: Answers) -> dict[str, Any]:
    """The summary of a scenario that differs from the recorded one by its clock only; `wall` is that of the lookup.

    Raises:
        ScheduleChanged: it asks for something that was never computed, at the first such question.
        Incomparable: a script's function cannot be compared.
    """
    began = time.perf_counter()
    digest = Digest()
    stakes = {name: validator.stake for name, validator in scenario.validators.items()}
    recorder = Recorder("transfers", stakes, scenario.economics, scenario.planned_rounds)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tape.bin"
        with closing(Tape(path)) as tape:
            seam, watching = Labeled(tape, answers), (digest.add, recorder.observe)
            simulation = Simulation(scenario, seam, watching, recorded_learning(answers))
            while not simulation.finished:
                simulation.step()
            simulation.finish(lambda: _synced(tape, path))
    digest.add_final(simulation.final_content)
    return summary_of(simulation, recorder, digest, 0.0, time.perf_counter() - began)


def _heard(scenario: Scenario, tape: Path) -> Answers:
    """Execute a run again from its tape, and keep every theta: outer steps are computed, nothing else is."""
    streams = Streams(scenario.seed)
    learning = trained_learning(scenario, streams, replaying=True)
    root = learning.lineages.root
    thetas: dict[str, Tensor] = {root.key: root.theta}
    with closing(Tape(tape, replay_until=tape.stat().st_size)) as seam:
        simulation = Simulation(scenario, seam, (), learning)
        while not simulation.finished:
            simulation.step()
            for lineage in simulation.lineages.living:
                thetas.setdefault(lineage.key, lineage.theta)
        simulation.finish(lambda: file_sha256(tape))
    return Answers(
        exchange=exchange_of(scenario, streams),
        root_key=root.key,
        tokens_are_bytes=learning.tokens_are_bytes,
        bigram_nats=learning.bigram_nats(),
        thetas=thetas,
        stride=learning.measures.stride,
    )


def _synced(tape: Tape, path: Path) -> str:
    tape.sync()
    return file_sha256(path)
