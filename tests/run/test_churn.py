"""Whole runs in which peers come and go: nothing breaks, resuming changes nothing, and who stays is left alone."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from covsim.events import (
    Event,
    Gathered,
    NodeJoined,
    NodeLeft,
    PeerCrashed,
    PeerEntered,
    RunStopped,
    Submitted,
    Trained,
)
from covsim.nodes.seam import Computed
from covsim.record.checkers import all_checkers
from covsim.record.checkpoint import newest_checkpoint
from covsim.record.runner import resume, run
from covsim.scenario import Scenario, load, loads
from covsim.scenario.resolve import resolved_text
from covsim.simulation import Simulation

LIVELY = """
version: 1
name: lively
seed: 2
stop: {rounds: 9}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 2}
protocol: {kind: sparseloco, inner_steps: 3, k: 64}
deployment: {preset: covenant-72b, inner_step: 200 s, evaluation: 8 s}
timeline: {blocks_per_window: 100, put_window: 200 s, gather_timeout: 500 s}
store: {read_failure: 10 %, retries: 1}
checkpoints: {every: 3}
peers: 9
cohorts:
  honest: {share: rest, downlink: 5 Gb/s, membership: {kind: churn, leaves: 33 %, rounds_away: 1.5}}
  loyal: {count: 2, downlink: 5 Gb/s}
  restarters: {count: 1, behavior: {kind: restarter, hopes: 2}, downlink: 5 Gb/s}
validators: {lead: {stake: 0.7}, second: {stake: 0.3}}
selection: {kind: gauntlet, gather: 4, reserve: 2}
gauntlet: {evaluated_per_window: 5, own_sequences: 1, random_sequences: 1, overlap: {from_round: 1}}
data: {held_out_sequences: 4}
faults: [{kind: crash, rate: 10 %, lasts: 900 s, cohort: loyal}]
"""


@pytest.fixture(scope="module")
def lively() -> Scenario:
    return loads(LIVELY)


def of(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_third_goes_in_every_round_and_all_checkers_hold(lively: Scenario, play: Any) -> None:
    checkers = all_checkers(put_window_s=lively.timeline.put_window)
    events, _ = play(lively, [checker.observe for checker in checkers])
    (stopped,) = of(events, RunStopped)
    assert (stopped.rounds, stopped.reason) == (9, "rounds")
    goers = Counter(event.reason for event in of(events, NodeLeft))
    assert goers["membership churn"] >= 8
    assert goers["registers again"] >= 1
    assert of(events, PeerCrashed)
    assert of(events, PeerEntered)


def test_the_same_scenario_has_the_same_digest(lively: Scenario, play: Any) -> None:
    """Uids are dealt as peers come, so an order that depended on anything but the scenario would show."""
    first, second = play(lively), play(lively)
    assert (first[1].clock, first[1].learning) == (second[1].clock, second[1].learning)


def test_churn_at_which_nobody_goes_is_no_churn(play: Any) -> None:
    """Not an event more, and no checkpoint."""
    still = (
        LIVELY.replace("leaves: 33 %", "leaves: 0 %")
        .replace("faults:", "#")
        .replace("kind: restarter, hopes: 2", "kind: lazy")
    )
    never = still.replace("membership: {kind: churn, leaves: 0 %, rounds_away: 1.5}", "membership: always")
    assert never != still
    one, other = play(loads(still))[1], play(loads(never))[1]
    assert (one.clock, one.learning) == (other.clock, other.learning)


def test_who_stays_has_the_luck_that_it_would_have_had(lively: Scenario, play: Any) -> None:
    """Links and machines of everybody who was there from the start, and when the loyal crash, do not move."""
    calm = loads(LIVELY.replace("leaves: 33 %", "leaves: 0 %"))
    with_churn, without = play(lively)[0], play(calm)[0]
    first = [[event for event in of(events, NodeJoined) if event.time_s == 0] for events in (with_churn, without)]
    assert first[0] == first[1]
    crashes = [[(e.uid, e.time_s) for e in of(events, PeerCrashed)][:1] for events in (with_churn, without)]
    assert crashes[0] == crashes[1] != []
    early = [[e for e in of(events, Trained) if e.round == 0] for events in (with_churn, without)]
    assert early[0] == early[1] != []


PROGRAM = """
import os, signal, sys
from pathlib import Path
from covsim.record.runner import run
from covsim.scenario import loads

seen = 0

def observe(event):
    global seen
    seen += 1
    if seen == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

run(loads(Path(sys.argv[2]).read_text()), "text", out=Path(sys.argv[3]), observers=[observe])
"""


@pytest.mark.parametrize("share", [0.5, pytest.param(0.8, marks=pytest.mark.slow)])
def test_resumes_to_the_same_bits(lively: Scenario, share: float, tmp_path: Path) -> None:
    """Killed with peers down, entering and under new uids: files are equal byte by byte."""
    one_thread = lively.model_copy(update={"compute": lively.compute.model_copy(update={"threads": 1})})
    seldom, often = (
        one_thread.model_copy(update={"record": lively.record.model_copy(update={"checkpoint": every})})
        for every in (3600.0, 0.02)
    )
    text = tmp_path / "scenario.yaml"
    text.write_text(resolved_text(often))
    whole = run(seldom, "text", out=tmp_path / "whole").folder
    total = json.loads((whole / "summary.json").read_text())
    with gzip.open(whole / "events.jsonl.gz", "rt") as file:
        num_events = sum(1 for _ in file)
    code = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(num_events * share)), str(text), str(tmp_path / "cut")], check=False
    ).returncode
    assert code == -signal.SIGKILL
    (folder,) = (tmp_path / "cut").glob("*/*")
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.num_events > num_events * share / 2
    resume(folder)
    for name in ("events.jsonl.gz", "final.safetensors", "tape/tape.bin", "peers.parquet", "ledger.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    again = json.loads((folder / "summary.json").read_text())
    assert {k: v for k, v in again.items() if "wall" not in k} == {k: v for k, v in total.items() if "wall" not in k}
    assert total["left_share.honest"] > 0.3
    assert total["left_share.loyal"] == 0
    assert total["participation.unique"] > 9 / 2


@pytest.mark.slow
def test_target_d8_participation_of_the_live_network() -> None:
    """The report: 16.9 contribute and 24.4 submit in a round, at least 70 in all. Rates were chosen to match."""
    scenario = load("covenant72b-live")
    events: list[Event] = []
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    simulation = Simulation(scenario, Computed(), [events.append, *(checker.observe for checker in checkers)])
    while not simulation.finished:
        simulation.step()
    submitting = Counter(event.round for event in of(events, Submitted))
    contributing = [len(event.uids) for event in of(events, Gathered) if event.node == "validator:lead"]
    assert len(contributing) == 36
    assert max(contributing) <= 20
    assert sum(submitting[round] for round in range(36)) / 36 == pytest.approx(24.4, abs=1.0)
    assert sum(contributing) / 36 == pytest.approx(16.9, abs=1.0)
    assert len({event.uid for event in of(events, Submitted)}) >= 70
