"""Moves objects to and from an S3 endpoint, in a thread of its own; every request is timed by the monotonic clock."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

CHUNK_BYTES = 65_536
NOT_FOUND = "not found"


@dataclass(frozen=True)
class Place:
    """Where a node finds the objects of a run.

    Attributes:
        endpoint: of the S3 API; None for the provider's own.
        bucket: the bucket.
        prefix: what all keys of the run begin with.
        is_local: whether the server is one of this run's own, which asks for no keys.
    """

    endpoint: str | None
    bucket: str
    prefix: str
    is_local: bool


@dataclass
class Carried:
    """What came of a request.

    Attributes:
        started_s, ended_s: by the monotonic clock; of an upload its last byte's acknowledgement.
        moved_bytes: that have passed; of an upload that was cut nobody can tell, and 0 is said.
        problem: what went wrong, empty if nothing did.
        data: what was read, as far as it came.
        modified_unix_s: the server's stamp of the object; NaN if there is none.
        listed: size and stamp of every object under a prefix.
    """

    started_s: float
    ended_s: float = 0.0
    moved_bytes: int = 0
    problem: str = ""
    data: bytes = b""
    modified_unix_s: float = float("nan")
    listed: dict[str, tuple[int, float]] | None = None


Done = Callable[[Carried], object]


class Carrier:
    """A node's connections to the store.

    Args:
        place: where the objects are.
        patience_s: wall seconds to wait for a connection, and for the answer to a question that moves no payload.
    """

    def __init__(self, place: Place, patience_s: float) -> None:
        self._place, self._patience_s = place, patience_s
        own = {"access_key_id": "covsim", "secret_access_key": "covsim", "region": "us-east-1"}
        store: Any = S3Store  # its keywords are settings of which there are hundreds
        self._store = store(
            place.bucket,
            **({} if place.endpoint is None else {"endpoint": place.endpoint}),
            **(own if place.is_local else {}),
            client_options={
                "allow_http": True,
                "timeout": "12h",
                "connect_timeout": timedelta(seconds=patience_s),
                "pool_idle_timeout": "1h",
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="carrier").start()

    def put(self, key: str, body: bytes, done: Done) -> Future[Any]:
        """Upload an object in one piece, and read back the stamp that it got."""
        return self._begin(self._put(key, body), done)

    def get(self, key: str, done: Done) -> Future[Any]:
        """Download an object."""
        return self._begin(self._get(key), done)

    def list(self, folder: str, done: Done) -> Future[Any]:
        """Ask what lies under a prefix."""
        return self._begin(self._list(folder), done)

    def list_now(self, folder: str) -> Carried:
        """The same, waiting for the answer."""
        return asyncio.run_coroutine_threadsafe(self._list(folder), self._loop).result()

    def _begin(self, work: Awaitable[Carried], done: Done) -> Future[Any]:
        async def carry() -> None:
            done(await work)

        return asyncio.run_coroutine_threadsafe(carry(), self._loop)

    async def _put(self, key: str, body: bytes) -> Carried:
        carried = Carried(time.monotonic())
        try:
            await obstore.put_async(self._store, self._path(key), body, use_multipart=False)
            carried.ended_s, carried.moved_bytes = time.monotonic(), len(body)
            head = await obstore.head_async(self._store, self._path(key))
            carried.modified_unix_s = head["last_modified"].timestamp()
        except (BaseError, OSError) as problem:
            carried.problem = _first_line(problem)
        return _ended(carried)

    async def _get(self, key: str) -> Carried:
        carried, chunks = Carried(time.monotonic()), []
        try:
            answer = await obstore.get_async(self._store, self._path(key))
            carried.modified_unix_s = answer.meta["last_modified"].timestamp()
            async for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
                chunks.append(bytes(chunk))
                carried.moved_bytes += len(chunks[-1])
        except FileNotFoundError:
            carried.problem = NOT_FOUND
        except (BaseError, OSError) as problem:
            carried.problem = _first_line(problem)
        carried.ended_s, carried.data = time.monotonic(), b"".join(chunks)
        return carried

    async def _list(self, folder: str) -> Carried:
        carried = Carried(time.monotonic())
        try:
            listing = obstore.list(self._store, self._path(folder)).collect_async()
            objects = await asyncio.wait_for(listing, self._patience_s)
        except (BaseError, OSError, TimeoutError) as problem:
            carried.problem = _first_line(problem)
            return _ended(carried)
        cut = len(self._place.prefix)
        carried.listed = {entry["path"][cut:]: (entry["size"], _unix(entry["last_modified"])) for entry in objects}
        return _ended(carried)

    def _path(self, key: str) -> str:
        return f"{self._place.prefix}{key}"


def _unix(stamp: datetime) -> float:
    return stamp.timestamp()


def _ended(carried: Carried) -> Carried:
    carried.ended_s = carried.ended_s or time.monotonic()
    return carried


def _first_line(problem: BaseException) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:300]
