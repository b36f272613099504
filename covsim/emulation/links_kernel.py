"""Links by the Linux kernel: a network namespace per node, joined to this machine's by two veth pairs.

One pair is the link: tc shapes what the node sends at the node's end and what it receives at this end. The other pair
is for control and not shaped. A namespace has no route but to its two neighbors, so traffic stays on the machine.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from covsim.emulation.links import Links, NodeLink, check_names, check_rates
from covsim.emulation.links_proxy import ANY_RATE, ProxyPort
from covsim.emulation.links_record import Record, locked, remove, remove_dead, run_tool
from covsim.emulation.links_shaping import Shaper, segment_bytes
from covsim.emulation.links_user import Proxy

_LINK, _CONTROL = "uplink", "control"  # the node's ends, in its namespace
_NODE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NETWORKS = [ipaddress.IPv4Network(f"10.{second}.0.0/16") for second in range(77, 128)]
_MOST_NODES = 256
_LISTENING = "0A"
# What a socket may hold (bytes): more would go on flowing after its process was killed.
_SOCKET_BUFFER = 262144


class KernelLinks(Links):
    """Namespaces, veth pairs and tc: rates hold for frames, headers included."""

    kind: ClassVar[str] = "kernel"

    def __init__(self) -> None:
        super().__init__()
        self._record: Record | None = None
        self._nodes: dict[str, NodeLink] = {}
        self._numbers: dict[str, int] = {}
        self._cut: set[str] = set()
        self._network = _NETWORKS[0]
        self._ports: dict[str, int] = {}
        self._relay: Proxy | None = None
        self._shaper = Shaper(fair=True)
        self._congestion = ""

    def start(self, nodes: Sequence[NodeLink], store_port: int) -> None:
        """Make the namespaces, their pairs and, where needed, the relay that adds latency."""
        assert self._record is None, "these links have been started"
        _check(nodes)
        with locked():
            remove_dead()
            self._record = Record()
            self._record.write()
            try:
                self._set_up(nodes, store_port)
            except BaseException:
                self._remove()
                raise

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """`ip netns exec` becomes the command: its pid is the process's."""
        return ["ip", "netns", "exec", self._namespace(node), *command]

    def store_url(self, node: str) -> str:
        """This machine's end of the node's link."""
        return f"http://{self._address(self._numbers[node], 1)}:{self._ports[node]}"

    def control_host(self, node: str) -> str:
        """This machine's end of the node's other pair."""
        return self._address(self._numbers[node], 5)

    def set_rates(self, node: str, up_bits_per_s: float, down_bits_per_s: float) -> None:
        """Change both ends; what waits in their queues stays. A cut link stays cut."""
        check_rates(node, up_bits_per_s, down_bits_per_s)
        old = self._nodes[node]
        self._nodes[node] = NodeLink(node, up_bits_per_s, down_bits_per_s, old.latency_s)
        if node not in self._cut or self._shaper.fair:
            self._tc(node, "up", self._shaper.change(_LINK, up_bits_per_s))
            self._tc(node, "down", self._shaper.change(self._device(node, "l"), down_bits_per_s))
        self._set_segments(node)

    def cut(self, node: str) -> None:
        """Let both ends refuse every packet."""
        if node in self._cut:
            return
        self._cut.add(node)
        self._tc(node, "up", self._shaper.cut(_LINK))
        self._tc(node, "down", self._shaper.cut(self._device(node, "l")))

    def restore(self, node: str) -> None:
        """Let both ends send again."""
        if node not in self._cut:
            return
        self._cut.discard(node)
        link, device = self._nodes[node], self._device(node, "l")
        self._tc(node, "up", self._shaper.restore(_LINK, "up", link.up_bits_per_s))
        self._tc(node, "down", self._shaper.restore(device, "down", link.down_bits_per_s))

    def close(self) -> None:
        """Kill what runs in the namespaces and remove them, the interfaces and the relay."""
        if self._record is not None:
            with locked():
                self._remove()

    def _remove(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        if self._record is not None:
            remove(self._record)
            self._record = None

    def _set_up(self, nodes: Sequence[NodeLink], store_port: int) -> None:
        assert self._record is not None
        self._network = _free_network()
        self._record.network = str(self._network)
        self._record.write()
        self._nodes = {node.name: node for node in nodes}
        self._numbers = {node.name: number for number, node in enumerate(nodes)}
        with self._scratch() as namespace:
            self._shaper = Shaper(fair=_is_fair(namespace))
        if not self._shaper.fair:
            self.remarks.append("tc has no htb or no bpf filter here: tbf shapes, and transfers share as TCP does")
        known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        self._congestion = "congctl cubic" if "cubic" in known else ""
        for node in nodes:
            self._connect(node.name)
        self._ports = dict.fromkeys(self._numbers, store_port)
        self._add_latency(store_port)

    def _connect(self, node: str) -> None:
        namespace, number = self._namespace(node), self._numbers[node]
        here, there = [f"netns add {namespace}"], ["link set lo up"]
        for first, letter, name in ((1, "l", _LINK), (5, "c", _CONTROL)):
            device, route = self._device(node, letter), f"{self._address(number, first - 1)}/30"
            ours, theirs = self._address(number, first), self._address(number, first + 1)
            here += [
                f"link add {device} type veth peer name {name} netns {namespace}",
                f"link set {device} addrgenmode none up",
                f"address add {ours}/30 dev {device}",
                f"route replace {route} dev {device} src {ours} {self._congestion}",
            ]
            there += [
                f"link set {name} addrgenmode none up",
                f"address add {theirs}/30 dev {name}",
                f"route replace {route} dev {name} src {theirs} {self._congestion}",
            ]
        run_tool(["ip", "-batch", "-"], here)
        run_tool(["ip", "-n", namespace, "-batch", "-"], there)
        link = self._nodes[node]
        self._tc(node, "up", self._shaper.begin(_LINK, "up", link.up_bits_per_s))
        self._tc(node, "down", self._shaper.begin(self._device(node, "l"), "down", link.down_bits_per_s))
        self._set_segments(node)
        run_tool(self.command(node, ["sysctl", "-qw", *_sockets()]))

    def _add_latency(self, store_port: int) -> None:
        """Put a relay before the store: for the nodes that have a latency, and for all if it listens on loopback only.

        netem would do the former in the kernel, but it takes packets from the socket's account, so senders no longer
        wait for the queue and the shares of transfers are TCP's; and many kernels have none.
        """
        local = _is_on_loopback_only(store_port)
        nodes = [node for node in self._nodes.values() if node.latency_s or local]
        if not nodes:
            return
        assert self._record is not None
        self._relay = Proxy(self._record)
        relayed = {
            node.name: ProxyPort(self._address(self._numbers[node.name], 1), ANY_RATE, ANY_RATE, node.latency_s)
            for node in nodes
        }
        self._ports |= self._relay.start(relayed, store_port)
        self.remarks.append("latency is added by a relay in user space between the link and the store")
        if local:
            self.remarks.append(f"the store listens on 127.0.0.1:{store_port} only: all nodes reach it by the relay")

    def _set_segments(self, node: str) -> None:
        link = self._nodes[node]
        up, down = segment_bytes(link.up_bits_per_s), segment_bytes(link.down_bits_per_s)
        run_tool(["ip", "-n", self._namespace(node), "link", "set", _LINK, "gso_max_size", str(up)])
        run_tool(["ip", "link", "set", self._device(node, "l"), "gso_max_size", str(down)])

    def _tc(self, node: str, way: str, lines: Sequence[str]) -> None:
        place = ["-n", self._namespace(node)] if way == "up" else []
        run_tool(["tc", *place, "-batch", "-"], lines)

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        """A namespace to try things in."""
        assert self._record is not None
        namespace = f"covsim-{self._record.run}-try"
        run_tool(["ip", "netns", "add", namespace])
        try:
            yield namespace
        finally:
            run_tool(["ip", "netns", "del", namespace])

    def _namespace(self, node: str) -> str:
        assert self._record is not None, "these links are not up"
        assert node in self._numbers, f"no node is called {node}"
        return f"covsim-{self._record.run}-node-{node}"

    def _device(self, node: str, letter: str) -> str:
        assert self._record is not None, "these links are not up"
        return f"cv{self._record.run}{letter}{self._numbers[node]}"

    def _address(self, number: int, host: int) -> str:
        return str(self._network[number * 256 + host])


def why_not() -> str | None:
    """What keeps the kernel's links from working here, or None."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        return "this is not Linux"
    if os.geteuid() != 0:
        return "namespaces need root"
    record = Record()
    namespace = f"covsim-{record.run}-try"
    try:
        with locked():
            record.write()
            try:
                run_tool(["ip", "netns", "add", namespace])
                run_tool(["tc", "-n", namespace, "-batch", "-"], Shaper(fair=False).begin("lo", "up", 1e6))
            finally:
                remove(record)
    except (RuntimeError, OSError) as problem:
        return str(problem)
    return None


def _check(nodes: Sequence[NodeLink]) -> None:
    check_names(nodes)
    if len(nodes) > _MOST_NODES:
        raise ValueError(f"{len(nodes)} nodes are more than one machine's {_MOST_NODES}")
    for node in nodes:
        if not _NODE_NAME.fullmatch(node.name):
            raise ValueError(f"a node cannot be called {node.name!r}: letters, digits, '-', '_' and '.', at most 64")


def _is_fair(namespace: str) -> bool:
    """Whether htb and the filter work, tried where nobody is."""
    try:
        run_tool(["tc", "-n", namespace, "-batch", "-"], Shaper(fair=True).begin("lo", "up", 1e6))
    except RuntimeError:
        return False
    return True


def _free_network() -> ipaddress.IPv4Network:
    """The first network from 10.77.0.0/16 on that no route of this machine reaches into. Raises RuntimeError."""
    routes = json.loads(run_tool(["ip", "-4", "-j", "route", "show", "table", "all"]) or "[]")
    taken = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    for network in _NETWORKS:
        if not any(network.overlaps(other) for other in taken if other.prefixlen):
            return network
    raise RuntimeError(f"all networks from {_NETWORKS[0]} to {_NETWORKS[-1]} are taken")


def _sockets() -> list[str]:
    """Limits of what sockets hold, and a patient connect: one that begins while the link is cut waits a minute."""
    return [
        f"net.ipv4.tcp_wmem=4096 65536 {_SOCKET_BUFFER}",
        f"net.ipv4.tcp_rmem=4096 131072 {_SOCKET_BUFFER}",
        "net.ipv4.tcp_syn_retries=127",
    ]


def _is_on_loopback_only(port: int) -> bool:
    """Whether somebody listens on the port, and only on 127.0.0.1."""
    listeners = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        address, _, number = local.partition(":")
        if state == _LISTENING and int(number, 16) == port:
            listeners.add(address)
    return listeners == {"0100007F"}
