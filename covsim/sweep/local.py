"""Runs many scenarios in local processes, side by side: what lies there is skipped, what was cut is resumed.

Each process has one torch thread, because two processes of one thread finish small models sooner than one process of
two. That is set in the process and not in the scenario: results do not depend on the number of threads, and a scenario
keeps its identity. A process is renewed after some runs, so that no memory adds up.

Processes stand in a group of their own, so that Ctrl-C reaches this one alone. It then closes their pipes, and so does
its own end, whatever it dies of. A process whose pipe is closed cuts its run, as Ctrl-C would, and leaves. Scripts need
the guard `if __name__ == "__main__":`, as for every spawned process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from covsim.record.files import write_text
from covsim.record.runner import RESULTS, Interrupted, Run, run_or_resume
from covsim.scenario import Scenario, run_id
from covsim.scenario.plugins import load_plugins

JOBS = 2
RUNS_PER_PROCESS = 20
SHOWN_FAILURES = 3
"""More failed runs than this are counted and not named."""

TRACEBACK = "error.txt"
"""What stopped a run lies in its folder under this name, until it is run again."""

Say = Callable[[str], None]


class FailedRuns(Exception):
    """Some runs failed; all others are done. `failures` has a line for each, by its folder."""

    def __init__(self, failures: Mapping[Path, str], num_runs: int) -> None:
        self.failures = dict(failures)
        shown = [f"{folder}: {line}" for folder, line in self.failures.items()][:SHOWN_FAILURES]
        more = "; ..." if len(failures) > SHOWN_FAILURES else ""
        super().__init__(f"{len(failures)} of {num_runs} runs failed: {'; '.join(shown)}{more}")


def run_all(
    scenarios: Sequence[Scenario],
    jobs: int = JOBS,
    out: Path | None = None,
    say: Say = print,
    keep_tapes: bool = True,
) -> list[Run]:
    """Run scenarios and return their runs in the order asked; equal scenarios are run once.

    Args:
        scenarios: what to run.
        jobs: processes; with 0 everything happens in this one.
        out: the folder of all results; `results` if not given.
        say: gets a line for each run that ends.
        keep_tapes: whether finished runs keep their tapes, from which they can be verified later. Of protocols that
            send dense payloads at every step these are hundreds of megabytes.

    Raises:
        FailedRuns: when all others are done.
        KeyboardInterrupt: the user pressed Ctrl-C; runs that were under way can be resumed, by the same call.
    """
    if jobs < 0:
        raise ValueError(f"jobs must be 0 or more, not {jobs}")
    order = [_Task(scenario, run_id(scenario), out or RESULTS, keep_tapes) for scenario in scenarios]
    tasks = {task.folder: task for task in order}
    done = {folder: task.attempt() for folder, task in tasks.items() if task.is_whole}
    left = [task for folder, task in tasks.items() if folder not in done]
    if done:
        say(f"{len(done)} of {len(tasks)} runs are there already")
    with closing(_in_processes(left, jobs) if jobs else _here(left)) as ended:
        for task, outcome in ended:
            done[task.folder] = outcome
            say(f"[{len(done)}/{len(tasks)}] {task.name}: {outcome}")
    failures = {folder: outcome.error for folder, outcome in done.items() if outcome.run is None}
    if failures:
        raise FailedRuns(failures, len(tasks))
    return [found for task in order if (found := done[task.folder].run) is not None]


@dataclass(frozen=True)
class _Outcome:
    """What became of a run: the run, or one line about why there is none."""

    run: Run | None = None
    error: str = ""
    wall_s: float = 0.0

    def __str__(self) -> str:
        if self.run is None:
            return f"FAILED: {self.error}"
        loss = self.run.summary.get("loss.final")
        shown = "no loss" if loss is None else f"loss {loss:.3f}"
        return f"{shown}  {self.wall_s:.0f} s  {self.run.folder}"


@dataclass(frozen=True)
class _Task:
    """A scenario to run, and where."""

    scenario: Scenario
    identity: str
    out: Path
    keep_tape: bool

    @property
    def name(self) -> str:
        """How its line begins."""
        return f"{self.scenario.name} seed {self.scenario.seed}"

    @property
    def folder(self) -> Path:
        """Where the run lies, or will."""
        return self.out / self.scenario.name / self.identity

    @property
    def is_whole(self) -> bool:
        """True for a run that is there already."""
        return (self.folder / "summary.json").is_file()

    def attempt(self) -> _Outcome:
        """Run, resume or find it. Raises Interrupted and KeyboardInterrupt, nothing else."""
        began = time.perf_counter()
        try:
            done = run_or_resume(self.scenario, self.out)
            (self.folder / TRACEBACK).unlink(missing_ok=True)
            if not self.keep_tape:
                (self.folder / "tape" / "tape.bin").unlink(missing_ok=True)
        except Interrupted:
            raise
        except Exception as error:
            with suppress(OSError):  # what failed may be the disk
                write_text(self.folder / TRACEBACK, traceback.format_exc())
            return _Outcome(error=" ".join(f"{type(error).__name__}: {error}".split()))
        return _Outcome(done, wall_s=time.perf_counter() - began)


Ended = Generator[tuple[_Task, _Outcome], None, None]


def _here(tasks: Sequence[_Task]) -> Ended:
    """One after the other, in this process."""
    for task in tasks:
        try:
            yield task, task.attempt()
        except Interrupted as interruption:
            raise KeyboardInterrupt from interruption


def _in_processes(tasks: Sequence[_Task], jobs: int) -> Ended:
    """Side by side, in the order in which they end."""
    waiting = list(reversed(tasks))
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_Worker())
                workers[-1].give(waiting.pop())
            ready = wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                yield worker.take()
                if not waiting or worker.is_spent:
                    workers.remove(worker)
                    worker.dismiss()
                else:
                    worker.give(waiting.pop())
    finally:
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.dismiss()


class _Worker:
    """A process that does one run after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.task: _Task | None = None
        self._num_done = 0
        self._broken = False
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # The process inherits the mask, and is deaf to Ctrl-C until it can deal with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def is_spent(self) -> bool:
        """True for a process that has died, or has done its share."""
        return self._broken or self._num_done >= RUNS_PER_PROCESS

    def give(self, task: _Task) -> None:
        """Let it begin a run."""
        self.task = task
        with suppress(BrokenPipeError):  # `take` finds out what became of it
            # Its parts may be classes of plugins, which the other process must import before it reads the rest.
            self.connection.send((task.scenario.plugins, pickle.dumps(task)))

    def take(self) -> tuple[_Task, _Outcome]:
        """The run that has ended, or with which the process has died."""
        task, self.task = self.task, None
        assert task is not None, "a process speaks of its run only"
        self._num_done += 1
        try:
            return task, self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._broken = True
            self._process.join()
            return task, _Outcome(error=f"its process ended with {_ending(self._process.exitcode)}")

    def hang_up(self) -> None:
        """Tell it to leave; a run that is under way is cut."""
        self.connection.close()

    def dismiss(self) -> None:
        """Tell it to leave, and wait until it has; a second Ctrl-C ends it at once."""
        self.hang_up()
        try:
            self._process.join()
        except KeyboardInterrupt:
            self._process.kill()
            raise


def _serve(connection: Connection[Any, Any]) -> None:
    """What a worker's process does: run what comes in, until the pipe is closed."""
    os.setpgrp()
    torch.set_num_threads(1)
    tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(connection, tasks, busy), daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while (task := tasks.get()) is not None:
            outcome = task.attempt()
            busy.clear()
            connection.send(outcome)
    except (Interrupted, KeyboardInterrupt, OSError):  # nobody is there any more to hear of it
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _listen(connection: Connection[Any, Any], tasks: queue.SimpleQueue[_Task | None], busy: threading.Event) -> None:
    """Pass on what comes in; when the pipe is closed, cut the run that is under way as Ctrl-C would."""
    try:
        while True:
            plugins, packed = connection.recv()
            load_plugins(plugins)
            busy.set()
            tasks.put(pickle.loads(packed))
    except (EOFError, OSError):
        pass
    finally:
        tasks.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGINT)


def _ending(exit_code: int | None) -> str:
    """'signal SIGKILL' or 'exit code 1'."""
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
