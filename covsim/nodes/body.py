"""A peer's body: the verbs of `behaviors.base.PeerVerbs`, each charged its true bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import simpy

from covsim.behaviors.base import Batches, Update
from covsim.chain.accounts import Account
from covsim.events import OuterStepTaken, RoundSkipped, Trained
from covsim.learning import corpus
from covsim.learning import update as lazy
from covsim.nodes.collective import Links
from covsim.nodes.commons import Commons
from covsim.nodes.gather import Gather, Submission, take_outer_step
from covsim.nodes.learner import Learner
from covsim.nodes.pace import Pace, work_s
from covsim.nodes.reading import Reader
from covsim.nodes.sending import Sender
from covsim.nodes.spent import Spent
from covsim.protocol.base import Claims
from covsim.protocol.lineage import Lineage
from covsim.world.network import Resource
from covsim.world.slow import Stint

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Body(Learner):
    """What a script moves: a machine, two links, a theta.

    What a verb means is the protocol's to say, so scripts are the same under every protocol: `train` starts from theta
    or from weights of the peer's own, is cut at the window's end or not, and may run while the exchange of the round
    before is still under way.
    """

    def __init__(self, commons: Commons, uid: int, pace: Pace, uplink: Resource, downlink: Resource) -> None:
        super().__init__(commons, uid, pace)
        self.machine = pace.machine
        self.spent = Spent()
        self._uplink, self._downlink = uplink, downlink
        self._sender = Sender(commons, uplink)
        self._reader = Reader(commons, downlink)
        self._synced = -1  # the last round whose exchange is done
        self._to_send: tuple[lazy.Update, bool] | None = None  # when the next inner steps begin; early or not
        self._under_way: list[simpy.Process] = []  # exchanges beside the script, oldest first
        self.gives_up_uid = False  # its script has asked for another

    @property
    def now_s(self) -> float:
        """That of the simulation."""
        return float(self._commons.env.now)

    @property
    def lineage(self) -> Lineage:
        """The history that it is on."""
        return self._lineage

    # What its owner does with it ------------------------------------------------------------------------------------

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this peer may still want to read."""
        lags = self._plan.asynchrony is not None or bool(self._under_way)
        return min(self.round, self._synced + 1) if lags else self.round

    def begin_round(self, since_s: float) -> None:
        """Open the accounts of a round, which count from a second on."""
        self.spent = Spent(since_s)
        self._claims = Claims()

    def end_last_round(self) -> Verb[None]:
        """Finish the exchanges that are still under way when no round follows."""
        if self._under_way:
            yield from self._until_window()
        yield from self._finish_exchanges(0)

    def go_on_to(self, round: int, first_skipped: int) -> None:
        """The next round to play; those in between are skipped."""
        for skipped in range(first_skipped, round):
            self._commons.emit(RoundSkipped(time_s=self._commons.env.now, uid=self.uid, round=skipped))
        self.round = round

    # What a script may see of others, and say ---------------------------------------------------------------------

    def gather_list(self) -> Collection[int]:
        return self._commons.board.in_force(self.round + 1).selected

    def incentive(self) -> float:
        epochs = self._commons.chain.chain.epochs
        if not epochs:
            return 0.0
        own = Account.derive(self._commons.streams.seed, self.name).public
        return next((share.incentive for share in epochs[-1].shares if share.public == own), 0.0)

    def show_sample_of(self, uid: int) -> None:
        sample = self._commons.samples.of(self.round, uid)
        if sample is not None:
            self._publish_sample(self.round, sample.lineage)

    # What a script may do -------------------------------------------------------------------------------------------

    def train(self, batches: Batches, steps: int | None = None, rounds_behind: int = 0) -> Verb[Update]:
        commons, began = self._commons, self.round
        mishap = commons.mishaps.spoils(self.uid, began)
        named = cast(corpus.Batches, batches)
        if mishap == "wrong_shard" and named.shard == "assigned":
            named = named.elsewhere()
        wanted = commons.inner_steps if steps is None else steps
        stints, done = [], 0
        if self._under_way and self._plan.overlap_steps is not None:
            stints.append((yield from self._work.steps(began, min(wanted, self._plan.overlap_steps), self.spent)))
            self._take_note(stints[0])
            self._own, done = self._trained(began, named, stints[0], 0, self._lineage), stints[0].steps
            yield from self._finish_exchanges(0)
        rest = yield from self._work.steps(self.round, wanted - done, self.spent)
        self._take_note(rest)
        stints.append(rest)
        commons.emit(
            Trained(
                time_s=commons.env.now,
                uid=self.uid,
                round=self.round,
                steps=done + rest.steps,
                wanted=wanted,
                compute_s=work_s(stints),
            )
        )
        update = self._result(began, named, stints, rounds_behind)
        return cast(Update, math.nan * update if mishap == "nan" else update)

    def wait_for_uploads(self) -> Verb[None]:
        yield from self._until_window()

    def pause(self, seconds: float) -> Verb[None]:
        if seconds < 0:
            raise ValueError(f"nobody pauses for {seconds} s")
        with self.spent.on("idle_pause_s", self._commons.env):
            yield self._commons.env.timeout(seconds)

    def submit(self, update: Update, early: bool = False) -> Verb[None]:
        named = cast(lazy.Update, update)
        if self._work.compresses:
            yield from self._work.compress(self.spent)
        if not self._plan.in_background:
            yield from self._sender.submit(self.uid, self.round, named, self._claims, self.spent, early)
        else:
            self._to_send = (named, early)  # `sync` starts the exchange

    def encode(self, update: Update) -> Verb[bytes]:
        yield from self._work.compress(self.spent)
        return (
            yield from self._sender.encode(self.uid, self.round, cast(lazy.Update, update), self._claims, self.spent)
        )

    def submit_payload(self, payload: bytes, early: bool = False) -> Verb[None]:
        yield from self._sender.upload(self.uid, self.round, payload, self.spent, early)

    def put(self, name: str, payload: bytes) -> Verb[None]:
        yield from self._sender.put(self.uid, self.round, name, payload, self.spent)

    def heard(self, key: str) -> Verb[Any]:
        closes_s = yield from self._put_closes_at()
        return (yield from self._commons.conspiracy.heard(self.uid, self.round, key, closes_s))

    def first_arrival(self, among: Collection[int]) -> Verb[int | None]:
        until_s = yield from self._put_closes_at()
        return (yield from self._reader.first_arrival(self.uid, self.round, among, until_s))

    def download(self, uid: int) -> Verb[bytes | None]:
        yield from self._put_closes_at()
        return (yield from self._reader.download(self.uid, self.round, uid, self.spent))

    def payloads_of_others(self, most: int, until_share: float = 0.5) -> Verb[Sequence[bytes]]:
        clock, window = self._commons.clock, self.round + 1
        yield from self._until_window()
        until_s = clock.opens_at(window) + until_share * clock.timeline.put_window
        listed = [uid for uid in self.gather_list() if uid not in self.fellows]
        return (yield from self._reader.downloads(self.uid, self.round, listed, most, until_s, self.spent))

    def updates_of_others(self) -> Verb[Sequence[Update]]:
        yield from self._until_window()
        updates = yield from self._commons.conspiracy.updates_of_others(self.uid, self.round)
        return cast(Sequence[Update], updates)

    def sync(self) -> Verb[None]:
        if not self._plan.in_background:
            yield from self._sync_until(self.round)
            return
        delay = self._plan.outer_delay
        yield from self._finish_exchanges(max(0, delay - 1))  # those that no training has waited for
        exchange = self._exchange(self.round, self._to_send, self._claims)
        self._under_way.append(self._commons.env.process(exchange))
        self._to_send = None
        if delay:
            self._publish_sample(self.round + 1, self._lineage)

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _take_note(self, stint: Stint) -> None:
        """Inner steps are done: say so, for the round to which they belong."""
        commons = self._commons
        if self._plan.asynchrony:  # the update belongs to the round in which it was done
            in_time = min(commons.clock.window_at(commons.env.now), commons.num_rounds - 1)
            self.go_on_to(max(self.round, in_time), self.round)
        self._work.announce(self.uid, self.round, stint)

    def _until_window(self) -> Verb[None]:
        """Be ready for the window of this round's payloads, and wait until it opens."""
        return self._commons.until_window(self.name, self.round + 1, self.spent)

    def _put_closes_at(self) -> Verb[float]:
        """When the payloads of this round count no longer; who can only know when they begin to waits for that."""
        clock, window = self._commons.clock, self.round + 1
        if not clock.foresees(window):
            yield from self._until_window()
        return clock.put_closes_at(window)

    def _sync_until(self, last: int) -> Verb[None]:
        """Gather and step for a round, and before it for those that passed while an asynchronous peer was training."""
        missed = range(self._synced + 1, last) if self._plan.asynchrony else ()
        for round in (*missed, last):
            entered = yield from self._gather(round, self.spent)
            if self._work.decodes:
                yield from self._work.decode(len(entered), self.spent)
            self._step(round, entered)

    def _gather(self, round: int, spent: Spent) -> Verb[tuple[Submission, ...]]:
        commons = self._commons
        if not commons.has_begun(round + 1):
            yield from commons.until_window(self.name, round + 1, spent)
        if commons.collectives is not None:
            links = Links(self.uid, self._uplink, self._downlink)
            return (yield from commons.collectives.take_part(links, round, spent))
        wanted = commons.board.in_force(round + 1)
        if commons.bundles is not None:
            return (yield from commons.bundles.gather(self.name, self._downlink, round, wanted, self.uid, spent))
        gather = Gather(commons, self.name, self._downlink, round, wanted, own_uid=self.uid, spent=spent)
        return (yield from gather.run())

    def _step(self, round: int, entered: tuple[Submission, ...]) -> None:
        """Take the outer step, and let own weights meet the new theta where they outlive it."""
        commons, exchange = self._commons, self._commons.exchange
        self._synced = round
        if entered:
            self._lineage = take_outer_step(commons, self._lineage, entered, round)
            self._remember()
        if not self._plan.outer_delay:
            self._publish_sample(round + 1, self._lineage)
        if not entered:
            commons.encoder.end_uncounted(self.uid)
            return
        commons.emit(OuterStepTaken(time_s=commons.env.now, node=self.name, round=round, lineage=self._lineage.key))
        if self._own is not None:
            theta = self._lineage.theta
            self._own = self._own.map(lambda own: exchange.merge(own, theta, round))

    def _exchange(
        self, round: int, to_send: tuple[lazy.Update, bool] | None, claims: Claims
    ) -> Verb[tuple[int, tuple[Submission, ...]]]:
        """A whole exchange that takes place while the peer goes on training, and so costs it no time of its own."""
        hidden = Spent()
        if to_send is not None:
            update, early = to_send
            yield from self._sender.submit(self.uid, round, update, claims, hidden, early)
        return round, (yield from self._gather(round, hidden))

    def _finish_exchanges(self, left: int) -> Verb[None]:
        """Wait for the exchanges under way, the oldest first, until so many are left, and take their outer steps."""
        while len(self._under_way) > left:
            with self.spent.on("idle_exchange_s", self._commons.env):
                round, entered = yield self._under_way[0]
            del self._under_way[0]
            yield from self._work.decode(len(entered), self.spent)
            self._step(round, entered)

    # Life -----------------------------------------------------------------------------------------------------------

    @property
    def first_unsynced(self) -> int:
        """The first round whose exchange is not in the lineage."""
        return self._synced + 1

    def wake(self, round: int, lineage: Lineage) -> None:
        """Begin to take part in a round, from a history that holds the exchanges of all rounds before."""
        self.round, self._lineage, self._synced = round, lineage, round - 1
        self.show_sample()

    def register_again(self) -> Verb[None]:
        self.gives_up_uid = True  # its owner sees to it when the script has returned
        yield self._commons.env.timeout(0)

    def cut_exchange(self) -> None:
        """Cut the exchanges that are under way beside the script."""
        for exchange in self._under_way:
            if exchange.is_alive:
                exchange.defused = True  # nobody waits for it any more
                exchange.interrupt("its peer is gone")
        self._under_way = []
