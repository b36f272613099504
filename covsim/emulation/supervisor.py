"""The parent: starts everybody, gathers events, sees the run to its end, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import simpy

from covsim.chain.extrinsics import CloseRun
from covsim.chain.ledger import Sealed
from covsim.emulation.control import Caller
from covsim.emulation.driver import Driver, WallClock
from covsim.emulation.hub import WATCHER, members_of
from covsim.emulation.journal import Journal
from covsim.emulation.links import Links, NodeLink
from covsim.emulation.processes import Process, Record
from covsim.emulation.store_server import BUCKET
from covsim.events import Event, RoundSettled, RoundSkipped, RunStopped
from covsim.nodes.stop_watch import StopWatch
from covsim.observing import Observer, Observers
from covsim.scenario import Scenario, population

STARTING_S = 180.0
"""Wall seconds that processes have to start: each loads torch."""
MOST_WINDOWS_LATE = 20
"""How many windows longer than planned a run may take."""
PAUSE_S = 0.7
"""Wall seconds between the decision to start and the start."""


class Failed(Exception):
    """A process ended, or did not start, and the run cannot go on without it."""


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        events: as they came in.
        content: the lead validator's final parameters, as little-endian float32.
        blocks: of the chain.
        numbers: how each node has kept up, by name.
        reason: the stop condition that was reached.
        remarks: what was not as asked for.
    """

    events: list[Event] = field(default_factory=list)
    content: bytes = b""
    blocks: list[Sealed] = field(default_factory=list)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: str = ""
    remarks: list[str] = field(default_factory=list)


class Supervisor:
    """One emulation.

    Args:
        scenario: what to run.
        folder: of its results; holds `resolved.yaml`.
        links: not yet started.
        observers: see every event as it comes in; not quite in the order of their times.
    """

    def __init__(self, scenario: Scenario, folder: Path, links: Links, observers: Sequence[Observer] = ()) -> None:
        self.scenario, self.links = scenario, links
        self.driver = Driver(simpy.Environment())
        self.outcome = Outcome()
        self.processes: dict[str, Process] = {}
        self.playing: dict[str, int] = {}  # the round that each peer is at, by name
        self._folder, self._record = folder, Record(folder)
        self._specs = population(scenario)
        self._peers = [f"peer:{spec.uid}" for spec in self._specs]
        self._nodes = [*self._peers, *(f"validator:{name}" for name in scenario.validators_by_stake)]
        self._stop = StopWatch(scenario, self._specs, self.driver.env)
        self._journal = Journal(folder)
        self._observers = Observers([self._stop, *observers])
        self._reports: dict[str, dict[str, Any]] = {}  # by kind and name
        self._standby: dict[str, Process] = {}
        self._port = 0
        self._at_start: list[Callable[[], None]] = []

    @property
    def leader(self) -> str:
        """The validator of the highest stake."""
        return f"validator:{self.scenario.validators_by_stake[0]}"

    def before_start(self, action: Callable[[], None]) -> None:
        """Have something done when the clock is known and nothing has happened yet."""
        self._at_start.append(action)

    def run(self) -> Outcome:
        """Start, run and end everything.

        Raises:
            Failed: a process ended, or did not start. Whatever happens, no process and no link is left.
        """
        try:
            self._start_servers()
            for name in self._nodes:
                self.processes[name] = self._spawn(name)
            self._await("ready", self._nodes, STARTING_S)
            self._found()
            self._go()
            self.driver.run()
            self._conclude()
        finally:
            self._end_all()
        return self.outcome

    # Starting -------------------------------------------------------------------------------------------------------

    def _start_servers(self) -> None:
        key = secrets.token_bytes(32)
        host = "0.0.0.0" if self.links.kind == "kernel" else "127.0.0.1"  # namespaces have ways of their own
        secret = self._folder / "control.key"
        secret.touch(mode=0o600)
        secret.write_text(key.hex(), encoding="ascii")
        hub = self.processes["chain"] = self._start(
            "chain", [sys.executable, "-m", "covsim.emulation.hub", str(self._folder), host], talks=True
        )
        store_port = 0
        if self.scenario.emulation.store == "local":
            command = [sys.executable, "-m", "covsim.emulation.store_server", host]
            self.processes["store"] = self._start("store", command, talks=True)
            store_port = self.processes["store"].answer()["port"]
        self._port = hub.answer()["port"]
        self.caller = Caller(("127.0.0.1", self._port), key, WATCHER, self._told)
        self.links.start([self._link_of(name) for name in self._nodes], store_port)

    def _start(self, name: str, command: Sequence[str], talks: bool = False) -> Process:
        log = self._folder / "logs" / f"{name.replace(':', '-')}.txt"
        log.parent.mkdir(exist_ok=True)
        process = Process(name, command, log, talks)
        self._record.add(process.pid)
        return process

    def _spawn(self, name: str, standby: bool = False) -> Process:
        """Start a node's process; one on standby waits to be told that it is the node."""
        emulation, link = self.scenario.emulation, link_name(name)
        if emulation.store == "local":
            place = [self.links.store_url(link), BUCKET, ""]
        else:
            bucket, _, prefix = emulation.store.removeprefix("s3://").partition("/")
            place = [emulation.endpoint or "", bucket, f"{prefix.strip('/')}/{self._folder.name}/".lstrip("/")]
        command = [sys.executable, "-m", "covsim.emulation.node", str(self._folder), name]
        command += [self.links.control_host(link), str(self._port), *place]
        return self._start(name, self.links.command(link, [*command, "--standby"] if standby else command))

    def _link_of(self, name: str) -> NodeLink:
        up, down = self.rates_of(name)
        latency_s = self.scenario.network.latency * self.scenario.emulation.seconds_per_second
        return NodeLink(link_name(name), up, down, latency_s)

    def rates_of(self, name: str) -> tuple[float, float]:
        """Up and down, in wall bits per second: scaled so that a payload takes its simulated time in wall seconds."""
        kind, _, label = name.partition(":")
        if kind == "peer":
            spec = next(spec for spec in self._specs if spec.uid == int(label))
            rates = spec.uplink_bits_per_s, spec.downlink_bits_per_s
        else:
            rates = self.scenario.validators[label].uplink, self.scenario.validators[label].downlink
        scale = self.scenario.emulation.bytes_per_byte / self.scenario.emulation.seconds_per_second
        return rates[0] * scale, rates[1] * scale

    def _found(self) -> None:
        """Block 0, and the first gather list."""
        there = [spec.uid for spec in self._specs if spec.membership.first_round == 0]
        self.caller.call("chain.found", members_of(self.scenario, there))
        self.caller.call("push", self.leader, "first_list")
        self._await("listed", [self.leader], STARTING_S)

    def _go(self) -> None:
        """Let the run begin with a whole second of the calendar, so that the store's stamps cut at windows' edges."""
        ahead_s = time.time() - time.monotonic()
        start_unix_s = float(int(time.time() + PAUSE_S) + 1)
        clock = WallClock(start_unix_s - ahead_s, self.scenario.emulation.seconds_per_second, start_unix_s)
        self.driver.clock = clock
        for action in self._at_start:
            action()
        self.caller.call("start", clock)
        self.driver.env.process(self._watch())

    # What befalls nodes ---------------------------------------------------------------------------------------------

    def push(self, node: str, *message: Any) -> None:
        """Tell a node something."""
        self.caller.call("push", node, *message)

    def kill(self, node: str) -> None:
        """End a node's process at once, with all that it has in memory."""
        self.processes.pop(node).kill()

    def prepare(self, node: str) -> None:
        """Start a process that can take a peer's place: that it loads torch is no part of a crash."""
        self._standby[node] = self._spawn(node, standby=True)

    def bring_back(self, node: str) -> None:
        """Let the process that was prepared go on where the one that was killed has stopped."""
        self.processes[node] = self._standby.pop(node)
        began_s = time.monotonic()
        self._await("standby", [node], STARTING_S)
        del self._reports["standby"][node]
        waited_s = (time.monotonic() - began_s) / self.scenario.emulation.seconds_per_second
        if waited_s > self.scenario.emulation.most_lag:
            self.outcome.remarks.append(f"{node} came back {waited_s:.1f} simulated s late: its process took so long")
        self.push(f"{node}+", "begin", self.driver.clock, self.playing.get(node, 0))

    # Listening ------------------------------------------------------------------------------------------------------

    def _told(self, message: tuple[Any, ...]) -> None:
        self.driver.inject(lambda: self._hear(*message))

    def _hear(self, kind: str, *content: Any) -> None:
        if kind == "event":
            self.take(content[0])
        elif kind == "report":
            name, what, value = content
            self._reports.setdefault(what, {})[name] = value
            if what == "done" and len(self._reports["done"]) == len(self._nodes):
                self.driver.stop()

    def take(self, event: Event) -> None:
        """Keep an event, and see whether it ends the run."""
        self.outcome.events.append(event)
        self._journal.add(event)
        if isinstance(event, RoundSettled | RoundSkipped):
            self.playing[f"peer:{event.uid}"] = event.round + 1
        self._observers.emit(event)
        if self._stop.reason is not None:
            self.driver.stop()

    def _await(self, what: str, names: Sequence[str], patience_s: float) -> None:
        """Wait, while nothing else happens here, until all of these have reported something."""
        until_s = time.monotonic() + patience_s
        while not all(name in self._reports.get(what, {}) for name in names):
            self.driver.take_one(0.2)
            self._check_processes(names)
            if time.monotonic() > until_s:
                missing = [name for name in names if name not in self._reports.get(what, {})]
                raise Failed(f"{', '.join(missing)}: not {what} after {patience_s:.0f} s; see {self._folder / 'logs'}")

    def _check_processes(self, names: Sequence[str]) -> None:
        for name in (*names, "chain", "store"):
            process = self.processes.get(name)
            if process is not None and process.exit_code is not None:
                log = self._folder / "logs" / f"{name.replace(':', '-')}.txt"
                raise Failed(f"{name} ended with {process.exit_code}; see {log}")

    def _watch(self) -> Any:
        """See once a wall second whether all processes that should run do, and whether the run comes to an end."""
        most_s = self.scenario.window_s * (self.scenario.planned_rounds + MOST_WINDOWS_LATE)
        while True:
            yield self.driver.env.timeout(1.0 / self.scenario.emulation.seconds_per_second)
            if self.driver.env.now > most_s:
                raise Failed(f"the run has not ended {MOST_WINDOWS_LATE} windows after it should have")
            self._check_processes([name for name in self._nodes if name in self.processes])

    # Ending ---------------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """Measure every history that is still alive, close the chain over the run, and announce the end."""
        end_s = self.driver.env.now
        self.driver.take_all()
        living = [name for name in self._nodes if name in self.processes]
        self.caller.call("push", None, "stand")
        self._await("stands", living, STARTING_S)
        numbers = self.outcome.numbers = self._reports["stands"]
        first: dict[str, str] = {}
        for name in (self.leader, *self._nodes):
            if name in numbers:
                first.setdefault(numbers[name]["lineage"], name)
        last = self._stop.rounds_settled - 1
        for name in first.values():
            self.caller.call("push", name, "measure", last, end_s, name == self.leader)
        self._await("measured", list(first.values()), STARTING_S)
        loss, self.outcome.content = self._reports["measured"][self.leader]
        theta = hashlib.sha256(self.outcome.content).hexdigest()
        end = CloseRun(theta, "", loss, self._stop.rounds_settled)
        self.outcome.blocks = self.caller.call("chain.close", self.leader, end)
        self.driver.take_all()
        self.outcome.reason = self._stop.reason or "rounds"
        self.take(RunStopped(end_s, self._stop.rounds_settled, self.outcome.reason))
        self.caller.call("push", None, "over")

    def _end_all(self) -> None:
        servers = ("chain", "store")
        for process in self._standby.values():
            process.kill()
        for name in [*(name for name in self.processes if name not in servers)]:
            if self.outcome.reason:  # everybody has been told that it is over
                self.processes[name].end()
            else:
                self.processes[name].kill()
        for name in servers:
            if name in self.processes:
                self.processes[name].kill()
        self.links.close()
        self.outcome.remarks += self.links.remarks
        self._journal.close()
        (self._folder / "control.key").unlink(missing_ok=True)
        self._record.remove()


def link_name(node: str) -> str:
    """How a node's link is called."""
    return node.replace(":", "-")
