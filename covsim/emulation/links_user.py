"""Links in user space: one proxy process, a port on 127.0.0.1 per node, token buckets instead of the kernel's queues.

Needs no root. Rates hold for payload, since no headers pass here, and processor time of the proxy is spent on the
nodes' machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from select import select
from typing import ClassVar

from covsim.emulation.links import Links, NodeLink, check_names, check_rates
from covsim.emulation.links_proxy import ProxyPort
from covsim.emulation.links_record import Record, locked, remove, remove_dead, started

_ANSWER_S = 20.0


class Proxy:
    """The proxy process seen from its parent. It ends when the parent does.

    Args:
        record: of the run, in which the process is noted.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._process: subprocess.Popen[str] | None = None

    def start(self, ports: Mapping[str, ProxyPort], store_port: int) -> dict[str, int]:
        """Start it, and return the TCP port of each node. Raises RuntimeError."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "covsim.emulation.links_proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent, which closes this
        )
        self._record.helpers.append((self._process.pid, started(self._process.pid)))
        self._record.write()
        answer = self.ask({"store_port": store_port, "nodes": {name: asdict(port) for name, port in ports.items()}})
        return answer

    def ask(self, request: Mapping[str, object]) -> dict[str, int]:
        """Send a request, wait until it is in force, return the answer (ports by node).

        Raises:
            RuntimeError: the proxy does not answer.
        """
        process = self._process
        assert process is not None, "the proxy is not running"
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline() if select([process.stdout], [], [], _ANSWER_S)[0] else ""
        except OSError:
            line = ""
        if not line:
            raise RuntimeError("the proxy of the links does not answer")
        answer: dict[str, int] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it. All that it carries breaks off."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class UserLinks(Links):
    """A token bucket per node and direction, which all connections of the node share in turns."""

    kind: ClassVar[str] = "user space"

    def __init__(self) -> None:
        super().__init__()
        self._record: Record | None = None
        self._proxy: Proxy | None = None
        self._ports: dict[str, int] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._cut: set[str] = set()

    def start(self, nodes: Sequence[NodeLink], store_port: int) -> None:
        """Start the proxy, which opens a port per node."""
        assert self._record is None, "these links have been started"
        check_names(nodes)
        with locked():
            remove_dead()
            self._record = Record()
            self._record.write()
        self._proxy = Proxy(self._record)
        self._rates = {node.name: (node.up_bits_per_s, node.down_bits_per_s) for node in nodes}
        try:
            self._ports = self._proxy.start(
                {n.name: ProxyPort("127.0.0.1", n.up_bits_per_s, n.down_bits_per_s, n.latency_s) for n in nodes},
                store_port,
            )
        except BaseException:
            self.close()
            raise
        self.remarks.append("rates hold for payload without headers; a node that does not use its address is not held")

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """The command itself: a node is told apart by the port that it uses."""
        assert node in self._rates, f"no node is called {node}"
        return list(command)

    def store_url(self, node: str) -> str:
        """The node's port of the proxy."""
        return f"http://127.0.0.1:{self._ports[node]}"

    def control_host(self, node: str) -> str:
        """This machine, without the proxy."""
        assert node in self._rates, f"no node is called {node}"
        return "127.0.0.1"

    def set_rates(self, node: str, up_bits_per_s: float, down_bits_per_s: float) -> None:
        """Change both buckets at once. A cut link stays cut."""
        check_rates(node, up_bits_per_s, down_bits_per_s)
        assert node in self._rates, f"no node is called {node}"
        self._rates[node] = (up_bits_per_s, down_bits_per_s)
        self._tell(node)

    def cut(self, node: str) -> None:
        """Stop both buckets."""
        assert node in self._rates, f"no node is called {node}"
        self._cut.add(node)
        self._tell(node)

    def restore(self, node: str) -> None:
        """Let both buckets run again."""
        self._cut.discard(node)
        self._tell(node)

    def close(self) -> None:
        """End the proxy."""
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._record is not None:
            with locked():
                remove(self._record)
            self._record = None

    def _tell(self, node: str) -> None:
        assert self._proxy is not None, "these links are not up"
        up, down = (0.0, 0.0) if node in self._cut else self._rates[node]
        self._proxy.ask({"node": node, "up_bits_per_s": up, "down_bits_per_s": down})
