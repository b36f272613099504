"""The parent is killed: its processes end by themselves, and `--clean` removes the rest and saves what was recorded."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from covsim.emulation.processes import Known, runs_folder

SMALL = Path(__file__).with_name("small.yaml")


def begun(out):
    """An emulation in a process of its own."""
    command = [sys.executable, "-m", "covsim", "emulate", str(SMALL), "--out", str(out), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def record_of(pid):
    """What the run of a process has started, when it has written that down."""
    paths = list(runs_folder().glob(f"{pid}-*.json"))
    return json.loads(paths[0].read_text(encoding="utf-8")) if paths else None


def wait_until(condition, what, seconds=90.0):
    """Wait for something; fail if it does not come."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"waited in vain for {what}")


def events_kept(record):
    """Bytes of events on disk."""
    path = Path(record["folder"]) / "events.part"
    return path.stat().st_size if path.is_file() else 0


def cleaned():
    """What `--clean` says."""
    command = [sys.executable, "-m", "covsim", "emulate", "--clean"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


MOMENTS = {
    "while nodes start": lambda record: len(record["processes"]) >= 5,
    "in the middle of a round": lambda record: events_kept(record) > 6_000,
    "near the end": lambda record: events_kept(record) > 30_000,
}


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("while nodes start", marks=pytest.mark.slow),
        "in the middle of a round",
        pytest.param("near the end", marks=pytest.mark.slow),
    ],
)
def test_a_killed_parent_leaves_nothing_and_a_readable_partial_result(tmp_path, moment):
    """Would catch orphans, namespaces without an owner, and results that are lost with the process."""
    parent = begun(tmp_path)
    try:
        reached = MOMENTS[moment]
        wait_until(lambda: (record := record_of(parent.pid)) and reached(record), moment)
        record = record_of(parent.pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    processes = [Known(*each) for each in record["processes"]]
    wait_until(lambda: not [known for known in processes if known.is_alive], "the processes to end", 10.0)
    said = cleaned()
    assert record_of(parent.pid) is None
    assert cleaned() == "nothing was left behind\n", "namespaces and proxies, too, went the first time"
    folder = Path(record["folder"])
    assert not (folder / "control.key").exists()
    assert not (folder / "summary.json").exists()
    partial = json.loads((folder / "partial.json").read_text(encoding="utf-8"))
    assert f"a partial result of {partial['events']} events" in said
    if moment != "while nodes start":
        assert partial["events"] > 10
        assert not pd.read_parquet(folder / "submissions.parquet").empty
