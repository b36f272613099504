"""The timeline of a run as Chrome trace JSON: the rules of the format, and nothing lost on the way."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from covsim.events import Event, Gathered, NodeJoined, RoundSettled, Trained, Transferred
from covsim.record.events_file import read_events
from covsim.record.runner import run
from covsim.report.trace import KINDS, CannotTrace, write_trace
from covsim.scenario import load
from covsim.scenario.resolve import resolved_text


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[Event]]:
    """A timing-only quickstart with a fault: its entries and its events."""
    out = tmp_path_factory.mktemp("trace")
    fault = "faults=[{kind: crash, uids: [3], from_round: 1, to_round: 2}]"
    scenario = load("quickstart", ["learning=synthetic", "stop.rounds=4", "record.level=transfers", fault])
    folder = run(scenario, resolved_text(scenario), out).folder
    count = write_trace(folder, out / "trace.json")
    entries = json.loads((out / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert len(entries) == count
    return entries, list(read_events(folder / "events.jsonl.gz", KINDS))


Traced = tuple[list[dict[str, Any]], list[Event]]


def test_entries_follow_the_format(traced: Traced) -> None:
    """Known phases, numbers where numbers are due, every lane named. Catches what Perfetto drops in silence."""
    entries, _ = traced
    named = {(entry["pid"], entry["tid"]) for entry in entries if entry["name"] == "thread_name"}
    for entry in entries:
        assert entry["ph"] in "XCMsf"
        assert isinstance(entry["pid"], int)
        if entry["ph"] != "M":
            assert entry["ts"] >= 0
        if entry["ph"] == "X":
            assert entry["dur"] >= 0
            assert (entry["pid"], entry["tid"]) in named
        if entry["ph"] == "C":
            assert all(isinstance(value, int | float) for value in entry["args"].values())
    assert len({json.dumps([entry["pid"], entry["name"]]) for entry in entries if entry["name"] == "process_name"}) == (
        sum(entry["name"] == "process_name" for entry in entries)
    )


def test_spans_of_a_lane_do_not_overlap(traced: Traced) -> None:
    """Parallel downloads lie in lanes of their own. Catches spans that Perfetto would draw into each other."""
    lanes: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for entry in traced[0]:
        if entry["ph"] == "X":
            lanes[entry["pid"], entry["tid"]].append((entry["ts"], entry["ts"] + entry["dur"]))
    assert len(lanes) > 100
    for spans in lanes.values():
        spans.sort()
        assert all(until <= begins + 1e-3 for (_, until), (begins, _) in pairwise(spans))


def test_nothing_is_lost(traced: Traced) -> None:
    """As many spans as events of a kind, with their seconds. Catches a lane that swallows what it has no room for."""
    entries, events = traced
    for kind, lane in ((Trained, "compute"), (RoundSettled, "rounds")):
        spans = [entry for entry in entries if entry["ph"] == "X" and entry["cat"] == lane]
        assert len(spans) == sum(isinstance(event, kind) for event in events) > 0
    moved = [event for event in events if isinstance(event, Transferred)]
    drawn = [entry for entry in entries if entry["ph"] == "X" and entry["cat"] in ("upload", "download")]
    assert len(drawn) == len(moved)
    seconds = sum(event.time_s - event.started_s for event in moved)
    assert sum(entry["dur"] for entry in drawn) == pytest.approx(1e6 * seconds, rel=1e-9)
    assert any(entry["ph"] == "X" and entry["cat"] == "faults" for entry in entries)


def test_every_payload_that_entered_has_an_arrow(traced: Traced) -> None:
    """From an upload's end to a validator's gather, each begun and ended once. Catches arrows into nowhere."""
    entries, events = traced
    entered = sum(
        len(event.uids) for event in events if isinstance(event, Gathered) and event.node.startswith("validator:")
    )
    begun = {entry["id"]: entry for entry in entries if entry["ph"] == "s"}
    ended = {entry["id"]: entry for entry in entries if entry["ph"] == "f"}
    assert len(begun) == len(ended) == entered > 0
    assert begun.keys() == ended.keys()
    assert all(begun[number]["ts"] <= ended[number]["ts"] for number in begun)


def test_processes_are_the_nodes(traced: Traced) -> None:
    """One for each, named with its behavior. Catches a node without a process."""
    entries, events = traced
    names = {entry["args"]["name"] for entry in entries if entry["name"] == "process_name"}
    joined = [event for event in events if isinstance(event, NodeJoined)]
    assert len(names) == len(joined) + 1
    assert any(name.endswith("(sign_flip)") for name in names)


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    """In one line that says what to do. Catches a traceback."""
    with pytest.raises(CannotTrace, match=r"record\.level=transfers"):
        write_trace(tmp_path, tmp_path / "trace.json")
