"""Every behavior in one run: whatever they do to each other, it ends, its books balance, and it resumes to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from covsim.behaviors import Behavior, behaviors
from covsim.events import NodeJoined, OuterStepTaken, RoundSettled, Submitted
from covsim.record.checkers import all_checkers
from covsim.record.checkpoint import newest_checkpoint
from covsim.record.runner import resume, run
from covsim.scenario import Scenario, loads
from covsim.scenario.resolve import resolved_text

READERS = ("alie", "ipm", "min_max", "min_sum", "mimic")
BY_LUCK = {"copycat", "intermittent"}  # if the original comes soon; if the dice say so in any of eight rounds
NEVER_ON_TIME = {"idle", "early", "late"}
ROUNDS = 4
PROTOCOLS = {
    "sparseloco": "{kind: sparseloco, inner_steps: 3, k: 64}",
    "data_parallel": "data_parallel",
    "demo": "demo",
    "async_diloco": "{kind: async_diloco, inner_steps: 3}",
    "streaming_diloco": "{kind: streaming_diloco, inner_steps: 3, overlap_steps: 1}",
    "sparta": "sparta",
}


def zoo(tiny: Scenario, *changes: str) -> Scenario:
    """Two peers of each behavior, and two more of those that can read what is public instead of everything."""
    minds: dict[str, Behavior] = {kind: part() for kind, part in behaviors.items()}
    quick: dict[str, Behavior] = {f"{kind}_2": behaviors[kind](reads="observed", most=1, until=0.8) for kind in READERS}
    quick |= {"disguised": behaviors["copycat"](shuffle=0.2, noise=0.5, scale=2.0)}
    minds |= {"restarter_2": behaviors["restarter"](hopes=1)}
    two, fast = (tiny.cohorts[name].model_copy(update={"count": 2}) for name in ("lazy", "copycats"))
    cohorts = {name: two.model_copy(update={"behavior": mind}) for name, mind in minds.items()}
    cohorts |= {name: fast.model_copy(update={"behavior": mind}) for name, mind in quick.items()}
    honest = {"some": tiny.cohorts["honest"]}
    scenario = tiny.model_copy(update={"cohorts": {**honest, **cohorts}, "peers": 2 * len(cohorts) + 8})
    settings = ("selection.gather=8", "gauntlet.evaluated_per_window=20", "compute.threads=1", f"stop.rounds={ROUNDS}")
    return loads(resolved_text(scenario), overrides=[*settings, *changes])


def check(scenario: Scenario, play: Any) -> None:
    """It ends with all invariants held, and honest peers step every round whatever is thrown at them."""
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    some = {event.uid for event in events if isinstance(event, NodeJoined) and event.cohort == "some"}
    assert len(some) == 8
    settled = [event.uid for event in events if isinstance(event, RoundSettled) and event.uid in some]
    stepped = [event.node for event in events if isinstance(event, OuterStepTaken)]
    names = {f"peer:{uid}" for uid in some}
    assert len(settled) == len([node for node in stepped if node in names]) == len(some) * ROUNDS
    cohorts = {event.uid: event.cohort for event in events if isinstance(event, NodeJoined)}
    on_time = {cohorts[event.uid] for event in events if isinstance(event, Submitted) and event.on_time}
    assert set(scenario.cohorts) - on_time - BY_LUCK == NEVER_ON_TIME
    assert sum(cohort == "restarter_2" for cohort in cohorts.values()) > 2


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_whatever_the_luck(seed: int, tiny: Scenario, play: Any) -> None:
    check(zoo(tiny, f"seed={seed}"), play)


@pytest.fixture(scope="module")
def payloads(tiny: Scenario, play: Any) -> dict[str, dict[int, set[str]]]:
    """The sha256 of what each cohort submitted, by round."""
    scenario = zoo(tiny, "stop.rounds=2", "cohorts.copycat.uplink=1 Gb/s")
    events, _ = play(scenario)
    cohorts = {event.uid: event.cohort for event in events if isinstance(event, NodeJoined)}
    found: dict[str, dict[int, set[str]]] = {cohort: {0: set(), 1: set()} for cohort in scenario.cohorts}
    for event in events:
        if isinstance(event, Submitted):
            found[cohorts[event.uid]][event.round].add(event.payload_sha256)
    return found


@pytest.mark.parametrize("cohort", [*READERS, "zero_payload"])
def test_a_cohort_that_submits_one_update_submits_the_same_bytes(
    cohort: str, payloads: dict[str, dict[int, set[str]]]
) -> None:
    """In the first round, while error buffers are empty; so the overlap check can see them."""
    assert len(payloads[cohort][0]) == 1


@pytest.mark.parametrize("cohort", ["honest", "sybil", "colluders", "gaussian_noise"])
def test_others_submit_something_each(cohort: str, payloads: dict[str, dict[int, set[str]]]) -> None:
    """Slices are disjoint, dice of one peer are not those of another, and only one of the sybils can claim tokens."""
    assert len(payloads[cohort][0]) == 2


def test_what_the_attackers_submit_is_their_own(payloads: dict[str, dict[int, set[str]]]) -> None:
    """No two attacks come to the same, but while theta has not moved, free riders have nothing but zeros."""
    zeros = payloads["zero_payload"]
    assert payloads["free_rider"][0] == payloads["disguised_free_rider"][0] == zeros[0]
    assert not payloads["free_rider"][1] & zeros[1]
    assert not payloads["disguised_free_rider"][1] & zeros[1]
    assert payloads["stale_resubmit"][0] == payloads["stale_resubmit"][1]
    originals = set().union(*(found[1] for cohort, found in payloads.items() if cohort != "copycat"))
    assert payloads["copycat"][1] <= originals
    distinct = [payloads[cohort][0].copy().pop() for cohort in (*READERS, "norm_stuffing", "scaling", "label_flip")]
    assert len(set(distinct)) == len(distinct)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 13))
def test_runs_with_ten_more_seeds(seed: int, tiny: Scenario, play: Any) -> None:
    check(zoo(tiny, f"seed={seed}"), play)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "sparseloco"])
def test_runs_under_every_family_of_protocols(protocol: str, tiny: Scenario, play: Any) -> None:
    """Dense payloads, transforms, gradients, own weights, exchanges that overlap: scripts know of none of these."""
    deployment = "deployment={preset: same, inner_step: 1 s, evaluation: 0.1 s}"
    scenario = zoo(tiny, f"protocol={PROTOCOLS[protocol]}", deployment)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events, _ = play(scenario, [checker.observe for checker in checkers])
    assert sum(isinstance(event, Submitted) for event in events) > 2 * len(behaviors)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from covsim.record.runner import run
from covsim.scenario import loads

seen, last = 0, int(sys.argv[1])

def observe(event):
    global seen
    seen += 1
    if seen == last:
        os.kill(os.getpid(), signal.SIGKILL)

run(loads(Path(sys.argv[2]).read_text()), "text", out=Path(sys.argv[3]), observers=[observe])
"""


def test_resumes_over_its_tape_to_the_same_bits(tiny: Scenario, tmp_path: Path) -> None:
    """Notes, what was told, updates known to others, norms that were observed: all must come back after a kill."""
    scenario = zoo(tiny, "record.checkpoint=0.3 s")
    seen: list[Any] = []
    whole = run(scenario, "text", out=tmp_path / "whole", observers=[seen.append]).folder
    text = tmp_path / "zoo.yaml"
    text.write_text(resolved_text(scenario))
    command = [sys.executable, "-c", PROGRAM, str(len(seen) * 9 // 10), str(text), str(tmp_path / "cut")]
    killed = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    [folder] = tmp_path.glob("cut/*/*")
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.num_events > len(seen) // 4, "it would begin again, and prove nothing"
    resume(folder)
    for name in ("final.safetensors", "rounds.parquet", "peers.parquet", "verdicts.parquet", "tape/tape.bin"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
