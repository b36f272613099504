"""Whole small runs: equal runs are equal, what should not matter does not, and the checkers find nothing."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from covsim.behaviors import Lazy
from covsim.events import (
    Evaluated,
    Event,
    Gathered,
    HeldOutMeasured,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RunStopped,
    Submitted,
    Trained,
    Transferred,
)
from covsim.nodes.diagnostics import steps_behind
from covsim.nodes.seam import Computed
from covsim.protocol.lineage import Lineages
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, loads
from covsim.scenario.resolve import resolved_text
from covsim.simulation import Simulation
from covsim.world.machine import ConstantRate


def changed(scenario: Scenario, **sections: Any) -> Scenario:
    return scenario.model_copy(update=sections)


def test_the_checkers_find_nothing(tiny: Scenario, play: Any) -> None:
    checkers = all_checkers(put_window_s=tiny.timeline.put_window)
    events, _ = play(tiny, [checker.observe for checker in checkers])
    assert isinstance(events[-1], RunStopped)
    assert events[-1].reason == "rounds"
    assert events[-1].rounds == 4


def test_every_behavior_does_what_it_says(tiny: Scenario, play: Any) -> None:
    events, _ = play(tiny)
    behavior = {event.uid: event.behavior for event in events if isinstance(event, NodeJoined)}
    trained = {(event.uid, event.round): event for event in events if isinstance(event, Trained)}
    submitted = [event for event in events if isinstance(event, Submitted)]
    assert {behavior[event.uid] for event in submitted} == {"honest", "lazy", "sign_flip", "copycat", "late"}
    assert all(event.on_time is (behavior[event.uid] != "late") for event in submitted)
    for (uid, _), event in trained.items():
        assert event.wanted == (1 if behavior[uid] == "lazy" else 3)
    assert not any(behavior[uid] == "copycat" for uid, _ in trained)
    payloads = {(event.uid, event.round): event.payload_sha256 for event in submitted}
    for event in submitted:
        others = [sha for (uid, round), sha in payloads.items() if uid != event.uid and round == event.round]
        assert (event.payload_sha256 in others) is (
            behavior[event.uid] == "copycat" or payloads[event.uid, event.round] in _copied(submitted, behavior)
        )
    observed = [event for event in events if isinstance(event, Transferred) and event.purpose == "observe"]
    assert {behavior[int(event.node.removeprefix("peer:"))] for event in observed} == {"copycat"}


def _copied(submitted: list[Submitted], behavior: dict[int, str]) -> set[str]:
    return {event.payload_sha256 for event in submitted if behavior[event.uid] == "copycat"}


def test_same_scenario_same_digest(tiny: Scenario, play: Any) -> None:
    first, again = play(tiny)[1], play(loads(resolved_text(tiny)))[1]
    assert (first.clock, first.learning) == (again.clock, again.learning)


def test_another_seed_another_run(tiny: Scenario, play: Any) -> None:
    first, other = play(tiny)[1], play(changed(tiny, seed=4))[1]
    assert first.clock != other.clock
    assert first.learning != other.learning


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_cohort_order_changes_nothing(seed: int, tiny: Scenario, play: Any) -> None:
    """Not even luck: cohorts are dealt in the order of their names."""
    backwards = dict(reversed(tiny.cohorts.items()))
    first, other = play(changed(tiny, seed=seed))[1], play(changed(tiny, seed=seed, cohorts=backwards))[1]
    assert (first.clock, first.learning) == (other.clock, other.learning)


def test_thread_count_changes_nothing(tiny: Scenario, play: Any, threads: None) -> None:
    digests = []
    for count in (1, 2):
        torch.set_num_threads(count)
        digests.append(play(tiny)[1].learning)
    assert digests[0] == digests[1]


def test_thread_count_changes_no_diagnostic(threads: None) -> None:
    """torch cuts sums over more than 32,768 elements by thread, so a model of the flagship's size can tell."""
    luck = torch.Generator().manual_seed(1)
    vectors = torch.randn(20, 3, 43_328, generator=luck)
    seen = []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        seen.append([steps_behind(*triple) for triple in vectors])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_digest_is_the_same_in_any_process(tiny: Scenario) -> None:
    program = (
        "import sys; from covsim.scenario import loads; from covsim.simulation import Simulation;"
        "from covsim.nodes.seam import Computed; from covsim.digest import Digest;"
        "d = Digest(); s = Simulation(loads(sys.stdin.read()), Computed(), (d.add,))\n"
        "while not s.finished: s.step()\n"
        "s.finish(); print(d.clock, d.learning)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=resolved_text(tiny),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "42")
    }
    assert len(seen) == 1


def test_lineages_part_when_reads_fail(tiny: Scenario, play: Any) -> None:
    events, _ = play(tiny)
    final = {event.lineage for event in events if isinstance(event, HeldOutMeasured) and event.round == 3}
    assert len(final) >= 2
    clean = changed(tiny, store=tiny.store.model_copy(update={"read_failure": 0.0}))
    events, _ = play(clean)
    steps = [event for event in events if isinstance(event, OuterStepTaken)]
    for round in range(4):
        assert len({step.lineage for step in steps if step.round == round}) == 1


def test_equal_histories_have_equal_theta(tiny: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node computes its own theta; nodes on one lineage hold the same bits."""
    built = Lineages.__init__
    monkeypatch.setattr(Lineages, "__init__", lambda self, *given, **named: built(self, *given, **named, sharing=False))
    simulation = Simulation(tiny, Computed())
    while not simulation.finished:
        simulation.step()
    nodes = [*simulation.peers, *simulation.validators]
    objects = {id(node.lineage.theta) for node in nodes}
    assert len(objects) == len(nodes), "sharing was not off"
    by_key: dict[str, torch.Tensor] = {}
    for node in nodes:
        assert torch.equal(by_key.setdefault(node.lineage.key, node.lineage.theta), node.lineage.theta)
    assert len(by_key) < len(nodes)


def test_time_adds_up(tiny: Scenario, play: Any) -> None:
    events, _ = play(tiny)
    for uid in range(tiny.peers):
        settled = [event for event in events if isinstance(event, RoundSettled) and event.uid == uid]
        assert [event.round for event in settled] == [0, 1, 2, 3]
        for before, after in itertools.pairwise(settled):
            assert after.started_s == before.time_s, "a round begins where the one before ended"
        for event in settled:
            spans = event.compute_s + event.upload_s + event.download_s + event.idle_s
            assert spans == pytest.approx(event.time_s - event.started_s, abs=1e-6)
            assert event.idle_s >= -1e-6


def test_an_upload_takes_bytes_over_link(tiny: Scenario, play: Any) -> None:
    """A flipper's link is 110 Mb/s flat and it writes regular payloads: the closed form holds."""
    events, _ = play(tiny)
    joined = {event.uid: event for event in events if isinstance(event, NodeJoined)}
    uploads = [e for e in events if isinstance(e, Transferred) and e.purpose == "submit" and e.complete]
    assert uploads
    for upload in uploads:
        link = joined[int(upload.node.removeprefix("peer:"))].uplink_bits_per_s
        assert upload.num_bytes == pytest.approx(tiny.payload_bytes)
        assert upload.time_s - upload.started_s == pytest.approx(tiny.network.latency + 8 * upload.num_bytes / link)


def test_slow_machines_do_fewer_steps(tiny: Scenario, play: Any) -> None:
    honest = tiny.cohorts["honest"]
    slow = honest.model_copy(update={"speed": honest.speed.model_copy(update={"value": 0.5})})
    events, _ = play(changed(tiny, cohorts={**tiny.cohorts, "honest": slow}))
    behavior = {event.uid: event.behavior for event in events if isinstance(event, NodeJoined)}
    steps = {event.steps for event in events if isinstance(event, Trained) and behavior[event.uid] == "honest"}
    # 1,200 s windows hold 3 steps of 400 s at most; what the exchange leaves of a later one holds 1 or 2.
    assert max(steps) == 3
    assert min(steps) in (1, 2)
    for event in events:
        if isinstance(event, Trained):
            assert event.time_s <= (event.round + 1) * tiny.window_s + 1e-6


@pytest.mark.parametrize("judged", [True, False])
def test_nobody_counts_when_links_are_too_slow(judged: bool, tiny: Scenario, play: Any) -> None:
    """An empty gather is judged, as on the live network, or not."""
    quirks = tiny.gauntlet.quirks.model_copy(update={"empty_gather_judged": judged})
    rules = tiny.gauntlet.model_copy(update={"quirks": quirks})
    tight = changed(tiny, timeline=tiny.timeline.model_copy(update={"put_window": 10.0}), gauntlet=rules)
    events, _ = play(tight)
    seen = [event for event in events if isinstance(event, Evaluated)]
    assert bool(seen) == judged
    assert {event.status for event in seen} <= {"missing", "unseen"}
    assert not any(event.on_time for event in events if isinstance(event, Submitted))
    assert {event.outcome for event in events if isinstance(event, Gathered)} == {"empty"}
    assert not any(isinstance(event, OuterStepTaken) for event in events)
    losses = {event.loss for event in events if isinstance(event, HeldOutMeasured)}
    assert len(losses) == 1


def test_a_gather_that_takes_too_long_is_given_up(tiny: Scenario, play: Any) -> None:
    """Downloads of 4 x 1.99 GB at 500 Mb/s take 127 s; 60 s after the uploads they are cut."""
    hasty = changed(tiny, timeline=tiny.timeline.model_copy(update={"gather_timeout": 60.0}))
    events, _ = play(hasty)
    gathered = [event for event in events if isinstance(event, Gathered)]
    honest = {f"peer:{e.uid}" for e in events if isinstance(e, NodeJoined) and e.behavior == "honest"}
    assert {event.outcome for event in gathered if event.node in honest} == {"aborted"}
    assert all(event.gather_s == pytest.approx(60.0) for event in gathered if event.outcome == "aborted")
    assert any(not event.complete and event.num_bytes > 0 for event in events if isinstance(event, Transferred))


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({"rounds": 4, "tokens": 1000}, "tokens"),
        ({"rounds": 4, "simulated": 2000.0}, "simulated"),
        ({"rounds": 4, "loss": 6.0}, "loss"),
        ({"rounds": 4, "bytes": 1.0}, "bytes"),
    ],
)
def test_the_first_stop_condition_ends_the_run(tiny: Scenario, play: Any, stop: dict[str, Any], reason: str) -> None:
    events, _ = play(changed(tiny, stop=tiny.stop.model_copy(update=stop)))
    assert isinstance(events[-1], RunStopped)
    assert events[-1].reason == reason
    assert events[-1].rounds < 4


def test_a_very_slow_peer_still_finds_its_round(tiny: Scenario, play: Any) -> None:
    """Its upload takes 3.3 windows; when it gathers at last, what it needs must not have been deleted."""
    four_megabit = ConstantRate.model_validate({"value": "4 Mb/s"})
    slow = tiny.cohorts["lazy"].model_copy(update={"uplink": four_megabit})
    scenario = changed(tiny, cohorts={**tiny.cohorts, "lazy": slow}, stop=tiny.stop.model_copy(update={"rounds": 6}))
    events, _ = play(scenario)
    (node,) = [event.node for event in events if isinstance(event, NodeJoined) and event.cohort == "lazy"]
    gathers = [event for event in events if isinstance(event, Gathered) and event.node == node]
    assert gathers[0].time_s > 3 * tiny.window_s
    assert gathers[0].outcome == "complete"


class Twice:
    """Submits in time, and once more when it is too late."""

    def play_round(self, peer: Any) -> Any:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update)
        yield from peer.pause(80.0)  # the put window has closed
        yield from peer.submit_payload(b"overwritten")
        yield from peer.sync()


def test_what_was_read_is_judged_not_what_lies_there_later(tiny: Scenario) -> None:
    events: list[Event] = []
    patient = tiny.deployment.model_copy(update={"evaluation": 40.0})
    simulation = Simulation(changed(tiny, deployment=patient), Computed(), (events.append,))
    (peer,) = [peer for peer in simulation.peers if isinstance(peer.spec.behavior, Lazy)]
    peer.spec = replace(peer.spec, behavior=Twice())  # type: ignore[arg-type]
    while not simulation.finished:
        simulation.step()
    stamps = [event.stored_s for event in events if isinstance(event, Submitted) and event.uid == peer.uid]
    assert len(stamps) > 4, "it did not submit twice"
    verdicts = [event for event in events if isinstance(event, Evaluated) and event.uid == peer.uid and event.evaluated]
    assert verdicts
    for verdict in verdicts:
        opens_s = (verdict.round + 1) * tiny.window_s
        assert verdict.status == "ok"
        assert math.isfinite(verdict.random_after)
        assert verdict.stored_s == min(stamp for stamp in stamps if stamp > opens_s)
