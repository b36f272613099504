"""The recorder: keeps a run's events by type, counts its bytes, and writes the tables of the run's folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from covsim.chain.economics import EconomicsSettings
from covsim.events import (
    Event,
    Exchanged,
    FaultBegan,
    Gathered,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    ReadFailed,
    RoundSettled,
    Submitted,
    Trained,
    Transferred,
    WindowOpened,
)
from covsim.nodes.purse import Purses
from covsim.record.columns import Columns
from covsim.scenario.sections import by_stake

Level = Literal["summary", "rounds", "transfers"]
OF_EVERY_PEER = (Trained, Submitted, Gathered, OuterStepTaken, RoundSettled)
"""Events that every peer has in every round."""

_SINGLE = {Transferred, ReadFailed}
_NOTED = {Transferred, Exchanged, ReadFailed, WindowOpened, HeldOutMeasured}

EventType = TypeVar("EventType", bound=Event)


class Traffic(NamedTuple):
    """Bytes that nodes sent and received over their links, as charged; cut transfers count what they moved."""

    up: float = 0.0
    down: float = 0.0

    def plus(self, moved: Transferred | Exchanged) -> Traffic:
        """The sum after one more transfer, or one peer's part in a direct exchange."""
        if isinstance(moved, Exchanged):
            return Traffic(self.up + moved.bytes_up, self.down + moved.bytes_down)
        if moved.direction == "up":
            return Traffic(self.up + moved.num_bytes, self.down)
        return Traffic(self.up, self.down + moved.num_bytes)


@dataclass(frozen=True)
class LossPoint:
    """A held-out loss, and all bytes moved until it was measured."""

    measured: HeldOutMeasured
    traffic: Traffic


class Recorder:
    """Observes a run and remembers what its tables and summary need.

    Args:
        level: what is written. `summary` writes rounds.parquet and peers.parquet; `rounds` adds submissions, verdicts,
            evidence, weights and epochs, and events.jsonl.gz without single transfers; `transfers` adds those too.
        stakes: of every validator, by name.
        prices: what work costs and tokens are worth.
        planned_rounds: over which a series of token prices is laid.
    """

    def __init__(
        self,
        level: Level,
        stakes: Mapping[str, float],
        prices: EconomicsSettings | None = None,
        planned_rounds: int = 1,
    ) -> None:
        self.level = level
        self.stakes = dict(stakes)
        self.purses = Purses(prices or EconomicsSettings(), planned_rounds)
        self.lead = by_stake(self.stakes)[0]
        self.lead_node = f"validator:{self.lead}"
        self.window = 0
        self.traffic = Traffic()
        self.traffic_of_window: dict[int, Traffic] = {}
        self.losses: list[LossPoint] = []
        self._log: list[Event] = []
        self._by_type: dict[type[Event], list[Any] | Columns[Any]] = defaultdict(list)
        if level == "summary":  # which keeps no event for a log of its own
            self._by_type |= {kind: Columns(kind) for kind in OF_EVERY_PEER}

    def observe(self, event: Event) -> None:
        """Remember an event, as far as the level asks for it."""
        self.purses.observe(event)
        kind = type(event)
        if kind in _NOTED:
            self._note(event)
            if self.level != "transfers" and kind in _SINGLE:
                return
        self._by_type[kind].append(event)
        if self.level != "summary":
            self._log.append(event)

    def _note(self, event: Event) -> None:
        """Keep what is asked for between events: the window, the bytes until now, and those at each measurement."""
        if isinstance(event, Transferred | Exchanged):
            self.traffic = self.traffic.plus(event)
            self.traffic_of_window[self.window] = self.traffic_of_window.get(self.window, Traffic()).plus(event)
        elif isinstance(event, WindowOpened):
            self.window = event.window
        elif isinstance(event, HeldOutMeasured):
            self.losses.append(LossPoint(event, self.traffic))

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

        frames = {"rounds": tables.rounds, "peers": tables.peers}
        if self.level != "summary":
            frames |= {"submissions": tables.submissions, "verdicts": tables.verdicts, "evidence": tables.evidence}
            frames |= {"weights": tables.weights, "epochs": tables.epochs}
            write_json_lines(folder / "events.jsonl.gz", self._lines())
            if self.of(FaultBegan):
                frames["faults"] = faults_table
        if self.level == "transfers":
            frames["transfers"] = tables.transfers
        for name, build in frames.items():
            write_table(folder / f"{name}.parquet", build(self))

    def _lines(self) -> Iterator[dict[str, Any]]:
        for event in self._log:
            values = {item.name: getattr(event, item.name) for item in fields(event)}
            yield {"event": type(event).__name__} | values
