"""A peer that keeps its own time: it plays a script as far as that depends on nobody else, all at once.

Where nobody waits for anybody's bytes, a peer's round is worked out and not waited for: inner steps, pauses and uploads
end at times that follow from its own machine and links. Only a payload's bytes and a gather are asked for, from the
`Company` that it plays in. What happens becomes rows of events, which a backlog shows when their time comes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar, cast

from covsim.behaviors.base import Batches, Script, Update
from covsim.events import (
    BatchCut,
    Gathered,
    OuterStepTaken,
    RoundSettled,
    RoundSkipped,
    Submitted,
    Trained,
    Transferred,
)
from covsim.learning import corpus
from covsim.learning import update as lazy
from covsim.nodes.chain_node import Member, peer_name
from covsim.nodes.commons import Commons, object_key
from covsim.nodes.encoder import Ticket
from covsim.nodes.gather import Submission, take_outer_step
from covsim.nodes.learner import Learner
from covsim.nodes.pace import Pace
from covsim.nodes.peer import joined
from covsim.nodes.spent import CAUSES, Cause
from covsim.observing import Backlog
from covsim.protocol.base import Claims
from covsim.protocol.lineage import Lineage
from covsim.scenario.population import PeerSpec
from covsim.unserved import Unserved
from covsim.world.network import Resource
from covsim.world.store import StoredObject

Answer = TypeVar("Answer")
Verb: TypeAlias = Generator[Any, Any, Answer]


class Wish(Enum):
    """What a player asks its company for, beside a payload for a ticket."""

    GATHER = "what is listed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What entered in a gather, the same for all who gathered it; see `covsim.events.Gathered`."""

    word: str
    entered: tuple[Submission, ...]
    uids: tuple[int, ...]
    missing: tuple[int, ...]
    reserves: int


class Came(NamedTuple):
    """What came of a peer's gather: when it ended, what of the time since it began was idle, and what entered."""

    ends_s: float
    idle_s: float
    num_bytes: float
    aborted: bool
    outcome: Outcome


class Rows:
    """Where players write what happens to them; of one instant, in the order of this list."""

    def __init__(self, backlog: Backlog) -> None:
        self.batch_cut = backlog.rows(BatchCut)
        self.trained = backlog.rows(Trained)
        self.transferred = backlog.rows(Transferred)
        self.submitted = backlog.rows(Submitted)
        self.gathered = backlog.rows(Gathered)
        self.stepped = backlog.rows(OuterStepTaken)
        self.settled = backlog.rows(RoundSettled)
        self.skipped = backlog.rows(RoundSkipped)


class Player(Learner):
    """A peer of a company, from the first round to the last.

    Args:
        spec: who it is, by scenario and seed.
        pace: of its machine.
        rows: where it writes.
        latency_s: of a request.
    """

    state: Literal["playing"] = "playing"
    takes_part = True
    wants_payloads = True

    def __init__(self, commons: Commons, spec: PeerSpec, pace: Pace, rows: Rows, latency_s: float) -> None:
        super().__init__(commons, spec.uid, pace)
        self.spec, self.pace = spec, pace
        self.uplink = Resource(f"{peer_name(spec.uid)} up", spec.uplink_bits_per_s)
        self.downlink = Resource(f"{peer_name(spec.uid)} down", spec.downlink_bits_per_s)
        commons.conspiracy.enroll(spec.uid, spec.cohort)
        self.uploads: list[StoredObject] = []  # that nobody has taken into the store yet
        self._rows, self._latency_s = rows, latency_s
        self._now_s = self._settled_s = 0.0
        self.last_played = -1
        self._closes_s = 0.0  # when the window ends in which it trains, and that of its payload opens
        self._seconds: dict[Cause, float] = {}
        self._script: Script | None = None
        self._before, self._since_s = self._lineage, 0.0  # the history before the last outer step, and when that was

    @property
    def now_s(self) -> float:
        """As far as it has played, which may lie ahead of the simulation."""
        return self._now_s

    @property
    def lineage(self) -> Lineage:
        """The history that it is on at the time of the simulation."""
        return self._lineage if self._since_s <= self._commons.env.now else self._before

    @property
    def oldest_wanted(self) -> int:
        """The first round whose payloads this peer may still want to read."""
        return self.round

    @property
    def member(self) -> Member:
        """Who it is on the chain."""
        return Member(self.name, self.uid, "peer")

    def announce(self) -> None:
        """Say who it is, and from which theta it starts."""
        self._commons.emit(joined(self._commons, self.spec, self.name, self.uid, self.pace))
        self.show_sample()

    # Played by its company ------------------------------------------------------------------------------------------

    def begin(self) -> Ticket | Wish | None:
        """Begin a round, when it was settled or as its window opens; returns what it asks for first, as `play` does."""
        self._seconds = dict.fromkeys(CAUSES, 0.0)
        self._claims = Claims()
        self._now_s = self._settled_s
        clock = self._commons.clock
        self._wait_until(clock.opens_at(self.round))
        self._closes_s = clock.closes_at(self.round)
        self._script = self.spec.behavior.play_round(self)
        return self.play(None)

    def play(self, answer: bytes | Came | None) -> Ticket | Wish | None:
        """Play on with an answer; returns what it asks for next, or None when the round is over."""
        assert self._script is not None
        try:
            asked: Ticket | Wish = self._script.send(answer)
        except StopIteration:
            self._settle()
            return None
        return asked

    def _settle(self) -> None:
        """The script has returned: account for the round, and turn to the next, or to the one whose window is open."""
        now_s, round = self._now_s, self.round
        compute_s, upload_s, download_s, *idle = self._seconds.values()  # in the order of CAUSES
        worked = (compute_s, upload_s, download_s)
        self._rows.settled.append((now_s, self.uid, round, self._settled_s, *worked, math.fsum(idle), *idle))
        self._script, self._settled_s, self.last_played = None, now_s, round
        self.round = min(self._commons.num_rounds, max(round + 1, self._commons.clock.window_at(now_s)))
        for skipped in range(round + 1, self.round):
            self._rows.skipped.append((now_s, self.uid, skipped))

    # What a script may do -------------------------------------------------------------------------------------------

    def train(self, batches: Batches, steps: int | None = None, rounds_behind: int = 0) -> Verb[Update]:
        commons, began_s = self._commons, self._now_s
        wanted = commons.inner_steps if steps is None else steps
        closes_s = self._closes_s if self.pace.is_cut else math.inf
        stint = self.pace.stint(self.round, wanted, began_s, closes_s)
        self._work_for(stint.work_s)
        if stint.steps and stint.batch < self.pace.batch:
            cut = (self._now_s, self.uid, self.round, stint.steps, stint.batch, self.pace.batch)
            self._rows.batch_cut.append(cut)
        self._rows.trained.append((self._now_s, self.uid, self.round, stint.steps, wanted, stint.work_s))
        return cast(Update, self._result(self.round, cast(corpus.Batches, batches), [stint], rounds_behind))
        yield  # it asks for nothing

    def wait_for_uploads(self) -> Verb[None]:
        self._wait_for_window()
        return
        yield

    def pause(self, seconds: float) -> Verb[None]:
        if seconds < 0:
            raise ValueError(f"nobody pauses for {seconds} s")
        self._spend("idle_pause_s", self._now_s + seconds)
        return
        yield

    def submit(self, update: Update, early: bool = False) -> Verb[None]:
        self._refuse_early(early)
        self._compress()
        self._wait_for_window()
        named = cast(lazy.Update, update)
        payload = yield Ticket(self.round, self.uid, named, self._claims)
        self._commons.encoder.settle(self.uid, self._upload(payload))

    def encode(self, update: Update) -> Verb[bytes]:
        self._compress()
        self._wait_for_window()
        payload: bytes = yield Ticket(self.round, self.uid, cast(lazy.Update, update), self._claims, feedback=False)
        return payload

    def submit_payload(self, payload: bytes, early: bool = False) -> Verb[None]:
        self._refuse_early(early)
        self._wait_for_window()
        self._upload(payload)
        return
        yield

    def sync(self) -> Verb[None]:
        self._wait_for_window()
        came: Came = yield Wish.GATHER
        self._take(came)
        entered = came.outcome.entered
        if self._work.decodes and entered:
            self._work_for(len(entered) * self.pace.decoding_s)
        self._step(entered)

    # What only a peer of its own process may do ---------------------------------------------------------------------

    def gather_list(self) -> Collection[int]:
        self._refuse("gather_list")

    def incentive(self) -> float:
        self._refuse("incentive")

    def show_sample_of(self, uid: int) -> None:
        self._refuse("show_sample_of")

    def put(self, name: str, payload: bytes) -> Verb[None]:
        self._refuse("put")

    def first_arrival(self, among: Collection[int]) -> Verb[int | None]:
        self._refuse("first_arrival")

    def download(self, uid: int) -> Verb[bytes | None]:
        self._refuse("download")

    def payloads_of_others(self, most: int, until_share: float = 0.5) -> Verb[Sequence[bytes]]:
        self._refuse("payloads_of_others")

    def updates_of_others(self) -> Verb[Sequence[Update]]:
        self._refuse("updates_of_others")

    def heard(self, key: str) -> Verb[Any]:
        self._refuse("heard")

    def register_again(self) -> Verb[None]:
        self._refuse("register_again")

    def _refuse_early(self, early: bool) -> None:
        if early:
            self._refuse("an early upload")

    def _refuse(self, what: str) -> NoReturn:
        raise Unserved(
            f"compute.rounds: together serves no script that asks for {what}, as {self.spec.behavior.kind!r} of cohort "
            f"{self.spec.cohort!r} does; take compute.rounds: single"
        )

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _spend(self, cause: Cause, until_s: float) -> None:
        """Let time pass until then, for a cause."""
        self._seconds[cause] += until_s - self._now_s
        self._now_s = until_s

    def _wait_until(self, time_s: float) -> None:
        if time_s > self._now_s:
            self._spend("idle_window_s", time_s)

    def _wait_for_window(self) -> None:
        self._wait_until(self._closes_s)

    def _work_for(self, work_s: float) -> None:
        """Let the machine work; it is idle while the machine is gone meanwhile."""
        began_s = self._now_s
        self._spend("compute_s", began_s + self.pace.lasts_s(began_s, work_s))
        away_s = self.pace.away_s(began_s, self._now_s)
        if away_s:
            self._seconds["compute_s"] -= away_s
            self._seconds["idle_preempted_s"] += away_s

    def _compress(self) -> None:
        if self._work.compresses:
            self._work_for(self.pace.compression_s)

    def _upload(self, payload: bytes) -> bool:
        """Send a payload over a link of its own; returns whether it is on time."""
        commons, began_s, round = self._commons, self._now_s, self.round
        num_bytes = commons.charges.payload(len(payload))
        if num_bytes > commons.store.settings.max_object:
            self._spend("upload_s", began_s + self._latency_s)
            return False
        there_s = (began_s + self._latency_s) + 8 * num_bytes / self.uplink.capacity_bits_per_s
        self._spend("upload_s", there_s)
        stored = StoredObject(object_key(round, self.uid), self.name, payload, num_bytes, there_s)
        self.uploads.append(stored)
        on_time, sha256 = commons.on_time(stored, round), hashlib.sha256(payload).hexdigest()
        self._rows.transferred.append((there_s, self.name, stored.key, "submit", "up", num_bytes, began_s, True))
        self._rows.submitted.append((there_s, self.uid, round, num_bytes, there_s, on_time, len(payload), sha256))
        return on_time

    def _take(self, came: Came) -> None:
        """Account for a gather."""
        began_s, round = self._now_s, self.round
        self._spend("download_s", came.ends_s)
        if came.idle_s and not came.aborted:
            self._seconds["download_s"] -= came.idle_s
            self._seconds["idle_arrival_s"] += came.idle_s
        now_s, name = self._now_s, self.name
        if came.num_bytes:
            key = f"round-{round}"
            self._rows.transferred.append(
                (now_s, name, key, "gather", "down", came.num_bytes, began_s, not came.aborted)
            )
        what, took_s = came.outcome, now_s - began_s
        self._rows.gathered.append((now_s, name, round, what.word, what.uids, what.missing, what.reserves, took_s))

    def _step(self, entered: tuple[Submission, ...]) -> None:
        """Take the outer step."""
        round = self.round
        if entered:
            self._before, self._since_s = self._lineage, self._now_s
            self._lineage = take_outer_step(self._commons, self._lineage, entered, round)
            self._remember()
            self._rows.stepped.append((self._now_s, self.name, round, self._lineage.key))
        else:
            self._commons.encoder.end_uncounted(self.uid)
        self._publish_sample(round + 1, self._lineage)
