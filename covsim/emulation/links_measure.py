"""What transfers over links really take, against bytes / rate: `python -m covsim.emulation.links_measure`.

The store's place is taken by a server that counts bytes, so that nothing but the links is measured. A client process
on the node's side of its link sends or fetches, over connections of its own, all at once.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from covsim.emulation.links import Links, NodeLink, choose

_CHUNK = bytes(65536)
_HEAD = struct.Struct("!cq")


@dataclass(frozen=True)
class Transferred:
    """One transfer.

    Args:
        began_s: on the clock of time.monotonic, which all processes of a machine share.
        took_s: from the connect to the answer.
    """

    began_s: float
    took_s: float


@contextmanager
def counting_store(host: str = "0.0.0.0") -> Iterator[int]:
    """A server that takes and gives bytes; yields its port."""
    with socket.create_server((host, 0), backlog=128) as server:
        thread = threading.Thread(target=_accept, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def client_command(url: str, way: str, num_bytes: int, at_once: int = 1) -> list[str]:
    """The command of a client that sends ("up") or fetches ("down") so many bytes over each of its connections.

    It prints its list of [began_s, took_s]. Give it to `Links.command`.
    """
    place = urlsplit(url)
    return [
        sys.executable,
        "-IS",
        "-c",
        _CLIENT,
        str(place.hostname),
        str(place.port),
        way,
        str(num_bytes),
        str(at_once),
    ]


def begin(links: Links, node: str, way: str, num_bytes: int, at_once: int = 1) -> subprocess.Popen[str]:
    """Start such a client on a node."""
    command = links.command(node, client_command(links.store_url(node), way, num_bytes, at_once))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client: subprocess.Popen[str]) -> list[Transferred]:
    """Wait for its transfers and return them, the first to end first. Raises RuntimeError if one failed."""
    answer, complaint = client.communicate()
    if client.returncode:
        raise RuntimeError(f"a transfer failed: {complaint.strip().splitlines()[-1:]}, exit code {client.returncode}")
    return [Transferred(*pair) for pair in json.loads(answer)]


def transfers(links: Links, node: str, way: str, num_bytes: int, at_once: int = 1) -> list[Transferred]:
    """Both."""
    return finish(begin(links, node, way, num_bytes, at_once))


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The fixed seconds per transfer and the share of the rate in took = fixed + ideal / share, by Theil and Sen.

    Args:
        points: (bytes / rate, measured), in seconds; the ideals differ.
    """
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a in points for b in points if b[0] > a[0]]
    slope = statistics.median(slopes)
    return statistics.median(took - slope * ideal for ideal, took in points), 1 / slope


def _accept(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            way, left = _HEAD.unpack(connection.recv(_HEAD.size, socket.MSG_WAITALL))
            while way == b"u" and left:
                received = len(connection.recv(min(left, len(_CHUNK))))
                if not received:
                    return
                left -= received
            while left:
                left -= connection.send(_CHUNK[: min(left, len(_CHUNK))])
            if way == b"u":
                connection.sendall(b".")
        except (OSError, struct.error):
            return


_CLIENT = """
import json, socket, struct, sys, threading, time
host, port, way, num_bytes, at_once = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
done, chunk = [], bytes(65536)
def transfer():
    began = time.monotonic()
    with socket.create_connection((host, port)) as connection:
        connection.sendall(struct.pack("!cq", way[0].encode(), num_bytes))
        left = num_bytes
        while way == "up" and left:
            left -= connection.send(chunk[:min(left, 65536)])
        left = left or (way == "up")
        while left:
            received = len(connection.recv(65536))
            if not received:
                sys.exit("the connection ended early")
            left -= received
    done.append((began, time.monotonic() - began))
threads = [threading.Thread(target=transfer) for _ in range(at_once)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if len(done) != at_once:
    sys.exit("not all transfers ended")
print(json.dumps(done))
"""


@dataclass(frozen=True)
class _Case:
    way: str
    num_bytes: int
    at_once: int
    nodes: int

    def __str__(self) -> str:
        return f"{self.nodes} node{'s' * (self.nodes > 1)} x {self.at_once} {self.way} of {self.num_bytes / 1e6:g} MB"


def _cases(most_nodes: int) -> list[_Case]:
    alone = [_Case(way, size, 1, 1) for way in ("up", "down") for size in (2_500_000, 5_000_000, 10_000_000)]
    shared = [_Case(way, 2_500_000, k, 1) for way in ("up", "down") for k in (2, 4, 8)]
    return alone + shared + [_Case(way, 2_500_000, k, most_nodes) for way in ("up", "down") for k in (1, 4)]


def _measure(links: Links, case: _Case) -> list[Transferred]:
    def measure(number: int) -> list[Transferred]:
        return transfers(links, f"peer-{number}", case.way, case.num_bytes, case.at_once)

    with ThreadPoolExecutor(case.nodes) as pool:
        return [done for of_node in pool.map(measure, range(case.nodes)) for done in of_node]


def _table(links: Links, nodes: Sequence[NodeLink], repetitions: int) -> None:
    errors, points = [], []
    print(f"{'':38} bytes/rate  median   error  worst (of transfers)")
    for case in _cases(len(nodes)):
        rate = nodes[0].up_bits_per_s if case.way == "up" else nodes[0].down_bits_per_s
        ideal = case.num_bytes * 8 * case.at_once / rate
        took = [done.took_s for _ in range(repetitions) for done in _measure(links, case)]
        off = [took_s / ideal - 1 for took_s in took]
        middle, worst = statistics.median(off), max(off, key=abs)
        print(f"{case!s:38} {ideal:8.3f} s {statistics.median(took):7.3f} s {middle:+7.2%} {worst:+7.2%}", flush=True)
        points += [(ideal, took_s) for took_s in took]
        errors += [(ideal, took_s) for took_s in took if ideal >= 1]
    fixed, share = fit(points)
    print(f"fitted: {fixed * 1000:.1f} ms per transfer, {share:.4f} of the rate")
    _say("bytes/rate", [abs(took / ideal - 1) for ideal, took in errors])
    _say("calibrated", [abs(took / (fixed + ideal / share) - 1) for ideal, took in errors])


def _say(name: str, off: Sequence[float]) -> None:
    print(
        f"{len(off)} transfers of at least 1 s, {name}: median error {statistics.median(off):.2%}, "
        f"95 of 100 within {sorted(off)[int(len(off) * 0.95)]:.2%}, worst {max(off):.2%}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure transfers over links.")
    parser.add_argument("--links", choices=["auto", "kernel", "user"], default="auto")
    parser.add_argument("--up", type=float, default=20, help="Mb/s")
    parser.add_argument("--down", type=float, default=50, help="Mb/s")
    parser.add_argument("--latency", type=float, default=0, help="ms, one way")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    nodes = [
        NodeLink(f"peer-{number}", given.up * 1e6, given.down * 1e6, given.latency / 1e3)
        for number in range(given.nodes)
    ]
    began = time.monotonic()
    with counting_store() as port, choose(given.links) as links:
        links.start(nodes, port)
        print(f"links: {links.kind}, {given.up:g} Mb/s up, {given.down:g} Mb/s down, {given.latency:g} ms")
        print(f"{len(nodes)} links up after {time.monotonic() - began:.2f} s", *links.remarks, sep="\n")
        _table(links, nodes, given.repetitions)


if __name__ == "__main__":
    main()
