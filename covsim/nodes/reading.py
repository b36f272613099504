"""How a peer reads others' payloads before anybody has to: it waits for one to arrive, downloads it, and pays."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from covsim.nodes.chain_node import peer_name
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import wait_for_object
from covsim.nodes.spent import Spent
from covsim.world.network import Resource

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Reader:
    """What a peer reads over its downlink."""

    def __init__(self, commons: Commons, downlink: Resource) -> None:
        self._commons = commons
        self._downlink = downlink

    def first_arrival(self, uid: int, round: int, among: Collection[int], until_s: float) -> Verb[int | None]:
        """Wait until one of these others' payloads lies in the store; None if none does by then."""
        commons = self._commons
        since_s = commons.env.now
        keys = {object_key(round, other): other for other in among if other != uid}
        arrived = self._earliest(uid, keys)
        if arrived is None and keys:
            arrivals = commons.env.any_of([commons.store.arrival(key, peer_name(uid)) for key in keys])
            yield arrivals | commons.until(until_s)
            arrived = self._earliest(uid, keys)
            if arrived is not None:
                yield commons.next_poll(since_s)
        return arrived

    def download(self, uid: int, round: int, other: int, spent: Spent) -> Verb[bytes | None]:
        """Fetch another's payload, for which it waits as long as the put window is open; None if there is none."""
        commons, key = self._commons, object_key(round, other)
        yield from wait_for_object(
            commons, key, commons.clock.put_closes_at(round + 1), commons.env.now, peer_name(uid)
        )
        if commons.store.stat(key, peer_name(uid)) is None:
            return None
        with spent.on("download_s", commons.env):
            stored = yield from commons.store.get(peer_name(uid), self._downlink, key, purpose="observe")
        return None if stored is None else stored.data

    def downloads(
        self, uid: int, round: int, among: Collection[int], most: int, until_s: float, spent: Spent
    ) -> Verb[Sequence[bytes]]:
        """Fetch up to `most` others' payloads, one after the other as they arrive; begins none from `until_s` on."""
        left, read = [other for other in among if other != uid], list[bytes]()
        while left and len(read) < most and self._commons.env.now < until_s:
            arrived = yield from self.first_arrival(uid, round, left, until_s)
            if arrived is None or self._commons.env.now >= until_s:
                break
            left.remove(arrived)
            payload = yield from self.download(uid, round, arrived, spent)
            if payload is not None:
                read.append(payload)
        return read

    def _earliest(self, reader: int, keys: Mapping[str, int]) -> int | None:
        """The uid whose object was stamped first, ties in the order of the keys; None if none has arrived."""
        stat, name = self._commons.store.stat, peer_name(reader)
        stamped = [(stored.stored_s, uid) for key, uid in keys.items() if (stored := stat(key, name))]
        return min(stamped, key=lambda entry: entry[0])[1] if stamped else None
