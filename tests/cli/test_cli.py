"""The commands that run nothing: check, show, schema, list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import app
from covsim.scenario import load, loads
from covsim.scenario.catalog import SORTS, catalog
from covsim.scenario.json_schema import json_schema_text

BASE = Path(__file__).parents[1] / "scenario" / "base.yaml"


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_check_says_ok_and_warns() -> None:
    code, out, err = invoke("check", "covenant72b-literal", str(BASE))
    assert (code, err) == (0, "")
    assert "covenant72b-literal: ok" in out
    assert "covenant72b-literal: warning: 72 of 72 peers can never land" in out
    assert f"{BASE}: ok" in out


def test_check_goes_on_after_a_bad_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("- nothing\n")
    code, out, err = invoke("check", str(bad), "quickstart")
    assert code == 2
    assert err == f"{bad}:1:1: must be a mapping of keys to values, not a list\n"
    assert "quickstart: ok" in out


def test_show_prints_what_loads_back() -> None:
    code, out, err = invoke("show", str(BASE), "peers=30", "cohorts.lazy.share=10 %")
    assert (code, err) == (0, "")
    assert loads(out) == load(BASE, ["peers=30", "cohorts.lazy.share=10 %"])


def test_show_with_a_bad_override() -> None:
    code, out, err = invoke("show", "quickstart", "peeers=3")
    assert (code, out) == (2, "")
    assert err == "command line: peeers=3: unknown key 'peeers' (did you mean 'peers'?)\n"


def test_schema_prints_the_schema() -> None:
    code, out, _ = invoke("schema")
    assert code == 0
    assert out == json_schema_text()
    assert "extends" in json.loads(out)["properties"]


@pytest.mark.parametrize("sort", SORTS)
def test_list_names_every_part_with_a_line(sort: str) -> None:
    code, out, _ = invoke("list", sort)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalog(sort))
    assert all(len(line.split()) > 2 for line in lines)


def test_list_everything() -> None:
    _, out, _ = invoke("list")
    assert [line[:-1] for line in out.splitlines() if line.endswith(":")] == list(SORTS)
    assert "  sign_flip" in out


def test_list_of_what_is_not_there() -> None:
    code, _, err = invoke("list", "behaviours")
    assert code == 2
    assert err.startswith("nothing is called 'behaviours' (did you mean 'behaviors'?); there are behaviors, models,")


@pytest.mark.parametrize("arguments", [["run", "--seed", "many", "quickstart"], ["runn"], ["check"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert invoke(*arguments)[0] == 2
