"""What a run has set up on the machine, written down before it is set up, and its removal.

A record is a small file in a directory of the user, with the owner's pid and start time. A run is alive as long as
that process is; what dead runs left is removed by name, and names that no living run claims are left-overs too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

NAMESPACE = re.compile(r"covsim-([0-9a-f]{6})-.+")
INTERFACE = re.compile(r"cv([0-9a-f]{6})[lc][0-9]+")  # at most 15 characters, so node names do not fit
_GRACE_S = 5.0


@dataclass
class Record:
    """One run's links: who owns them, and the processes that serve them."""

    run: str = field(default_factory=lambda: secrets.token_hex(3))
    owner_pid: int = field(default_factory=os.getpid)
    owner_started: int = field(default_factory=lambda: started(os.getpid()))
    network: str = ""  # of the addresses of its interfaces
    helpers: list[tuple[int, int]] = field(default_factory=list)  # (pid, started) of proxies

    @property
    def path(self) -> Path:
        """The record's file."""
        return directory() / f"links-{self.run}.json"

    def write(self) -> None:
        """Write the file, whole or not at all."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(self.path)

    def is_alive(self) -> bool:
        """Whether the owner still runs."""
        return is_running(self.owner_pid, self.owner_started)


def directory() -> Path:
    """The user's directory of records, made if it is not there. Raises RuntimeError if somebody else owns it."""
    path = (
        Path("/run/covsim") if os.getuid() == 0 and os.access("/run", os.W_OK) else Path(f"/tmp/covsim-{os.getuid()}")
    )
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise RuntimeError(f"{path} belongs to somebody else")
    return path


@contextmanager
def locked() -> Iterator[None]:
    """Keep other runs of this user from setting up or removing links meanwhile."""
    with (directory() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none, or it is dead and not yet reaped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if status[0] in "ZX" else int(status[19])


def is_running(pid: int, start: int) -> bool:
    """Whether the process of that pid is the one that started then: pids are used again."""
    return start > 0 and started(pid) == start


def run_tool(command: Sequence[str], lines: Sequence[str] = ()) -> str:
    """What a tool prints, given lines on its input. Raises RuntimeError with its first complaint."""
    try:
        done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]} is not installed") from None
    if done.returncode:
        complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise RuntimeError(f"{' '.join(command)}: {complaint}")
    return done.stdout


def clean() -> list[str]:
    """Remove what dead runs left; says what, line by line."""
    with locked():
        return remove_dead()


def remove_dead() -> list[str]:
    """The same for who holds the lock."""
    said, living = [], set()
    for path in sorted(directory().glob("links-*.json")):
        record = _read(path)
        if record.is_alive():
            living.add(record.run)
        else:
            said += remove(record)
    orphans = {match[1] for match in _matches(NAMESPACE, _namespaces()) + _matches(INTERFACE, _interfaces())}
    for run in sorted(orphans - living):
        said += remove(Record(run, 0, 0))
    return said


def _read(path: Path) -> Record:
    """A record that this or another version of the program has written."""
    known = {setting.name for setting in fields(Record)}
    return Record(**{name: value for name, value in json.loads(path.read_text()).items() if name in known})


def remove(record: Record) -> list[str]:
    """Remove one run's processes, interfaces, namespaces and file; says what, line by line."""
    said = []
    for pid, start in record.helpers:
        if is_running(pid, start):
            _kill([pid])
            said.append(f"process {pid} (proxy of links) killed")
    namespaces = [match[0] for match in _matches(NAMESPACE, _namespaces()) if match[1] == record.run]
    for namespace in namespaces:
        for pid in _kill([int(pid) for pid in run_tool(["ip", "netns", "pids", namespace]).split()]):
            said.append(f"process {pid} in namespace {namespace} killed")
    if namespaces and record.network:
        _end_connections(record.network)
    for match in _matches(INTERFACE, _interfaces()):
        if match[1] == record.run:
            run_tool(["ip", "link", "del", match[0]])
            said.append(f"interface {match[0]} removed")
    for namespace in namespaces:
        run_tool(["ip", "netns", "del", namespace])
        said.append(f"namespace {namespace} removed")
    if record.path.exists():
        record.path.unlink()
        said.append(f"record {record.path} removed")
    return said


def _end_connections(network: str) -> None:
    """End what the store still has open to it, where the kernel can: without its route it would take another one."""
    subprocess.run(["ss", "-t", "-a", "-K", "src", network], capture_output=True, check=False)


def _kill(pids: Sequence[int]) -> list[int]:
    """Kill processes and wait until they are gone, so that what they hold is free."""
    born = {pid: started(pid) for pid in pids}
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + _GRACE_S
    while any(is_running(pid, start) for pid, start in born.items()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return list(pids)


def _matches(pattern: re.Pattern[str], names: Sequence[str]) -> list[re.Match[str]]:
    return [match for name in names if (match := pattern.fullmatch(name))]


def _namespaces() -> list[str]:
    """Nothing for who is not root: the namespaces there are not theirs to remove."""
    where = Path("/run/netns")
    if os.geteuid() != 0:
        return []
    return sorted(path.name for path in where.iterdir()) if where.is_dir() else []


def _interfaces() -> list[str]:
    where = Path("/sys/class/net")
    if os.geteuid() != 0:
        return []
    return sorted(path.name for path in where.iterdir()) if where.is_dir() else []
