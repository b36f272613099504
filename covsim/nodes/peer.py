"""A peer's body: the verbs of `behaviors.base.PeerVerbs`, each charged its true bytes and seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

from covsim.behaviors import Behavior
from covsim.behaviors.base import Batches, Scalar, Update
from covsim.events import OuterStepTaken, RoundSettled, RoundSkipped, Submitted, Trained
from covsim.learning import corpus
from covsim.learning import update as lazy
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import Gather, take_outer_step, wait_for_object
from covsim.protocol.lineage import Lineage
from covsim.world.machine import Machine
from covsim.world.network import Resource

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Peer:
    """A participant that trains. `run` plays its behavior's script once a round."""

    def __init__(
        self, commons: Commons, uid: int, behavior: Behavior, machine: Machine, uplink: Resource, downlink: Resource
    ) -> None:
        self.uid = uid
        self.name = f"peer:{uid}"
        self.lineage: Lineage = commons.lineages.root
        self.round = 0
        self._commons = commons
        self._behavior = behavior
        self._machine = machine
        self._uplink = uplink
        self._downlink = downlink
        self._spent = _Spent()

    def run(self) -> Generator[Any, Any, None]:
        """Play rounds until the last; a round that began while the peer was still busy is skipped."""
        clock, num_rounds = self._commons.clock, self._commons.num_rounds
        while self.round < num_rounds:
            yield clock.opened(self.round)
            yield from self._play_round()
            next_round = max(self.round + 1, clock.window_at(self._commons.env.now))
            for skipped in range(self.round + 1, min(next_round, num_rounds)):
                self._commons.emit(RoundSkipped(time_s=self._commons.env.now, uid=self.uid, round=skipped))
            self.round = next_round

    def _play_round(self) -> Generator[Any, Any, None]:
        env = self._commons.env
        started_s = env.now
        self._spent = _Spent()
        yield from self._behavior.play_round(self)
        spent = self._spent
        self._commons.emit(
            RoundSettled(
                time_s=env.now,
                uid=self.uid,
                round=self.round,
                started_s=started_s,
                compute_s=spent.compute_s,
                upload_s=spent.upload_s,
                download_s=spent.download_s,
                idle_s=(env.now - started_s) - spent.compute_s - spent.upload_s - spent.download_s,
            )
        )

    # What a script may know -----------------------------------------------------------------------------------------

    @property
    def inner_steps(self) -> int:
        return self._commons.inner_steps

    def assigned_batches(self) -> Batches:
        return corpus.Batches("assigned", self.uid, self.round)

    def random_batches(self) -> Batches:
        return corpus.Batches("random", self.uid, self.round)

    def gather_list(self) -> Collection[int]:
        return self._commons.board.in_force(self.round + 1).selected

    def observe(self, scalar: Scalar) -> float:
        label = f"observe uid={self.uid} round={self.round}"
        return self._commons.seam.numbers(label, lambda: [cast(lazy.Scalar, scalar).value()])[0]

    # What a script may do -------------------------------------------------------------------------------------------

    def train(self, batches: Batches, steps: int | None = None) -> Verb[Update]:
        commons = self._commons
        wanted = commons.inner_steps if steps is None else steps
        with self._spending("compute_s"):
            left_s = commons.clock.closes_at(self.round) - commons.env.now
            done = self._machine.steps_within(left_s, wanted)
            yield commons.env.timeout(self._machine.seconds(done))
        commons.emit(
            Trained(
                time_s=commons.env.now,
                uid=self.uid,
                round=self.round,
                steps=done,
                wanted=wanted,
                compute_s=self._machine.seconds(done),
            )
        )
        update = commons.trainer.train(self.uid, self.round, self.lineage.theta, cast(corpus.Batches, batches), done)
        return cast(Update, update)

    def wait_for_uploads(self) -> Verb[None]:
        yield self._commons.clock.opened(self.round + 1)

    def pause(self, seconds: float) -> Verb[None]:
        yield self._commons.env.timeout(seconds)

    def submit(self, update: Update) -> Verb[None]:
        commons = self._commons
        yield from self.wait_for_uploads()
        ticket = commons.encoder.request(self.uid, cast(lazy.Update, update))
        yield commons.env.timeout(0)  # let all who submit at this instant share one batch
        payload = commons.seam.payload(
            f"payload uid={self.uid} round={self.round}", lambda: commons.encoder.encode(ticket)
        )
        commons.encoder.close(ticket)
        yield from self.submit_payload(payload)

    def submit_payload(self, payload: bytes) -> Verb[None]:
        commons = self._commons
        yield from self.wait_for_uploads()
        with self._spending("upload_s"):
            stored = yield from commons.store.put(
                self.name,
                self._uplink,
                object_key(self.round, self.uid),
                payload,
                commons.charges.payload(len(payload)),
            )
        if stored is None:
            return
        on_time = commons.on_time(stored, self.round)
        commons.emit(
            Submitted(
                time_s=commons.env.now,
                uid=self.uid,
                round=self.round,
                num_bytes=stored.charged_bytes,
                stored_s=stored.stored_s,
                on_time=on_time,
                model_bytes=len(payload),
                payload_sha256=hashlib.sha256(payload).hexdigest(),
            )
        )

    def first_arrival(self, among: Collection[int]) -> Verb[int | None]:
        commons = self._commons
        since_s, close_s = commons.env.now, commons.clock.put_closes_at(self.round + 1)
        others = [uid for uid in among if uid != self.uid]
        keys = {object_key(self.round, uid): uid for uid in others}
        arrived = self._earliest(keys)
        if arrived is None and keys:
            arrivals = commons.env.any_of([commons.store.arrival(key) for key in keys])
            yield arrivals | commons.until(close_s)
            arrived = self._earliest(keys)
            if arrived is not None:
                yield commons.next_poll(since_s)
        return arrived

    def download(self, uid: int) -> Verb[bytes | None]:
        commons = self._commons
        key = object_key(self.round, uid)
        yield from wait_for_object(commons, key, commons.clock.put_closes_at(self.round + 1), commons.env.now)
        if commons.store.stat(key) is None:
            return None
        with self._spending("download_s"):
            stored = yield from commons.store.get(self.name, self._downlink, key, purpose="observe")
        return None if stored is None else stored.data

    def sync(self) -> Verb[None]:
        commons = self._commons
        yield from self.wait_for_uploads()
        with self._spending("download_s"):
            entered = yield from Gather(
                commons,
                self.name,
                self._downlink,
                self.round,
                commons.board.in_force(self.round + 1),
                own_uid=self.uid,
            ).run()
        if entered:
            self.lineage = take_outer_step(commons, self.lineage, entered)
            commons.emit(
                OuterStepTaken(time_s=commons.env.now, node=self.name, round=self.round, lineage=self.lineage.key)
            )

    # Bookkeeping ----------------------------------------------------------------------------------------------------

    def _earliest(self, keys: dict[str, int]) -> int | None:
        """The uid whose object was stamped first, ties in the order of the keys; None if none has arrived."""
        stamped = [(stored.stored_s, uid) for key, uid in keys.items() if (stored := self._commons.store.stat(key))]
        return min(stamped, key=lambda entry: entry[0])[1] if stamped else None

    @contextmanager
    def _spending(self, account: str) -> Iterator[None]:
        """Book the simulated time of a block to one of the accounts."""
        began_s = self._commons.env.now
        try:
            yield
        finally:
            setattr(self._spent, account, getattr(self._spent, account) + self._commons.env.now - began_s)


class _Spent:
    """Seconds of the current round by cause; what is in none of them is idle."""

    def __init__(self) -> None:
        self.compute_s = 0.0
        self.upload_s = 0.0
        self.download_s = 0.0
