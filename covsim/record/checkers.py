"""Invariants of any run, each an observer of its events that raises AssertionError when one is broken.

They listen like the recorder does and decide nothing. A broken one is a fault of the simulator, never of a scenario.
What takes tensors to see (error feedback conserves mass, equal histories computed apart have equal theta) is tested in
the protocol's own tests; here, equal lineages must at least have equal losses.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from covsim.events import (
    CaughtUp,
    EpochSettled,
    Evaluated,
    Event,
    Exchanged,
    Gathered,
    HeldOutMeasured,
    LinkVaried,
    ListPublished,
    NodeJoined,
    ObjectDamaged,
    OuterStepTaken,
    PeerEntered,
    RoundSettled,
    RunStopped,
    Scored,
    StoreClockSet,
    Submitted,
    Trained,
    Transferred,
    WeightsSet,
    WindowOpened,
)
from covsim.nodes.spent import IDLE

_ROUNDING = 1e-6
"""Relative error that sums of times and bytes may gather."""


class Checker(ABC):
    """Watches one rule over a whole run."""

    @abstractmethod
    def observe(self, event: Event) -> None:
        """Take note of an event. Raises AssertionError if it breaks the rule."""


def all_checkers(*, put_window_s: float, direct: bool = False) -> list[Checker]:
    """A fresh set of all checkers, for one run.

    Args:
        put_window_s: how long after a window's opening a payload still counts.
        direct: whether payloads go from peer to peer, and not through the store.
    """
    return [
        TimeNeverGoesBack(),
        BytesAreConserved(direct),
        LinksAreNotExceeded(),
        StampsDecide(put_window_s),
        OnlyPassedPayloadsEnter(direct),
        WeightsAreShares(),
        EqualHistoriesAgree(),
        SpansAddUp(),
        TokensAreConserved(),
    ]


@dataclass
class TimeNeverGoesBack(Checker):
    """Events come in the order of time, and nothing ends before it began."""

    now_s: float = 0.0
    most_ahead_s: float = 0.0  # of the store's clock, by a fault

    def observe(self, event: Event) -> None:
        assert math.isfinite(event.time_s), f"{_name(event)} at {event.time_s} s"
        assert event.time_s >= self.now_s, f"time went back from {self.now_s} s to {event.time_s} s: {event}"
        self.now_s = event.time_s
        if isinstance(event, Transferred | Exchanged | RoundSettled):
            assert event.started_s <= event.time_s, f"it ended before it began: {event}"
        if isinstance(event, StoreClockSet):
            self.most_ahead_s = max(self.most_ahead_s, event.ahead_s)
        if isinstance(event, Submitted):
            latest_s = event.time_s + self.most_ahead_s
            assert event.stored_s <= latest_s, f"the store's stamp lies in the future: {event}"


@dataclass
class BytesAreConserved(Checker):
    """What was sent arrived or was lost: uploads become objects of their size, downloads read one that is there.

    In every attempt at a direct exchange as much is received as is sent, over all its members.
    """

    direct: bool = False
    sizes: dict[str, set[float]] = field(default_factory=lambda: defaultdict(set))
    of_round: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # all that was ever put for it
    uploaded: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))  # by stamp
    clock_ahead_s: float = 0.0
    exchanged: dict[tuple[int, float, float], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )  # by round, start and end

    def observe(self, event: Event) -> None:
        if isinstance(event, StoreClockSet):
            self.clock_ahead_s = event.ahead_s
        elif isinstance(event, ObjectDamaged):
            self.sizes[event.key].add(event.num_bytes)
        elif isinstance(event, Transferred):
            assert event.num_bytes >= 0, f"negative bytes: {event}"
            if event.direction == "up":
                self._sent(event)
            else:
                self._read(event)
        elif isinstance(event, Submitted) and self.direct:
            for name in (f"uid-{event.uid}", "sum"):
                self.sizes[f"round-{event.round}/{name}"].add(event.num_bytes)
        elif isinstance(event, Submitted):
            self._arrived(event)
        elif isinstance(event, Exchanged):
            assert min(event.bytes_up, event.bytes_down) >= 0, f"negative bytes: {event}"
            attempt = self.exchanged[event.round, event.started_s, event.time_s]
            attempt.append((event.bytes_up, event.bytes_down))
        elif isinstance(event, RunStopped):
            for which, moved in self.exchanged.items():
                sent, received = (math.fsum(each) for each in zip(*moved, strict=True))
                assert _close(sent, received), f"sent {sent:.0f}, received {received:.0f} bytes in {which}"
            vanished = {at_s: sizes for at_s, sizes in self.uploaded.items() if sizes and at_s < event.time_s}
            assert not vanished, f"uploads that became no submission, by time: {vanished}"

    def _sent(self, event: Transferred) -> None:
        if event.complete:
            self.sizes[event.key].add(event.num_bytes)
            self.of_round[event.key.partition("/")[0]] += event.num_bytes
            if event.purpose == "submit":
                self.uploaded[event.time_s + self.clock_ahead_s].append(event.num_bytes)

    def _arrived(self, event: Submitted) -> None:
        waiting = self.uploaded[event.stored_s]
        match = next((size for size in waiting if _close(size, event.num_bytes)), None)
        assert match is not None, f"no upload of that size ended then: {event}"
        waiting.remove(match)

    def _read(self, event: Transferred) -> None:
        if "/" not in event.key:  # a gather in one
            most = self.of_round[event.key] * (1 + _ROUNDING)
            assert event.num_bytes <= most, f"more was gathered than there was: {event}"
            return
        sizes = self.sizes.get(event.key)
        assert sizes, f"an object was read that nobody had stored: {event}"
        if event.complete:
            assert any(_close(event.num_bytes, size) for size in sizes), f"it has {max(sizes):.0f} bytes: {event}"
        else:
            assert event.num_bytes <= max(sizes) * (1 + _ROUNDING), f"more was cut than there was: {event}"


@dataclass
class LinksAreNotExceeded(Checker):
    """Over no stretch of time does a node move more than its link can: every stretch of its latest transfers."""

    latest: int = 64
    links: dict[tuple[str, str], float] = field(default_factory=dict)
    recent: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def observe(self, event: Event) -> None:
        if isinstance(event, NodeJoined):
            self.links[event.node, "up"] = event.uplink_bits_per_s
            self.links[event.node, "down"] = event.downlink_bits_per_s
        elif isinstance(event, LinkVaried):
            own = self.links[event.node, event.direction]
            assert 0 <= event.bits_per_s <= own, f"it carries more than the {own:.0f} b/s of its own: {event}"
        elif isinstance(event, Transferred):
            self._moved(event, event.direction, event.num_bytes)
        elif isinstance(event, Exchanged):
            self._moved(event, "up", event.bytes_up)
            self._moved(event, "down", event.bytes_down)

    def _moved(self, event: Transferred | Exchanged, direction: str, num_bytes: float) -> None:
        link = self.links.get((event.node, direction))
        assert link is not None, f"a node that never joined moves bytes: {event}"
        begun = self.recent[event.node, direction]  # by start: (started_s, bits)
        insort(begun, (event.started_s, 8 * num_bytes))
        bits = 0.0
        for started_s, moved in reversed(begun):
            bits += moved
            allowed = link * (event.time_s - started_s)
            assert bits <= allowed * (1 + _ROUNDING) + 1, (
                f"{event.node} moved {bits:.0f} bits {direction} in {event.time_s - started_s:.3f} s, "
                f"its link allows {allowed:.0f}"
            )
        del begun[: -self.latest]


@dataclass
class StampsDecide(Checker):
    """A payload counts in the window of the store's stamp, in the half-open `[open, open + put window)`."""

    put_window_s: float
    opened_s: dict[int, float] = field(default_factory=dict)
    stamps: dict[tuple[int, int], set[float]] = field(default_factory=lambda: defaultdict(set))

    def observe(self, event: Event) -> None:
        if isinstance(event, WindowOpened):
            self.opened_s[event.window] = event.time_s
        elif isinstance(event, Submitted):
            self.stamps[event.round, event.uid].add(event.stored_s)
            assert event.on_time == self._counts(event.round, event.stored_s), f"the stamp says otherwise: {event}"
        elif isinstance(event, Evaluated) and event.status in ("ok", "invalid"):
            known = self.stamps.get((event.round, event.uid), set())
            assert event.stored_s in known, f"evaluated with a stamp that the store never gave: {event}"
            assert self._counts(event.round, event.stored_s), f"it was not on time: {event}"
        elif isinstance(event, Evaluated) and event.status == "late":
            assert not self._counts(event.round, event.stored_s), f"it was on time: {event}"

    def _counts(self, round: int, stored_s: float) -> bool:
        opened_s = self.opened_s.get(round + 1, math.inf)
        return opened_s <= stored_s < opened_s + self.put_window_s


@dataclass
class OnlyPassedPayloadsEnter(Checker):
    """Who enters a gather was listed and on time, and no outer step is taken without a gather that had somebody.

    A direct exchange has no list.
    """

    direct: bool = False
    window: int = 0
    published: list[ListPublished] = field(default_factory=list)
    on_time: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    entered: set[tuple[str, int]] = field(default_factory=set)

    def observe(self, event: Event) -> None:
        if isinstance(event, WindowOpened):
            self.window = event.window
        elif isinstance(event, Submitted) and event.on_time:
            self.on_time[event.round].add(event.uid)
        elif isinstance(event, ListPublished):
            self._listed(event)
        elif isinstance(event, Gathered):
            self._gathered(event)
        elif isinstance(event, OuterStepTaken):
            assert (event.node, event.round) in self.entered, f"an outer step without a gather: {event}"

    def _listed(self, event: ListPublished) -> None:
        uids = event.selected + event.reserve
        assert len(set(uids)) == len(uids), f"a uid is on the list twice: {event}"
        assert event.effective_window >= self.window, f"a list may not change the past: {event}"
        self.published.append(event)

    def _gathered(self, event: Gathered) -> None:
        assert len(set(event.uids)) == len(event.uids), f"a uid was gathered twice: {event}"
        early = set(event.uids) - self.on_time[event.round]
        assert not early, f"payloads entered that were not on time, of uids {sorted(early)}: {event}"
        strangers = {*event.uids, *event.missing} - self._listed_in(event.round + 1)
        assert self.direct or not strangers, f"asked without being listed, uids {sorted(strangers)}: {event}"
        nothing = event.outcome in ("aborted", "empty", "short")
        assert nothing == (not event.uids), f"outcome and uids disagree: {event}"
        if event.uids:
            self.entered.add((event.node, event.round))

    def _listed_in(self, window: int) -> set[int]:
        """The peers on the list in force in a window, selected or reserve; also of one published during it."""
        before = [one for one in self.published if one.effective_window < window][-1:]
        during = [one for one in self.published if one.effective_window == window]
        return {uid for one in before + during for uid in one.selected + one.reserve}


class WeightsAreShares(Checker):
    """Weights lie in [0, 1], one a peer, and sum to 1 with the burned share, or are all 0."""

    def observe(self, event: Event) -> None:
        if not isinstance(event, Scored | WeightsSet):
            return
        shares = [weight for _, weight in event.weights] + [event.burned]
        assert all(0 <= share <= 1 for share in shares), f"a weight outside [0, 1]: {event}"
        assert len({uid for uid, _ in event.weights}) == len(event.weights), f"a uid with two weights: {event}"
        total = math.fsum(shares)
        assert total == 0 or _close(total, 1.0), f"weights and burned share sum to {total}: {event}"


@dataclass
class EqualHistoriesAgree(Checker):
    """Nodes share a lineage if and only if they gathered the same payloads in the same order of rounds.

    And whoever shares a lineage measures the same loss. A history is followed as hash of (history before, payloads).
    """

    payloads: dict[tuple[int, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    gathered: dict[str, Gathered] = field(default_factory=dict)
    histories: dict[str, str] = field(default_factory=dict)
    lineage_of: dict[str, str] = field(default_factory=dict)
    history_of: dict[str, str] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    def observe(self, event: Event) -> None:
        if isinstance(event, Submitted):
            self.payloads[event.round, event.uid].add(event.payload_sha256)
        elif isinstance(event, Gathered):
            self.gathered[event.node] = event
        elif isinstance(event, OuterStepTaken):
            self._stepped(event)
        elif isinstance(event, CaughtUp):
            self.histories[event.node] = self.history_of.get(event.lineage, "")
        elif isinstance(event, HeldOutMeasured):
            loss = self.losses.setdefault(event.lineage, event.loss)
            assert loss == event.loss or math.isnan(loss), f"this lineage had loss {loss} before: {event}"

    def _stepped(self, event: OuterStepTaken) -> None:
        history = self._history(event)
        self.histories[event.node] = history
        lineage = self.lineage_of.setdefault(history, event.lineage)
        assert lineage == event.lineage, f"equal histories, but another node is in lineage {lineage}: {event}"
        first = self.history_of.setdefault(event.lineage, history)
        assert first == history, f"this lineage has seen other payloads: {event}"

    def _history(self, event: OuterStepTaken) -> str:
        seen = [(uid, self.payloads[event.round, uid]) for uid in sorted(self.gathered[event.node].uids)]
        if any(len(versions) > 1 for _, versions in seen):
            return self.history_of.get(event.lineage, event.lineage)  # overwritten: events do not tell which was read
        text = f"{self.histories.get(event.node, '')} {[(uid, *versions) for uid, versions in seen]}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class SpansAddUp(Checker):
    """A peer plays each round once, in order, and every second is in one span; nobody does more steps than it wanted.

    Compute, upload, download and the causes of idle time add up to the round to a nanosecond (and to the rounding of
    the times themselves), and a round begins at the very instant at which the one before was settled, or the peer
    entered: so they add up to all the time for which a peer takes part. Who catches up takes outer steps again, in
    rounds that it had lost.
    """

    settled: dict[int, int] = field(default_factory=dict)
    settled_s: dict[int, float] = field(default_factory=dict)
    outer_steps: Counter[tuple[str, int]] = field(default_factory=Counter)

    def observe(self, event: Event) -> None:
        if isinstance(event, RoundSettled):
            self._add_up(event)
            assert event.round > self.settled.get(event.uid, -1), f"a round was settled again: {event}"
            self.settled[event.uid] = event.round
        elif isinstance(event, NodeJoined | PeerEntered):
            self.settled_s[event.uid] = event.time_s
        elif isinstance(event, Trained):
            assert 0 <= event.steps <= event.wanted, f"steps out of bounds: {event}"
        elif isinstance(event, OuterStepTaken):
            self.outer_steps[event.node, event.round] += 1
            assert self.outer_steps[event.node, event.round] == 1, f"two outer steps in one round: {event}"
        elif isinstance(event, CaughtUp):
            for key in [(node, round) for node, round in self.outer_steps if node == event.node]:
                del self.outer_steps[key]

    def _add_up(self, event: RoundSettled) -> None:
        idle = [getattr(event, cause) for cause in IDLE]
        spans = (event.compute_s, event.upload_s, event.download_s, *idle)
        assert min(spans) >= 0, f"a negative span of time: {event}"
        exact = 1e-9 + 2 * math.ulp(event.time_s)
        assert abs(math.fsum(idle) - event.idle_s) <= exact, f"the causes of idle time do not add up: {event}"
        lasted_s = event.time_s - event.started_s
        assert abs(math.fsum(spans) - lasted_s) <= exact, f"the spans do not add up: {event}"
        before_s = self.settled_s.get(event.uid, event.started_s)
        assert event.started_s == before_s, f"the last round was settled at {before_s} s: {event}"
        self.settled_s[event.uid] = event.time_s


@dataclass
class TokensAreConserved(Checker):
    """Epochs follow each other without a gap, and each pays out what its blocks emit: all blocks emit the same."""

    height: int = 0
    per_block: float = math.nan

    def observe(self, event: Event) -> None:
        if not isinstance(event, EpochSettled):
            return
        assert event.height - event.blocks == self.height, f"blocks paid twice or never: {event}"
        self.height = event.height
        amounts = [tokens for _, tokens in (*event.paid, *event.dividends)] + [event.owner, event.burned]
        assert min(amounts) >= 0, f"a negative payment: {event}"
        per_block = math.fsum(amounts) / event.blocks
        assert math.isnan(self.per_block) or _close(per_block, self.per_block), f"a block emits {per_block}: {event}"
        self.per_block = per_block


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


def _name(event: Event) -> str:
    return type(event).__name__
