"""Seconds, bytes and shares of time against published figures: A4 to A9, A12 to A15, B1 to B3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from covsim.scenario import load
from covsim.sweep.papers import layers, network_vectors, timing
from covsim.sweep.papers.publishing import FORMULAS
from covsim.sweep.papers.verdicts import COLUMNS, Verdict, read

PUBLISHED = Path(__file__).parents[2] / "results" / "published"

CHEAP: dict[str, Callable[[], Verdict]] = {
    "A4": timing.identity,
    "A7": timing.ring_utilization,
    "A8": timing.ring_seconds,
    "A9": timing.communication_share,
    "A12": timing.tokens,
    "A13": lambda: layers.hours()[0],
    "A15": timing.measured,
    "B1": lambda: network_vectors.judge()[0],
    "B2": lambda: network_vectors.judge()[1],
    "B3": lambda: network_vectors.judge()[2],
}
WINDOWED: dict[str, Callable[[], Verdict]] = {"A5": timing.literal_links, "A6": timing.links_as_bytes}


def published(id: str) -> dict[str, str]:
    """The published row of a claim."""
    return next(dict(row) for row in read(PUBLISHED / "papers.csv") if row["id"] == id)


def row(verdict: Verdict) -> dict[str, str]:
    """A verdict as it is published."""
    return {name: str(getattr(verdict, name)) for name in COLUMNS}


@pytest.mark.parametrize("id", list(CHEAP))
def test_a_row_is_reproduced_and_published_as_computed(id: str) -> None:
    """Would catch a model that drifts from the source, and a table that nobody wrote again."""
    verdict = CHEAP[id]()
    assert verdict.status == "reproduced", verdict
    assert row(verdict) == published(id)


@pytest.mark.parametrize("id", list(WINDOWED))
def test_windowed_rows(id: str) -> None:
    """The store, the windows and the gathers take what the arithmetic says."""
    verdict = WINDOWED[id]()
    assert verdict.status == "reproduced", verdict
    assert row(verdict) == published(id)


def test_every_target_has_a_row() -> None:
    """And no gate of the published ones fails."""
    targets, _ = FORMULAS["timing"]
    for target in targets:
        found = published(target)
        assert found["kind"] == "report" or found["status"] == "reproduced", found


def test_a_column_of_table_4_is_as_published() -> None:
    """1 billion parameters, data parallel and streaming with overlap in FP4: within a step of the grid."""
    table = pd.read_csv(PUBLISHED / "papers" / "a14.csv")
    for method in ("data-parallel", "streaming-overlap-fp4"):
        own = layers.column("1b", method)
        assert own["grid_steps_off"].abs().max() <= 1
        theirs = table[table["scenario"] == f"papers/a14/1b-{method}"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, theirs, rtol=1e-6)


@pytest.mark.slow
def test_all_75_cells() -> None:
    """The gate: each within a step of the grid, at most two within two; and the table is what the code computes."""
    own = layers.cells()
    assert len(own) == 75
    assert own["grid_steps_off"].abs().max() <= 2
    assert (own["grid_steps_off"].abs() > 1).sum() <= 2
    assert row(layers.verdict(own)) == published("A14")
    pd.testing.assert_frame_equal(own, pd.read_csv(PUBLISHED / "papers" / "a14.csv"), rtol=1e-6)


def test_the_gate_of_table_4_can_fail() -> None:
    """Three cells two steps off, or one that is three."""
    table = pd.DataFrame({"scenario": ["papers/a14/x"] * 75, "utilization": 0.5, "grid_steps_off": 0})
    assert layers.verdict(table).status == "reproduced"
    table.loc[:1, "grid_steps_off"] = [2, -2]
    assert layers.verdict(table).status == "reproduced"
    table.loc[2, "grid_steps_off"] = 2
    assert layers.verdict(table).status == "not reproduced"
    table["grid_steps_off"] = [3] + [0] * 74
    assert layers.verdict(table).status == "not reproduced"


def test_bisection_finds_the_first_place_that_reaches_it() -> None:
    """Against a walk over the whole grid, and where nothing does."""
    for first in (0, 1, 24, 48, 49):
        assert layers.bandwidth_for(0.5, lambda place, first=first: 0.6 if place >= first else 0.1) == first  # type: ignore[misc]
    assert layers.bandwidth_for(0.5, lambda _: 0.1) == len(layers.GRID) - 1


def test_printed_values_lie_on_the_grid() -> None:
    """Each is a place of it, rounded to a digit behind the point; would catch a slip in copying the table."""
    for size in layers.TABLE_4.values():
        for values in size.values():
            assert all(abs(layers.GRID[layers.place_of(value)] - value) <= 0.1 for value in values)
            assert list(values) == sorted(values)


def test_scenarios_of_table_4_are_the_published_ones() -> None:
    """Parameters, layers, seconds and fragments of the source."""
    sizes = {"1b": (1e9, 24, 0.1), "10b": (1e10, 48, 0.8), "100b": (1e11, 108, 4.9)}
    bits = {"data-parallel": 16, "diloco": 16, "streaming": 16, "streaming-overlap": 16, "streaming-overlap-fp4": 4}
    for size, (parameters, num_layers, step_s) in sizes.items():
        for method, width in bits.items():
            one = load(f"papers/a14/{size}-{method}")
            assert (one.deployment.layers, one.inner_step_s) == (num_layers, step_s)
            fragments = one.plan.fragments.layers_of(num_layers)
            assert {len(fragment) for fragment in fragments} == ({3} if "streaming" in method else {num_layers})
            assert one.payload_bytes * len(fragments) == pytest.approx(parameters * width / 8, rel=1e-4)
            assert one.plan.overlap_steps == (1 if "overlap" in method else None)
