"""Fetch the listed payloads: poll until the put window has closed, let reserves stand in, give up after the timeout.

Every node gathers for itself and nothing makes the sets equal; where reads fail differently, histories part. Source:
one-covenant/templar v2.1.28, as section "the clock of a round" of the design restates it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import simpy

from covsim.events import Gathered
from covsim.nodes.board import GatherList
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.side_by_side import SideBySide
from covsim.nodes.spent import Spent
from covsim.protocol.base import Decoded, InvalidPayload
from covsim.protocol.lineage import Lineage
from covsim.world.network import Resource


@dataclass(frozen=True)
class Submission:
    """A payload that counts: its uid, the sha256 of its bytes, what it says, and the store's stamp."""

    uid: int
    sha256: str
    decoded: Decoded
    stored_s: float


@dataclass
class Gather:
    """One node's gather of one round."""

    commons: Commons
    node: str
    downlink: Resource
    round: int
    wanted: GatherList
    own_uid: int | None = None
    spent: Spent = field(default_factory=Spent)
    submissions: dict[int, Submission] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    reserves_used: int = 0
    aborted: bool = False

    def run(self) -> Generator[Any, Any, tuple[Submission, ...]]:
        """Fill as many places as the list has; returns the submissions by uid, none if the gather was aborted."""
        env = self.commons.env
        started_s = env.now
        reserves = iter(self.wanted.reserve)
        places = SideBySide(env, [self._fill_place(uid, reserves, started_s) for uid in self.wanted.selected])
        try:
            yield places.done | env.timeout(self.commons.gather_timeout_s)
            self.aborted = not places.done.processed
        finally:  # the timeout, or a crash of the node
            places.interrupt()
        enter = not self.aborted and not self._lacks_quorum
        entered = tuple(self.submissions[uid] for uid in sorted(self.submissions)) if enter else ()
        self.commons.emit(
            Gathered(
                time_s=env.now,
                node=self.node,
                round=self.round,
                outcome=self._outcome(),
                uids=tuple(submission.uid for submission in entered),
                missing=tuple(sorted(self.missing)),
                reserves=self.reserves_used,
                gather_s=env.now - started_s,
            )
        )
        return entered

    def take(self, entered: tuple[Submission, ...]) -> None:
        """Have what came of a direct exchange, instead of running."""
        self.submissions = {submission.uid: submission for submission in entered}
        now_s, uids = self.commons.env.now, tuple(self.submissions)
        outcome = "complete" if uids else "empty"
        self.commons.emit(Gathered(now_s, self.node, self.round, outcome, uids, (), 0, 0.0))

    def _fill_place(self, uid: int, reserves: Iterator[int], started_s: float) -> Generator[Any, Any, None]:
        """Try the listed peer, then reserves in their order, until a payload is had."""
        try:
            stands_in = False
            while not (yield from self._fetch(uid, started_s, stands_in)):
                self.missing.append(uid)
                reserve = next(reserves, None)
                if reserve is None:
                    return
                self.reserves_used += 1
                uid, stands_in = reserve, True
        except simpy.Interrupt:
            return

    def _fetch(self, uid: int, started_s: float, stands_in: bool) -> Generator[Any, Any, bool]:
        """True when this peer's payload of the round was on time, could be read, and is valid."""
        commons = self.commons
        key = object_key(self.round, uid)
        self.asked.append(uid)
        stored = commons.store.stat(key, self.node)
        if stored is not None:
            self.spent.settle(commons.env.now)
        else:
            closes_s = commons.clock.put_closes_at(self.round + 1)
            with self.spent.on("idle_arrival_s", commons.env):
                yield from wait_for_object(commons, key, closes_s, started_s, self.node)
            stored = commons.store.stat(key, self.node)
        if stored is None or not commons.on_time(stored, self.round):
            return False
        seen = stored
        if uid != self.own_uid:  # a peer has its own payload at hand
            with self.spent.on("download_s", commons.env):
                stored = yield from commons.store.get(
                    self.node,
                    self.downlink,
                    key,
                    purpose="gather",
                    retrying=lambda: self.spent.instead("download_s", "idle_retry_s", commons.env),
                )
        if stored is None or not (stored is seen or commons.on_time(stored, self.round)):  # overwritten since
            return False
        try:
            sha256, decoded = commons.decoded.read(
                stored.data,
                self.round,
                allow_missing=commons.trusts_everybody or (stands_in and commons.trusts_reserves),
            )
        except InvalidPayload:
            return False
        if commons.exchange.reads_weights:
            decoded = replace(decoded, weight=self.wanted.weights.get(uid, 0.0))
        self.submissions[uid] = Submission(uid, sha256, decoded, stored.stored_s)
        return True

    @property
    def _lacks_quorum(self) -> bool:
        """Whether too few places are filled for what is there to count as what everybody has."""
        return len(self.submissions) < self.commons.quorum * len(self.wanted.selected)

    def _outcome(self) -> str:
        return outcome_of(self.aborted, len(self.submissions), len(self.wanted.selected), self._lacks_quorum)


def outcome_of(aborted: bool, num_read: int, num_listed: int, short: bool) -> str:
    """The word for what came of a gather."""
    if aborted:
        return "aborted"
    if not num_read:
        return "empty"
    if short:
        return "short"
    return "complete" if num_read == num_listed else "partial"


def wait_for_object(
    commons: Commons, key: str, until_s: float, polled_since_s: float, reader: str
) -> Generator[Any, Any, None]:
    """Return when a polling reader first sees the object, or at `until_s` without it."""
    if commons.store.stat(key, reader) is not None:
        return
    yield commons.store.arrival(key, reader) | commons.until(until_s)
    if commons.store.stat(key, reader) is not None:
        yield commons.next_poll(polled_since_s)


def take_outer_step(commons: Commons, lineage: Lineage, entered: tuple[Submission, ...], round: int) -> Lineage:
    """The history after the gather of a round: a child of `lineage`, or `lineage` itself when nothing was gathered."""
    if not entered:
        return lineage

    def step() -> Lineage:
        return commons.lineages.child(lineage, [(s.uid, s.sha256, s.decoded) for s in entered], round)

    return step() if commons.bundles is None else commons.bundles.child(lineage, entered, step)
