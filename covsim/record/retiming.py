"""A finished run under another clock, without training: its answers, bound to what they were asked.

The tape of a run holds every answer that its tensors gave, under a label. `answers_of` executes the run again from its
tape, which computes outer steps but trains nothing, and once more with lookups only, which binds each answer to a
digest of what it depends on and must come to the same digest of the run. `retime` then executes others by lookups.
"""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from covsim.digest import Digest
from covsim.nodes.formula import Incomparable
from covsim.nodes.recorded import Answers, Labeled, ScheduleChanged, recorded_learning
from covsim.nodes.trained import exchange_of, trained_learning
from covsim.randomness import Streams
from covsim.record.files import file_sha256
from covsim.record.recorder import Recorder
from covsim.record.runner import BURST, scenario_of, summary_of
from covsim.record.tape import Tape, TapeHash, records
from covsim.scenario import Scenario
from covsim.simulation import Simulation

__all__ = ["Answers", "CannotRetime", "ScheduleChanged", "answers_of", "retime"]


class CannotRetime(ValueError):
    """The run's answers cannot be told apart from the clock; the message says why."""


def answers_of(folder: Path, digests: tuple[str, str], known: Answers | None = None) -> Answers:
    """What the tensors of a finished run answered, ready for `retime`.

    Args:
        folder: of the run.
        digests: clock and learning digest of the run, which lookups must come to again.
        known: the answers of runs that differ from it by their clocks only; they are among those returned, and stay
            as they are if this run's cannot be had.

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
    answers = _heard(scenario, tape, known)
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
    answers.make_room()
    with _uncollected():
        return _executed(scenario, answers)


def _executed(scenario: Scenario, answers: Answers) -> dict[str, Any]:
    began = time.perf_counter()
    digest, tape = Digest(), TapeHash()
    # Of single transfers the summary wants the sums alone.
    recorder = Recorder.of_scenario(scenario, "rounds")
    watching = (digest, recorder)
    simulation = Simulation(scenario, Labeled(tape, answers), watching, recorded_learning(answers), answers.signatures)
    while not simulation.finished:
        simulation.go_on(BURST)
    simulation.finish(tape.sha256)
    digest.add_final(simulation.final_content)
    blocks, wall_s = simulation.commons.chain.chain.blocks, time.perf_counter() - began
    return summary_of(scenario, simulation.learning, blocks, recorder, digest, 0.0, wall_s)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let the garbage collector wait: it would look a dozen times at what lives as long as the simulation.

    When that has gone, it looks once at all that is young. Nothing of it grows old, so each look is as short.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.collect(0)
            gc.enable()


def _heard(scenario: Scenario, tape: Path, known: Answers | None) -> Answers:
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
    if known is not None:
        assert known.root_key == root.key, "runs that differ by their clocks begin alike"
        return known.joined(thetas)
    return Answers(
        exchange=exchange_of(scenario, streams),
        root_key=root.key,
        tokens_are_bytes=learning.tokens_are_bytes,
        bigram_nats=learning.bigram_nats(),
        thetas=thetas,
        stride=learning.measures.stride,
    )
