"""The object store: complete objects by key, stamped when their last byte arrives, read over links that may fail.

Uploads share the writer's uplink and the store's ingress, downloads the store's egress and the reader's downlink. An
object is opaque bytes; the clock charges for `charged_bytes`, the size it has in the deployment. What is wrong with the
store at the moment, by outages or faults, stands in its `conditions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import simpy

from covsim.events import Event, ObjectDamaged, ReadFailed, RequestRefused, Transferred
from covsim.randomness import Streams
from covsim.world.clock import on_event
from covsim.world.conditions import Conditions, Direction, RateLimit
from covsim.world.fairness import Resource
from covsim.world.network import Network, Transfer
from covsim.world.requests import Flow
from covsim.world.store_settings import StoreSettings

__all__ = ["ObjectStore", "StoreSettings", "StoredObject", "Traffic", "Waiting"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that lies complete in the store; `stored_s` is the store's own stamp."""

    key: str
    owner: str
    data: bytes = field(repr=False)
    charged_bytes: float
    stored_s: float


@dataclass(slots=True)
class Traffic:
    """Bytes of one direction that have left a sender, and whether they came to be of use: sent = received + lost."""

    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    lost_bytes: float = 0.0


class _Request(NamedTuple):
    """What a transfer under way is for."""

    node: str
    key: str
    purpose: str
    direction: Direction
    started_s: float

    def begun(self, now_s: float) -> _Request:
        """The same, begun at a second: that of the attempt that succeeded."""
        return self if self.started_s == now_s else self._replace(started_s=now_s)


_WHOLE = Flow()
"""An object in one piece: one flow, one request."""

Trouble = Literal["fails", "refused"]
Waiting = Generator[simpy.Event, Any, StoredObject | None]
Retrying = Callable[[], AbstractContextManager[None]]


class ObjectStore:
    """Where payloads meet.

    Args:
        env: the simulation whose time passes.
        network: carries what is put and got; its latency is paid by every request.
        settings: the `store:` section.
        streams: read failures are drawn from `("read", node, purpose, key, attempt)`, waits that are spread from
            `("backoff", ...)`, and the jitter of a request from `("jitter", ...)` of the same.
        emit: takes a `Transferred` for every transfer that ends and a `ReadFailed` for every failed attempt, and says
            what a limit refused and what was damaged.
    """

    def __init__(
        self,
        env: simpy.Environment,
        network: Network,
        settings: StoreSettings,
        streams: Streams,
        emit: Callable[[Event], None],
    ) -> None:
        self.settings = settings
        self.ingress = Resource("store ingress", math.inf if settings.ingress is None else settings.ingress)
        self.egress = Resource("store egress", math.inf if settings.egress is None else settings.egress)
        self.uploads = Traffic()
        self.downloads = Traffic()
        self.conditions = Conditions(settings.outages)
        if settings.rate_limit is not None:
            self.conditions.limits.append(RateLimit(settings.rate_limit, env.now))
        for link in (self.ingress, self.egress):
            network.ways.place(link, settings.region)
        self._env = env
        self._network = network
        self._streams = streams
        self._emit = emit
        self._objects: dict[str, StoredObject] = {}
        self._arrivals: dict[str, simpy.Event] = {}
        self._under_way: dict[Transfer, _Request] = {}

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
        """Upload an object; a later put to the same key replaces it, with a new stamp.

        A process body: `stored = yield from store.put(...)`. Closing or interrupting it cuts the upload, and nothing
        is stored, unless its last byte has arrived. An upload that begins in an outage is tried again, and given up
        like a read.

        Args:
            node: who uploads, and then owns the object.
            uplink: the node's link.
            key: where it will lie.
            data: the object.
            charged_bytes: its size for the clock.
            purpose: what the event is to say, see `covsim.events.Transferred`.
            retrying: entered for as long as an attempt that failed costs.
            landed: told of the object as stored when it lands, even if nobody waits for that any more.

        Returns:
            The object as stored, or None if the store refuses it for its size, every attempt fell into an outage, or
            the upload was cut.
        """
        key = self.conditions.name_for(node, key)
        request = _Request(node, key, purpose, "up", self._env.now)
        attempt: int | None = 0
        if trouble := self._trouble(request, uplink, 0):
            attempt = yield from self._asks_again(request, uplink, trouble, retrying)
        if attempt is None:
            return None
        latency_s = self._request_s(request, uplink, attempt)
        if charged_bytes > self.settings.max_object:
            yield self._env.timeout(latency_s)
            return None
        request = request.begun(self._env.now)
        path = (uplink, *self._network.ways.between(uplink, self.ingress), self.ingress)
        transfer = self._start(request, path, charged_bytes, latency_s)
        # It lands by itself: who is interrupted at the instant of the last byte has uploaded the object all the same.
        stored: list[StoredObject] = []

        def land(done: simpy.Event) -> None:
            if done.value:
                stored.append(self._stamp(node, key, data, charged_bytes))
                landed(stored[0])

        on_event(transfer.done, land)
        try:
            yield transfer.done
        finally:  # whatever throws the waiter out cuts it
            transfer.cancel()
        return stored[0] if stored else None

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
        """Download an object as it lies there when the attempt begins.

        A process body: `stored = yield from store.get(...)`. Closing or interrupting it cuts the download.

        Args:
            node: who downloads.
            downlink: the node's link.
            key: what to read.
            purpose: what the event is to say, see `covsim.events.Transferred`.
            attempts_before: how often the node tried before, so that it has new luck now.
            retrying: entered for as long as an attempt that failed costs.

        Returns:
            The object, or None if there is none, every attempt failed or the download was cut.
        """
        key = self.conditions.name_for(node, key)
        request = _Request(node, key, purpose, "down", self._env.now)
        attempt: int | None = 0
        if trouble := self._trouble(request, downlink, attempts_before):
            attempt = yield from self._asks_again(request, downlink, trouble, retrying, attempts_before)
        if attempt is None:
            return None
        latency_s = self._request_s(request, downlink, attempts_before + attempt)
        stored = self._objects.get(key)
        if stored is None:
            yield self._env.timeout(latency_s)
            return None
        caps, delay_s = self.conditions.slow_read_by(node)
        request = request.begun(self._env.now)
        path = (self.egress, *self._network.ways.between(self.egress, downlink), downlink, *caps)
        flow = _WHOLE if self.settings.ranges is None else self.settings.ranges.flow(stored.charged_bytes)
        wait_s = flow.num_turns * latency_s + delay_s
        transfer = self._start(request, path, stored.charged_bytes, wait_s, flow)
        try:
            complete = yield transfer.done
        finally:  # whatever throws the waiter out cuts it
            transfer.cancel()
        return stored if complete else None

    def keep(self, key: str, owner: str, data: bytes, charged_bytes: float, stored_s: float) -> None:
        """Let an object lie here that came another way, under the stamp that it has; it has been paid for."""
        self.lies_here(StoredObject(key, owner, data, charged_bytes, stored_s))

    def arrived(self, node: str, key: str, data: bytes, charged_bytes: float, started_s: float) -> StoredObject:
        """Account for an upload over a link that nobody shares, whose last byte is here now; the object as stored."""
        self._count(node, key, "submit", "up", charged_bytes, started_s, True)
        return self._stamp(node, key, data, charged_bytes)

    def lies_here(self, stored: StoredObject) -> None:
        """Let an object lie here as it is, and wake who waits for it."""
        self._objects[stored.key] = stored
        arrival = self._arrivals.pop(stored.key, None)
        if arrival is not None:
            arrival.succeed(stored)

    def was_read(self, node: str, key: str, num_bytes: float, started_s: float, complete: bool) -> None:
        """Account for downloads over a link that nobody shares, as one; they have ended now."""
        self._count(node, key, "gather", "down", num_bytes, started_s, complete)

    def _count(
        self,
        node: str,
        key: str,
        purpose: str,
        direction: Direction,
        num_bytes: float,
        started_s: float,
        complete: bool,
    ) -> None:
        """Account for bytes that have left a sender, and say so."""
        traffic = self.uploads if direction == "up" else self.downloads
        traffic.sent_bytes += num_bytes
        if complete:
            traffic.received_bytes += num_bytes
        else:
            traffic.lost_bytes += num_bytes
        self._emit(Transferred(self._env.now, node, key, purpose, direction, num_bytes, started_s, complete))

    def stat(self, key: str, reader: str = "") -> StoredObject | None:
        """What lies complete under a key for a reader, or None; asking is free, and answered in an outage, too."""
        return self._objects.get(self.conditions.name_for(reader, key))

    def arrival(self, key: str, reader: str = "") -> simpy.Event:
        """An event that fires, with the object, when one lands under a key; it has fired already if one lies there."""
        key = self.conditions.name_for(reader, key)
        stored = self._objects.get(key)
        if stored is not None:
            return self._env.event().succeed(stored)
        return self._arrivals.setdefault(key, self._env.event())

    def forget(self, is_old: Callable[[str], bool]) -> None:
        """Delete the objects whose keys are old; downloads under way keep theirs."""
        self._objects = {key: stored for key, stored in self._objects.items() if not is_old(key)}
        # Somebody may still wait for a key that nobody has put: only arrivals without a waiter go.
        self._arrivals = {key: event for key, event in self._arrivals.items() if event.callbacks or not is_old(key)}

    def cut(self, link: Resource) -> None:
        """Cut all transfers over a node's link, in the order in which they began: their connections are gone."""
        for transfer in [transfer for transfer in self._under_way if link in transfer.path]:
            transfer.cancel()

    def cut_all(self) -> None:
        """Cut all transfers under way, in the order in which they began, and account for them: the end of a run."""
        for transfer in list(self._under_way):
            transfer.cancel()
            self._finish(transfer)

    def _trouble(self, request: _Request, link: Resource, attempt: int) -> Trouble | None:
        """What an attempt meets that begins now: bad luck of a read, a store that does not answer, or a rate limit."""
        conditions, now_s = self.conditions, self._env.now
        unlucky = request.direction == "down" and self._fails(request.node, request.purpose, request.key, attempt)
        if unlucky or conditions.is_down(link, now_s):
            return "fails"
        return None if conditions.grants(now_s) else "refused"

    def _asks_again(
        self, request: _Request, link: Resource, trouble: Trouble, retrying: Retrying, attempts_before: int = 0
    ) -> Generator[simpy.Event, Any, int | None]:
        """Ask again and again after a first attempt met trouble, until one succeeds, at that very instant.

        Returns its number, None if none does.
        """
        met: Trouble | None = trouble
        for attempt in range(self.settings.retries + 1):
            if attempt:
                met = self._trouble(request, link, attempts_before + attempt)
            if met is None:
                return attempt
            with retrying():
                yield self._env.timeout(self._request_s(request, link, attempts_before + attempt))
                self._say(request, met, attempt)
                if attempt < self.settings.retries:
                    yield self._env.timeout(self._wait_s(request, attempt, met == "refused", attempts_before))
        return None

    def _say(self, request: _Request, trouble: Trouble, attempt: int) -> None:
        """Say what an attempt met; of an upload that fell into an outage nothing is said."""
        if trouble == "refused":
            self._emit(RequestRefused(self._env.now, request.node, request.key, request.direction, attempt))
        elif request.direction == "down":
            self._emit(ReadFailed(self._env.now, request.node, request.key, attempt))

    def _wait_s(self, request: _Request, attempt: int, refused: bool, attempts_before: int) -> float:
        """Seconds from an attempt that failed, or that a limit refused, to the next."""
        backoff = self.settings.refused_backoff if refused else self.settings.backoff
        drawn = self._drawn("backoff", request, attempts_before + attempt) if backoff.draws else 0.0
        return backoff.wait_s(self.settings.retry_delay, attempt, drawn)

    def _request_s(self, request: _Request, link: Resource, attempt: int) -> float:
        """Seconds that a request takes before its first byte, between the node's place and the store's."""
        network = self._network.settings
        latency_s = self._network.ways.latency_s(link, self.ingress)
        if network.jitter is not None:
            latency_s = network.jitter.of(latency_s, self._drawn("jitter", request, attempt))
        return latency_s + network.request_overhead

    def _drawn(self, what: str, request: _Request, attempt: int) -> float:
        """A number in [0, 1) of one attempt."""
        return self._streams.uniform(what, request.node, request.purpose, request.key, attempt)

    def _fails(self, node: str, purpose: str, key: str, attempt: int) -> bool:
        """Whether bad luck spoils an attempt to read an object; where there is none, there is nothing to spoil."""
        return (
            key in self._objects
            and self._streams.uniform("read", node, purpose, key, attempt) < self.settings.read_failure
        )

    def _start(
        self,
        request: _Request,
        path: tuple[Resource, ...],
        charged_bytes: float,
        wait_s: float,
        flow: Flow = _WHOLE,
    ) -> Transfer:
        transfer = self._network.transfer(
            path, charged_bytes, wait_s, weight=flow.weight, cap_bits_per_s=flow.cap_bits_per_s
        )
        self._under_way[transfer] = request
        on_event(transfer.done, lambda _: self._finish(transfer))
        return transfer

    def _finish(self, transfer: Transfer) -> None:
        """Account for a transfer that is complete or cut."""
        request = self._under_way.pop(transfer, None)
        if request is None:  # cut_all has accounted for it
            return
        self._count(
            request.node,
            request.key,
            request.purpose,
            request.direction,
            transfer.moved_bytes,
            request.started_s,
            bool(transfer.done.value),
        )

    def _stamp(self, node: str, key: str, data: bytes, charged_bytes: float) -> StoredObject:
        """Stamp an object and show it, and wake who waits for it.

        Who uploaded it is told of the whole object, whatever has become of it.
        """
        stamp_s = self._env.now + self.conditions.clock_ahead_s
        stored = StoredObject(key, node, data, charged_bytes, stamp_s)
        kept = self._what_is_kept(stored)
        if kept is not None:
            self._objects[key] = kept
            arrival = self._arrivals.pop(key, None)
            if arrival is not None:
                arrival.succeed(kept)
        return stored

    def _what_is_kept(self, stored: StoredObject) -> StoredObject | None:
        """The object, or what damage leaves of it."""
        trouble = self.conditions.damage_to(stored.owner)
        if trouble is None:
            return stored
        kept = None
        if trouble.damage == "truncated":
            data = stored.data[: int(len(stored.data) * trouble.keeps)]
            kept = replace(stored, data=data, charged_bytes=stored.charged_bytes * trouble.keeps)
        num_bytes = 0.0 if kept is None else kept.charged_bytes
        self._emit(ObjectDamaged(self._env.now, stored.owner, stored.key, trouble.damage, num_bytes))
        return kept
