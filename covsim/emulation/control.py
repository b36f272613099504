"""The control network: one authenticated connection per process to the chain process, for calls, pushes and events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from queue import Empty, SimpleQueue
from typing import Any

ANSWER_S = 60.0
"""Wall seconds after which an answer that has not come will not come."""


class Lost(Exception):
    """The other end of the control network is gone."""


class Line:
    """One end of a connection that several threads may send over."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message. Raises Lost."""
        try:
            with self._lock:
                self._connection.send(message)
        except (OSError, ValueError) as problem:
            raise Lost(str(problem)) from problem

    def receive(self) -> tuple[Any, ...]:
        """Wait for the next message. Raises Lost."""
        try:
            message: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError) as problem:
            raise Lost(str(problem)) from problem
        return message

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Caller:
    """A process's line to the chain process: it asks and waits, and is told things in between.

    Args:
        address: host and port of the chain process.
        key: shared secret of the run.
        name: who calls.
        told: takes what is pushed, in a thread of its own; and `("lost",)` when the line is gone.
    """

    def __init__(
        self, address: tuple[str, int], key: bytes, name: str, told: Callable[[tuple[Any, ...]], None]
    ) -> None:
        self._line = Line(Client(address, authkey=key))
        self._answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self._told = told
        self._line.send("hello", name)
        threading.Thread(target=self._listen, daemon=True, name="control").start()

    def call(self, method: str, *arguments: Any) -> Any:
        """Have something done by the chain process and return what it answers. Raises Lost, or what it raised."""
        self._line.send("call", method, arguments)
        try:
            succeeded, value = self._answers.get(timeout=ANSWER_S)
        except Empty:
            raise Lost(f"no answer to {method} for {ANSWER_S:.0f} s") from None
        if not succeeded:
            raise value
        return value

    def tell(self, method: str, *arguments: Any) -> None:
        """Have something done without waiting for it. Raises Lost."""
        self._line.send("tell", method, arguments)

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def _listen(self) -> None:
        try:
            while True:
                kind, *content = self._line.receive()
                if kind == "answer":
                    self._answers.put((content[0], content[1]))
                else:
                    self._told((kind, *content))
        except Lost as problem:
            self._answers.put((False, problem))
            self._told(("lost",))
