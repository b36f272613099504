"""Direct exchanges: what peers hand in for a round goes from peer to peer as the topology says, and everybody steps.

An exchange begins when all whom the barrier awaits are there, at the latest when the put window closes. When a member
crashes or leaves in the middle of it, all its transfers are cut, their bytes are lost, and those who are left begin
again. After the gather timeout it is given up, and the round is lost for its group. Source: this is how the
fault-tolerant all-reduce of INTELLECT-1 goes on (arXiv 2412.01152, section 2.4).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import simpy

from covsim.events import Exchanged, Gathered, Submitted
from covsim.nodes.board import GatherList
from covsim.nodes.chain_node import peer_name
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.gather import Gather, Submission
from covsim.nodes.spent import Spent
from covsim.protocol.base import InvalidPayload
from covsim.world.barrier import BarrierClock
from covsim.world.network import Network, Resource, Transfer
from covsim.world.topology import Flow, Latency, Member, Phase, Topology

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


@dataclass(frozen=True)
class Handed:
    """A payload that waits for its round's exchange."""

    uid: int
    payload: bytes
    num_bytes: float
    stamp_s: float


@dataclass(frozen=True)
class Links:
    """A peer's place in an exchange."""

    uid: int
    uplink: Resource
    downlink: Resource


def sum_key(round: int) -> str:
    """Where the sum of a round's payloads lies, for those who come later."""
    return f"round-{round}/sum"


class Collectives:
    """The direct exchanges of a run, one a round.

    Args:
        commons: the clock, which is a barrier's, and the rest.
        network: carries what is exchanged.
        topology: which way.
        sums: whether payloads can be added on the way.
    """

    def __init__(self, commons: Commons, network: Network, topology: Topology, sums: bool) -> None:
        assert isinstance(commons.clock, BarrierClock), "a direct exchange begins at a barrier"
        self.clock, self.commons, self.network = commons.clock, commons, network
        self.topology, self.sums = topology, sums
        self._rounds: dict[int, Collective] = {}
        self.clock.on_open(self._window_opened)
        self.clock.on_change(self._somebody_moved)

    def hand_in(self, uid: int, round: int, payload: bytes) -> bool:
        """Bring a payload to a round's exchange, in place of an earlier one; whether it was in time for it."""
        commons = self.commons
        now_s, num_bytes = float(commons.env.now), commons.charges.payload(len(payload))
        opens_s, closes_s = self.clock.opens_at(round + 1), self.clock.put_closes_at(round + 1)
        on_time = opens_s <= now_s < closes_s
        commons.emit(
            Submitted(
                time_s=now_s,
                uid=uid,
                round=round,
                num_bytes=num_bytes,
                stored_s=now_s,
                on_time=on_time,
                model_bytes=len(payload),
                payload_sha256=hashlib.sha256(payload).hexdigest(),
            )
        )
        exchange = self._rounds.get(round)
        if not on_time or exchange is None or exchange.begun.triggered:
            return False
        exchange.handed[peer_name(uid)] = Handed(uid, payload, num_bytes, now_s)
        return True

    def take_part(self, links: Links, round: int, spent: Spent) -> Verb[tuple[Submission, ...]]:
        """Exchange for a round, when its window is open; returns what entered.

        Waiting for the others is idle time, the exchange counts as download: what is sent goes out meanwhile. Who comes
        when it has begun waits for its end, and fetches what came of it, where it reached all.
        """
        exchange = self._rounds[round]
        if exchange.begun.triggered:
            return (yield from self._fetch_late(exchange, links, spent))
        return (yield from exchange.take_part(links, spent))

    def watch(self, round: int) -> Verb[tuple[Submission, ...]]:
        """All that entered anywhere in a round, when its exchange is over: what a validator is told, free of charge."""
        exchange = self._rounds[round]
        yield exchange.over
        return exchange.all_entered

    def fetch(self, node: str, downlink: Resource, round: int, spent: Spent) -> Verb[tuple[Submission, ...]]:
        """What came of a round's exchange, for a node that was not in it: the sum, or every payload there was."""
        commons = self.commons
        with spent.on("idle_arrival_s", commons.env):
            entered = yield from self.watch(round)
        if not (self.sums and self.topology.reaches_all):
            wanted = GatherList(round + 1, tuple(submission.uid for submission in entered), ())
            return (yield from Gather(commons, node, downlink, round, wanted, spent=spent).run())
        started_s = commons.env.now
        with spent.on("download_s", commons.env):
            stored = yield from commons.store.get(
                node,
                downlink,
                sum_key(round),
                purpose="gather",
                retrying=lambda: spent.instead("download_s", "idle_retry_s", commons.env),
            )
        had = () if stored is None else entered
        uids, now_s = tuple(submission.uid for submission in had), commons.env.now
        outcome = "complete" if had else "empty"
        commons.emit(Gathered(now_s, node, round, outcome, uids, (), 0, now_s - started_s))
        return had

    def forget_before(self, round: int) -> None:
        """Let go of earlier rounds."""
        self._rounds = {each: exchange for each, exchange in self._rounds.items() if each >= round}

    def _fetch_late(self, exchange: Collective, links: Links, spent: Spent) -> Verb[tuple[Submission, ...]]:
        if not self.topology.reaches_all:
            with spent.on("idle_arrival_s", self.commons.env):
                yield exchange.over
            return ()
        return (yield from self.fetch(peer_name(links.uid), links.downlink, exchange.round, spent))

    def _window_opened(self, window: int) -> None:
        if window:
            self._rounds[window - 1] = exchange = Collective(self, window - 1, self.clock.awaited(window))
            self.commons.env.process(exchange.run())

    def _somebody_moved(self) -> None:
        for exchange in self._rounds.values():
            exchange.look_round()


class Collective:
    """The exchange of one round.

    Args:
        home: whose it is.
        round: whose payloads it exchanges.
        awaited: the nodes for which it waits.
    """

    def __init__(self, home: Collectives, round: int, awaited: Collection[str]) -> None:
        self.round, self.awaited = round, frozenset(awaited)
        self.handed: dict[str, Handed] = {}
        self.all_entered: tuple[Submission, ...] = ()
        self._home, env = home, home.commons.env
        self.begun, self.over, self._all_here = env.event(), env.event(), env.event()
        self._members: dict[str, Links] = {}
        self._groups: dict[str, _Group] = {}

    def take_part(self, links: Links, spent: Spent) -> Verb[tuple[Submission, ...]]:
        """Wait for the others, exchange, and return what entered; who is thrown out is taken out."""
        name, env = peer_name(links.uid), self._home.commons.env
        self._members[name] = links
        self.look_round()
        try:
            with spent.on("idle_arrival_s", env):
                yield self.begun
            with spent.on("download_s", env):
                entered: tuple[Submission, ...] = yield self._groups[name].over
            return entered
        finally:
            self._leave(name)

    def look_round(self) -> None:
        """Begin if nobody who is awaited may still come."""
        clock, window = self._home.clock, self.round + 1
        if not self._all_here.triggered and all(
            name in self._members or clock.is_past(name, window) for name in self.awaited
        ):
            self._all_here.succeed()

    def run(self) -> Verb[None]:
        """Wait, exchange, and keep what came of it for those who come later; the body of a process."""
        home, commons = self._home, self._home.commons
        yield self._all_here | commons.until(home.clock.put_closes_at(self.round + 1))
        members = [self._member(name) for name in sorted(self._members, key=lambda name: self._members[name].uid)]
        groups = [_Group(home, self, group) for group in home.topology.groups(members, self._lot)]
        self._groups = {member.name: group for group in groups for member in group.members}
        self.begun.succeed()
        yield commons.env.all_of([commons.env.process(group.run()) for group in groups])
        entered = {submission.uid: submission for group in groups for submission in group.entered}
        self.all_entered = tuple(entered[uid] for uid in sorted(entered))
        self.over.succeed()

    def payload_of(self, name: str) -> Submission | None:
        """What a member brought, if it is valid."""
        handed, commons = self.handed.get(name), self._home.commons
        if handed is None:
            return None
        try:
            sha256, decoded = commons.decoded.read(handed.payload, self.round, commons.trusts_everybody)
        except InvalidPayload:
            return None
        return Submission(handed.uid, sha256, decoded, handed.stamp_s)

    def _member(self, name: str) -> Member:
        links, handed = self._members[name], self.handed.get(name)
        return Member(name, links.uplink, links.downlink, 0.0 if handed is None else handed.num_bytes)

    def _lot(self, name: str) -> float:
        topology, streams = self._home.topology, self._home.commons.streams
        return streams.uniform("topology", topology.kind, name, self.round)

    def _leave(self, name: str) -> None:
        self._members.pop(name, None)
        if name in self._groups:
            self._groups[name].leave(name)


class _Group:
    """Members who exchange with each other, and nobody else."""

    def __init__(self, home: Collectives, exchange: Collective, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.entered: tuple[Submission, ...] = ()
        self.over = home.commons.env.event()
        self._home, self._exchange = home, exchange
        self._somebody_left = home.commons.env.event()
        self._began_s = home.commons.env.now
        self._formed = len(self.members)

    def leave(self, name: str) -> None:
        """Go on without a member, from the start."""
        if not self.over.triggered:
            self.members = [member for member in self.members if member.name != name]
            self._somebody_left.succeed()
            self._somebody_left = self._home.commons.env.event()

    def run(self) -> Verb[None]:
        """Try until it comes through, nobody is left, or time is up."""
        env = self._home.commons.env
        self._began_s, gives_up = env.now, env.timeout(self._home.commons.gather_timeout_s)
        complete = False
        while self.members and not complete and not gives_up.processed:
            complete = yield from self._attempt(gives_up)
        self._settle(complete)

    def _attempt(self, gives_up: simpy.Event) -> Verb[bool]:
        """One run through all phases; False if somebody left, or time was up."""
        home, members = self._home, list(self.members)
        env = home.commons.env
        somebody_left, started_s = self._somebody_left, env.now
        moved: dict[str, list[float]] = {member.name: [0.0, 0.0] for member in members}
        complete = True
        for phase in home.topology.phases(members, _latency(home.network), home.sums):
            transfers = [_start(home.network, flow) for flow in phase]
            arrived = env.all_of([transfer.done for transfer in transfers])
            yield arrived | somebody_left | gives_up
            complete = arrived.processed and not somebody_left.triggered
            for transfer in transfers:
                transfer.cancel()
            _add_up(moved, phase, transfers)
            if not complete:
                break
        for name, (up, down) in moved.items():
            home.commons.emit(
                Exchanged(env.now, name, self._exchange.round, home.topology.kind, up, down, started_s, complete)
            )
        return complete

    def _settle(self, complete: bool) -> None:
        """Let what was exchanged enter, and lie where it can be fetched; say so for every member."""
        exchange, commons = self._exchange, self._home.commons
        brought = [exchange.payload_of(member.name) for member in self.members]
        valid = [submission for submission in brought if submission is not None]
        expected = len(exchange.awaited) if self._home.topology.reaches_all else self._formed
        in_quorum = len(valid) >= commons.quorum * expected
        if complete and in_quorum:
            self.entered = tuple(sorted(valid, key=lambda submission: submission.uid))
        if complete:
            for member in self.members:
                self._keep(member.name)
        if self.entered and self._home.sums:
            largest = max(member.num_bytes for member in self.members)
            now_s = float(commons.env.now)
            commons.store.keep(sum_key(exchange.round), self.members[0].name, b"", largest, now_s)
        for member in self.members:
            commons.emit(self._gathered(member.name, complete, bool(valid)))
        self.over.succeed(self.entered)

    def _gathered(self, name: str, complete: bool, any_valid: bool) -> Gathered:
        uids = tuple(submission.uid for submission in self.entered)
        expected = {member.name for member in self.members}
        if self._home.topology.reaches_all:
            expected |= self._exchange.awaited
        missing = tuple(sorted(uid for uid in map(_uid_of, expected) if uid not in uids))
        outcome = "aborted" if not complete else "empty" if not any_valid else "short" if not uids else ""
        now_s = self._home.commons.env.now
        return Gathered(
            time_s=now_s,
            node=name,
            round=self._exchange.round,
            outcome=outcome or ("partial" if missing else "complete"),
            uids=uids,
            missing=missing,
            reserves=0,
            gather_s=now_s - self._began_s,
        )

    def _keep(self, name: str) -> None:
        """Who later wants a payload finds it, as if its owner served it."""
        handed = self._exchange.handed.get(name)
        if handed is not None:
            key = object_key(self._exchange.round, handed.uid)
            self._home.commons.store.keep(key, name, handed.payload, handed.num_bytes, handed.stamp_s)


def _latency(network: Network) -> Latency:
    return lambda one, other: network.ways.latency_s(one.uplink, other.downlink)


def _start(network: Network, flow: Flow) -> Transfer:
    """Send a flow over its links and those between regions on its way.

    A trunk that it takes m times carries all of it m times, so it may not be faster than the m-th part; beside others
    it still counts as one flow there.
    """
    links = flow.path  # in pairs, up and down, of the members in their order
    hops = [(links[place], links[(place + 3) % len(links)]) for place in range(0, len(links), 2)]
    trunks = Counter(link for source, sink in hops for link in network.ways.between(source, sink))
    cap = min((link.capacity_bits_per_s / times for link, times in trunks.items() if times > 1), default=math.inf)
    return network.transfer((*links, *trunks), flow.num_bytes, flow.latency_s, cap_bits_per_s=cap)


def _add_up(moved: dict[str, list[float]], phase: Phase, transfers: Sequence[Transfer]) -> None:
    """Count what each member has sent and received."""
    for flow, transfer in zip(phase, transfers, strict=True):
        for name in flow.senders:
            moved[name][0] += transfer.moved_bytes
        for name in flow.receivers:
            moved[name][1] += transfer.moved_bytes


def _uid_of(node: str) -> int:
    return int(node.partition(":")[2])
