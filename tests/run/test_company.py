"""Rounds of all peers worked out together: the same events as of peers that are a process each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.behaviors.base import Behavior, PeerVerbs, Script
from covsim.digest import Digest
from covsim.events import (
    BatchCut,
    Evaluated,
    Event,
    Gathered,
    RoundSettled,
    RoundSkipped,
    RunStopped,
    Submitted,
    Transferred,
)
from covsim.nodes.bundles import Bundles, Lot
from covsim.nodes.seam import Computed
from covsim.observing import Backlog, Observers, Stretch
from covsim.record.checkers import all_checkers
from covsim.record.runner import run
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.loading import loads
from covsim.scenario.resolve import resolved_text
from covsim.simulation import Simulation

SIZE = ["peers=40", "stop.rounds=5", "gauntlet.evaluated_per_window=8", "selection.gather=8", "selection.reserve=4"]


def scaled(*overrides: str) -> Scenario:
    """A small version of the scenario that shows how far the clock carries."""
    return load("scale/peers", [*SIZE, *overrides])


def changed(scenario: Scenario, *overrides: str) -> Scenario:
    return loads(resolved_text(scenario), "test", list(overrides))


def played(scenario: Scenario) -> tuple[list[Event], Digest]:
    """A whole run in memory with all checkers on."""
    events, digest = list[Event](), Digest()
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    simulation = Simulation(scenario, Computed(), (events.append, digest, *(checker.observe for checker in checkers)))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return events, digest


def one_by_one(events: list[Event]) -> Counter[str]:
    """Events without their order among those of one instant; NaN equals NaN."""
    return Counter(repr(event) for event in events)


LIVES = {
    "as shipped": [],
    "late uploads": ["cohorts.lazy.behavior={kind: late}"],
    "slow and late": ["cohorts.flippers.when_slow={kind: late}", "cohorts.flippers.speed=0.6"],
    "rounds skipped": ["cohorts.flippers.when_slow={kind: late}", "cohorts.flippers.speed=0.25"],
    "gathers over windows": ["timeline.gather_timeout=9000 s", "cohorts.lazy.downlink=60 Mb/s"],
    "gathers cut": ["timeline.gather_timeout=250 s", "cohorts.lazy.downlink=20 Mb/s"],
    "nothing sent": ["cohorts.lazy.behavior={kind: intermittent}"],
    "idle": ["cohorts.lazy.behavior={kind: idle}"],
    "too late to count": ["cohorts.honest.uplink=62 Mb/s", "cohorts.lazy.uplink=40 Mb/s"],
    "invalid": ["cohorts.lazy.behavior={kind: malformed, flaws: [nan]}"],
    "bytes of their own": ["cohorts.lazy.behavior={kind: random_payload}"],
    "steps of many lengths": ["cohorts.lazy.step_noise={kind: lognormal, sigma: 0.3}"],
    "smaller batches": ["cohorts.flippers.when_slow={kind: smaller_batch}", "cohorts.flippers.speed=0.5"],
    "work beside steps": ["deployment.compression=20 s", "deployment.decoding=2 s"],
    "all alike": ["cohorts.honest.speed=1", "cohorts.honest.uplink=110 Mb/s", "cohorts.honest.downlink=500 Mb/s"],
    "preempted": ["cohorts.lazy.preemption={every: 40 min, lasts: 5 min}"],
    "by hours": ["stop={simulated: 3 h, rounds: 50}"],
    "at the last instant": [
        "stop={simulated: 40 min, rounds: 50}",
        "protocol.inner_steps=60",
        "cohorts.flippers.speed=1",
        "cohorts.flippers.when_slow={kind: late}",
    ],
    "stale samples": [
        "cohorts.lazy.behavior={kind: desynced}",
        "cohorts.lazy.when_slow={kind: late}",
        "cohorts.lazy.speed=0.4",
    ],
    "two validators": ["validators={lead: {stake: 2}, second: {stake: 1}}"],
    "stalls": ["timeline.stalls=[{at: 1 h, lasts: 10 min}]"],
    "by loss": ["stop={loss: 5.1, rounds: 8}"],
}


SHOWS: dict[str, Callable[[Event], bool]] = {
    "rounds skipped": lambda event: isinstance(event, RoundSkipped),
    "smaller batches": lambda event: isinstance(event, BatchCut),
    "too late to count": lambda event: isinstance(event, Submitted) and not event.on_time,
    "gathers cut": lambda event: isinstance(event, Transferred) and not event.complete,
    "gathers over windows": lambda event: isinstance(event, Gathered) and event.gather_s > 2040,
    "preempted": lambda event: isinstance(event, RoundSettled) and event.idle_preempted_s > 0,
    "stale samples": lambda event: isinstance(event, Evaluated) and event.steps_behind > 0,
    "nothing sent": lambda event: isinstance(event, Evaluated) and event.status == "missing",
    "invalid": lambda event: isinstance(event, Evaluated) and event.status == "invalid",
    "by hours": lambda event: isinstance(event, RunStopped) and event.reason == "simulated",
    "at the last instant": lambda event: isinstance(event, RunStopped) and event.reason == "simulated",
    "by loss": lambda event: isinstance(event, RunStopped) and event.reason == "loss",
}


@pytest.mark.parametrize("life", LIVES)
def test_the_same_happens(life: str) -> None:
    """Every event and value, whatever the order within one instant. Catches a second that is booked otherwise.

    And the life shows what it is called. Catches a comparison of runs in which nothing of the kind occurs.
    """
    together = scaled(*LIVES[life])
    single, company = played(changed(together, "compute.rounds=single"))[0], played(together)[0]
    assert len(single) > 200
    assert one_by_one(company) == one_by_one(single)
    assert all(earlier.time_s <= later.time_s for earlier, later in pairwise(company))
    assert any(map(SHOWS.get(life, bool), single))


def test_real_training_is_the_same_too(tiny: Scenario) -> None:
    """What was learned as well, with error feedback and matches. Catches payloads that are made in another state."""
    looking = [name for name, cohort in tiny.cohorts.items() if cohort.behavior.knowledge != "own"]
    plain = ["compute.transfers=bundled", "store.read_failure=0", "chain.log=[]", "timeline.gather_timeout=1000 s"]
    scenario = changed(tiny, *plain, *(f"cohorts.{name}.behavior=honest" for name in looking))
    single, company = played(scenario), played(changed(scenario, "compute.rounds=together"))
    assert one_by_one(company[0]) == one_by_one(single[0])
    assert any(isinstance(event, Submitted) for event in single[0])
    assert company[1].learning == single[1].learning


def test_tables_and_summary_are_the_same(tmp_path: Any) -> None:
    """At the level without a log and at the one with every transfer. Catches rows that the recorder books otherwise."""
    for level in ("summary", "transfers"):
        runs = []
        for rounds in ("single", "together"):
            scenario = scaled(f"record.level={level}", f"compute.rounds={rounds}")
            runs.append(run(scenario, resolved_text(scenario), tmp_path / level / rounds))
        single, company = runs
        tables = sorted(path.name for path in single.folder.glob("*.parquet"))
        assert len(tables) >= 2
        for name in tables:
            one, other = (_sorted(pd.read_parquet(each.folder / name)) for each in runs)
            pd.testing.assert_frame_equal(one, other)
        same = [key for key in single.summary if not key.startswith(("digest", "wall")) and "wall" not in key]
        different = {key for key in same if not _equal(single.summary[key], company.summary[key])}
        assert not {key for key in different if "scenario" not in key}


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(list(frame.columns), ignore_index=True)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["compute.transfers=single"], "compute.transfers: single"),
        (["cohorts.lazy.behavior={kind: copycat}"], "cohort 'lazy', who look at others' payloads"),
        (["cohorts.lazy.membership={kind: churn, leaves: 0.2}"], "cohort 'lazy', who come and go"),
        (["chain.log=[payload_hashes]"], "chain.log: payload_hashes"),
        (["stop={tokens: 1000000}"], "stop.tokens"),
        (["timeline.gather_timeout=240 s"], "not longer than its put_window"),
        (["selection.delay_windows=0"], "selection.delay_windows: 0"),
    ],
)
def test_what_cannot_be_played_together_is_refused(overrides: list[str], words: str) -> None:
    """In one line, when it is read. Catches a run that leaves something out in silence."""
    with pytest.raises(ScenarioError, match=words):
        scaled(*overrides)


@pytest.mark.parametrize("kind", ["debug_flood", "early", "restarter", "sybil", "spike_farmer"])
def test_a_script_that_needs_its_own_process_says_so(kind: str) -> None:
    """Verbs that look at others or at the time stop the run. Catches a verb that does nothing."""
    with pytest.raises((ValueError, ScenarioError), match=r"compute\.rounds|come and go|look at others"):
        played(scaled(f"cohorts.lazy.behavior={{kind: {kind}}}"))


def test_a_payload_may_follow_the_gather() -> None:
    """A script that encodes, gathers and only then uploads. Catches an upload that nobody brings into the store."""

    class Afterwards(Behavior):
        """Uploads when all others have been gathered."""

        kind: Literal["afterwards"] = "afterwards"

        def play_round(self, peer: PeerVerbs) -> Script:
            update = yield from peer.train(peer.assigned_batches())
            payload = yield from peer.encode(update)
            yield from peer.sync()
            yield from peer.submit_payload(payload)

    scenario = scaled()
    cohorts = scenario.cohorts | {"lazy": scenario.cohorts["lazy"].model_copy(update={"behavior": Afterwards()})}
    together = scenario.model_copy(update={"cohorts": cohorts})
    compute = scenario.compute.model_copy(update={"rounds": "single"})
    single, company = played(together.model_copy(update={"compute": compute}))[0], played(together)[0]
    assert one_by_one(company) == one_by_one(single)


# Gathers of many at once ----------------------------------------------------------------------------------------------

TIMES = st.floats(0, 1000, allow_nan=False)


@given(
    st.lists(st.tuples(TIMES, st.integers(0, 5), st.floats(1, 1e9), st.booleans()), max_size=8),
    st.lists(st.tuples(TIMES, st.floats(1e5, 1e10), st.integers(0, 5)), min_size=1, max_size=6),
    TIMES,
    st.floats(0, 5),
)
def test_ends_of_many_are_those_of_each(
    arrivals: list[Any], peers: list[tuple[float, float, int]], waited: float, latency: float
) -> None:
    """To the last bit, over any arrivals. Catches a comparison that goes the other way for arrays."""
    commons = SimpleNamespace(poll_s=1.0)
    bundles = Bundles(cast(Any, commons), latency)
    lot = Lot(cast(Any, None), arrivals=sorted(arrivals), waited_until_s=waited)
    began, rates, uids = (np.array(column) for column in zip(*peers, strict=True))
    found = bundles.ends(lot, rates / 8, began, uids)
    for place, (began_s, rate, uid) in enumerate(peers):
        link = SimpleNamespace(capacity_bits_per_s=rate)
        assert tuple(column[place] for column in found) == bundles._end(lot, cast(Any, link), began_s, uid)


# Rows -----------------------------------------------------------------------------------------------------------------


def test_a_stretch_reads_the_same_as_its_events() -> None:
    """Digests over rows and over the events made of them. Catches a field that is packed in another place."""
    events = played(scaled("compute.rounds=single"))[0]
    rows: dict[type[Event], list[Any]] = {Submitted: [], RoundSettled: [], Transferred: []}
    others = []
    for event in events:
        if type(event) in rows:
            rows[type(event)].append(tuple(getattr(event, item.name) for item in fields(event)))
        else:
            others.append(event)
    stretch, by_rows, by_events = Stretch(others, rows), Digest(), Digest()
    by_rows.take(stretch)
    for event in stretch:
        by_events.add(event)
    assert len(stretch) == len(events) == by_rows.num_events
    assert (by_rows.clock, by_rows.learning) == (by_events.clock, by_events.learning)


def test_a_backlog_keeps_the_future() -> None:
    """Rows of later wait, and what never comes is not shown. Catches events that are shown before their time."""
    seen: list[Event] = []
    backlog = Backlog(Observers([seen.append]), acting=Observers([]))
    backlog.rows(RoundSkipped).extend([(3.0, 1, 0), (1.0, 2, 0), (2.0, 3, 0)])
    backlog.emit(RoundSkipped(1.5, 9, 0))
    backlog.show_before(2.0)
    assert [(event.time_s, cast(RoundSkipped, event).uid) for event in seen] == [(1.0, 2), (1.5, 9)]
    backlog.end(2.0)
    assert [event.time_s for event in seen] == [1.0, 1.5, 2.0]
    backlog.end(9.0)
    assert len(seen) == 3
