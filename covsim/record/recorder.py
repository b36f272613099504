"""The recorder: keeps a run's events by type, counts its bytes, and writes the tables of the run's folder."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from covsim.chain.economics import EconomicsSettings
from covsim.events import (
    Event,
    Exchanged,
    FaultBegan,
    Gathered,
    HeldOutMeasured,
    LinkVaried,
    NodeJoined,
    OuterStepTaken,
    ReadFailed,
    RoundSettled,
    Row,
    Submitted,
    Trained,
    Transferred,
    WindowOpened,
)
from covsim.nodes.purse import Purses
from covsim.observing import Observers, Stretch
from covsim.record.columns import Columns
from covsim.scenario.schema import Scenario
from covsim.scenario.sections import by_stake

Level = Literal["summary", "rounds", "transfers"]
OF_EVERY_PEER = (Trained, Submitted, Gathered, OuterStepTaken, RoundSettled)
"""Events that every peer has in every round."""

_SINGLE = {Transferred, ReadFailed}
_LINKS = {LinkVaried}

EventType = TypeVar("EventType", bound=Event)


class Traffic(NamedTuple):
    """Bytes that nodes sent and received over their links, as charged; cut transfers count what they moved."""

    up: float = 0.0
    down: float = 0.0


class _Meter:
    """A sum of traffic that grows."""

    __slots__ = ("down", "up")

    def __init__(self) -> None:
        self.up = self.down = 0.0

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.up, self.down)


@dataclass(frozen=True)
class LossPoint:
    """A held-out loss, and all bytes moved until it was measured."""

    measured: HeldOutMeasured
    traffic: Traffic


class Recorder:
    """Observes a run and remembers what its tables and summary need.

    Args:
        level: what is written. `summary` writes rounds.parquet and peers.parquet; `rounds` adds submissions, verdicts,
            evidence, weights, epochs, links that vary, and events.jsonl.gz without single transfers; `transfers` adds
            those too.
        stakes: of every validator, by name.
        prices: what work costs and tokens are worth.
        planned_rounds: over which a series of token prices is laid.

    Attributes:
        first_uids: of a uid, the one that its peer had first; whoever is not among them has no other. No event tells
            it, for nobody in the run may know; whoever runs it does.
    """

    def __init__(
        self,
        level: Level,
        stakes: Mapping[str, float],
        prices: EconomicsSettings | None = None,
        planned_rounds: int = 1,
    ) -> None:
        self.level = level
        self.first_uids: Mapping[int, int] = {}
        self.stakes = dict(stakes)
        self.purses = Purses(prices or EconomicsSettings(), planned_rounds)
        self.lead = by_stake(self.stakes)[0]
        self.lead_node = f"validator:{self.lead}"
        self.window = 0
        self._total, self._of_window = _Meter(), _Meter()
        self._meters = {self.window: self._of_window}
        self.losses: list[LossPoint] = []
        self._log: list[Event] = []
        self._by_type: dict[type[Event], list[Any] | Columns[Any]] = defaultdict(list)
        if level == "summary":  # which keeps no event for a log of its own
            self._by_type |= {kind: Columns(kind) for kind in OF_EVERY_PEER}
        # What is asked for between events: the window, the bytes until now, and those at each measurement.
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            Transferred: self._transferred,
            Exchanged: self._exchanged,
            WindowOpened: self._opened,
            HeldOutMeasured: self._measured,
        }
        self._observers = Observers([self])

    @classmethod
    def of_scenario(cls, scenario: Scenario, level: Level | None = None) -> Recorder:
        """That of a scenario; at the level that it asks for, unless another is given."""
        stakes = {name: validator.stake for name, validator in scenario.validators.items()}
        return cls(level or scenario.record.level, stakes, scenario.economics, scenario.planned_rounds)

    def observe(self, event: Event) -> None:
        """Remember an event, as far as the level asks for it."""
        self._observers.emit(event)

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What remembers events of a type."""
        takers = [*self.purses.takers(kind)]
        if kind in self._notes:
            takers.append(self._notes[kind])
        if not self._leaves_out(kind):
            takers.append(self._by_type[kind].append)
            if self.level != "summary":
                takers.append(self._log.append)
        return takers

    def take(self, stretch: Stretch) -> None:
        """Remember a stretch, which lies within one window; its rows as they are, where no log is kept."""
        if self.level != "summary":
            for event in stretch:
                self.observe(event)
            return
        moved = stretch.rows.get(Transferred, ())
        booked = 0
        for event in stretch.events:
            if isinstance(event, HeldOutMeasured):  # which is noted with all bytes until then
                until = bisect_left(moved, event.time_s, booked, key=itemgetter(0))
                self._take_moved(moved[booked:until])
                booked = until
            self.observe(event)
        self._take_moved(moved[booked:])
        for kind, columns in stretch.columns.items():
            self.purses.take_rows(kind, columns)
            kept = self._by_type[kind]
            if isinstance(kept, Columns):
                kept.extend(columns)
            elif kind not in _SINGLE:
                kept += map(kind, *columns)

    def _take_moved(self, rows: Sequence[Row]) -> None:
        for _, _, _, _, direction, num_bytes, _, _ in rows:
            self._move(direction, num_bytes)

    def _leaves_out(self, kind: type[Event]) -> bool:
        """Whether events of a type are too many for the level; whatever is made of them is made as they come."""
        return (kind in _SINGLE and self.level != "transfers") or (kind in _LINKS and self.level == "summary")

    def _transferred(self, event: Transferred) -> None:
        self._move(event.direction, event.num_bytes)

    def _move(self, direction: str, num_bytes: float) -> None:
        if direction == "up":
            self._total.up += num_bytes
            self._of_window.up += num_bytes
        else:
            self._total.down += num_bytes
            self._of_window.down += num_bytes

    def _exchanged(self, event: Exchanged) -> None:
        for meter in (self._total, self._of_window):
            meter.up += event.bytes_up
            meter.down += event.bytes_down

    def _opened(self, event: WindowOpened) -> None:
        self.window = event.window
        self._of_window = self._meters.setdefault(event.window, _Meter())

    def _measured(self, event: HeldOutMeasured) -> None:
        self.losses.append(LossPoint(event, self.traffic))

    @property
    def traffic(self) -> Traffic:
        """Of the run until now."""
        return self._total.traffic

    @property
    def traffic_of_window(self) -> dict[int, Traffic]:
        """Of every window in which something moved."""
        return {window: meter.traffic for window, meter in self._meters.items() if any(meter.traffic)}

    def of(self, kind: type[EventType]) -> Sequence[EventType]:
        """All events of one type, in the order in which they happened."""
        return self._by_type[kind]

    @property
    def peers(self) -> dict[int, NodeJoined]:
        """Every peer that ever joined, by uid."""
        return {event.uid: event for event in self.of(NodeJoined) if event.uid >= 0}

    @property
    def cohorts(self) -> dict[str, list[int]]:
        """The uids of every cohort: the honest cohorts first, then by name."""
        peers = self.peers
        names = {joined.cohort: joined.behavior != "honest" for joined in peers.values()}
        ordered = sorted(names, key=lambda cohort: (names[cohort], cohort))
        return {cohort: [uid for uid in sorted(peers) if peers[uid].cohort == cohort] for cohort in ordered}

    def write(self, folder: Path) -> None:
        """Write the tables that the level asks for; every file appears whole or not at all."""
        from covsim.record import tables
        from covsim.record.faults import faults_table
        from covsim.record.files import write_json_lines, write_table
        from covsim.record.links import links_table

        frames = {"rounds": tables.rounds, "peers": tables.peers}
        if self.level != "summary":
            frames |= {"submissions": tables.submissions, "verdicts": tables.verdicts, "evidence": tables.evidence}
            frames |= {"weights": tables.weights, "epochs": tables.epochs}
            write_json_lines(folder / "events.jsonl.gz", self._lines())
            if self.of(FaultBegan):
                frames["faults"] = faults_table
            if self.of(LinkVaried):
                frames["links"] = links_table
        if self.level == "transfers":
            frames["transfers"] = tables.transfers
        for name, build in frames.items():
            write_table(folder / f"{name}.parquet", build(self))

    def _lines(self) -> Iterator[dict[str, Any]]:
        for event in self._log:
            values = {item.name: getattr(event, item.name) for item in fields(event)}
            yield {"event": type(event).__name__} | values
