"""A peer's body: the verbs of `behaviors.base.PeerVerbs`, each charged its true bytes and seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast

import simpy

from covsim.behaviors import Behavior
from covsim.behaviors.base import Batches, Scalar, Update
from covsim.behaviors.membership import Membership
from covsim.chain.extrinsics import PayloadHash
from covsim.events import NodeLeft, OuterStepTaken, RoundSettled, RoundSkipped, Submitted, Trained
from covsim.learning import corpus
from covsim.learning import update as lazy
from covsim.nodes.board import SyncSample
from covsim.nodes.chain_node import Member
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import Gather, Submission, take_outer_step, wait_for_object
from covsim.protocol.base import Claims
from covsim.protocol.lineage import Lineage
from covsim.world.machine import Machine
from covsim.world.network import Resource

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Peer:
    """A participant that trains. `run` plays its behavior's script once a round.

    What a verb means is the protocol's to say, so scripts are the same under every protocol: `train` starts from theta
    or from weights of the peer's own, is cut at the window's end or not, and may run while the exchange of the round
    before is still under way.
    """

    def __init__(
        self,
        commons: Commons,
        uid: int,
        behavior: Behavior,
        membership: Membership,
        machine: Machine,
        uplink: Resource,
        downlink: Resource,
    ) -> None:
        self.uid = uid
        self.name = f"peer:{uid}"
        self.lineage: Lineage = commons.lineages.root
        self.round = 0
        self._commons = commons
        self._plan = commons.exchange.plan
        self._behavior = behavior
        self._membership = membership
        self._machine = machine
        self._uplink = uplink
        self._downlink = downlink
        self._spent = _Spent()
        self._settled_s = 0.0  # when the last round was
        self._claims = Claims()
        self._own: lazy.Update | None = None  # weights [N] that differ from the lineage's theta
        self._synced = -1  # the last round whose exchange is done
        self._to_send: lazy.Update | None = None  # of an exchange that overlaps with the next inner steps
        self._under_way: simpy.Process | None = None
        self._past: list[Lineage] = []  # earlier histories, oldest first, as far back as a script has asked for
        self.left = False
        self._has_asked = membership.first_round == 0  # for a slot; who is there from the start has one from block 0

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this peer may still want to read."""
        lags = self._plan.asynchrony is not None or self._under_way is not None
        return min(self.round, self._synced + 1) if lags else self.round

    def run(self) -> Generator[Any, Any, None]:
        """Play rounds until the last, or until it leaves; a round that began while it was still busy is skipped."""
        clock, num_rounds = self._commons.clock, self._commons.num_rounds
        self._publish_sample(0, self.lineage)
        while self.round < num_rounds:
            yield clock.opened(self.round)
            yield from self._play_round()
            if self._leaves():
                return
            self._go_on_to(min(num_rounds, max(self.round + 1, clock.window_at(self._commons.env.now))), self.round + 1)

    def _play_round(self) -> Generator[Any, Any, None]:
        """One round; it begins where the one before was settled, which may be before its window opens.

        Until its first round a peer only reads along, so that it begins from the theta of that round.
        """
        env, started_s = self._commons.env, self._settled_s
        self._spent = _Spent()
        self._claims = Claims()
        first = self._membership.first_round
        if self.round < first:
            yield from self.sync()
        if self.round >= first - 1 and not self._has_asked:  # a round that was skipped may have been the one for it
            self._has_asked = True
            self._commons.chain.register(self.member)
        if self.round >= first:
            yield from self._behavior.play_round(self)
        if self.round == self._commons.num_rounds - 1 and self._under_way is not None:
            yield self._commons.clock.opened(self.round + 1)  # until then it is idle and waits for nothing on a link
            yield from self._finish_exchange()
        spent, self._settled_s = self._spent, env.now
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

    def _go_on_to(self, round: int, first_skipped: int) -> None:
        """The next round to play; those in between are skipped."""
        for skipped in range(first_skipped, round):
            self._commons.emit(RoundSkipped(time_s=self._commons.env.now, uid=self.uid, round=skipped))
        self.round = round

    def _leaves(self) -> bool:
        """Settle whether the peer goes on after this round; announce it if not."""
        commons, first = self._commons, self._membership.first_round
        if self._membership.stays(commons.purses.profits(self.uid, range(first, self.round + 1))):
            return False
        self.left = True
        commons.emit(NodeLeft(commons.env.now, self.name, self.uid, self.round, f"membership {self._membership.kind}"))
        return True

    @property
    def member(self) -> Member:
        """Who it is on the chain."""
        return Member(self.name, self.uid, "peer")

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

    def train(self, batches: Batches, steps: int | None = None, rounds_behind: int = 0) -> Verb[Update]:
        commons, named, began = self._commons, cast(corpus.Batches, batches), self.round
        wanted = commons.inner_steps if steps is None else steps
        done = 0
        if self._under_way is not None:
            done = yield from self._compute(min(wanted, self._plan.overlap_steps or 0))
            self._own = self._trained(began, named, done, 0, self.lineage)
            yield from self._finish_exchange()
        rest = yield from self._compute(wanted - done)
        commons.emit(
            Trained(
                time_s=commons.env.now,
                uid=self.uid,
                round=self.round,
                steps=done + rest,
                wanted=wanted,
                compute_s=self._machine.seconds(done + rest),
            )
        )
        tokens = self._claims.tokens + (done + rest) * commons.tokens_per_step
        base = self._base(rounds_behind)
        self._claims = Claims(min(tokens, commons.exchange.most_tokens), base=base.depth)
        theta = lazy.Update.of(base.theta)
        if self._plan.sends == "gradient":
            gradient = commons.trainer.gradient(self.uid, began, theta, named)
            return cast(Update, gradient if rest else theta - theta)
        trained = self._trained(began, named, rest, done, base)
        if self._plan.keeps_own_weights:
            self._own = trained
        return cast(Update, theta - trained)

    def wait_for_uploads(self) -> Verb[None]:
        yield self._commons.clock.opened(self.round + 1)

    def pause(self, seconds: float) -> Verb[None]:
        yield self._commons.env.timeout(seconds)

    def submit(self, update: Update) -> Verb[None]:
        if self._plan.overlap_steps is None:
            yield from self._submit(self.round, cast(lazy.Update, update), self._claims, self._spent)
        else:
            self._to_send = cast(lazy.Update, update)  # `sync` starts the exchange

    def submit_payload(self, payload: bytes) -> Verb[None]:
        yield from self._upload(self.round, payload, self._spent)

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
        with self._spending(self._spent, "download_s"):
            stored = yield from commons.store.get(self.name, self._downlink, key, purpose="observe")
        return None if stored is None else stored.data

    def sync(self) -> Verb[None]:
        if self._plan.overlap_steps is None:
            yield from self._sync_until(self.round)
        else:
            yield from self._finish_exchange()  # of the round before, if no training has waited for it
            exchange = self._exchange(self.round, self._to_send, self._claims)
            self._under_way, self._to_send = self._commons.env.process(exchange), None

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _compute(self, steps: int) -> Verb[int]:
        """Spend the time of some inner steps, of as many as fit before the window closes; returns how many."""
        commons = self._commons
        with self._spending(self._spent, "compute_s"):
            left_s = commons.clock.closes_at(self.round) - commons.env.now
            done = steps if self._plan.asynchrony else self._machine.steps_within(left_s, steps)
            yield commons.env.timeout(self._machine.seconds(done))
        if self._plan.asynchrony:  # the update belongs to the round in which it was done
            in_time = min(commons.clock.window_at(commons.env.now), commons.num_rounds - 1)
            self._go_on_to(max(self.round, in_time), self.round)
        return done

    def _base(self, rounds_behind: int) -> Lineage:
        """The history to train from; a stale one is what the peer's sync sample shows from then on.

        What nobody has asked for is not remembered: who asks for the first time gets the present.
        """
        self._past = self._past[-rounds_behind - 1 :] if rounds_behind else []
        if not rounds_behind:
            return self.lineage
        if not self._past or self._past[-1] is not self.lineage:
            self._past.append(self.lineage)
        base = self._past[max(0, len(self._past) - 1 - rounds_behind)]
        self._publish_sample(self.round, base)
        return base

    def _trained(self, round: int, batches: corpus.Batches, steps: int, skip: int, base: Lineage) -> lazy.Update:
        """The weights [N] after some inner steps, not computed yet; `skip` steps of the round lie before them."""
        start = base.theta if self._own is None else self._own
        return self._commons.trainer.train(self.uid, round, start, batches, steps, skip)

    def _submit(self, round: int, update: lazy.Update, claims: Claims, spent: _Spent) -> Verb[None]:
        """Encode when the window opens, together with all who submit at this instant, and upload."""
        commons = self._commons
        yield commons.clock.opened(round + 1)
        ticket = commons.encoder.request(round, self.uid, update, claims)
        yield commons.env.timeout(0)  # let all who submit at this instant share one batch
        payload = commons.seam.payload(f"payload uid={self.uid} round={round}", lambda: commons.encoder.encode(ticket))
        commons.encoder.close(ticket)
        landed = yield from self._upload(round, payload, spent)
        commons.encoder.settle(self.uid, landed)

    def _upload(self, round: int, payload: bytes, spent: _Spent) -> Verb[bool]:
        """Put a payload into the store when its window is open; returns whether it lies there and was on time."""
        commons = self._commons
        yield commons.clock.opened(round + 1)
        with self._spending(spent, "upload_s"):
            stored = yield from commons.store.put(
                self.name, self._uplink, object_key(round, self.uid), payload, commons.charges.payload(len(payload))
            )
        if stored is None:
            return False
        on_time, sha256 = commons.on_time(stored, round), hashlib.sha256(payload).hexdigest()
        if "payload_hashes" in commons.chain.settings.log:
            commons.chain.submit(self.name, PayloadHash(round, sha256))
        commons.emit(
            Submitted(
                time_s=commons.env.now,
                uid=self.uid,
                round=round,
                num_bytes=stored.charged_bytes,
                stored_s=stored.stored_s,
                on_time=on_time,
                model_bytes=len(payload),
                payload_sha256=sha256,
            )
        )
        return on_time

    def _sync_until(self, last: int) -> Verb[None]:
        """Gather and step for a round, and before it for those that passed while an asynchronous peer was training."""
        missed = range(self._synced + 1, last) if self._plan.asynchrony else ()
        for round in (*missed, last):
            self._step(round, (yield from self._gather(round, self._spent)))

    def _gather(self, round: int, spent: _Spent) -> Verb[tuple[Submission, ...]]:
        commons = self._commons
        yield commons.clock.opened(round + 1)
        with self._spending(spent, "download_s"):
            wanted = commons.board.in_force(round + 1)
            gather = Gather(commons, self.name, self._downlink, round, wanted, own_uid=self.uid)
            return (yield from gather.run())

    def _step(self, round: int, entered: tuple[Submission, ...]) -> None:
        """Take the outer step, and let own weights meet the new theta where they outlive it."""
        commons, exchange = self._commons, self._commons.exchange
        self._synced = round
        if entered:
            self.lineage = take_outer_step(commons, self.lineage, entered, round)
        self._publish_sample(round + 1, self.lineage)
        if not entered:
            return
        commons.emit(OuterStepTaken(time_s=commons.env.now, node=self.name, round=round, lineage=self.lineage.key))
        if self._own is not None:
            theta = self.lineage.theta
            self._own = self._own.map(lambda own: exchange.merge(own, theta, round))

    def _exchange(
        self, round: int, update: lazy.Update | None, claims: Claims
    ) -> Verb[tuple[int, tuple[Submission, ...]]]:
        """A whole exchange that takes place while the peer goes on training, and so costs it no time of its own."""
        hidden = _Spent()
        if update is not None:
            yield from self._submit(round, update, claims, hidden)
        return round, (yield from self._gather(round, hidden))

    def _finish_exchange(self) -> Verb[None]:
        """Wait for the exchange that is under way, if there is one, and take its outer step."""
        if self._under_way is None:
            return
        with self._spending(self._spent, "download_s"):
            round, entered = yield self._under_way
        self._under_way = None
        self._step(round, entered)

    def _publish_sample(self, round: int, lineage: Lineage) -> None:
        """Show from which theta the peer trains a round."""
        self._commons.samples.publish(round, self.uid, SyncSample(self._commons.env.now, lineage))

    # Bookkeeping ----------------------------------------------------------------------------------------------------

    def _earliest(self, keys: dict[str, int]) -> int | None:
        """The uid whose object was stamped first, ties in the order of the keys; None if none has arrived."""
        stamped = [(stored.stored_s, uid) for key, uid in keys.items() if (stored := self._commons.store.stat(key))]
        return min(stamped, key=lambda entry: entry[0])[1] if stamped else None

    @contextmanager
    def _spending(self, spent: _Spent, account: str) -> Iterator[None]:
        """Book the simulated time of a block to an account."""
        began_s = self._commons.env.now
        try:
            yield
        finally:
            setattr(spent, account, getattr(spent, account) + self._commons.env.now - began_s)


class _Spent:
    """Seconds of the current round by cause; what is in none of them is idle."""

    def __init__(self) -> None:
        self.compute_s = 0.0
        self.upload_s = 0.0
        self.download_s = 0.0
