"""The store as a node sees it: the verbs of `world.store.ObjectStore`, done by requests to an S3 API.

What lies there a node knows from listings, which it asks for once a poll while it waits for something; when an object
arrived says the server's LastModified, of whole seconds. The server truncates, so an object that lands within a second
bears its beginning: where windows open and close at whole wall seconds the comparison is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeGuard

import simpy

from covsim.emulation.carrier import NOT_FOUND, Carried, Carrier
from covsim.emulation.driver import Driver, happens
from covsim.emulation.envelope import unwrapped, wire_bytes, wrapped
from covsim.events import Event, ReadFailed, Transferred
from covsim.randomness import Streams
from covsim.world.conditions import Conditions, Direction
from covsim.world.network import Resource
from covsim.world.store import StoredObject, StoreSettings

Waiting = Generator[simpy.Event, Any, StoredObject | None]
Retrying = Callable[[], AbstractContextManager[None]]
Work = Callable[[Callable[[Carried], object]], "Future[Any]"]


class S3Store:
    """A node's store.

    Args:
        driver: of the node's loop.
        carrier: makes the requests.
        settings: the `store:` section: how often a request is tried, and how large an object may be.
        bytes_per_byte: bytes on the wire per byte charged.
        poll_s: simulated seconds between two looks at what lies there.
        streams: waits that are spread are drawn from `("backoff", node, purpose, key, attempt)`.
        emit: takes the node's events.
        checkpoint: the content of a checkpoint that is uploaded now.
        on_checkpoint: takes the key and the content of one that was downloaded.
    """

    def __init__(
        self,
        driver: Driver,
        carrier: Carrier,
        settings: StoreSettings,
        bytes_per_byte: float,
        poll_s: float,
        streams: Streams,
        emit: Callable[[Event], None],
        checkpoint: Callable[[], bytes],
        on_checkpoint: Callable[[str, bytes], None],
    ) -> None:
        self.settings = settings
        self.conditions = Conditions()
        self._driver, self._env, self._carrier = driver, driver.env, carrier
        self._bytes_per_byte, self._poll_s = bytes_per_byte, poll_s
        self._streams, self._emit = streams, emit
        self._checkpoint, self._on_checkpoint = checkpoint, on_checkpoint
        self._seen: dict[str, StoredObject] = {}  # as last listed
        self._own: dict[str, bytes] = {}  # what this node has put
        self._asked_s: dict[str, float] = {}  # by folder, when it was last listed
        self._arrivals: dict[str, simpy.Event] = {}
        self._polling = False
        self.sees = True  # false while the node is cut off from what lies there
        self._under_way: dict[Future[Any], tuple[Resource, Callable[[Any], None]]] = {}

    # What it has in common with the simulated one -------------------------------------------------------------------

    def put(
        self,
        node: str,
        uplink: Resource,
        key: str,
        data: bytes,
        charged_bytes: float,
        *,
        purpose: str = "submit",
        retrying: Retrying = nullcontext,
        landed: Callable[[StoredObject], object] = lambda _: None,
    ) -> Waiting:
        """Upload an object; returns it under the server's stamp, None if nothing came of it."""
        if charged_bytes > self.settings.max_object:
            return None
        key = self.conditions.name_for(node, key)
        content = self._checkpoint() if purpose == "checkpoint" else data
        body = wrapped(content, wire_bytes(charged_bytes, self._bytes_per_byte))
        for attempt in range(self.settings.retries + 1):
            carried = yield from self._carry(
                node, uplink, key, purpose, "up", charged_bytes, lambda done: self._carrier.put(key, body, done)
            )
            if _came_off(carried):
                stamp_s = self._stamp_s(carried.modified_unix_s)
                stored = self._seen[key] = StoredObject(key, node, data, charged_bytes, stamp_s)
                self._own[key] = data
                landed(stored)
                return stored
            yield from self._wait(node, purpose, key, attempt, retrying)
        return None

    def get(
        self,
        node: str,
        downlink: Resource,
        key: str,
        *,
        purpose: str = "gather",
        attempts_before: int = 0,
        retrying: Retrying = nullcontext,
    ) -> Waiting:
        """Download an object; None if there is none, or every attempt failed."""
        key = self.conditions.name_for(node, key)
        known = self._seen.get(key)
        charged = math.nan if known is None else known.charged_bytes
        for attempt in range(self.settings.retries + 1):
            carried = yield from self._carry(
                node, downlink, key, purpose, "down", charged, lambda done: self._carrier.get(key, done)
            )
            if _came_off(carried):
                return self._read(node, key, purpose, carried)
            if carried is not None and carried.problem == NOT_FOUND:
                return None
            self._emit(ReadFailed(self._env.now, node, key, attempts_before + attempt))
            yield from self._wait(node, purpose, key, attempt, retrying)
        return None

    def stat(self, key: str, reader: str = "") -> StoredObject | None:
        """What lies under a key, by a listing that is no older than a poll."""
        key = self.conditions.name_for(reader, key)
        folder = _folder(key)
        if self.sees and self._asked_s.get(folder, -math.inf) <= self._env.now - self._poll_s:
            self._asked_s[folder] = self._env.now
            self._take_listing(self._carrier.list_now(folder))
        return self._seen.get(key)

    def arrival(self, key: str, reader: str = "") -> simpy.Event:
        """An event that fires with an object when a listing shows it."""
        key = self.conditions.name_for(reader, key)
        if key in self._seen:
            return self._env.event().succeed(self._seen[key])
        event = self._arrivals.setdefault(key, self._env.event())
        if not self._polling:
            self._polling = True
            self._env.process(self._poll())
        return event

    def cut(self, link: Resource) -> None:
        """Break off all transfers over a link."""
        for request, (over, fire) in list(self._under_way.items()):
            if over is link:
                request.cancel()
                fire(None)

    def cut_all(self) -> None:
        """Break off all transfers: the end of a run."""
        for request, (_, fire) in list(self._under_way.items()):
            request.cancel()
            fire(None)

    def forget_before(self, round: int) -> None:
        """Remember no longer what lay there in earlier rounds; it stays in the store."""
        old = [key for key in self._seen if _round(key) < round]
        for key in old:
            self._own.pop(key, None)
            del self._seen[key]

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _carry(
        self,
        node: str,
        link: Resource,
        key: str,
        purpose: str,
        direction: Direction,
        charged_bytes: float,
        work: Work,
    ) -> Generator[simpy.Event, Any, Carried | None]:
        """Make one attempt and account for it; None if it was cut. Whatever throws the waiter out cuts it, too."""
        if self.conditions.is_cut(link):  # its node is told that it is cut off before it can find out
            yield self._env.timeout(self._poll_s)
            return None
        clock, began_s = self._driver.clock, self._env.now
        assert clock is not None
        event, fire = happens(self._env)
        request = work(lambda carried: self._driver.inject(lambda: fire(carried), clock.at(carried.ended_s)))
        self._under_way[request] = (link, fire)
        carried: Carried | None = None
        try:
            carried = yield event
        finally:
            request.cancel()
            del self._under_way[request]
            whole = carried is not None and not carried.problem
            started_s = began_s if carried is None else max(began_s, clock.at(carried.started_s))
            moved = self._moved(carried, charged_bytes) if whole or direction == "down" else 0.0
            if whole or moved:
                self._emit(
                    Transferred(
                        self._env.now, node, key, purpose, direction, moved, min(started_s, self._env.now), whole
                    )
                )
        return carried

    def _moved(self, carried: Carried | None, charged_bytes: float) -> float:
        """Bytes that have passed, as charged."""
        if carried is None:
            return 0.0
        whole = not carried.problem and not math.isnan(charged_bytes)
        return charged_bytes if whole else carried.moved_bytes / self._bytes_per_byte

    def _wait(
        self, node: str, purpose: str, key: str, attempt: int, retrying: Retrying
    ) -> Generator[simpy.Event, Any, None]:
        """Let the time pass until the next attempt, if there is one."""
        if attempt >= self.settings.retries:
            return
        backoff = self.settings.backoff
        drawn = self._streams.uniform("backoff", node, purpose, key, attempt) if backoff.draws else 0.0
        with retrying():
            yield self._env.timeout(backoff.wait_s(self.settings.retry_delay, attempt, drawn))

    def _read(self, node: str, key: str, purpose: str, carried: Carried) -> StoredObject:
        data = unwrapped(carried.data)
        if purpose == "checkpoint":
            self._on_checkpoint(key, data)
        charged = len(carried.data) / self._bytes_per_byte
        known = self._seen.get(key)
        if known is not None and wire_bytes(known.charged_bytes, self._bytes_per_byte) == len(carried.data):
            charged = known.charged_bytes
        return StoredObject(key, "", data, charged, self._stamp_s(carried.modified_unix_s))

    def _stamp_s(self, unix_s: float) -> float:
        assert self._driver.clock is not None
        return self._driver.clock.stamped(unix_s)

    # Looking --------------------------------------------------------------------------------------------------------

    def _poll(self) -> Generator[simpy.Event, Any, None]:
        """List what is waited for once a poll, as long as anything is."""
        began_s = self._env.now
        while self._wanted():
            for folder in sorted({_folder(key) for key in self._wanted()}) if self.sees else ():
                event, fire = happens(self._env)
                self._asked_s[folder] = self._env.now
                clock = self._driver.clock
                assert clock is not None
                self._carrier.list(
                    folder,
                    lambda carried, fire=fire, clock=clock: self._driver.inject(  # type: ignore[misc]
                        lambda: fire(carried), clock.at(carried.ended_s)
                    ),
                )
                self._take_listing((yield event))
            # A billionth of a tick is rounding; without it the loop would stand still at one.
            ticks = math.floor((self._env.now - began_s) / self._poll_s + 1e-9) + 1
            yield self._env.timeout(max(0.0, began_s + ticks * self._poll_s - self._env.now))
        self._polling = False

    def _wanted(self) -> list[str]:
        """The keys for which somebody waits."""
        return [key for key, event in self._arrivals.items() if event.callbacks]

    def _take_listing(self, carried: Carried) -> None:
        for key, (size, modified_unix_s) in (carried.listed or {}).items():
            stamp_s = self._stamp_s(modified_unix_s)
            stored = StoredObject(key, "", self._own.get(key, b""), size / self._bytes_per_byte, stamp_s)
            before = self._seen.get(key)
            if before is not None and before.stored_s == stamp_s:
                stored = replace(before, data=self._own.get(key, before.data))
            self._seen[key] = stored
            arrival = self._arrivals.pop(key, None)
            if arrival is not None and not arrival.triggered:
                arrival.succeed(stored)


def _came_off(carried: Carried | None) -> TypeGuard[Carried]:
    """Whether an attempt has done what it was for."""
    return carried is not None and not carried.problem


def _folder(key: str) -> str:
    return f"{key.partition('/')[0]}/"


def _round(key: str) -> int:
    return int(key.partition("/")[0].removeprefix("round-"))
