"""Places, ranges and links that vary in scenario files: what is read, what is refused, what is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from covsim.scenario import ScenarioError, load, warnings
from covsim.scenario.resolve import resolved_text, run_id, with_files_as_they_are

BASE = Path(__file__).parent / "base.yaml"
EQUAL = ["~cohorts.honest.uplink", "~cohorts.honest.speed", "stop.rounds=40"]
TRACED = ["cohorts.honest.uplink_varies={kind: trace, path: trace.csv}"]


def refused(changes: list[str]) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(BASE, changes)
    return str(caught.value)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trace.csv"
    path.write_text("seconds,factor\n0,1\n60,0.5\n")
    return path


def test_defaults_say_nothing_new() -> None:
    scenario = load(BASE)
    assert scenario.network.model_dump(exclude_defaults=True) == {}
    assert (scenario.store.ranges, scenario.store.rate_limit, scenario.store.region) == (None, None, None)
    assert all(cohort.uplink_varies is None for cohort in scenario.cohorts.values())


def test_a_region_without_an_entry_is_an_error_that_names_it() -> None:
    table = ["network.latencies={eu: {eu: 5 ms, us: 40 ms}}", "store.region=eu"]
    load(BASE, [*table, "cohorts.honest.region=us"])
    complaint = refused([*table, "cohorts.honest.region=asia"])
    assert "cohorts.honest.region=asia: network.latencies has no entry for asia and eu" in complaint
    complaint = refused([*table, "validators.lead.region=usa"])
    assert "validators.lead.region=usa: network.latencies has no entry for usa and eu (did you mean 'us'?)" in complaint


def test_the_run_is_another_when_its_trace_is(trace: Path) -> None:
    scenario = load(BASE, TRACED)
    before = run_id(scenario)
    elsewhere = trace.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.csv").write_text(trace.read_text())
    moved = load(BASE, ["cohorts.honest.uplink_varies={kind: trace, path: elsewhere/other.csv}"])
    assert run_id(moved) == before, "the content counts, not the place"
    trace.write_text("seconds,factor\n0,1\n60,0.25\n")
    assert run_id(with_files_as_they_are(scenario)) != before
    assert "trace.csv" in resolved_text(scenario)


def test_a_bad_trace_is_refused_with_its_line(trace: Path) -> None:
    trace.write_text("seconds,factor\n0,1\n60,\n")
    assert f"{trace}:3: is a gap" in refused(TRACED)
    trace.unlink()
    assert "there is no file" in refused(TRACED)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("store.rate_limit=0", "store.rate_limit=0: must be greater than 0, not 0"),
        ("store.ingress=0 b/s", "store.ingress=0 b/s: must be greater than 0 b/s"),
        ("cohorts.honest.uplink=0 b/s", "must be greater than 0"),
        ("network.regions={eu: {uplink: 0 b/s}}", "must be greater than 0"),
        ("store.ranges={parallel: 0}", "store.ranges.parallel: must be at least 1, not 0"),
        ("cohorts.honest.uplink_varies={kind: steps, steps: [{at: 1 h, factor: 0}]}", "must be greater than 0"),
        ("cohorts.honest.uplink_varies={kind: dayly}", "no variation is called 'dayly' (did you mean 'daily'?)"),
        ("network.jitter={kind: normal}", "no jitter is called 'normal'"),
        ("store.backoff=exponentially", "no backoff is called 'exponentially' (did you mean 'exponential'?)"),
    ],
)
def test_nonsense_is_an_error_at_load(change: str, complaint: str) -> None:
    assert complaint in refused([change])


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (["network.latencies={eu: {us: 40 ms}}"], "network.latencies is not used: the store has no region"),
        (
            ["store.region=eu", "network.regions={us: {uplink: 1 Gb/s}}"],
            "network.regions.us is not used: nobody is in us",
        ),
        (
            ["store.region=eu", "cohorts.honest.region=us", "network.trunks={eu: {uss: 1 Gb/s}}"],
            "network.trunks.eu.uss is not used: nobody is in uss",
        ),
        (
            [
                "store.region=eu",
                "cohorts.honest.region=us",
                "cohorts.lazy.region=asia",
                "network.trunks={us: {asia: 1 Gb/s, eu: 10 Gb/s}}",
            ],
            "network.trunks.us.asia is not used: nothing goes but to and from eu, where the store is",
        ),
        (
            [
                "~timeline",
                "+timeline={kind: barrier, put_window: 180 s}",
                "topology=ring",
                "selection=all",
                "cohorts.honest.region=us",
                "network.trunks={us: {asia: 1 Gb/s}}",
            ],
            "network.trunks.us.asia is not used: nobody is in asia",
        ),
        (
            ["store.region=eu", "cohorts.honest.region=us", "network.latencies={eu: {us: 40 s}}"],
            "18 of 24 peers can never land: 1.99 GB takes 185 s at 110 Mb/s, the put window is 180 s",
        ),
        (
            ["network.latency=20 s", "network.jitter={kind: lognormal, sigma: 1.2}"],
            "24 of 24 peers can never land: 1.99 GB takes 186 s at 110 Mb/s, the put window is 180 s",
        ),
        (
            ["network.jitter={kind: uniform, most: 40 s}", "network.request_overhead=16 s"],
            "24 of 24 peers can never land: 1.99 GB takes 181 s at 110 Mb/s, the put window is 180 s",
        ),
        (
            [
                "store.ranges={size: 64 MB, parallel: 8}",
                "network.request_overhead=10 s",
                "timeline.gather_timeout=290 s",
                "cohorts.honest.uplink=1 Gb/s",
            ],
            "24 of 24 peers cannot finish a full gather: 8 x 1.99 GB take 295 s at 500 Mb/s, "
            "it is given up after 290 s",
        ),
        (
            ["network.request_overhead=60 s", "timeline.put_window=60 s"],
            "a request takes 60 s from the farthest place, the put window is 60 s",
        ),
        (
            ["store.rate_limit=0.1"],
            "store.rate_limit lets 18 requests through in a put window of 180 s, and 24 peers upload in it",
        ),
        (
            ["store.ranges={per_connection: 1 Mb/s}"],
            "nobody can download a payload: 1.99 GB in ranges take 1990 s over 8 connections, "
            "a gather is given up after 900 s",
        ),
        (
            ["store.region=eu", "cohorts.honest.region=us", "network.regions={us: {uplink: 1 Gb/s}}"],
            "region us cannot send all its uploads: 18 x 1.99 GB take 286 s at 1 Gb/s, the put window is 180 s",
        ),
        (
            ["cohorts.honest.uplink_varies={kind: daily, depth: 50 %}"],
            "18 of 18 peers of honest cannot land when their uplink is at its lowest: 1.99 GB takes 289 s at 55 Mb/s, "
            "the put window is 180 s",
        ),
    ],
)
def test_what_is_only_hopeless_is_warned_of(changes: list[str], warning: str) -> None:
    assert warning in warnings(load(BASE, [*EQUAL, *changes]))


def test_what_works_is_not_warned_of() -> None:
    changes: list[Any] = [
        "store.region=eu",
        "cohorts.honest.region=us",
        "network.trunks={us: {eu: 10 Gb/s}}",
        "network.regions={us: {uplink: 10 Gb/s}}",
        "network.latencies={eu: {us: 40 ms}}",
        "store.rate_limit=100",
        "store.ranges={per_connection: 100 Mb/s}",
        "cohorts.honest.uplink_varies={kind: daily, depth: 10 %}",
    ]
    assert warnings(load(BASE, [*EQUAL, *changes])) == []
