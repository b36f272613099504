"""Many runs in local processes: the results of one process, whatever is there already, cut, broken or killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from covsim.record import runner
from covsim.record.runner import Run, UnfinishedRun
from covsim.scenario import Scenario, loads, resolved_text, run_id, with_seed
from covsim.sweep import local

SMALL = """
version: 1
name: small
stop: {rounds: 2}
model: {kind: gpt, layers: 1, width: 8, heads: 1, context: 16}
training: {batch: 1}
protocol: {kind: sparseloco, inner_steps: 2}
deployment: same
peers: 2
cohorts: {honest: {share: rest, uplink: 1 Gb/s, downlink: 1 Gb/s}}
validators: {lead: {stake: 1}}
selection: all
gauntlet: {evaluated_per_window: 1, own_sequences: 1, random_sequences: 1}
data: {held_out_sequences: 4}
record: {level: summary}
"""


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [with_seed(loads(SMALL), seed) for seed in (1, 2, 3)]


@pytest.fixture
def lines() -> list[str]:
    return []


def digests(runs: list[Run]) -> list[str]:
    return [run.summary["digest.learning"] for run in runs]


def folder_of(scenario: Scenario, out: Path) -> Path:
    return out / scenario.name / run_id(scenario)


def test_results_come_in_the_order_asked_and_equal_scenarios_run_once(
    scenarios: list[Scenario], tmp_path: Path, lines: list[str]
) -> None:
    asked = [scenarios[1], scenarios[0], scenarios[1]]
    runs = local.run_all(asked, jobs=0, out=tmp_path, say=lines.append)
    assert [run.folder for run in runs] == [folder_of(scenario, tmp_path) for scenario in asked]
    assert len(set(digests(runs))) == 2
    assert [line.split(":")[0] for line in lines] == ["[1/2] small seed 2", "[2/2] small seed 1"]
    assert all("loss 5." in line for line in lines)


def test_what_is_there_is_not_run_again(scenarios: list[Scenario], tmp_path: Path, lines: list[str]) -> None:
    first = local.run_all(scenarios[:1], jobs=0, out=tmp_path)
    both = local.run_all(scenarios[:2], jobs=0, out=tmp_path, say=lines.append)
    assert both[0].skipped
    assert both[0].summary == first[0].summary
    assert lines[0] == "1 of 2 runs are there already"
    assert lines[1].startswith("[2/2] small seed 2: loss")


def test_a_run_that_was_cut_is_resumed(
    scenarios: list[Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(scenarios[0], tmp_path)
    done, resumed = Run(folder, {"loss.final": 2.5}), []

    def unfinished(*arguments: Any) -> Run:
        raise UnfinishedRun(folder)

    monkeypatch.setattr(runner, "run", unfinished)
    monkeypatch.setattr(runner, "resume", lambda folder: resumed.append(folder) or done)
    assert local.run_all(scenarios[:1], jobs=0, out=tmp_path) == [done]
    assert resumed == [folder]


def test_a_failure_stops_nothing_and_is_one_line_at_the_end(
    scenarios: list[Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    original, folder = runner.run, folder_of(scenarios[1], tmp_path)

    def fails_once(scenario: Scenario, text: str, out: Path) -> Run:
        if scenario.seed == 2:
            raise RuntimeError("the second\nof three")
        return original(scenario, text, out)

    monkeypatch.setattr(runner, "run", fails_once)
    with pytest.raises(local.FailedRuns) as caught:
        local.run_all(scenarios, jobs=0, out=tmp_path, say=lines.append)
    assert str(caught.value) == f"1 of 3 runs failed: {folder}: RuntimeError: the second of three"
    assert list(caught.value.failures) == [folder]
    assert "[2/3] small seed 2: FAILED: RuntimeError: the second of three" in lines
    assert "raise RuntimeError" in (folder / local.TRACEBACK).read_text()
    assert len(list(tmp_path.rglob("summary.json"))) == 2

    monkeypatch.setattr(runner, "run", original)
    assert len(local.run_all(scenarios, jobs=0, out=tmp_path)) == 3
    assert not (folder / local.TRACEBACK).exists()


def test_many_failures_are_counted() -> None:
    error = local.FailedRuns({Path(f"results/{number}"): "KeyError: 1" for number in range(5)}, 9)
    assert str(error).startswith("5 of 9 runs failed: results/0: KeyError: 1; ")
    assert str(error).endswith("; results/2: KeyError: 1; ...")


def test_tapes_are_dropped_where_nobody_wants_them(scenarios: list[Scenario], tmp_path: Path) -> None:
    kept, dropped = tmp_path / "kept", tmp_path / "dropped"
    (with_tape,) = local.run_all(scenarios[:1], jobs=0, out=kept)
    (without,) = local.run_all(scenarios[:1], jobs=0, out=dropped, keep_tapes=False)
    assert (with_tape.folder / "tape" / "tape.bin").stat().st_size > 0
    assert not list(without.folder.rglob("tape.bin"))
    assert digests([with_tape]) == digests([without])


def test_a_number_of_processes_below_0_is_refused(scenarios: list[Scenario]) -> None:
    with pytest.raises(ValueError, match="jobs must be 0 or more, not -1"):
        local.run_all(scenarios, jobs=-1)


@pytest.mark.slow
def test_processes_give_the_same_results_on_one_thread_each(scenarios: list[Scenario], tmp_path: Path) -> None:
    here = local.run_all(scenarios, jobs=0, out=tmp_path / "here")
    there = local.run_all(scenarios, jobs=2, out=tmp_path / "there")
    assert digests(there) == digests(here)
    for run in there:
        assert json.loads((run.folder / "provenance.json").read_text())["threads"]["intra_op"] == 1
        assert "threads" not in (run.folder / "resolved.yaml").read_text()


@pytest.mark.slow
def test_a_process_is_renewed(scenarios: list[Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    original = local._Worker.__init__
    monkeypatch.setattr(local._Worker, "__init__", lambda self: started.append(self) or original(self))
    monkeypatch.setattr(local, "RUNS_PER_PROCESS", 2)
    assert len(local.run_all(scenarios, jobs=1, out=tmp_path)) == 3
    assert len(started) == 2
    assert not multiprocessing.active_children()


LONGER_ROUNDS = 400


def longer(scenario: Scenario) -> Scenario:
    """One that is still under way when another has ended."""
    return scenario.model_copy(update={"stop": scenario.stop.model_copy(update={"rounds": LONGER_ROUNDS})})


@pytest.mark.slow
def test_a_process_that_dies_takes_its_run_along_and_no_other(scenarios: list[Scenario], tmp_path: Path) -> None:
    def kill(line: str) -> None:
        if line.startswith("[1/3]"):
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(local.FailedRuns, match="its process ended with signal SIGKILL") as caught:
        local.run_all([scenarios[0], longer(scenarios[1]), scenarios[2]], jobs=2, out=tmp_path, say=kill)
    assert folder_of(longer(scenarios[1]), tmp_path) in caught.value.failures
    assert folder_of(scenarios[0], tmp_path) not in caught.value.failures


SCRIPT = """
import signal, sys
from pathlib import Path
from covsim.scenario import load
from covsim.sweep.local import run_all
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    run_all([load(path) for path in sys.argv[2:]], jobs=2, out=Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_end_leaves_runs_that_can_be_resumed(
    ending: signal.Signals, scenarios: list[Scenario], tmp_path: Path
) -> None:
    """Ctrl-C, and the sudden death of the process that started the others, which then cut their runs by themselves."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    asked = [longer(scenario) for scenario in scenarios[:2]]
    paths = [tmp_path / f"{scenario.seed}.yaml" for scenario in asked]
    for path, scenario in zip(paths, asked, strict=True):
        path.write_text(resolved_text(scenario))
    process = subprocess.Popen(
        [sys.executable, str(script), str(out), *map(str, paths)], stderr=subprocess.PIPE, text=True
    )
    folders = [folder_of(scenario, out) for scenario in asked]
    wait_until(lambda: all((folder / "tape" / "tape.bin").exists() for folder in folders))
    os.kill(process.pid, ending)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode
    assert complaints.count("Traceback") == (ending == signal.SIGINT), complaints  # the script's own
    wait_until(lambda: all(list(folder.glob("checkpoints/*")) for folder in folders))
    assert not list(out.rglob("summary.json"))
    wait_until(lambda: not list(out.rglob(".lock")))

    (resumed,) = local.run_all(asked[:1], jobs=0, out=out)
    assert resumed.summary["rounds"] == LONGER_ROUNDS


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
