"""The process that carries connections of nodes to the store at given rates and latencies: `python -m` this module.

It reads requests as lines of JSON from its parent and answers each with one. The first says where the store is and
which nodes there are, every other one gives a node's link other rates, 0 for a cut. When the parent is gone, its end
of the pipe closes, and this process ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ANY_RATE = 0.0  # in a ProxyPort: no bucket at all. JSON has no infinity.
_TURN_S = 0.004  # what one turn of a connection takes of the link, within these bounds (bytes):
_LEAST_TURN, _MOST_TURN = 2048, 65536
_PAUSE_S = 0.02  # a link that was idle for less was so because this process was late: it may make up for it
_SOCKET_BUFFER = 131072  # bytes that a socket of this process holds
_IN_FLIGHT = 8 << 20  # bytes of one connection that wait out a latency
_OWNER_CHECK_S = 0.5
_ORPHAN_CHECK_S = 0.1
_CLOSED = {"04", "0B"}  # FIN_WAIT1 and CLOSING in /proc/net/tcp: closed, and not everything has been taken


@dataclass(frozen=True)
class ProxyPort:
    """Where a node comes in, and what its link carries.

    Args:
        host: address to listen on; the port is the system's choice.
        up_bits_per_s: to the store, or ANY_RATE.
        down_bits_per_s: from the store, or ANY_RATE.
        latency_s: one way.
    """

    host: str
    up_bits_per_s: float
    down_bits_per_s: float
    latency_s: float


class Bucket:
    """One direction of a link: who waits gets turns in the order of asking, so that connections share equally.

    Args:
        loop: whose clock and timers it uses.
        bits_per_s: the rate; 0 lets nothing pass, infinity everything.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bits_per_s: float) -> None:
        self._loop = loop
        self._rate = bits_per_s
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._left_bits = 0.0  # of the first in the queue
        self._since = loop.time()  # when what is left was so
        self._timer: asyncio.TimerHandle | None = None

    @property
    def turn_bytes(self) -> int:
        """What a connection should ask for at once."""
        return int(min(_MOST_TURN, max(_LEAST_TURN, self._rate / 8 * _TURN_S)))

    async def take(self, num_bytes: int) -> None:
        """Wait until so many bytes have passed."""
        bits = num_bytes * 8.0
        turn: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            now = self._loop.time()
            if now - self._since > _PAUSE_S:
                self._since = now
            self._left_bits = bits
        self._waiting.append((bits, turn))
        if len(self._waiting) == 1:
            self._grant()
        await turn

    def set_rate(self, bits_per_s: float) -> None:
        """Change the rate at once, also in the middle of a turn."""
        now = self._loop.time()
        if self._waiting and self._rate > 0:
            self._left_bits = max(0.0, self._left_bits - (now - self._since) * self._rate)
        self._since = now
        self._rate = bits_per_s
        self._grant()

    def _grant(self) -> None:
        """Give everyone their turn whose bytes have passed by now, and come back for the next."""
        now = self._loop.time()
        while self._waiting and self._rate > 0:
            ends = self._since + self._left_bits / self._rate
            if ends > now:
                break
            self._since = ends
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
            while self._waiting and self._waiting[0][1].done():  # its connection broke off: nothing passes
                self._waiting.popleft()
            if self._waiting:
                self._left_bits = self._waiting[0][0]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and self._rate > 0:
            self._timer = self._loop.call_at(self._since + self._left_bits / self._rate, self._grant)


class Way:
    """One direction of one connection.

    Args:
        source: read from.
        target: written to.
        bucket: passed on the way.
        latency_s: spent on the way.
    """

    def __init__(self, source: socket.socket, target: socket.socket, bucket: Bucket, latency_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._source, self._target = source, target
        self._bucket = bucket
        self._latency_s = latency_s
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._num_under_way = 0
        self._has_room = asyncio.Event()

    async def run(self) -> None:
        """Carry everything, then the end of the stream. Raises OSError if either side breaks off."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._deliver())

    async def _receive(self) -> None:
        """Read ahead by one turn, so that the link does not idle while this process does something else."""
        ahead: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

        async def read() -> None:
            while chunk := await self._loop.sock_recv(self._source, self._bucket.turn_bytes):
                await ahead.put(chunk)
            await ahead.put(b"")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            chunk = b"-"
            while chunk:
                chunk = await ahead.get()
                await self._bucket.take(len(chunk))
                await self._send_off(chunk)

    async def _send_off(self, chunk: bytes) -> None:
        while self._num_under_way > _IN_FLIGHT:
            self._has_room.clear()
            await self._has_room.wait()
        self._num_under_way += len(chunk)
        self._under_way.put_nowait((self._loop.time() + self._latency_s, chunk))

    async def _deliver(self) -> None:
        while True:
            due, chunk = await self._under_way.get()
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            if not chunk:
                break
            await self._loop.sock_sendall(self._target, chunk)
            self._num_under_way -= len(chunk)
            self._has_room.set()
        self._target.shutdown(socket.SHUT_WR)


class Gate:
    """A node's listening socket and its two buckets.

    Args:
        port: what the node's link is.
        store_port: where the store listens on 127.0.0.1.
    """

    def __init__(self, port: ProxyPort, store_port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._latency_s = port.latency_s
        self._store_port = store_port
        self._up = Bucket(self._loop, port.up_bits_per_s or float("inf"))
        self._down = Bucket(self._loop, port.down_bits_per_s or float("inf"))
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the node's port
        self._socket = _socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((port.host, 0))
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]

    def set_rates(self, up_bits_per_s: float, down_bits_per_s: float) -> None:
        """Give both directions other rates, 0 for a cut."""
        self._up.set_rate(up_bits_per_s)
        self._down.set_rate(down_bits_per_s)

    async def serve(self) -> None:
        """Take connections for ever."""
        while True:
            node, (_, port) = await self._loop.sock_accept(self._socket)
            node.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._carry(node))
            self._tasks[port] = task
            task.add_done_callback(partial(self._forget, port))

    def break_off(self, closed: AbstractSet[tuple[int, int]]) -> None:
        """Break off the connections that are among the closed ones (node's port, this one's)."""
        for port, task in self._tasks.items():
            if (port, self.port) in closed:
                task.cancel()

    def _forget(self, port: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(port) is task:
            del self._tasks[port]

    async def _carry(self, node: socket.socket) -> None:
        """Carry one connection; if one side breaks off, so does the other."""
        store = _socket()
        try:
            await self._loop.sock_connect(store, ("127.0.0.1", self._store_port))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(Way(node, store, self._up, self._latency_s).run())
                tasks.create_task(Way(store, node, self._down, self._latency_s).run())
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            for end in (node, store):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not an end
        finally:
            node.close()
            store.close()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


async def _watch(owner: int) -> None:
    """End this process when it has another parent: a pipe can be held open by somebody's child."""
    while os.getppid() == owner:
        await asyncio.sleep(_OWNER_CHECK_S)
    os._exit(0)


async def _watch_nodes(gates: Iterable[Gate]) -> None:
    """Break off what comes from processes that are gone: their sockets hold megabytes, which would still arrive."""
    while True:
        await asyncio.sleep(_ORPHAN_CHECK_S)
        closed = _closed_and_unread()
        for gate in gates:
            gate.break_off(closed)


def _closed_and_unread() -> set[tuple[int, int]]:
    """The (own, other) ports of this machine's sockets that no process holds and whose data is still on its way."""
    try:
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except FileNotFoundError:
        return set()
    closed = set()
    for line in table:
        _, own, other, state, *_rest = fields = line.split()
        if state in _CLOSED and fields[9] == "0":
            closed.add((int(own.partition(":")[2], 16), int(other.partition(":")[2], 16)))
    return closed


async def _requests() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _answer(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _obey(requests: asyncio.StreamReader, gates: Mapping[str, Gate]) -> None:
    """Change rates as told, until the parent is gone: then nobody waits for what is under way."""
    while line := await requests.readline():
        request = json.loads(line)
        gates[request["node"]].set_rates(request["up_bits_per_s"], request["down_bits_per_s"])
        _answer({})
    os._exit(0)


async def _main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets per connection
    owner = os.getppid()
    requests = await _requests()
    setting = json.loads(await requests.readline())
    gates = {name: Gate(ProxyPort(**port), setting["store_port"]) for name, port in setting["nodes"].items()}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_watch(owner))
        tasks.create_task(_watch_nodes(gates.values()))
        for gate in gates.values():
            tasks.create_task(gate.serve())
        _answer({name: gate.port for name, gate in gates.items()})
        tasks.create_task(_obey(requests, gates))


if __name__ == "__main__":
    asyncio.run(_main())
