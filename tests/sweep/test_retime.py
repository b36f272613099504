"""Grids over links: looked up where the schedule is the same, trained where it is not, and never mixed up."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from covsim.cli_retime import _axis
from covsim.nodes import recorded
from covsim.record.retiming import CannotRetime, answers_of, retime
from covsim.record.runner import run_or_resume
from covsim.scenario import Scenario
from covsim.scenario.loading import loads
from covsim.scenario.resolve import resolved_text
from covsim.scenario.sections import Cohort, ValidatorNode
from covsim.simulation import Simulation
from covsim.sweep.retime import OF_A_NODE, Lookups, grid

AXES = {"network.latency": ["50 ms", "80 ms"], "cohorts.copycats.uplink": ["1 Gb/s", "20 Mb/s"]}


def _point(tiny: Scenario, row: Mapping[str, Any]) -> Scenario:
    return loads(resolved_text(tiny), "test", [f"{path}={row[path]}" for path in AXES])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def table(tiny: Scenario, out: Path) -> pd.DataFrame:
    """Two latencies by two uplinks; copies over the slower one are late."""
    return grid(tiny, AXES, out)


def test_only_a_changed_schedule_is_trained(table: pd.DataFrame) -> None:
    """A latency moves times only; a late copy is not gathered, which is trained once for both latencies.

    Catches lookups that serve never, or always, and rows that teach the rows behind them nothing.
    """
    assert list(table["learning"]) == ["retimed", "trained", "retimed", "retimed"]
    assert all(table["why"].str.startswith("first change") == (table["learning"] == "trained"))
    assert table["loss.final"].nunique() == 2, "the late copies have a schedule of their own"
    assert (table["cpu_s"] > 0).all()


def test_a_looked_up_row_is_the_trained_run(tiny: Scenario, table: pd.DataFrame, tmp_path: Path) -> None:
    """Both digests and every number of the summary, bit for bit. Catches any answer that is not that run's own."""
    for row in table[table["learning"] == "retimed"].to_dict("records"):
        point = _point(tiny, row)
        trained = run_or_resume(point, tmp_path).summary
        for name, value in trained.items():
            if not name.startswith("wall.") and not isinstance(value, dict):
                found = None if pd.isna(row[name]) else row[name]
                assert found == value, name
    clocks = table.loc[table["learning"] == "retimed", "digest.clock"]
    assert clocks.nunique() == len(clocks), "the clocks differ, or nothing was asked"


def test_what_reaches_learning_otherwise_is_trained(tiny: Scenario, out: Path) -> None:
    """Another k has the same schedule. Catches answers that are reused where training differs."""
    table = grid(tiny, {"protocol.k": ["64", "32"]}, out)
    assert list(table["learning"]) == ["retimed", "trained"]
    assert table["why"][1] == "protocol reaches learning"
    assert table["loss.final"].nunique() == 2


def test_a_broken_tape_is_noticed(tiny: Scenario, out: Path) -> None:
    """Lookups must come to the run's digest first. Catches answers that belong to another run."""
    done = run_or_resume(tiny, out)
    with pytest.raises(CannotRetime, match="do not come to the digest"):
        answers_of(done.folder, ("0" * 64, done.summary["digest.learning"]))


def test_a_row_with_a_broken_tape_teaches_nothing(tiny: Scenario, table: pd.DataFrame, out: Path) -> None:
    """Then what it would have answered is unknown, and the base's answers are as before. Catches answers half bound."""
    base, late = (
        run_or_resume(tiny, out),
        _point(tiny, {**dict.fromkeys(AXES, "50 ms"), "cohorts.copycats.uplink": "20 Mb/s"}),
    )
    trained, known = run_or_resume(late, out), Lookups(tiny, base)
    assert trained.skipped, "the table has trained it"
    known.add(late, replace(trained, summary={**trained.summary, "digest.learning": "0" * 64}))
    assert known.find(late)[0] is None
    again, why = known.find(tiny)
    assert again is not None
    assert (again["digest.clock"], why) == (base.summary["digest.clock"], "")
    known.add(late, trained)
    found, why = known.find(late)
    assert found is not None
    assert (found["digest.learning"], why) == (trained.summary["digest.learning"], "")


def test_what_payloads_say_may_be_forgotten(tiny: Scenario, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a long grid whose rows differ when there was too much to keep."""
    base = run_or_resume(tiny, out)
    answers = answers_of(base.folder, (base.summary["digest.clock"], base.summary["digest.learning"]))
    monkeypatch.setattr(recorded, "MOST_DECODED", 0)
    for _ in range(2):
        assert retime(tiny, answers)["digest.learning"] == base.summary["digest.learning"]
        assert answers.decoded, "what the row itself has read is there"


def test_the_collector_works_as_before(tiny: Scenario, out: Path) -> None:
    """Catches a program whose memory grows for ever after a grid, and a collector that somebody has switched off on."""
    base = run_or_resume(tiny, out)
    answers = answers_of(base.folder, (base.summary["digest.clock"], base.summary["digest.learning"]))
    for collects in (False, True):
        (gc.enable if collects else gc.disable)()
        retime(tiny, answers)
        assert gc.isenabled() == collects
    simulations = sum(type(each) is Simulation for each in gc.get_objects())
    retime(tiny, answers)
    assert sum(type(each) is Simulation for each in gc.get_objects()) <= simulations


def test_axes_keep_the_commas_of_brackets() -> None:
    """Catches a mapping that is cut in two."""
    assert _axis("a.b=1, {x: 1, y: [2, 3]}") == ("a.b", ["1", "{x: 1, y: [2, 3]}"])
    with pytest.raises(ValueError, match=r"write a\.b=v1,v2"):
        _axis("a.b")


def test_what_a_node_may_vary_by_is_a_field_of_one() -> None:
    """Catches a name that nobody has, whose grid would always be trained."""
    assert set(Cohort.model_fields) | set(ValidatorNode.model_fields) >= OF_A_NODE
