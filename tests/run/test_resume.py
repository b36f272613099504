"""An interrupted run goes on to the same bits: killed at any time, with transfers in flight, or stopped by Ctrl-C."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from covsim.record import runner
from covsim.record.checkpoint import newest_checkpoint, save_checkpoint
from covsim.record.lock import LOCK
from covsim.record.provenance import provenance
from covsim.record.runner import CannotResume, Interrupted, UnfinishedRun, resume, run
from covsim.scenario import Scenario
from covsim.scenario.resolve import resolved_text


@pytest.fixture(scope="module")
def busy(tiny: Scenario) -> Scenario:
    """A longer run that puts a checkpoint on disk at every event it can."""
    return tiny.model_copy(
        update={
            "stop": tiny.stop.model_copy(update={"rounds": 8}),
            "record": tiny.record.model_copy(update={"checkpoint": 0.0005}),
            "compute": tiny.compute.model_copy(update={"threads": 1}),
        }
    )


@pytest.fixture(scope="module")
def uninterrupted(busy: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(busy, "text", out=tmp_path_factory.mktemp("whole")).folder


def whole_files(folder: Path) -> dict[str, bytes]:
    """All that a run says, except what tells of wall-clock time."""
    names = [
        *folder.glob("*.parquet"),
        *folder.glob("*.gz"),
        *folder.glob("*.safetensors"),
        folder / "tape" / "tape.bin",
    ]
    return {path.name: path.read_bytes() for path in names}


def summary_without_wall(folder: Path) -> dict[str, object]:
    summary = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in summary.items() if not key.startswith("wall.")}


PROGRAM = """
import os, signal, sys
from pathlib import Path
from covsim.record.runner import run, resume, Interrupted
from covsim.scenario import loads

seen, last, number = 0, int(sys.argv[1]), getattr(signal, sys.argv[2])

def observe(event):
    global seen
    seen += 1
    if seen == last:
        os.kill(os.getpid(), number)

try:
    if sys.argv[3] == "run":
        run(loads(Path(sys.argv[4]).read_text()), "text", out=Path(sys.argv[5]), observers=[observe])
    else:
        resume(Path(sys.argv[4]), observers=[observe])
except Interrupted:
    sys.exit(130)
"""


def stop_at(event: int, signal_name: str, *arguments: str) -> int:
    """Run or resume in a process that gets a signal at an event; returns how the process ended."""
    return subprocess.run([sys.executable, "-c", PROGRAM, str(event), signal_name, *arguments], check=False).returncode


def without_checkpoints(scenario: Scenario) -> Scenario:
    """The same, with the next checkpoint an hour away, however loaded the machine is."""
    return scenario.model_copy(update={"record": scenario.record.model_copy(update={"checkpoint": 3600.0})})


def begin(scenario: Scenario, tmp_path: Path, event: int, signal_name: str) -> tuple[int, Path]:
    """A run that was stopped at an event, and its folder."""
    text = tmp_path / "scenario.yaml"
    text.write_text(resolved_text(scenario))
    code = stop_at(event, signal_name, "run", str(text), str(tmp_path / "out"))
    (folder,) = tmp_path.glob("out/*/*")
    return code, folder


def transfers_in_flight(folder: Path, num_events: int) -> int:
    """How many transfers of a whole run were under way when it had emitted so many events."""
    with gzip.open(folder / "events.jsonl.gz", "rt") as file:
        events = [json.loads(line) for line in file]
    now_s = events[num_events - 1]["time_s"]
    moved = [event for event in events if event["event"] == "Transferred"]
    return sum(event["started_s"] < now_s < event["time_s"] for event in moved)


def num_events(folder: Path) -> int:
    with gzip.open(folder / "events.jsonl.gz", "rt") as file:
        return sum(1 for _ in file)


def assert_equal(folder: Path, uninterrupted: Path) -> None:
    assert whole_files(folder) == whole_files(uninterrupted)
    assert summary_without_wall(folder) == summary_without_wall(uninterrupted)


def test_resumes_after_a_kill(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    code, folder = begin(busy, tmp_path, num_events(uninterrupted) * 6 // 10, "SIGKILL")
    assert code == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.num_events > num_events(uninterrupted) // 4, "it would begin again, and prove nothing"
    resume(folder)
    assert_equal(folder, uninterrupted)


@pytest.mark.slow
def test_resumes_after_kills_at_five_points(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    """Each process is killed further on than the one before; the last one finishes."""
    total, in_flight = num_events(uninterrupted), []
    _, folder = begin(busy, tmp_path, total * 3 // 20, "SIGKILL")
    for twentieths in (6, 9, 12, 18):
        checkpoint = newest_checkpoint(folder / "checkpoints")
        assert checkpoint is not None
        in_flight.append(transfers_in_flight(uninterrupted, checkpoint.num_events))
        assert stop_at(total * twentieths // 20, "SIGKILL", "resume", str(folder)) == -signal.SIGKILL
    resume(folder)
    assert_equal(folder, uninterrupted)
    assert any(in_flight), "no checkpoint had transfers in flight"


def test_ctrl_c_leaves_a_resumable_run(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    code, folder = begin(busy, tmp_path, num_events(uninterrupted) // 2, "SIGINT")
    assert code == 130
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.num_events >= num_events(uninterrupted) // 2, "it was not saved where it was stopped"
    resume(folder)
    assert_equal(folder, uninterrupted)


def test_a_run_without_a_checkpoint_begins_again(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    _, folder = begin(without_checkpoints(busy), tmp_path, 20, "SIGKILL")
    assert newest_checkpoint(folder / "checkpoints") is None
    resume(folder)
    assert_equal(folder, uninterrupted)


def test_nothing_is_lost_without_being_told(busy: Scenario, tmp_path: Path) -> None:
    _, folder = begin(busy, tmp_path, 20, "SIGKILL")
    with pytest.raises(UnfinishedRun, match="an unfinished run lies here; go on with: covsim run --resume"):
        run(busy, "text", out=tmp_path / "out")
    (folder / "figures").mkdir()
    assert run(busy, "text", out=tmp_path / "out", force=True).folder == folder
    assert not (folder / "figures").exists(), "something of the old run was left"


def test_a_finished_run_is_not_run_again(busy: Scenario, uninterrupted: Path) -> None:
    again = run(busy, "text", out=uninterrupted.parent.parent)
    assert again.skipped
    assert again.summary == resume(uninterrupted).summary


def test_what_changed_since_cannot_be_resumed(busy: Scenario, tmp_path: Path) -> None:
    _, folder = begin(busy, tmp_path, 20, "SIGKILL")
    resolved = folder / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("seed: 3", "seed: 4"))
    with pytest.raises(CannotResume, match="cannot be resumed; run the scenario again"):
        resume(folder)
    with pytest.raises(CannotResume, match="no run to resume here"):
        resume(tmp_path)


def test_a_scenario_that_is_none_any_more_cannot_be_resumed(busy: Scenario, tmp_path: Path) -> None:
    _, folder = begin(busy, tmp_path, 20, "SIGKILL")
    resolved = folder / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("seed: 3", "seeed: 3"))
    with pytest.raises(CannotResume) as caught:
        resume(folder)
    assert "unknown key 'seeed' (did you mean 'seed'?) (cannot be resumed; run the scenario again)" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    resolved.write_bytes(b"\xff\xfe")
    with pytest.raises(CannotResume, match="is not UTF-8 text"):
        resume(folder)


def test_a_damaged_run_cannot_be_resumed(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    """Whatever was lost or changed on disk is one line, and no wrong result."""
    _, folder = begin(busy, tmp_path, num_events(uninterrupted) // 2, "SIGKILL")
    tape, last = folder / "tape" / "tape.bin", max(folder.glob("checkpoints/*"))
    whole, checkpoint = tape.read_bytes(), newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    middle = checkpoint.tape_position // 2

    def refused(match: str) -> None:
        with pytest.raises(CannotResume, match=match) as caught:
            resume(folder)
        assert len(str(caught.value).splitlines()) == 1

    tape.write_bytes(whole[:middle])
    refused("cannot be resumed, run it again with --force: the tape has nothing readable at byte")
    tape.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    refused("the tape has nothing readable at byte")
    tape.unlink()
    refused("the tape is missing")
    tape.write_bytes(whole)
    save_checkpoint(last.parent, replace(checkpoint, digest_clock="0" * 64))
    refused("the re-executed run differs from its checkpoint")
    last.write_bytes(last.read_bytes()[:1000])
    refused(f"{last.name} is damaged")


def test_ctrl_c_counts_while_a_run_is_built(busy: Scenario, uninterrupted: Path, tmp_path: Path) -> None:
    code, folder = begin(busy, tmp_path, 1, "SIGINT")
    assert code == 130
    resume(folder)
    assert_equal(folder, uninterrupted)


def test_ctrl_c_counts_while_results_are_written(
    busy: Scenario, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is whole then, but what was to come after it must not begin."""

    def press(*arguments: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return provenance(*arguments)

    monkeypatch.setattr(runner, "provenance", press)
    with pytest.raises(Interrupted) as caught:
        run(busy, "text", out=tmp_path)
    assert_equal(caught.value.folder, uninterrupted)
    assert resume(caught.value.folder).skipped


def test_a_finished_run_keeps_no_checkpoints_and_no_lock(uninterrupted: Path) -> None:
    assert (uninterrupted / "summary.json").exists()
    assert not (uninterrupted / "checkpoints").exists()
    assert not (uninterrupted / LOCK).exists()
