"""What the summary and the table say of faults, from events made by hand."""

from __future__ import annotations

import math

import pytest

from covsim.events import Event, FaultBegan, FaultEnded, HeldOutMeasured, RequestRefused, RunStopped, WindowOpened
from covsim.record.faults import fault_summary, faults_table, recovery_rounds
from covsim.record.recorder import Recorder


def recorded(losses: list[float], strikes: list[tuple[float, float]], rounds_s: float = 100.0) -> Recorder:
    """A run whose round r is measured at 100 r + 150 s, in the window that opened at 100 r + 100 s."""
    recorder = Recorder("rounds", {"lead": 1.0})
    end_s = rounds_s * (len(losses) + 1)
    events: list[Event] = [WindowOpened(rounds_s * window, window, 0) for window in range(len(losses) + 1)]
    events += [HeldOutMeasured(rounds_s * (r + 1.5), "validator:lead", r, "l", loss) for r, loss in enumerate(losses)]
    events += [HeldOutMeasured(0.0, "validator:lead", -1, "l", 9.0)]
    events += [FaultBegan(begins, "cut", "link_cut", ("peer:1",), ends) for begins, ends in strikes]
    events += [FaultEnded(ends, "cut", "link_cut", ("peer:1",)) for _, ends in strikes if ends < end_s]
    for event in sorted(events, key=lambda event: event.time_s):
        recorder.observe(event)
    recorder.observe(RunStopped(end_s, len(losses), "rounds"))
    return recorder


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5.0, 4.0, 4.5, 3.9, 3.8, 3.7], 0.0),  # the first measured after it is lower than ever
        ([5.0, 4.0, 4.5, 4.3, 4.04, 3.7], 1.0),  # 4.04 is within 1 % of 4
        ([5.0, 4.0, 4.5, 4.3, 4.05, 3.7], 2.0),  # 4.05 is not
        ([5.0, 4.0, 4.5, 4.3, 4.2, 4.1], math.nan),  # never
        ([5.0, 4.0, math.nan, math.nan, math.nan, 3.0], 2.0),
    ],
)
def test_recovery_counts_from_the_first_round_behind_the_end(losses: list[float], expected: float) -> None:
    """It strikes after round 1 was measured, and ends with the window in which round 3 is measured."""
    found = recovery_rounds(recorded(losses, [(260.0, 400.0)]), "cut")
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_a_round_that_was_measured_before_the_end_does_not_count() -> None:
    """It ends in the window of round 3, after that was measured: round 4 is the first behind it."""
    assert recovery_rounds(recorded([5.0, 4.0, 4.5, 4.5, 3.8], [(260.0, 480.0)]), "cut") == 0.0


def test_recovery_needs_an_end() -> None:
    recorder = recorded([5.0, 4.0, 3.0], [(110.0, 120.0), (360.0, 1e6)])
    assert math.isnan(recovery_rounds(recorder, "cut"))
    assert math.isnan(recovery_rounds(recorder, "another"))


def test_before_the_first_measure_the_loss_of_the_start_counts() -> None:
    assert recovery_rounds(recorded([9.5, 9.0, 3.0], [(10.0, 120.0)]), "cut") == 1.0


def test_counts_join_what_overlaps_and_stop_with_the_run() -> None:
    recorder = recorded([5.0, 4.0, 3.0], [(100.0, 200.0), (150.0, 250.0), (380.0, 900.0)])
    recorder.observe(RequestRefused(400.0, "peer:1", "key", "up", 0))
    found = fault_summary(recorder, ["cut", "idle"])
    assert found["faults"]["cut"] == {"strikes": 3, "nodes": 1, "seconds": 170.0}
    assert found["faults"]["idle"] == {"strikes": 0, "nodes": 0, "seconds": 0.0}
    assert found["store.requests_refused"] == 1
    assert fault_summary(recorder, []) == {}


def test_the_table_has_a_row_per_strike() -> None:
    table = faults_table(recorded([5.0, 4.0, 3.0], [(50.0, 60.0), (210.0, 220.0)]))
    assert list(table["round"]) == [-1, 1]
    assert list(table["nodes"]) == ["peer:1", "peer:1"]
    assert list(table["ends_s"]) == [60, 220]
