"""The processes of an emulation: started, watched, killed; and a record of them, for whoever must clean up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from covsim.record.files import write_json

ENDING_S = 5.0
"""Wall seconds that a process has to end by itself."""


@dataclass(frozen=True)
class Known:
    """A process by its id and by the kernel's tick at which it began, for ids are given again."""

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> Known | None:
        """The living process with this id, or None."""
        began = _began(pid)
        return None if began is None else cls(pid, began)

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return _began(self.pid) == self.began

    def kill(self) -> None:
        """End it at once, if it is still this one."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Record:
    """What a run has started, on disk, so that it can be removed when the run itself can no longer do so.

    Args:
        folder: of the run's results.
    """

    def __init__(self, folder: Path) -> None:
        self.path = runs_folder() / f"{os.getpid()}-{folder.name}.json"
        self._folder, self._owner = folder, Known.of(os.getpid())
        self._processes: list[Known] = []
        self._write()

    def add(self, pid: int) -> None:
        """Note a process."""
        known = Known.of(pid)
        if known is not None:
            self._processes.append(known)
            self._write()

    def remove(self) -> None:
        """Nothing is left of the run."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        assert self._owner is not None
        processes = [[known.pid, known.began] for known in self._processes]
        owner = [self._owner.pid, self._owner.began]
        write_json(self.path, {"folder": str(self._folder.resolve()), "owner": owner, "processes": processes})


def runs_folder() -> Path:
    """Where records lie: of this user, on this machine, until it is switched off."""
    folder = Path(tempfile.gettempdir()) / f"covsim-emulation-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder}: belongs to somebody else")
    return folder


def left_behind() -> list[tuple[Path, dict[str, Any]]]:
    """The records of runs whose owner is dead."""
    found = []
    for path in sorted(runs_folder().glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not Known(*record["owner"]).is_alive:
            found.append((path, record))
    return found


class Process:
    """A child of this process.

    Args:
        name: for messages.
        command: what to run.
        log: takes what it says on its standard error.
        talks: whether it answers on its standard output and obeys on its standard input.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, talks: bool = False) -> None:
        self.name = name
        self._log: IO[bytes] = log.open("ab")
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            list(command), stdin=pipe, stdout=pipe, stderr=self._log, env=environment, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Its id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """With what it ended, None while it runs."""
        return self._child.poll()

    def answer(self) -> dict[str, Any]:
        """The line that it says. Raises ValueError if it says none."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise ValueError(f"{self.name} did not start; see {self._log.name}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def order(self, **what: Any) -> None:
        """Tell it something."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(what).encode() + b"\n")
        self._child.stdin.flush()

    def end(self, patience_s: float = ENDING_S) -> None:
        """Let it end by itself, and kill it if it does not."""
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()  # for who listens there it is the end
        try:
            self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
        self._close()

    def _close(self) -> None:
        self._log.close()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _began(pid: int) -> int | None:
    """The kernel's tick at which a process began; None for one that is gone, or dead and not buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
