"""Uploads and gathers of which nobody waits for anybody else's bytes: one step each instead of twenty transfers.

Where the store's links are unlimited, nothing fails and a peer does one thing at a time, its link is its own. Then an
upload ends after latency + bytes / rate, and a gather when its link has carried all that has become visible, whatever
the order of the bytes. So the end is known as soon as the last payload lies there, and what was gathered is the same
for everybody: it is worked out once. `compute.transfers: bundled` asks for this, in trained and timing-only runs alike.

What differs from single transfers: instants by rounding (below 1e-6 s); one `Transferred` event for a gather, under the
key of its round; and a reserve who stands in for a payload that turns out invalid is asked when that payload arrives,
not when it is downloaded.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar
from weakref import ReferenceType, ref

import numpy as np
import simpy
from numpy.typing import NDArray

from covsim.events import Gathered
from covsim.nodes.board import GatherList
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import Submission, outcome_of
from covsim.nodes.spent import Spent
from covsim.protocol.base import InvalidPayload
from covsim.protocol.lineage import Lineage
from covsim.world.clock import alarm, on_event
from covsim.world.network import Resource
from covsim.world.store import StoredObject

Answer = TypeVar("Answer")
Waiting: TypeAlias = Generator[Any, Any, Answer]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(slots=True)
class Lot:
    """What there is to gather in a round, as it becomes known; the same for all who gather it."""

    known: simpy.Event
    # When it could be had, whose, its bytes, and whether a poll sees it; sorted.
    arrivals: list[tuple[float, int, float, bool]] = field(default_factory=list)
    submissions: dict[int, Submission] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    entered: tuple[Submission, ...] = ()
    uids: tuple[int, ...] = ()  # of those that entered
    open_places: int = 0
    next_reserve: int = 0
    waited_until_s: float = 0.0  # by when a place was given up for good
    _given_up: tuple[int, ...] = ()

    @property
    def given_up(self) -> tuple[int, ...]:
        """The uids that are missing by now; the same object as long as they are the same."""
        if len(self._given_up) != len(self.missing):
            self._given_up = tuple(self.missing)
        return self._given_up


class Bundles:
    """Uploads and gathers of all peers.

    Args:
        commons: the run's.
        latency_s: of a request.
    """

    def __init__(self, commons: Commons, latency_s: float) -> None:
        self._commons, self._latency_s = commons, latency_s
        self._lots: dict[tuple[int, int], Lot] = {}  # by round and list
        self._children: dict[tuple[str, int], ReferenceType[Lineage]] = {}  # by parent and what was gathered

    # Uploads --------------------------------------------------------------------------------------------------------

    def put(
        self,
        node: str,
        uplink: Resource,
        key: str,
        data: bytes,
        num_bytes: float,
        landed: Callable[[StoredObject], object],
    ) -> Waiting[StoredObject | None]:
        """Upload an object over a link of one's own; returns it as stored, None if it is too large, and says so."""
        commons = self._commons
        env, store = commons.env, commons.store
        began_s = env.now
        if num_bytes > store.settings.max_object:
            yield env.timeout(self._latency_s)
            return None
        yield alarm(env, (began_s + self._latency_s) + 8 * num_bytes / uplink.capacity_bits_per_s)
        stored = store.arrived(node, key, data, num_bytes, began_s)
        landed(stored)
        return stored

    # Gathers --------------------------------------------------------------------------------------------------------

    def gather(
        self, node: str, downlink: Resource, round: int, wanted: GatherList, own_uid: int, spent: Spent
    ) -> Waiting[tuple[Submission, ...]]:
        """Fetch what is listed; returns the submissions that entered, none if time was up before."""
        commons, env = self._commons, self._commons.env
        began_s = env.now
        lot = self.lot(round, wanted)
        until_s = began_s + commons.gather_timeout_s
        with spent.on("download_s", env):
            if lot.known.callbacks is not None:
                yield lot.known if commons.clock.put_closes_at(round + 1) < until_s else lot.known | alarm(env, until_s)
            ends_s, idle_s, num_bytes = self._end(lot, downlink, began_s, own_uid)
            aborted = ends_s > until_s or not lot.known.processed
            if aborted:
                num_bytes *= max(0.0, until_s - began_s) / (ends_s - began_s)
                ends_s = until_s
            if ends_s > env.now:
                yield alarm(env, ends_s)
        if idle_s and not aborted:
            spent.move(idle_s, "download_s", "idle_arrival_s", env.now)
        if num_bytes:
            commons.store.was_read(node, f"round-{round}", num_bytes, began_s, not aborted)
        entered, outcome = self.came_of(lot, wanted, aborted)
        uids = lot.uids if entered else ()
        took_s = env.now - began_s
        commons.emit(Gathered(env.now, node, round, outcome, uids, lot.given_up, lot.next_reserve, took_s))
        return entered

    def lot(self, round: int, wanted: GatherList) -> Lot:
        """What there is to gather of a list in a round; it is watched from the first time that somebody asks."""
        return self._lots.get((round, id(wanted))) or self._begin(round, wanted)

    def came_of(self, lot: Lot, wanted: GatherList, aborted: bool) -> tuple[tuple[Submission, ...], str]:
        """What enters of a lot that is known, and the word for it."""
        num_read, num_listed = len(lot.submissions), len(wanted.selected)
        short = num_read < self._commons.quorum * num_listed
        return () if aborted or short else lot.entered, outcome_of(aborted, num_read, num_listed, short)

    def forget_before(self, round: int) -> None:
        """Drop what was gathered for earlier rounds."""
        self._lots = {key: lot for key, lot in self._lots.items() if key[0] >= round}
        self._children.clear()

    def child(self, parent: Lineage, entered: tuple[Submission, ...], step: Callable[[], Lineage]) -> Lineage:
        """The history after an outer step, found at once where others have taken the same step before."""
        key = (parent.key, id(entered))
        known = self._children.get(key)
        child = None if known is None else known()
        if child is None:
            child = step()
            self._children[key] = ref(child)
        return child

    def _end(self, lot: Lot, downlink: Resource, began_s: float, own_uid: int) -> tuple[float, float, float]:
        """When a link has carried all of a lot that becomes visible from a time on; idle seconds before; the bytes."""
        poll_s, latency_s, rate = self._commons.poll_s, self._latency_s, downlink.capacity_bits_per_s / 8
        ends_s, idle_s, total = began_s, 0.0, 0.0
        # Comparisons, not `max`: this runs for each peer and payload.
        for there_s, uid, num_bytes, is_polled in lot.arrivals:
            if uid == own_uid:
                continue
            seen_s = began_s
            if there_s > began_s:
                seen_s = began_s + math.ceil((there_s - began_s) / poll_s) * poll_s if is_polled else there_s
                if seen_s > ends_s:
                    idle_s += seen_s - ends_s
                    ends_s = seen_s
            flows_s = seen_s + latency_s
            ends_s = (flows_s if flows_s > ends_s else ends_s) + num_bytes / rate
            total += num_bytes
        if lot.waited_until_s > ends_s:
            idle_s += lot.waited_until_s - ends_s
            ends_s = lot.waited_until_s
        return ends_s, idle_s, total

    def ends(self, lot: Lot, bytes_per_s: Floats, began_s: Floats, own_uids: Ints) -> tuple[Floats, Floats, Floats]:
        """The same for many links [P] at once, to the last bit: when each ends, its idle seconds, its bytes."""
        poll_s, latency_s = self._commons.poll_s, self._latency_s
        ends_s, idle_s, total = began_s.copy(), np.zeros_like(began_s), np.zeros_like(began_s)
        for there_s, uid, num_bytes, is_polled in lot.arrivals:
            waits, others = there_s > began_s, own_uids != uid
            looks_s = began_s + np.ceil((there_s - began_s) / poll_s) * poll_s if is_polled else there_s
            seen_s = np.where(waits, looks_s, began_s)
            idles = others & waits & (seen_s > ends_s)
            idle_s = np.where(idles, idle_s + (seen_s - ends_s), idle_s)
            starts_s = np.maximum(seen_s + latency_s, np.where(idles, seen_s, ends_s))
            ends_s = np.where(others, starts_s + num_bytes / bytes_per_s, ends_s)
            total = np.where(others, total + num_bytes, total)
        late = lot.waited_until_s > ends_s
        idle_s = np.where(late, idle_s + (lot.waited_until_s - ends_s), idle_s)
        return np.where(late, lot.waited_until_s, ends_s), idle_s, total

    def _begin(self, round: int, wanted: GatherList) -> Lot:
        """Watch the places of a list until each is filled or given up."""
        commons = self._commons
        lot = self._lots[round, id(wanted)] = Lot(commons.env.event(), open_places=len(wanted.selected))
        closes = commons.until(commons.clock.put_closes_at(round + 1))
        for uid in wanted.selected:
            self._watch(lot, round, wanted, uid, closes)
        self._settle(lot)
        return lot

    def _watch(
        self, lot: Lot, round: int, wanted: GatherList, uid: int, closes: simpy.Event, asked_s: float | None = None
    ) -> None:
        """Take the payload of a peer when it lies there, or turn to a reserve when it does not by the closing time.

        A reserve is asked at `asked_s`; until then nobody looks for its payload.
        """
        commons, key = self._commons, object_key(round, uid)

        def look(_: object = None) -> None:
            stored = commons.store.stat(key)
            if stored is None and closes.callbacks is not None:
                return
            if done:
                return
            done.append(True)
            if arrival is not None and arrival.callbacks is not None:
                arrival.callbacks.remove(look)  # or the store keeps it for as long as the payload does not come
            if stored is not None and self._take(lot, round, wanted, uid, stored, asked_s):
                lot.open_places -= 1
            else:
                self._give_up(lot, round, wanted, uid, closes)
            self._settle(lot)

        done: list[bool] = []
        arrival: simpy.Event | None = None
        if commons.store.stat(key) is not None or closes.callbacks is None:
            look()
            return
        arrival = commons.store.arrival(key)
        on_event(arrival, look)
        on_event(closes, look)

    def _give_up(self, lot: Lot, round: int, wanted: GatherList, uid: int, closes: simpy.Event) -> None:
        insort(lot.missing, uid)
        if lot.next_reserve < len(wanted.reserve):
            reserve = wanted.reserve[lot.next_reserve]
            lot.next_reserve += 1
            self._watch(lot, round, wanted, reserve, closes, self._commons.env.now)
        else:
            lot.open_places -= 1
            lot.waited_until_s = max(lot.waited_until_s, self._commons.env.now)

    def _take(
        self, lot: Lot, round: int, wanted: GatherList, uid: int, stored: StoredObject, asked_s: float | None
    ) -> bool:
        """Have a payload; False for one that does not count."""
        commons = self._commons
        if not commons.on_time(stored, round):
            return False
        is_polled = asked_s is None or stored.stored_s > asked_s
        there_s = stored.stored_s if asked_s is None else max(stored.stored_s, asked_s)
        insort(lot.arrivals, (there_s, uid, stored.charged_bytes, is_polled))
        allow = commons.trusts_everybody or (asked_s is not None and commons.trusts_reserves)
        try:
            sha256, decoded = commons.decoded.read(stored.data, round, allow_missing=allow)
        except InvalidPayload:
            return False
        if commons.exchange.reads_weights:
            decoded = replace(decoded, weight=wanted.weights.get(uid, 0.0))
        lot.submissions[uid] = Submission(uid, sha256, decoded, stored.stored_s)
        return True

    def _settle(self, lot: Lot) -> None:
        if not lot.open_places and not lot.known.triggered:
            lot.uids = tuple(sorted(lot.submissions))
            lot.entered = tuple(lot.submissions[uid] for uid in lot.uids)
            lot.known.succeed()
