"""The scenarios that come with covsim: found by name, valid, and what their names promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covsim.scenario import load, shipped_scenarios, warnings
from covsim.scenario.json_schema import json_schema_text
from covsim.scenario.shipped import find, shipped_folder


def test_the_named_ones_are_there() -> None:
    names = {"covenant72b", "covenant72b-as-reported", "covenant72b-literal", "covenant72b-d64", "quickstart"}
    assert names <= set(shipped_scenarios())


@pytest.mark.parametrize("name", shipped_scenarios())
def test_each_is_valid_and_called_like_its_file(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name.replace("/", "-").replace(".", "-")
    assert scenario.description


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("quickstart").name == load("quickstart.yaml").name == "quickstart"
    (tmp_path / "quickstart.yaml").write_text("extends: covenant72b\nname: mine\n")
    assert load("quickstart.yaml").name == "mine"
    assert find("nothing", tmp_path)[0] == tmp_path / "nothing"


def test_the_flagship_is_the_run_of_the_report() -> None:
    scenario = load("covenant72b")
    assert scenario.peers == 72
    assert {name: cohort.count for name, cohort in scenario.cohorts.items()} == {
        "honest": None,
        "lazy": 8,
        "flippers": 4,
        "copycats": 2,
    }
    assert scenario.model.num_parameters == 43_328
    assert load("covenant72b-d64").model.num_parameters == 135_808
    assert scenario.stop.rounds == 30


def test_literal_links_are_warned_of() -> None:
    assert any("72 of 72 peers can never land" in warning for warning in warnings(load("covenant72b-literal")))
    assert not any("land" in warning for warning in warnings(load("covenant72b-as-reported")))


def test_the_json_schema_is_up_to_date() -> None:
    """After a change: `covsim schema > scenarios/schema.json`."""
    assert (shipped_folder() / "schema.json").read_text(encoding="utf-8") == json_schema_text()
    assert json.loads(json_schema_text())["title"] == "covsim scenario"
