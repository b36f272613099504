"""Nothing is left: after close, after a failed start, and after SIGKILL of the owner at any point, once cleaned.

A living run's links are not touched by another's start or clean. Other tests may start and clean links at the same
time, so only a run's own traces count, and what cleaning says is read where nobody else can have cleaned before.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from links import KINDS, NEEDS_KERNEL, names, peer, running

from covsim.emulation import links_kernel, links_record
from covsim.emulation.links import Links, choose
from covsim.emulation.links_kernel import KernelLinks
from covsim.emulation.links_measure import begin, transfers
from covsim.emulation.links_user import UserLinks

# Links that are up, with two processes on their nodes' side and a transfer under way; or half of them.
_OWNER = """
import json, subprocess, sys, time
from covsim.emulation.links import NodeLink, choose
from covsim.emulation.links_kernel import KernelLinks
from covsim.emulation.links_measure import begin, counting_store
kind, until = sys.argv[1], sys.argv[2]
nodes = [NodeLink(f"peer-{i}", 20e6, 50e6, 0.01) for i in range(3)]
links = choose(kind)
def ready(*processes):
    pids = [process.pid for process in processes]
    print(json.dumps({"run": links._record.run, "pids": pids}), flush=True)
    time.sleep(60)
connect = KernelLinks._connect
def half(self, node):
    if node == "peer-1":
        ready()
    connect(self, node)
if until == "half":
    KernelLinks._connect = half
with counting_store() as port:
    links.start(nodes, port)
    proxy = (links._relay if kind == "kernel" else links._proxy)._process
    client = begin(links, "peer-0", "up", 100_000_000)
    sleeper = subprocess.Popen(links.command("peer-1", ["sleep", "60"]))
    time.sleep(0.2)
    ready(proxy, client, sleeper)
"""


@dataclass(frozen=True)
class Owner:
    """A process that owns links, and what it has started."""

    process: subprocess.Popen[str]
    run: str
    pids: tuple[int, ...]

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def end_nodes(self) -> None:
        """End the nodes' processes: in user space they are no business of the links."""
        for pid in self.pids[1:]:
            if links_record.started(pid):
                os.kill(pid, signal.SIGKILL)

    def living(self) -> list[int]:
        """Which of its processes run."""
        return [pid for pid in self.pids if links_record.started(pid)]


def _owner(kind: str, until: str) -> Owner:
    process = subprocess.Popen([sys.executable, "-c", _OWNER, kind, until], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    return Owner(process, said["run"], tuple(said["pids"]))


def _traces(run: str) -> list[str]:
    """What lies on this machine in a run's name: namespaces, interfaces, record."""
    places = [(Path("/run/netns"), "covsim-"), (Path("/sys/class/net"), "cv"), (links_record.directory(), "links-")]
    return [path.name for where, start in places if where.is_dir() for path in where.glob(f"{start}{run}*")]


def _run_of(links: Links) -> str:
    assert isinstance(links, KernelLinks | UserLinks)
    assert links._record is not None
    return links._record.run


def _gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(links_record.started, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(links_record.started, pids))


@pytest.mark.parametrize("kind", KINDS)
def test_close_leaves_nothing(kind: str):
    with running(kind, peer("peer-0"), peer("peer-1", latency_s=0.01)) as links:
        run = _run_of(links)
        node = subprocess.Popen(links.command("peer-0", ["sleep", "9"]))
        time.sleep(0.1)
        assert len(_traces(run)) == (7 if kind == "kernel" else 1)
        links.close()
        links.close()
        assert _traces(run) == []
        if kind == "user":
            node.kill()
        assert node.wait() == -signal.SIGKILL


@NEEDS_KERNEL
def test_kernel_links_of_a_killed_owner_are_cleaned():
    owner = _owner("kernel", "whole")
    assert len(_traces(owner.run)) == 10
    assert len(owner.living()) == 3
    with links_record.locked():
        owner.kill()
        said = [line for line in links_record.remove_dead() if owner.run in line or "proxy" in line]
    assert _traces(owner.run) == []
    assert _gone(list(owner.pids), 1)
    assert (len(names(said, "interface")), len(names(said, "record"))) == (6, 1)
    assert names(said, f"process {owner.pids[2]} in namespace")  # the client may have seen its store die, and be gone


@NEEDS_KERNEL
def test_an_owner_killed_while_it_sets_up_is_cleaned():
    owner = _owner("kernel", "half")
    assert len(_traces(owner.run)) == 4
    owner.kill()
    Links.clean()
    assert _traces(owner.run) == []


@NEEDS_KERNEL
def test_the_next_start_cleans_too():
    owner = _owner("kernel", "whole")
    owner.kill()
    with running("kernel", peer()):
        assert _traces(owner.run) == []
    assert _gone(list(owner.pids), 1)


@NEEDS_KERNEL
def test_names_without_a_record_are_cleaned():
    owner = _owner("kernel", "whole")
    with links_record.locked():
        owner.kill()
        (links_record.directory() / f"links-{owner.run}.json").unlink()
        said = [line for line in links_record.remove_dead() if owner.run in line]
    assert len(names(said, "namespace covsim-")) == 5  # three, and two processes in them
    assert _traces(owner.run) == []


def test_a_proxy_ends_with_its_owner_and_its_record_is_cleaned():
    owner = _owner("user", "whole")
    owner.kill()
    assert _gone([owner.pids[0]], 3)
    Links.clean()
    assert _traces(owner.run) == []
    owner.end_nodes()


def test_a_proxy_that_hangs_is_killed():
    # Stopped, it sees neither the end of the pipe nor the death of its parent.
    owner = _owner("user", "whole")
    os.kill(owner.pids[0], signal.SIGSTOP)
    owner.kill()
    Links.clean()
    assert _gone([owner.pids[0]], 1)
    owner.end_nodes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_living_run_is_not_touched(kind: str):
    with running(kind, peer()) as living:
        Links.clean()
        with running(kind, peer()) as other:  # beside it, with an address of its own
            assert other.store_url("peer-0") != living.store_url("peer-0")
            assert transfers(other, "peer-0", "up", 1000)[0].took_s < 1
        assert transfers(living, "peer-0", "up", 1000)[0].took_s < 1


@NEEDS_KERNEL
def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    whole, runs = KernelLinks._connect, []

    def fails(self: KernelLinks, node: str) -> None:
        runs.append(_run_of(self))
        if node == "peer-1":
            raise RuntimeError("refused")
        whole(self, node)

    monkeypatch.setattr(KernelLinks, "_connect", fails)
    links = choose("kernel")
    with pytest.raises(RuntimeError, match="refused"):
        links.start([peer("peer-0"), peer("peer-1")], 9000)
    assert len(runs) == 2
    assert _traces(runs[0]) == []


@NEEDS_KERNEL
def test_no_connection_outlives_its_interface():
    # The store would go on sending, by the route that is left: that of the machine.
    with running("kernel", peer()) as links:
        client = begin(links, "peer-0", "down", 10**8)
        time.sleep(0.3)
        links.cut("peer-0")
        network = re.sub(r"^http://|\.\d+\.\d+:\d+$", "", links.store_url("peer-0")) + ".0.0/16"
        assert "ESTAB" in _connections(network)
        links.close()
        client.communicate()
        assert _connections(network) == ""


def _connections(network: str) -> str:
    return subprocess.run(["ss", "-tHan", "src", network], capture_output=True, text=True, check=True).stdout


def test_a_pid_that_is_used_again_is_another_process():
    assert links_record.is_running(os.getpid(), links_record.started(os.getpid()))
    assert not links_record.is_running(os.getpid(), links_record.started(os.getpid()) + 1)
    assert not links_record.is_running(2**22 + 1, 5)


@pytest.mark.parametrize("kind", ["cable", ""])
def test_an_unknown_kind_is_refused(kind: str):
    with pytest.raises(ValueError, match="auto, kernel, user or open"):
        choose(kind)  # type: ignore[arg-type]


def test_without_root_the_user_space_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(links_kernel.os, "geteuid", lambda: 1000)
    links = choose("auto")
    assert (links.kind, links.remarks) == ("user space", ["links are shaped in user space: namespaces need root"])
    with pytest.raises(ValueError, match="need root"):
        choose("kernel")
