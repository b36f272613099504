"""A peer's life: it comes, registers, plays its behavior's script once a round, may crash, goes, and may come back."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Literal

import simpy

from covsim.behaviors.base import Script
from covsim.behaviors.membership import Absence
from covsim.events import CaughtUp, NodeJoined, NodeLeft, PeerCrashed, PeerEntered, RoundSettled
from covsim.nodes.body import Body
from covsim.nodes.chain_node import Member, peer_name
from covsim.nodes.checkpoints import CatchUp
from covsim.nodes.commons import Commons
from covsim.nodes.pace import Pace
from covsim.nodes.spent import IDLE
from covsim.protocol.lineage import Lineage
from covsim.scenario.population import PeerSpec
from covsim.world.network import Resource

State = Literal["away", "entering", "playing", "down", "done"]


class Peer:
    """A participant that trains: a machine with two links, a body, and the mind that moves it. `run` is its process.

    A body is one stretch of taking part: who crashes or goes loses all that is in memory, and comes back as a new body.

    Args:
        spec: who it is, by scenario and seed.
        pace: of its machine.
    """

    def __init__(self, commons: Commons, spec: PeerSpec, pace: Pace) -> None:
        self.spec = spec
        self.pace = pace
        self.uplink = Resource(f"{peer_name(spec.uid)} up", spec.uplink_bits_per_s)
        self.downlink = Resource(f"{peer_name(spec.uid)} down", spec.downlink_bits_per_s)
        self.state: State = "playing" if spec.membership.first_round == 0 else "away"
        self._commons = commons
        commons.conspiracy.enroll(spec.uid, spec.cohort)
        self.body = self._embody(spec.uid)
        self._process: simpy.Process | None = None
        self._repaired: simpy.Event | None = None  # while it is down: what it waits for
        self._way: CatchUp | None = None  # while it is entering
        self._keeps_theta = False  # it goes on under a new uid
        self._anew = False  # it comes back under a new uid
        self._since = spec.membership.first_round  # the round from which it takes part
        self._announced = -1  # the uid under which it has said so
        self._settled_s = 0.0  # when the last round was

    @property
    def uid(self) -> int:
        """Its uid of now."""
        return self.body.uid

    @property
    def name(self) -> str:
        """Its name as a node, `peer:<uid>`."""
        return self.body.name

    @property
    def lineage(self) -> Lineage:
        """The history that it is on."""
        return self.body.lineage

    @property
    def takes_part(self) -> bool:
        """False while it is away, entering or down; True still when it has played the last round."""
        return self.state in ("playing", "done")

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this peer may still want to read; for one that takes part or enters."""
        return self.body.oldest_wanted if self._way is None else self._way.round

    @property
    def wants_payloads(self) -> bool:
        """Whether it takes part, or is about to."""
        return self.state in ("playing", "entering")

    @property
    def member(self) -> Member:
        """Who it is on the chain."""
        return Member(self.name, self.uid, "peer")

    def announce(self) -> None:
        """Say who it is, under its uid of now."""
        self._announced = self.uid
        self._commons.emit(joined(self._commons, self.spec, self.name, self.uid, self.pace))

    # What befalls it ------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Stop at this instant: transfers are cut, and all that is in memory is lost. Who is not running stays so."""
        if self.state not in ("playing", "entering"):
            return
        commons = self._commons
        commons.emit(PeerCrashed(commons.env.now, self.name, self.uid, self.body.round))
        self.state, self._repaired = "down", commons.env.event()
        commons.clock.leave(self.name)
        self._lose_memory()
        if self._process is not None:  # else it has not begun
            self._process.interrupt("crash")

    def come_back(self) -> None:
        """The machine runs again after a crash: it catches up, and goes on with the next round."""
        if self._repaired is not None and not self._repaired.triggered:
            self._repaired.succeed()

    # Its life -------------------------------------------------------------------------------------------------------

    def run(self) -> Generator[Any, Any, None]:
        """Come, play rounds and go, again and again, until the last round or until it is gone for good."""
        self._process = self._commons.env.active_process
        first: int | None = self.spec.membership.first_round
        if self._repaired is not None:  # it crashed before it had begun
            first = yield from self._restart()
        while first is not None and first < self._commons.num_rounds:
            coming = first
            try:
                first = yield from self._visit(coming)
            except simpy.Interrupt:
                first = max(coming, (yield from self._restart()))
        self._commons.clock.leave(self.name)
        self.state = "done" if self.state == "playing" else "away"

    def _restart(self) -> Generator[Any, Any, int]:
        """Wait until the machine runs again; returns the first round that can be played."""
        assert self._repaired is not None, "a peer is interrupted by a crash only"
        last = self.body.round if self._way is None else -1
        self._way = None
        yield self._repaired
        self._repaired, self.state = None, "away"
        return max(last + 1, self._commons.clock.window_at(self._commons.env.now))

    def _visit(self, first: int) -> Generator[Any, Any, int | None]:
        """Take part from a round on until it goes; returns the round for which it comes back, None for never."""
        if self.state == "playing":
            self._commons.clock.join(self.name, first, self.pace.is_cut)
            self.body.show_sample()
        elif not (yield from self._enter(first)):
            return None
        clock, num_rounds, body = self._commons.clock, self._commons.num_rounds, self.body
        while body.round < num_rounds:
            body.begin_round(self._settled_s)
            if not self._commons.has_begun(body.round):
                yield from self._commons.until_window(self.name, body.round, body.spent)
            yield from self._play_round()
            absence, reason = self._absence()
            if absence is not None:
                return self._go(absence, reason)
            body.go_on_to(min(num_rounds, max(body.round + 1, clock.window_at(self._commons.env.now))), body.round + 1)
        return None

    # Coming ---------------------------------------------------------------------------------------------------------

    def _enter(self, first: int) -> Generator[Any, Any, bool]:
        """Catch up, get a slot, and be ready for a round, from a window before it on; False if the run ends before."""
        commons = self._commons
        clock = commons.clock
        yield clock.opened(max(0, first - 1))
        began_s, self.state = commons.env.now, "entering"
        self._way = self._take_identity()
        yield from self._way.run()
        yield from self._get_slot(self._way)
        yield clock.opened(first)
        lineage = yield from self._way.run()
        round, self._way = self._way.round, None
        if round >= commons.num_rounds:
            return False
        self.body.wake(round, lineage)
        self.state, self._since, self._settled_s = "playing", round, commons.env.now
        clock.join(self.name, round, self.pace.is_cut)
        commons.emit(PeerEntered(commons.env.now, self.name, self.uid, round, commons.env.now - began_s))
        return True

    def _take_identity(self) -> CatchUp:
        """Take the uid that it has, or a new one; returns the way from what it knows to the present."""
        before, anew, keeps_theta = self.body, self._anew, self._keeps_theta
        self._anew = self._keeps_theta = False
        self.body = self._embody(self._commons.roster.deal(self.spec) if anew else before.uid)
        if anew:
            self._commons.conspiracy.enroll(self.uid, self.spec.cohort)
        if self.uid != self._announced:
            self.announce()
        if keeps_theta:
            known, missing, env = before.lineage, before.first_unsynced, self._commons.env
            self._commons.emit(CaughtUp(env.now, self.name, missing - 1, before.name, known.key))
            return CatchUp(self._commons, self.name, self.downlink, known, missing)
        return CatchUp(self._commons, self.name, self.downlink)

    def _get_slot(self, way: CatchUp) -> Generator[Any, Any, None]:
        """Register unless it has a slot; ask once a round until one is given, and keep up meanwhile."""
        chain, clock, env = self._commons.chain, self._commons.clock, self._commons.env
        while not chain.is_registered(self.name) and clock.window_at(env.now) < self._commons.num_rounds:
            chain.register(self.member)
            yield chain.next_block()
            if not chain.is_registered(self.name):
                yield clock.opened(clock.window_at(env.now) + 1)
                yield from way.run()

    def _embody(self, uid: int) -> Body:
        return Body(self._commons, uid, self.pace, self.uplink, self.downlink)

    # Playing --------------------------------------------------------------------------------------------------------

    def _play_round(self) -> Generator[Any, Any, None]:
        """One round; it begins where the one before was settled, which may be before its window opens."""
        env, started_s, body = self._commons.env, self._settled_s, self.body
        yield from _closed_on_crash(self.spec.behavior.play_round(body))
        if body.round == self._commons.num_rounds - 1:
            yield from body.end_last_round()
        spent, self._settled_s = body.spent, env.now
        spent.settle(env.now)
        seconds = spent.seconds
        self._commons.emit(
            RoundSettled(
                time_s=float(env.now),  # it is an int at the start
                uid=self.uid,
                round=body.round,
                started_s=started_s,
                idle_s=math.fsum([seconds[cause] for cause in IDLE]),
                **seconds,
            )
        )

    # Going ----------------------------------------------------------------------------------------------------------

    def _absence(self) -> tuple[Absence | None, str]:
        """How long the peer is away after this round, None if it goes on; and why."""
        round, membership, streams = self.body.round, self.spec.membership, self._commons.streams
        if self.body.gives_up_uid:
            self._keeps_theta = True
            return Absence(0, anew=True), "registers again"
        profits: tuple[float, ...] = ()
        if membership.reads_profits:
            profits = tuple(self._commons.purses.profits(self.uid, range(self._since, round + 1)))
        absence = membership.after(
            round, profits, lambda name: streams.uniform("membership", name, self.spec.uid, round)
        )
        return absence, f"membership {membership.kind}"

    def _go(self, absence: Absence, reason: str) -> int | None:
        """Leave; returns the round for which it comes back, None for never."""
        commons, round = self._commons, self.body.round
        self.state, self._anew = "away", absence.anew
        commons.clock.leave(self.name)
        commons.emit(NodeLeft(commons.env.now, self.name, self.uid, round, reason))
        self._lose_memory()
        if absence.anew or absence.rounds is None:
            commons.conspiracy.withdraw(self.uid)
        return None if absence.rounds is None else round + 1 + absence.rounds

    def _lose_memory(self) -> None:
        """Inner moments, error buffer, and what the body is doing beside its script."""
        self.body.cut_exchange()
        self._commons.encoder.forget(self.uid)


def joined(commons: Commons, spec: PeerSpec, name: str, uid: int, pace: Pace) -> NodeJoined:
    """What says that a peer takes its place, under a uid."""
    return NodeJoined(
        time_s=float(commons.env.now),  # it is an int at the start
        node=name,
        uid=uid,
        cohort=spec.cohort,
        behavior=spec.behavior.kind,
        uplink_bits_per_s=spec.uplink_bits_per_s,
        downlink_bits_per_s=spec.downlink_bits_per_s,
        seconds_per_step=pace.machine.seconds_per_step,
    )


def _closed_on_crash(script: Script) -> Script:
    """Run a script. An interrupt closes it and goes on outside, so that no script can catch it."""
    try:
        event = next(script)
        while True:
            try:
                value = yield event
            except simpy.Interrupt:
                raise
            except Exception as failure:
                event = script.throw(failure)
            else:
                event = script.send(value)
    except StopIteration:
        return
    finally:
        script.close()
