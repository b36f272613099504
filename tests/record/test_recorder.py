"""The recorder keeps what its level asks for and writes files that depend on the events alone."""

import gzip
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from synthetic import STAKES, play

from covsim.events import NodeJoined, Transferred, WindowOpened
from covsim.record import files
from covsim.record.recorder import Level, Recorder, Traffic

ROUNDS_ONLY = {"rounds.parquet", "peers.parquet"}
TABLES = ("submissions", "verdicts", "evidence", "weights", "epochs")
WITHOUT_TRANSFERS = ROUNDS_ONLY | {f"{table}.parquet" for table in TABLES} | {"events.jsonl.gz"}


def recorded(level: Level = "transfers", rounds: int = 3) -> Recorder:
    recorder = Recorder(level, STAKES)
    for event in play(num_peers=24, rounds=rounds):
        recorder.observe(event)
    return recorder


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("summary", ROUNDS_ONLY),
        ("rounds", WITHOUT_TRANSFERS),
        ("transfers", WITHOUT_TRANSFERS | {"transfers.parquet"}),
    ],
)
def test_level_bounds_what_is_written(level: Level, expected: set[str], tmp_path: Path) -> None:
    recorded(level).write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_level_changes_no_number(tmp_path: Path) -> None:
    frames = []
    for level in ("summary", "transfers"):
        folder = tmp_path / level
        recorded(level).write(folder)
        frames.append(pd.read_parquet(folder / "rounds.parquet"))
    pd.testing.assert_frame_equal(*frames)


def test_equal_events_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        recorded().write(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert (tmp_path / "one" / "events.jsonl.gz").read_bytes()[4:8] == bytes(4), "a date in the gzip header"


def test_event_log_holds_every_event_with_nan_as_null(tmp_path: Path) -> None:
    events = play(num_peers=24, rounds=2)
    recorded(rounds=2).write(tmp_path)
    lines = gzip.decompress((tmp_path / "events.jsonl.gz").read_bytes()).decode().splitlines()
    read = [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")) for line in lines]
    assert [line["event"] for line in read] == [type(event).__name__ for event in events]
    assert [line["time_s"] for line in read] == [event.time_s for event in events]
    late = [line for line in read if line.get("status") == "late"]
    assert late
    assert all(line["own_before"] is None for line in late)


def test_lead_is_the_highest_stake_and_the_first_name_of_equals() -> None:
    assert Recorder("summary", {"a": 0.3, "b": 0.7}).lead == "b"
    assert Recorder("summary", {"b": 1.0, "a": 1.0}).lead == "a"


def test_cohorts_are_listed_honest_first() -> None:
    assert list(recorded().cohorts) == ["honest", "copycats", "flippers", "lazy"]


def test_traffic_counts_by_direction_and_window_and_what_a_cut_transfer_moved() -> None:
    recorder = Recorder("summary", STAKES)
    recorder.observe(NodeJoined(0.0, "peer:0", 0, "honest", "honest", 1.0, 1.0, 1.0))
    for window, direction, num_bytes, complete in (
        (1, "up", 10.0, True),
        (1, "down", 4.0, False),
        (2, "up", 1.0, True),
    ):
        recorder.observe(WindowOpened(float(window), window, window))
        recorder.observe(Transferred(window + 0.5, "peer:0", "key", "submit", direction, num_bytes, 0.0, complete))
    assert recorder.traffic == Traffic(up=11.0, down=4.0)
    assert recorder.traffic_of_window == {1: Traffic(10.0, 4.0), 2: Traffic(1.0, 0.0)}


def test_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    files.write_text(path, "old")

    def fail_halfway(part: Path) -> None:
        part.write_text("new, unfini")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_whole(path, fail_halfway)
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file"]


def test_json_is_sorted_and_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    files.write_json(path, {"b": float("nan"), "a": {"d": float("inf"), "c": [1, float("-inf")]}, "e": True})
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert json.loads(path.read_text()) == {"a": {"c": [1, None], "d": None}, "b": None, "e": True}
