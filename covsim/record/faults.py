"""What the faults of a run did: a table of their strikes, and figures for summary.json.

| key | meaning |
|---|---|
| `recovery_rounds.<fault>` | rounds from its last end until the held-out loss is within 1 % of the best before it |
| `faults.<fault>.strikes`, `.nodes` | how often it struck, and how many different nodes |
| `faults.<fault>.seconds` | seconds in which it was there, whatever it struck |
| `store.requests_refused`, `store.objects_damaged` | attempts refused by a rate limit, objects lost or truncated |
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import pandas as pd

from covsim.events import FaultBegan, FaultEnded, ObjectDamaged, RequestRefused, RunStopped, WindowOpened
from covsim.record import views
from covsim.record.recorder import Recorder

TOLERANCE = 0.01
"""Recovered is who is back within this of the best loss before, relative to it."""


def fault_summary(recorder: Recorder, called: Sequence[str]) -> dict[str, Any]:
    """The part of summary.json that tells of faults; empty for a scenario without any.

    Args:
        recorder: has observed a whole run.
        called: the labels of the scenario's faults.
    """
    if not called:
        return {}
    return {
        **{f"recovery_rounds.{label}": recovery_rounds(recorder, label) for label in called},
        "store.requests_refused": len(recorder.of(RequestRefused)),
        "store.objects_damaged": len(recorder.of(ObjectDamaged)),
        "faults": {label: _counts(recorder, label) for label in called},
    }


def recovery_rounds(recorder: Recorder, label: str) -> float:
    """Rounds from a fault's last end until the lead validator's held-out loss is back.

    Back is within 1 % of the lowest loss measured before the fault first struck. 0 if the first round that is measured
    after the end has such a loss; NaN if the fault never struck, outlasted the run, or the loss did not come back.
    """
    began = [event.time_s for event in recorder.of(FaultBegan) if event.fault == label]
    ended = [event.time_s for event in recorder.of(FaultEnded) if event.fault == label]
    if not began or len(ended) < len(began):
        return math.nan
    points = [point.measured for point in views.lead_losses(recorder)]
    before = [point.loss for point in points if point.time_s < began[0] or point.round < 0]
    after = [point for point in points if point.time_s >= ended[-1] and point.round >= 0]
    good = min(before) * (1 + TOLERANCE)
    back = [point.round for point in after if point.loss <= good]
    return float(min(back) - min(point.round for point in after)) if back else math.nan


def faults_table(recorder: Recorder) -> pd.DataFrame:
    """A row per strike: its fault, when it began and was to end, the round then exchanged, and whom it struck."""
    began = recorder.of(FaultBegan)
    columns = {
        "round": pd.array([_round_at(recorder, event.time_s) for event in began], dtype="Int64"),
        "simulated_s": pd.array([event.time_s for event in began], dtype="float64"),
        "ends_s": pd.array([event.ends_s for event in began], dtype="float64"),
        "fault": pd.array([event.fault for event in began], dtype="string"),
        "kind": pd.array([event.kind for event in began], dtype="string"),
        "num_nodes": pd.array([len(event.nodes) for event in began], dtype="Int64"),
        "nodes": pd.array([" ".join(event.nodes) for event in began], dtype="string"),
    }
    return pd.DataFrame(columns)


def _counts(recorder: Recorder, label: str) -> dict[str, Any]:
    began = [event for event in recorder.of(FaultBegan) if event.fault == label]
    return {
        "strikes": len(began),
        "nodes": len({node for event in began for node in event.nodes}),
        "seconds": _seconds_there(recorder, began),
    }


def _seconds_there(recorder: Recorder, began: Sequence[FaultBegan]) -> float:
    """Length of the union of strikes, cut at the end of the run."""
    (stopped,) = recorder.of(RunStopped)
    total_s, until_s = 0.0, 0.0
    for event in sorted(began, key=lambda event: event.time_s):
        begins_s, ends_s = max(event.time_s, until_s), min(event.ends_s, stopped.time_s)
        total_s += max(0.0, ends_s - begins_s)
        until_s = max(until_s, ends_s)
    return total_s


def _round_at(recorder: Recorder, time_s: float) -> int:
    """The round whose payloads are exchanged at a time; -1 before the first."""
    opened = recorder.of(WindowOpened)
    return opened[bisect_right([event.time_s for event in opened], time_s) - 1].window - 1
