"""Runs a scenario into a folder: tape and checkpoints while it goes, tables and summary when it is done.

`summary.json` is written last, so a folder with one is a whole run and a folder without one can be resumed. One process
at a time works in a folder, see `record.lock`.
"""

from __future__ import annotations

import gc
import json
import math
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from covsim.chain.ledger import Sealed, write_ledger
from covsim.digest import Digest
from covsim.nodes.learning import Learning
from covsim.observing import Observer, Sorted
from covsim.record.checkpoint import Checkpoint, DamagedCheckpoint, newest_checkpoint, save_checkpoint
from covsim.record.files import file_sha256, write_json, write_text, write_whole
from covsim.record.interrupts import interrupts
from covsim.record.layered_run import write_layered
from covsim.record.lock import LOCK, FolderInUse, locked
from covsim.record.provenance import provenance
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.record.tape import NoTape, Tape, TapeMismatch
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.deployment import compression, num_parameters
from covsim.scenario.faults import labels
from covsim.scenario.resolve import resolved_text, run_id, with_files_as_they_are
from covsim.simulation import Simulation
from covsim.sources import SourceError
from covsim.unserved import Unserved
from covsim.world.layers import Layered

RESULTS = Path("results")
BURST = 256
"""Steps of a timing-only run between two looks at the keyboard and the watch: some milliseconds. One step of a run
that trains may take seconds."""
COLLECT_EVERY = 2_000_000
"""New objects of a timing-only run until the collector looks for cycles; most are kept, so it finds little."""


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies and what it amounts to. `skipped` if it was there already."""

    folder: Path
    summary: dict[str, Any]
    skipped: bool = False


class Interrupted(Exception):
    """The run was stopped by the user and can be resumed from `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; go on with: {_resuming(folder)}")
        self.folder = folder


class CannotBegin(ValueError):
    """What only a run can find out: a user's module, probe or task does not fit the rest of the scenario."""


class CannotResume(ValueError):
    """The folder holds nothing that this version of covsim could go on with."""


class CannotWrite(ValueError):
    """There is no place for results where they were asked for."""


class UnfinishedRun(ValueError):
    """The folder holds a run that was cut; nothing is overwritten without being told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: an unfinished run lies here; go on with: {_resuming(folder)}, or start over with --force"
        )
        self.folder = folder


REFUSALS = (CannotBegin, CannotResume, CannotWrite, FolderInUse, SourceError, UnfinishedRun, Unserved)
"""Why a run is not begun, or ends without results; each says so in one line."""


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
        FolderInUse: another process is running it.
        CannotWrite: `out` is no place for results.
        CannotBegin: a user's module, probe or task does not fit the rest of the scenario.
        SourceError: a user's file is gone, or fails on the way.
        Unserved: a script asks for what the scenario's `learning` or `compute` leaves out.
        Interrupted: the user pressed Ctrl-C; the folder can be resumed.
    """
    try:
        scenario = with_files_as_they_are(scenario)
    except ScenarioError as error:
        raise CannotBegin(str(error.problems[0])) from error
    identity = run_id(scenario)
    folder = (out or RESULTS) / scenario.name / identity
    with ExitStack() as stack:
        with _writing(folder):
            if not force and (whole := _whole(folder)):
                return whole
            interrupted = stack.enter_context(interrupts())
            stack.enter_context(locked(folder))
            if not force and (whole := _whole(folder)):  # by the process that had the lock until now
                return whole
            if not force and (folder / "resolved.yaml").exists():
                raise UnfinishedRun(folder)
            _clear(folder)
            write_text(folder / "scenario.yaml", source_text)
            write_text(folder / "resolved.yaml", resolved_text(scenario))
        try:
            return _execute(scenario, identity, folder, None, observers, interrupted)
        except (CannotBegin, Unserved):
            shutil.rmtree(folder, ignore_errors=True)
            raise


def resume(folder: Path, observers: Sequence[Observer] = ()) -> Run:
    """Go on with an interrupted run; the result is bit-identical to that of an uninterrupted one.

    Raises:
        CannotResume: `folder` holds no run of covsim, or a damaged one, or code, data or torch have changed since.
        FolderInUse: another process is running it.
        CannotWrite: the folder may only be read.
        Interrupted: the user pressed Ctrl-C again.
    """
    if whole := _whole(folder):
        return whole
    scenario = scenario_of(folder)
    identity = run_id(scenario)
    if identity != folder.resolve().name:
        raise CannotResume(
            f"{folder}: this run was begun by another version of covsim, torch or the data and cannot be resumed; "
            "run the scenario again"
        )
    with ExitStack() as stack:
        interrupted = stack.enter_context(interrupts())
        with _writing(folder):
            stack.enter_context(locked(folder))
        if whole := _whole(folder):  # by the process that had the lock until now
            return whole
        try:
            checkpoint = newest_checkpoint(folder / "checkpoints")
            if checkpoint is not None and not _tape_of(folder).is_file():
                raise TapeMismatch("the tape is missing")
            return _execute(scenario, identity, folder, checkpoint, observers, interrupted)
        except (TapeMismatch, DamagedCheckpoint) as error:
            raise CannotResume(f"{folder}: cannot be resumed, run it again with --force: {error}") from error


def run_or_resume(scenario: Scenario, out: Path | None = None) -> Run:
    """Run a scenario, or go on with it where it was cut, or find it done. Raises what `run` and `resume` do."""
    try:
        return run(scenario, resolved_text(scenario), out)
    except UnfinishedRun as unfinished:
        return resume(unfinished.folder)


def scenario_of(folder: Path) -> Scenario:
    """The scenario of the run in a folder. Raises CannotResume."""
    resolved = folder / "resolved.yaml"
    if not resolved.is_file():
        raise CannotResume(f"{folder}: no run to resume here (it has no resolved.yaml)")
    try:
        return load(resolved)
    except ScenarioError as error:
        raise CannotResume(f"{error.problems[0]} (cannot be resumed; run the scenario again)") from error


def _execute(
    scenario: Scenario,
    identity: str,
    folder: Path,
    checkpoint: Checkpoint | None,
    observers: Sequence[Observer],
    interrupted: Callable[[], bool],
) -> Run:
    if isinstance(scenario.timeline, Layered):
        if not write_layered(scenario, identity, folder, observers, interrupted):
            raise Interrupted(folder)
        return Run(folder, _finished(folder) or {})
    trains = scenario.learning.kind == "trained"
    with closing(Tape(_tape_of(folder), checkpoint.tape_position if checkpoint else 0) if trains else NoTape()) as tape:
        return _Execution(scenario, identity, folder, tape, checkpoint, observers).finish(interrupted)


class _Execution:
    """One process's part of a run: re-executes up to a checkpoint if there is one, then runs to the end."""

    def __init__(
        self,
        scenario: Scenario,
        identity: str,
        folder: Path,
        tape: Tape | NoTape,
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
        self._tape = tape
        self._recorder = Recorder.of_scenario(scenario)
        watching: list[Observer | Sorted] = [self._digest, self._recorder, *observers]
        try:
            self._simulation = Simulation(scenario, self._tape, watching)
        except ValueError as error:
            raise CannotBegin(str(error)) from error

    def finish(self, interrupted: Callable[[], bool]) -> Run:
        """Run to the end and write everything. Raises Interrupted."""
        self._replay(interrupted)
        with self._collections():
            self._run_live(interrupted)
        self._simulation.finish(self._tape_sha256)
        done = Run(self._folder, self._write_results())
        if interrupted():  # too late for this run, which is whole; not for what was to come after it
            raise Interrupted(self._folder)
        return done

    def _replay(self, interrupted: Callable[[], bool]) -> None:
        """Re-execute up to the checkpoint, prove that it is the same run, and put the tensors back."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            return
        simulation, digest = self._simulation, self._digest
        while simulation.num_steps < checkpoint.step and not simulation.finished:
            if interrupted():
                raise Interrupted(self._folder)  # the checkpoint is still there
            simulation.step()
        found = (simulation.num_steps, self._tape.position, digest.num_events, digest.clock, digest.learning)
        wanted = (
            checkpoint.step,
            checkpoint.tape_position,
            checkpoint.num_events,
            checkpoint.digest_clock,
            checkpoint.digest_learning,
        )
        if found != wanted:
            raise TapeMismatch(f"the re-executed run differs from its checkpoint: {found} is not {wanted}")
        self._simulation.restore({"trainer": checkpoint.trainer, "feedback": checkpoint.feedback})
        self._tape.go_live()
        self._checkpoint = None

    @contextmanager
    def _collections(self) -> Iterator[None]:
        """Spare the garbage collector what lives as long as the run; in the end it looks at everything again."""
        before = gc.get_threshold()
        if not isinstance(self._tape, Tape):  # tensors in cycles would not wait so long
            gc.set_threshold(COLLECT_EVERY, *before[1:])
        gc.collect()
        gc.freeze()  # peers, links and the chain's accounts: nobody need look at them again
        try:
            yield
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()

    def _run_live(self, interrupted: Callable[[], bool]) -> None:
        simulation, every_s = self._simulation, self._scenario.record.checkpoint
        last_saved = time.perf_counter()
        burst = 1 if isinstance(self._tape, Tape) else BURST
        while not simulation.finished:
            simulation.go_on(burst)
            due = interrupted() or time.perf_counter() - last_saved >= every_s
            if due and simulation.quiescent and not simulation.finished:
                if isinstance(self._tape, Tape):  # else a resumed run begins anew
                    self._save_checkpoint()
                last_saved = time.perf_counter()
                if interrupted():
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

    def _tape_sha256(self) -> str:
        """Of the tape as it is now, when the last answer is on it; empty without one."""
        if isinstance(self._tape, NoTape):
            return ""
        self._tape.sync()
        return file_sha256(_tape_of(self._folder))

    def _write_results(self) -> dict[str, Any]:
        """Final parameters, tables, provenance; the summary last, for it marks the run as whole."""
        scenario, simulation, folder = self._scenario, self._simulation, self._folder
        learning, lineage = simulation.learning, simulation.lead.lineage
        self._digest.add_final(simulation.final_content)
        theta = learning.weights(lineage)
        if theta is not None:
            tensors = by_name(theta, scenario.model.shapes)
            write_whole(folder / "final.safetensors", lambda part: save_file(tensors, part))
        device = torch.device("cpu") if theta is None else lineage.theta.device
        self._recorder.first_uids = simulation.commons.roster.first_uids
        self._recorder.write(folder)
        write_whole(folder / "ledger.jsonl", lambda part: write_ledger(part, simulation.commons.chain.chain.blocks))
        write_json(folder / "provenance.json", provenance(self._identity, self._total_wall_s, device))
        blocks, walls = simulation.commons.chain.chain.blocks, (self._training_wall_s, self._total_wall_s)
        result = summary_of(scenario, learning, blocks, self._recorder, self._digest, *walls)
        write_json(folder / "summary.json", result)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # there is nothing left to resume
        return _finished(folder) or {}


def summary_of(
    scenario: Scenario,
    learning: Learning,
    blocks: Sequence[Sealed],
    recorder: Recorder,
    digest: Digest,
    training_wall_s: float,
    total_wall_s: float,
) -> dict[str, Any]:
    """The content of summary.json for an execution that is finished; the digest holds its end already."""
    bigram_nats = learning.bigram_nats()
    deployed, sent = num_parameters(scenario.charged_tensors), scenario.payload_bytes
    result = summary(
        recorder,
        scenario,
        digest=digest,
        payload_bytes=sent,
        compression_ratio=compression(deployed, sent),
        compression_ratio_model=compression(scenario.model.num_parameters, learning.exchange.regular_bytes),
        training_wall_s=training_wall_s,
        total_wall_s=total_wall_s,
        tokens_are_bytes=learning.tokens_are_bytes,
        diagnostics={"bigram_nats": math.nan if bigram_nats is None else bigram_nats},
        faults=labels(scenario.faults),
    )
    return result | {"ledger.blocks": len(blocks), "ledger.head": blocks[-1].sha256}


def _finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a whole run, or None."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _whole(folder: Path) -> Run | None:
    """The run that lies there, if it is whole."""
    found = _finished(folder)
    return None if found is None else Run(folder, found, skipped=True)


def _tape_of(folder: Path) -> Path:
    return folder / "tape" / "tape.bin"


def _resuming(folder: Path) -> str:
    return f"covsim run --resume {shlex.quote(str(folder))}"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"{error.filename or folder}: cannot be written: {error.strerror}") from error


def _clear(folder: Path) -> None:
    """Remove all but the lock; what would make the rest pass for a run, whole or resumable, goes first."""
    for name in ("summary.json", "resolved.yaml"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def by_name(theta: torch.Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The flat parameters [N] as named tensors."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = torch.split(theta, sizes)
    return {name: part.reshape(shape).clone() for (name, shape), part in zip(shapes.items(), parts, strict=True)}
