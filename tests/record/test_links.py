"""The record of links that vary: it says what they carried, and only where they do."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from covsim.events import Event, LinkVaried
from covsim.record.runner import run
from covsim.scenario import Scenario, load

VARYING = [
    "learning=synthetic",
    "stop.rounds=2",
    "cohorts.europe.uplink_varies={kind: random_walk, every: 10 s, sigma: 0.3, bound: 0.4}",
    "cohorts.america.uplink_varies={kind: steps, steps: [{at: 36 min, factor: 0.5}]}",
]
LATENCY_S = 0.05


def scenario(*changes: str, level: str = "transfers") -> Scenario:
    return load("network/base", [*changes, f"record.level={level}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(scenario(*VARYING), "", tmp_path_factory.mktemp("run")).folder


def carried(links: pd.DataFrame, from_s: float, to_s: float) -> float:
    """Bits that the rows say a link carried, all of it in use."""
    ends_s = links.simulated_s.shift(-1).fillna(float("inf")).clip(upper=links.until_s)
    seconds = (ends_s.clip(upper=to_s) - links.simulated_s.clip(lower=from_s)).clip(lower=0)
    return float((seconds * links.bits_per_s).sum())


def test_each_upload_is_what_its_link_carried(folder: Path) -> None:
    """Peers that upload over a link of their own: the rate over time, as recorded, sums to the bytes that landed.

    Catches a change that is not said, or said too late, or of another link.
    """
    links, transfers = pd.read_parquet(folder / "links.parquet"), pd.read_parquet(folder / "transfers.parquet")
    uploads = transfers.query("direction == 'up' and purpose == 'submit'")
    uploads = uploads[uploads.node.isin(set(links.node))]
    assert len(uploads) == 2 * 16
    assert set(links.direction) == {"up"}
    for upload in uploads.itertuples():
        own = links[links.node == upload.node]
        bits = carried(own, upload.started_s + LATENCY_S, upload.simulated_s)
        assert bits == pytest.approx(8 * upload.num_bytes, rel=1e-6)
    assert links.groupby("node").bits_per_s.nunique().max() > 8


def test_a_row_belongs_to_the_round_of_its_window(folder: Path) -> None:
    links = pd.read_parquet(folder / "links.parquet")
    assert set(links["round"]) == {0, 1}
    opened_s = 2040.0 * (links["round"] + 1)
    assert ((links.simulated_s >= opened_s) & (links.simulated_s < opened_s + 2040)).all()


@pytest.mark.parametrize(
    ("changes", "level", "is_there"),
    [(VARYING, "rounds", True), (VARYING, "summary", False), (VARYING[:2], "transfers", False)],
)
def test_it_is_kept_where_asked_for(changes: list[str], level: str, is_there: bool, tmp_path: Path) -> None:
    """And changes nothing else: a run whose links do not vary has no such event, so it keeps its digest."""
    folder = run(scenario(*changes, level=level), "", tmp_path).folder
    assert (folder / "links.parquet").is_file() == is_there


def test_a_level_that_keeps_fewer_events_has_the_same_digest(folder: Path, tmp_path: Path) -> None:
    of_all = json.loads((folder / "summary.json").read_text())["digest.clock"]
    for level in ("summary", "rounds"):
        assert run(scenario(*VARYING, level=level), "", tmp_path).summary["digest.clock"] == of_all


def test_steady_links_say_nothing() -> None:
    """Also under a fault that slows them. Catches events, and so another digest, where nothing varies."""
    from covsim.nodes.seam import Computed
    from covsim.simulation import Simulation

    fault = "faults=[{kind: link_slow, from_round: 0, to_round: 1, factor: 0.8}]"
    events: list[Event] = []
    simulation = Simulation(scenario(*VARYING[:2], fault), Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    assert not [event for event in events if isinstance(event, LinkVaried)]
