"""The commands that run nothing themselves: check, show, schema, list, papers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import app
from covsim.protocol import protocols
from covsim.scenario import load, loads
from covsim.scenario.catalog import SORTS, catalog, sources
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


PLUGIN = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def with_plugin(tmp_path: Path) -> Path:
    """A scenario that names a plugin, which leaves a trace if it runs."""
    (tmp_path / "part.py").write_text(PLUGIN)
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("extends: quickstart\nname: mine\nplugins: [part.py]\nprotocol: {kind: of_the_plugin}\n")
    return scenario


def test_check_runs_no_plugin_and_goes_on(with_plugin: Path) -> None:
    code, out, err = invoke("check", str(with_plugin), str(BASE))
    assert (code, err) == (0, "")
    unchecked, *others = out.splitlines()
    assert unchecked == f"{with_plugin}: not checked: names plugins, which only `covsim run` loads: part.py"
    assert others[0] == f"{BASE}: ok"
    assert not with_plugin.with_name("ran").exists()


def test_show_runs_no_plugin(with_plugin: Path) -> None:
    code, out, err = invoke("show", str(with_plugin))
    assert (code, out) == (2, "")
    assert err == f"{with_plugin}: names plugins, which only `covsim run` loads: part.py\n"
    assert not with_plugin.with_name("ran").exists()


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
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == list(catalog(sort))
    assert all(len(line.split()) > 2 for line in lines)


def test_list_of_one_sort_says_where_its_parts_come_from() -> None:
    """Under the line of each part, in columns of their own and wrapped."""
    _, out, _ = invoke("list", "protocols")
    entries: dict[str, list[str]] = {}
    name = ""
    for line in out.splitlines():
        if line.startswith(" "):
            entries[name].append(line)
        else:
            name = line.split()[0]
            entries[name] = []
    column = len("streaming_diloco  ")
    assert entries.keys() == sources("protocols").keys() == set(protocols)
    for name, lines in entries.items():
        assert all(line[:column].isspace() and not line[column].isspace() and len(line) <= 120 for line in lines)
        assert " ".join(line[column:] for line in lines) == sources("protocols")[name]
    assert entries["sparta"] == [f"{'':{column}}Source: SPARTA (Exo Labs, exo-explore/gym)"]
    assert len(entries["async_diloco"]) == 2


def test_a_source_is_one_sentence() -> None:
    assert sources("behaviors")["sign_flip"] == "Source: Li et al. 2019, RSA (arXiv 1811.03761), with a scale"
    assert sources("compressors")["topk"].endswith("and makes it even")
    assert sources("links") == sources("scenarios") == {}


def test_list_everything() -> None:
    _, out, _ = invoke("list")
    assert [line[:-1] for line in out.splitlines() if line.endswith(":")] == list(SORTS)
    assert "  sign_flip" in out
    assert "Source: " not in out


def test_list_of_what_is_not_there() -> None:
    code, _, err = invoke("list", "behaviours")
    assert code == 2
    assert err.startswith("nothing is called 'behaviours' (did you mean 'behaviors'?); there are behaviors,")


def test_papers_hands_over_to_the_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        asked.append(arguments)
        return 1

    monkeypatch.setattr("covsim.sweep.papers.__main__.main", main)
    assert invoke("papers")[0] == 1
    assert invoke("papers", "c4", "c1", "--jobs", "1")[0] == 1
    assert asked == [["all"], ["c4", "c1", "--jobs", "1"]]


def test_papers_without_such_a_study() -> None:
    code, out, err = invoke("papers", "c1", "cc2")
    assert (code, out) == (2, "")
    assert err.startswith("no study is called 'cc2' (did you mean 'c2'?); there are c1, c2,")


@pytest.mark.parametrize(
    "arguments", [["run", "--seed", "many", "quickstart"], ["runn"], ["check"], ["papers", "--jobs", "0"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert invoke(*arguments)[0] == 2
