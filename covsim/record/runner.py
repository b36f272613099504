"""Runs a scenario into a folder: tape and checkpoints while it goes, tables and summary when it is done.

`summary.json` is written last, so a folder with one is a whole run and a folder without one can be resumed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save_file

from covsim.events import Digest, Event
from covsim.record.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from covsim.record.files import write_json, write_text, write_whole
from covsim.record.provenance import provenance
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.record.tape import Tape
from covsim.scenario import Scenario, loads
from covsim.scenario.deployment import num_parameters
from covsim.scenario.resolve import resolved_text, run_id
from covsim.simulation import Simulation

Observer = Callable[[Event], None]

RESULTS = Path("results")
BYTES_PER_PARAMETER = 4  # fp32, what compression ratios are stated against


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies and what it amounts to. `skipped` if it was there already."""

    folder: Path
    summary: dict[str, Any]
    skipped: bool = False


class Interrupted(Exception):
    """The run was stopped by the user and can be resumed from `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; go on with: covsim run --resume {folder}")
        self.folder = folder


class CannotResume(ValueError):
    """The folder holds nothing that this version of covsim could go on with."""


class UnfinishedRun(ValueError):
    """The folder holds a run that was cut; nothing is overwritten without being told to."""


def run(
    scenario: Scenario,
    source_text: str,
    out: Path | None = None,
    force: bool = False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Run a scenario and write its folder, `<out>/<name>/<run-id>`.

    Args:
        scenario: what to run.
        source_text: the scenario as the user gave it, kept beside the resolved one.
        out: the folder of all results; `results` if not given.
        force: run again even where a finished or an unfinished run lies.
        observers: see every event, as it happens.

    Raises:
        UnfinishedRun: an unfinished run lies there; the message says how to go on with it.
        Interrupted: the user pressed Ctrl-C; the folder can be resumed.
    """
    identity = run_id(scenario)
    folder = (out or RESULTS) / scenario.name / identity
    finished = _finished(folder)
    if finished is not None and not force:
        return Run(folder, finished, skipped=True)
    if folder.exists() and not force:
        raise UnfinishedRun(
            f"{folder}: an unfinished run lies here; go on with --resume {folder}, or start over with --force"
        )
    if folder.exists():
        shutil.rmtree(folder)
    write_text(folder / "scenario.yaml", source_text)
    write_text(folder / "resolved.yaml", resolved_text(scenario))
    return _Execution(scenario, identity, folder, None, observers).finish()


def resume(folder: Path, observers: Sequence[Observer] = ()) -> Run:
    """Go on with an interrupted run; the result is bit-identical to that of an uninterrupted one.

    Raises:
        CannotResume: `folder` holds no run of covsim, or code, data or torch have changed since.
        Interrupted: the user pressed Ctrl-C again.
    """
    finished = _finished(folder)
    if finished is not None:
        return Run(folder, finished, skipped=True)
    resolved = folder / "resolved.yaml"
    if not resolved.is_file():
        raise CannotResume(f"{folder}: no run to resume here (it has no resolved.yaml)")
    scenario = loads(resolved.read_text(encoding="utf-8"), str(resolved))
    identity = run_id(scenario)
    if identity != folder.resolve().name:
        raise CannotResume(
            f"{folder}: this run was begun by another version of covsim, torch or the data and cannot be resumed; "
            "run the scenario again"
        )
    checkpoint = newest_checkpoint(folder / "checkpoints")
    return _Execution(scenario, identity, folder, checkpoint, observers).finish()


class _Execution:
    """One process's part of a run: re-executes up to a checkpoint if there is one, then runs to the end."""

    def __init__(
        self,
        scenario: Scenario,
        identity: str,
        folder: Path,
        checkpoint: Checkpoint | None,
        observers: Sequence[Observer],
    ) -> None:
        if scenario.compute.threads is not None:
            torch.set_num_threads(scenario.compute.threads)
        self._scenario = scenario
        self._identity = identity
        self._folder = folder
        self._checkpoint = checkpoint
        self._began = time.perf_counter()
        self._earlier_training_s = checkpoint.training_wall_s if checkpoint else 0.0
        self._earlier_total_s = checkpoint.total_wall_s if checkpoint else 0.0
        self._digest = Digest()
        self._recorder = Recorder(
            scenario.record.level, {name: validator.stake for name, validator in scenario.validators.items()}
        )
        self._tape = Tape(folder / "tape" / "tape.bin", checkpoint.tape_position if checkpoint else 0)
        self._simulation = Simulation(scenario, self._tape, (self._digest.add, self._recorder.observe, *observers))

    def finish(self) -> Run:
        """Run to the end and write everything. Raises Interrupted."""
        with _interrupts() as interrupted:
            self._replay()
            self._run_live(interrupted)
        self._simulation.finish()
        self._tape.sync()
        self._tape.close()
        return Run(self._folder, self._write_results())

    def _replay(self) -> None:
        """Re-execute up to the checkpoint, prove that it is the same run, and put the tensors back."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            return
        while self._simulation.num_steps < checkpoint.step:
            self._simulation.step()
        found = (self._tape.position, self._digest.num_events, self._digest.clock, self._digest.learning)
        wanted = (
            checkpoint.tape_position,
            checkpoint.num_events,
            checkpoint.digest_clock,
            checkpoint.digest_learning,
        )
        assert found == wanted, f"the re-executed run differs from its checkpoint: {found} is not {wanted}"
        self._simulation.restore({"trainer": checkpoint.trainer, "feedback": checkpoint.feedback})
        self._tape.go_live()
        self._checkpoint = None

    def _run_live(self, interrupted: Callable[[], bool]) -> None:
        simulation, every_s = self._simulation, self._scenario.record.checkpoint
        last_saved = time.perf_counter()
        while not simulation.finished:
            simulation.step()
            due = interrupted() or time.perf_counter() - last_saved >= every_s
            if due and simulation.quiescent and not simulation.finished:
                self._save_checkpoint()
                last_saved = time.perf_counter()
                if interrupted():
                    self._tape.close()
                    raise Interrupted(self._folder)

    def _save_checkpoint(self) -> None:
        """The tape first: a checkpoint never points behind what is on disk."""
        state = self._simulation.state()
        self._tape.sync()
        save_checkpoint(
            self._folder / "checkpoints",
            Checkpoint(
                step=self._simulation.num_steps,
                tape_position=self._tape.position,
                num_events=self._digest.num_events,
                digest_clock=self._digest.clock,
                digest_learning=self._digest.learning,
                training_wall_s=self._training_wall_s,
                total_wall_s=self._total_wall_s,
                trainer=state["trainer"],
                feedback=state["feedback"],
            ),
        )

    @property
    def _training_wall_s(self) -> float:
        return self._earlier_training_s + self._simulation.training_wall_s

    @property
    def _total_wall_s(self) -> float:
        return self._earlier_total_s + time.perf_counter() - self._began

    def _write_results(self) -> dict[str, Any]:
        """Final parameters, tables, provenance; the summary last, for it marks the run as whole."""
        scenario, simulation, folder = self._scenario, self._simulation, self._folder
        theta = simulation.final_theta.cpu()
        self._digest.add_final(theta.numpy().tobytes())
        tensors = _by_name(theta, scenario.model.shapes)
        write_whole(folder / "final.safetensors", lambda part: save_file(tensors, part))
        self._recorder.write(folder)
        charges = simulation.charges
        groups = scenario.deployment.groups(scenario.model.shapes.values())
        write_json(folder / "provenance.json", provenance(self._identity, self._total_wall_s))
        result = summary(
            self._recorder,
            scenario,
            digest=self._digest,
            payload_bytes=charges.regular_deployment_bytes,
            compression_ratio=BYTES_PER_PARAMETER * num_parameters(groups) / charges.regular_deployment_bytes,
            compression_ratio_model=BYTES_PER_PARAMETER * len(theta) / charges.regular_model_bytes,
            training_wall_s=self._training_wall_s,
            total_wall_s=self._total_wall_s,
            diagnostics={"bigram_nats": simulation.corpus.bigram_nats()},
        )
        write_json(folder / "summary.json", result)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # there is nothing left to resume
        return _finished(folder) or {}


def _finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a whole run, or None."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _by_name(theta: torch.Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The flat parameters [N] as named tensors."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = torch.split(theta, sizes)
    return {name: part.reshape(shape).clone() for (name, shape), part in zip(shapes.items(), parts, strict=True)}


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that the loop asks; the second one ends the process at once."""
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            os._exit(130)
        pressed = True

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread: nobody presses Ctrl-C there
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
