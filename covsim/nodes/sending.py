"""How a peer's payloads come into the store: encoded in company, uploaded over its link, announced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from covsim.chain.extrinsics import PayloadHash
from covsim.events import Submitted
from covsim.learning.update import Update
from covsim.nodes.chain_node import peer_name
from covsim.nodes.commons import Commons, aside_key, object_key
from covsim.nodes.spent import Spent
from covsim.protocol.base import Claims
from covsim.world.network import Resource
from covsim.world.store import StoredObject

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Sender:
    """What a peer sends over its uplink."""

    def __init__(self, commons: Commons, uplink: Resource) -> None:
        self._commons = commons
        self._uplink = uplink

    def submit(
        self, uid: int, round: int, update: Update, claims: Claims, spent: Spent, early: bool = False
    ) -> Verb[None]:
        """Encode with error feedback, together with all who submit at this instant, and upload.

        It waits for the window of the round's payloads to open, unless it is to be early.
        """
        commons = self._commons
        if not early and not commons.has_begun(round + 1):
            yield from commons.until_window(peer_name(uid), round + 1, spent)
        commons.conspiracy.note(uid, round, update)
        payload = yield from self._encoded(f"payload uid={uid} round={round}", uid, round, update, claims, True)
        landed = False
        try:
            landed = yield from self.upload(uid, round, payload, spent, early)
        finally:  # an upload that was cut has come to nothing
            commons.encoder.settle(uid, landed)

    def encode(self, uid: int, round: int, update: Update, claims: Claims, spent: Spent) -> Verb[bytes]:
        """The payload that says an update, when the window is open, made without error feedback."""
        yield from self._commons.until_window(peer_name(uid), round + 1, spent)
        return (yield from self._encoded(f"encode uid={uid} round={round}", uid, round, update, claims, False))

    def upload(self, uid: int, round: int, payload: bytes, spent: Spent, early: bool = False) -> Verb[bool]:
        """Put a payload into the store when its window is open, or at once if it is to be early.

        Returns whether it lies there and was on time.
        """
        commons = self._commons
        if not early and not commons.has_begun(round + 1):
            yield from commons.until_window(peer_name(uid), round + 1, spent)
        if commons.collectives is not None:
            return commons.collectives.hand_in(uid, round, payload)
        said: list[bool] = []
        with spent.on("upload_s", commons.env):
            # Said as it lands: who is interrupted at the instant of the last byte has submitted all the same.
            yield from self._put(
                uid, round, payload, spent, lambda stored: said.append(self._announce(uid, round, payload, stored))
            )
        return any(said)

    def _announce(self, uid: int, round: int, payload: bytes, stored: StoredObject) -> bool:
        """Say that a payload lies in the store, as the chain's log wants it too; whether it was on time."""
        commons = self._commons
        on_time, sha256 = commons.on_time(stored, round), hashlib.sha256(payload).hexdigest()
        if "payload_hashes" in commons.chain.settings.log:
            commons.chain.submit(peer_name(uid), PayloadHash(round, sha256))
        commons.emit(
            Submitted(
                time_s=commons.env.now,
                uid=uid,
                round=round,
                num_bytes=stored.charged_bytes,
                stored_s=stored.stored_s,
                on_time=on_time,
                model_bytes=len(payload),
                payload_sha256=sha256,
            )
        )
        return on_time

    def _put(
        self, uid: int, round: int, payload: bytes, spent: Spent, landed: Callable[[StoredObject], object]
    ) -> Verb[StoredObject | None]:
        """Upload a payload; None if nothing came of it. No generator itself, which every upload would pass through."""
        commons, node, key = self._commons, peer_name(uid), object_key(round, uid)
        size = commons.charges.payload(len(payload))
        if commons.bundles is not None:
            return commons.bundles.put(node, self._uplink, key, payload, size, landed)
        return commons.store.put(
            node,
            self._uplink,
            key,
            payload,
            size,
            retrying=lambda: spent.instead("upload_s", "idle_retry_s", commons.env),
            landed=landed,
        )

    def put(self, uid: int, round: int, name: str, payload: bytes, spent: Spent) -> Verb[None]:
        """Upload bytes beside a payload, at once; nobody reads them."""
        commons = self._commons
        key, size = aside_key(round, uid, name), commons.charges.payload(len(payload))
        with spent.on("upload_s", commons.env):
            yield from commons.store.put(peer_name(uid), self._uplink, key, payload, size, purpose="aside")

    def _encoded(self, label: str, uid: int, round: int, update: Update, claims: Claims, feedback: bool) -> Verb[bytes]:
        """The payload of an update, through the seam."""
        commons = self._commons
        ticket = commons.encoder.request(round, uid, update, claims, feedback)
        try:
            yield commons.env.timeout(0)  # let all who submit at this instant share one batch
            return commons.seam.payload(label, lambda: commons.encoder.encode(ticket))
        finally:
            commons.encoder.close(ticket)
