"""A run's timeline as Chrome trace JSON, which Perfetto opens: a process per node, a lane for each thing that it does.

    peer          rounds, compute, uploads, downloads; lanes are added where transfers overlap
    validator     gathers, evaluation, uploads, downloads
    run           windows, faults, and counters: held-out loss, peers on time, bytes moved

An arrow goes from the upload of every payload to the outer step of the leading validator that it entered. Times are
microseconds of simulated time. Source: the Trace Event Format (Google, "Trace Event Format", docs of Chromium).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from covsim.events import (
    Event,
    FaultBegan,
    Gathered,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    Scored,
    Submitted,
    Trained,
    Transferred,
    WindowOpened,
)
from covsim.record.events_file import read_events
from covsim.record.files import write_text

Entry: TypeAlias = dict[str, Any]

KINDS = (
    *(FaultBegan, Gathered, HeldOutMeasured, NodeJoined, OuterStepTaken, RoundSettled),
    *(Scored, Submitted, Trained, Transferred, WindowOpened),
)
RUN = "run"
"""The process that stands for no node."""

_LANES = ("rounds", "windows", "compute", "gather", "evaluate", "faults", "upload", "download")


class CannotTrace(ValueError):
    """The folder holds no timeline; the message is one line that says why."""


@dataclass(frozen=True)
class Span:
    """What a node does from a second to another."""

    node: str
    lane: str
    name: str
    from_s: float
    until_s: float
    told: Entry = field(default_factory=dict)


def write_trace(folder: Path, path: Path) -> int:
    """Write the trace of the run in a folder; returns how many entries it has.

    Raises CannotTrace for a folder without single transfers.
    """
    events = folder / "events.jsonl.gz"
    if not events.is_file():
        raise CannotTrace(f"{folder}: no events.jsonl.gz lies there; run with record.level=transfers")
    entries = trace(list(read_events(events, KINDS)))
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    write_text(path, f'{{"displayTimeUnit":"ms","traceEvents":[\n{lines}\n]}}\n')
    return len(entries)


def trace(events: Sequence[Event]) -> list[Entry]:
    """All entries: names of processes and lanes, spans, arrows and counters."""
    nodes = [RUN, *dict.fromkeys(event.node for event in events if isinstance(event, NodeJoined))]
    pids = {node: number + 1 for number, node in enumerate(nodes)}
    placed = list(_placed(_spans(events)))
    lanes = sorted({(pids[span.node], _rank(lane), lane) for span, lane in placed})
    tids = {(pid, lane): number for number, (pid, _, lane) in enumerate(lanes, start=1)}
    entries = [_named("process_name", pid, 0, name=_title(node, events)) for node, pid in pids.items()]
    entries += [_named("process_sort_index", pid, 0, sort_index=pid) for pid in pids.values()]
    for (pid, lane), tid in tids.items():
        entries.append(_named("thread_name", pid, tid, name=lane))
        entries.append(_named("thread_sort_index", pid, tid, sort_index=tid))
    for span, lane in placed:
        pid = pids[span.node]
        entries.append(_span(span, pid, tids[pid, lane]))
    entries += _arrows(events, placed, pids, tids)
    return entries + list(_counters(events, pids[RUN]))


# What becomes a span --------------------------------------------------------------------------------------------------


def _spans(events: Iterable[Event]) -> Iterator[Span]:
    """Every span, in the order in which it ended."""
    opened: WindowOpened | None = None
    told: Entry
    for event in events:
        match event:
            case WindowOpened():
                if opened is not None:
                    yield Span(RUN, "windows", f"window {opened.window}", opened.time_s, event.time_s)
                opened = event
            case Trained():
                told = {"round": event.round, "steps": event.steps, "wanted": event.wanted}
                began_s = event.time_s - event.compute_s
                yield Span(f"peer:{event.uid}", "compute", f"round {event.round}", began_s, event.time_s, told)
            case RoundSettled():
                told = {name: getattr(event, name) for name in ("compute_s", "upload_s", "download_s", "idle_s")}
                yield Span(f"peer:{event.uid}", "rounds", f"round {event.round}", event.started_s, event.time_s, told)
            case Transferred():
                lane = "upload" if event.direction == "up" else "download"
                told = {"key": event.key, "bytes": event.num_bytes, "complete": event.complete}
                yield Span(event.node, lane, f"{event.purpose} {event.key}", event.started_s, event.time_s, told)
            case Gathered() if event.node.startswith("validator:"):
                told = {"outcome": event.outcome, "uids": list(event.uids), "missing": list(event.missing)}
                began_s = event.time_s - event.gather_s
                yield Span(event.node, "gather", f"round {event.round}", began_s, event.time_s, told)
            case Scored():
                told, began_s = {"evaluated": event.evaluated}, event.time_s - event.evaluation_s
                node = f"validator:{event.validator}"
                yield Span(node, "evaluate", f"round {event.round}", began_s, event.time_s, told)
            case FaultBegan():
                struck = {"nodes": list(event.nodes)}
                yield Span(RUN, "faults", event.fault, event.time_s, event.ends_s, struck)


def _placed(spans: Iterable[Span]) -> Iterator[tuple[Span, str]]:
    """Each span with its lane: spans of one lane follow one another, and what overlaps gets a lane beside it."""
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)  # until when each lane is in use
    for span in sorted(spans, key=lambda span: (span.from_s, span.until_s)):
        ends = taken[span.node, span.lane]
        number = next((number for number, until_s in enumerate(ends) if until_s <= span.from_s), len(ends))
        if number == len(ends):
            ends.append(-math.inf)
        ends[number] = span.until_s
        yield span, span.lane if not number else f"{span.lane} {number + 1}"


def _rank(lane: str) -> tuple[int, int]:
    kind, _, number = lane.partition(" ")
    return _LANES.index(kind), int(number or 1)


# Entries --------------------------------------------------------------------------------------------------------------


def _named(what: str, pid: int, tid: int, **arguments: Any) -> Entry:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": arguments}


def _span(span: Span, pid: int, tid: int) -> Entry:
    began, ended = _us(span.from_s), _us(span.until_s)
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.lane,
        "pid": pid,
        "tid": tid,
        "ts": began,
        "dur": round(ended - began, 3),
        "args": {name: value if _is_plain(value) else None for name, value in span.told.items()},
    }


def _arrows(
    events: Sequence[Event],
    placed: Sequence[tuple[Span, str]],
    pids: dict[str, int],
    tids: dict[tuple[int, str], int],
) -> list[Entry]:
    """From where each payload landed to the gather of each validator that it entered."""
    uploads = {
        (span.node, span.told["key"]): (span, lane)
        for span, lane in placed
        if span.lane == "upload" and span.told["complete"]
    }
    gathers = {(span.node, span.name): lane for span, lane in placed if span.lane == "gather"}
    arrows: list[Entry] = []
    for event in events:
        if not isinstance(event, Gathered) or (event.node, f"round {event.round}") not in gathers:
            continue
        pid, lane = pids[event.node], gathers[event.node, f"round {event.round}"]
        for uid in event.uids:
            found = uploads.get((f"peer:{uid}", f"round-{event.round}/uid-{uid}"))
            if found is None:
                continue
            span, from_lane = found
            arrow = {"name": "payload", "cat": "payload", "id": len(arrows) // 2 + 1}
            from_pid = pids[span.node]
            begins = {"pid": from_pid, "tid": tids[from_pid, from_lane], "ts": _us(span.until_s)}
            ends = {"pid": pid, "tid": tids[pid, lane], "ts": _us(event.time_s), "bp": "e"}
            arrows += [{"ph": "s"} | arrow | begins, {"ph": "f"} | arrow | ends]
    return arrows


def _counters(events: Iterable[Event], pid: int) -> Iterator[Entry]:
    moved = {"up": 0.0, "down": 0.0}
    on_time: dict[int, int] = defaultdict(int)
    for event in events:
        match event:
            case Transferred():
                moved[event.direction] += event.num_bytes
            case Submitted():
                on_time[event.round] += event.on_time
            case WindowOpened():
                yield _counter(event, pid, "bytes moved", dict(moved))
            case OuterStepTaken() if event.node.startswith("validator:"):
                yield _counter(event, pid, "payloads on time", {"peers": on_time[event.round]})
            case HeldOutMeasured() if math.isfinite(event.loss):
                yield _counter(event, pid, f"held-out loss {event.node}", {"nats": event.loss})


def _counter(event: Event, pid: int, name: str, values: Entry) -> Entry:
    return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": _us(event.time_s), "args": values}


def _title(node: str, events: Iterable[Event]) -> str:
    """The name of a process: of a peer, with its behavior."""
    behaviors = (event.behavior for event in events if isinstance(event, NodeJoined) and event.node == node)
    behavior = next(behaviors, "")
    return f"{node} ({behavior})" if node.startswith("peer:") else node


def _is_plain(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
