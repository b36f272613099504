"""Warnings of what cannot work: the arithmetic of the links, the windows and the scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from covsim.scenario import load, warnings

BASE = Path(__file__).parent / "base.yaml"
EQUAL = ["~cohorts.honest.uplink", "~cohorts.honest.speed", "stop.rounds=40"]
"""All links 110 and 500 Mb/s, all machines alike, and long enough for every rule."""


def test_nothing_to_warn_of() -> None:
    assert warnings(load(BASE, EQUAL)) == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            ["timeline.put_window=70 s"],
            "24 of 24 peers can never land: 1.99 GB takes 145 s at 110 Mb/s, the put window is 70 s",
        ),
        (
            ["timeline.put_window=70 s", "cohorts.honest.uplink=300 Mb/s"],
            "6 of 24 peers can never land: 1.99 GB takes 145 s at 110 Mb/s, the put window is 70 s",
        ),
        (
            ["timeline.put_window=144 s"],
            "24 of 24 peers can never land: 1.99 GB takes 145 s at 110 Mb/s, the put window is 144 s",
        ),
        (
            ["store.ingress=2 Gb/s"],
            "the store cannot take all uploads: 24 x 1.99 GB take 191 s at 2 Gb/s, the put window is 180 s",
        ),
        (
            ["timeline.gather_timeout=240 s"],
            "24 of 24 peers cannot finish a full gather: 8 x 1.99 GB take 255 s at 500 Mb/s, "
            "it is given up after 240 s",
        ),
        (
            ["timeline.blocks_per_window=115"],
            "24 of 24 peers cannot do all inner steps: 24 of 30 steps of 40 s fit into a window of 1380 s beside "
            "upload and gather, at the median of them",
        ),
        (
            ["timeline.blocks_per_window=16"],
            "24 of 24 peers cannot do all inner steps: 0 of 30 steps of 40 s fit into a window of 192 s beside "
            "upload and gather, at the median of them",
        ),
        (["selection.gather=24"], "the gather list of 24 has room for all 24 peers: selection leaves nobody out"),
        (
            ["validators.second.downlink=200 Mb/s"],
            "validator second cannot keep up: put window, downloads and 18 evaluations of 8 s take 2390 s, "
            "a window is 2040 s",
        ),
        (
            ["gauntlet.evaluated_per_window=2", "stop.rounds=18"],
            "2 of 24 evaluated over 18 rounds: 1.5 evaluations a peer, "
            "the indicator threshold of 0.1 cannot be reached",
        ),
        (
            ["stop.rounds=12"],
            "18 of 24 evaluated over 12 rounds: 9.0 evaluations a peer, the indicator average reaches 0.37 at most, "
            "and needs about 20 to settle",
        ),
        (
            ["gauntlet.overlap.from_round=40"],
            "a peer copies, but the overlap check acts from round 40 on and the run ends after 40",
        ),
        (
            ["training.inner.schedule.warmup_steps=1200"],
            "the inner learning rate never reaches its peak: 1200 warm-up steps, but the run has 1200",
        ),
        (
            ["model={width: 512, layers: 8, heads: 8}"],
            "needs about 15 GB of memory for 24 peers of 25,478,144 parameters",
        ),
        (["store.max_object=1.98 GB"], "nobody can ever land: a payload is 1.99 GB, the store takes 1.98 GB"),
        (["+cohorts.few={share: 1 %}"], "cohort few has no peers: its share of 24 rounds to none"),
    ],
)
def test_warning(changes: list[str], warning: str) -> None:
    assert warning in warnings(load(BASE, EQUAL + changes))


def test_what_the_store_refuses_is_said_once() -> None:
    lines = warnings(load(BASE, [*EQUAL, "store.max_object=1 GB", "timeline.put_window=70 s", "store.ingress=1 Gb/s"]))
    assert [line for line in lines if "land" in line or "store" in line] == [
        "nobody can ever land: a payload is 1.99 GB, the store takes 1 GB"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        ["timeline.put_window=146 s"],
        ["store.ingress=3 Gb/s"],
        ["store.max_object=2 GB"],
        ["timeline.gather_timeout=256 s"],
        ["timeline.blocks_per_window=134"],
        ["selection.gather=23", "deployment.inner_step=30 s"],
        ["selection=all", "deployment.inner_step=30 s", "timeline.gather_timeout=750 s"],
        ["gauntlet.overlap.from_round=39"],
        ["gauntlet.overlap.from_round=40", "~cohorts.copycats"],
        ["training.inner.schedule.warmup_steps=1199"],
        ["selection=random", "gauntlet.evaluated_per_window=2"],
    ],
)
def test_no_warning_just_inside_the_limit(changes: list[str]) -> None:
    assert warnings(load(BASE, EQUAL + changes)) == []
