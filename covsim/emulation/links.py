"""What a node's link is to the emulation, and which way of shaping links this machine offers.

Three ways: by the kernel (`links_kernel`), by a proxy in user space (`links_user`), or not at all. Every one of them
gives a node an address of the store, and leaves nothing behind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from covsim.emulation import links_record

LinksKind = Literal["auto", "kernel", "user", "open"]


@dataclass(frozen=True)
class NodeLink:
    """A node and its link to the store.

    Args:
        name: of the node, unique: "peer-3", "validator-lead".
        up_bits_per_s: the most that it sends, headers included where the kernel shapes.
        down_bits_per_s: the most that it receives.
        latency_s: one way, to the store.

    Raises:
        ValueError: a rate is not positive and finite, or the latency is negative or not finite.
    """

    name: str
    up_bits_per_s: float
    down_bits_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        check_rates(self.name, self.up_bits_per_s, self.down_bits_per_s)
        if not 0 <= self.latency_s < math.inf:
            raise ValueError(f"the link of {self.name} cannot have a latency of {self.latency_s} s")


class Links(ABC):
    """The links of all nodes of one run, from `start` to `close`.

    Attributes:
        kind: who shapes: "kernel", "user space" or "open".
        remarks: what a reader of the results has to know about these links, a line each.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def start(self, nodes: Sequence[NodeLink], store_port: int) -> None:
        """Remove what dead runs left, then set up one link per node; on failure nothing is left.

        Args:
            nodes: all of the run, with names that differ.
            store_port: where the store listens, on 0.0.0.0 or 127.0.0.1 of this machine.

        Raises:
            ValueError: names are equal or cannot be the name of a link.
            RuntimeError: the machine refuses.
        """

    @abstractmethod
    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """The command that starts a process on that node's side of its link; its pid is the process's own."""

    @abstractmethod
    def store_url(self, node: str) -> str:
        """The store's address as that node sees it: "http://10.77.0.1:9000"."""

    @abstractmethod
    def control_host(self, node: str) -> str:
        """The address at which that node reaches this process's ports, unshaped."""

    @abstractmethod
    def set_rates(self, node: str, up_bits_per_s: float, down_bits_per_s: float) -> None:
        """Give a link other rates at once, in the middle of transfers. Raises ValueError."""

    @abstractmethod
    def cut(self, node: str) -> None:
        """Let nothing pass in either direction: connections stand still, they are not reset."""

    @abstractmethod
    def restore(self, node: str) -> None:
        """Bring a cut link back; transfers go on where they were."""

    @abstractmethod
    def close(self) -> None:
        """Remove everything that `start` set up, and kill what still runs in the nodes' namespaces. May be repeated."""

    @classmethod
    def clean(cls) -> list[str]:
        """Remove what dead runs left, of every kind; says what, line by line. Living runs are not touched."""
        return links_record.clean()


class OpenLinks(Links):
    """No shaping: the machine's own links, as on several machines over the internet."""

    kind: ClassVar[str] = "open"

    def __init__(self) -> None:
        super().__init__()
        self._nodes: set[str] = set()
        self._store_port = 0

    def start(self, nodes: Sequence[NodeLink], store_port: int) -> None:
        """Remember the port: there is nothing to set up."""
        check_names(nodes)
        self._nodes = {node.name for node in nodes}
        self._store_port = store_port
        self.remarks.append("links are not shaped: rates and latencies are those of the machine")

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """The command itself."""
        assert node in self._nodes, f"no node is called {node}"
        return list(command)

    def store_url(self, node: str) -> str:
        """The store on this machine."""
        assert node in self._nodes, f"no node is called {node}"
        return f"http://127.0.0.1:{self._store_port}"

    def control_host(self, node: str) -> str:
        """This machine."""
        assert node in self._nodes, f"no node is called {node}"
        return "127.0.0.1"

    def set_rates(self, node: str, up_bits_per_s: float, down_bits_per_s: float) -> None:
        """Refused with a ValueError: there is nothing to set."""
        raise ValueError(f"open links have no rates: that of {node} cannot be set")

    def cut(self, node: str) -> None:
        """Refused with a ValueError: there is nothing to cut."""
        raise ValueError(f"open links cannot be cut: not that of {node} either")

    def restore(self, node: str) -> None:
        """Refused with a ValueError: nothing was cut."""
        raise ValueError(f"open links cannot be cut: not that of {node} either")

    def close(self) -> None:
        """Nothing to remove."""


def choose(kind: LinksKind) -> Links:
    """The links of that kind; `auto` takes the kernel's where they work, else user space, and remarks why.

    Raises:
        ValueError: the kernel's links are asked for and do not work here, or there is no such kind.
    """
    from covsim.emulation.links_kernel import KernelLinks, why_not
    from covsim.emulation.links_user import UserLinks

    if kind == "open":
        return OpenLinks()
    if kind == "user":
        return UserLinks()
    if kind not in ("auto", "kernel"):
        raise ValueError(f"links can be auto, kernel, user or open, not {kind}")
    obstacle = why_not()
    if obstacle is None:
        return KernelLinks()
    if kind == "kernel":
        raise ValueError(f"links by the kernel do not work here: {obstacle}")
    links = UserLinks()
    links.remarks.append(f"links are shaped in user space: {obstacle}")
    return links


def check_names(nodes: Sequence[NodeLink]) -> None:
    """Raises ValueError if two nodes have one name."""
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two nodes are called {name}")


def check_rates(name: str, up_bits_per_s: float, down_bits_per_s: float) -> None:
    """Raises ValueError if a rate of that node's link is not positive and finite: a link of none is cut."""
    for way, rate in (("up", up_bits_per_s), ("down", down_bits_per_s)):
        if not 0 < rate < math.inf:
            raise ValueError(f"the link of {name} cannot carry {rate} b/s {way}: cut it instead")
