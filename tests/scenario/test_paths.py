"""Files that a scenario brings: found from where they are named, known by their content, not run by a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from covsim.scenario import Scenario, ScenarioError, load, loads, resolved_text, run_id

HERE = Path(__file__).parent
MODEL = """
import torch

def build(width=8):
    return torch.nn.Sequential(torch.nn.Embedding(256, width), torch.nn.Linear(width, 256))
"""
TEXT = "To be, or not to be, that is the question.\n" * 400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a scenario in a folder of its own, beside the files that it brings."""
    study = tmp_path / "study"
    study.mkdir()
    (study / "mine.yaml").write_text(
        f"extends: {HERE / 'base.yaml'}\nname: mine\ndata: {{path: my.txt}}\n"
        "model: {kind: module, path: 'my_model.py:build', options: {width: 8}}\n"
    )
    (study / "my.txt").write_text(TEXT)
    (study / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return study


def paths(scenario: Scenario) -> tuple[str, str]:
    return scenario.data.path or "", scenario.model.model_dump()["path"]


def refusal(*arguments: object) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(*arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_paths_start_from_the_file_that_names_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (f"{folder}/my.txt", f"{folder}/my_model.py:build")
    assert paths(load("study/mine.yaml")) == expected
    below = folder / "below"
    below.mkdir()
    (below / "deeper.yaml").write_text("extends: ../mine.yaml\nname: deeper\ndata: {path: own.txt}\n")
    (below / "own.txt").write_text(TEXT)
    assert paths(load("study/below/deeper.yaml")) == (f"{below}/own.txt", expected[1])
    monkeypatch.chdir(folder)
    assert paths(load("mine.yaml")) == expected
    assert load("mine.yaml").model.num_parameters == 2 * 256 * 8 + 256


def test_overrides_start_from_the_working_folder(folder: Path) -> None:
    (folder.parent / "other.txt").write_text(TEXT)
    for overrides in (["data.path=other.txt"], {"data.path": "other.txt"}, {"data": {"path": "other.txt"}}):
        assert load("study/mine.yaml", overrides).data.path == str(folder.parent / "other.txt")


def test_the_resolved_text_can_be_read_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load("study/mine.yaml")
    text = resolved_text(scenario)
    monkeypatch.chdir("/")
    assert loads(text) == scenario
    assert run_id(loads(text)) == run_id(scenario)


def test_a_run_is_known_by_content_and_not_by_place(folder: Path) -> None:
    before = run_id(load("study/mine.yaml"))
    folder.rename(folder.parent / "moved")
    moved = folder.parent / "moved"
    assert run_id(load("moved/mine.yaml")) == before
    (moved / "my_model.py").write_text(MODEL.replace("Linear(width, 256)", "Linear(width, 257)"))
    edited = run_id(load("moved/mine.yaml"))
    (moved / "my_model.py").write_text("import layers\n" + MODEL)
    (moved / "layers.py").write_text("SIZE = 1\n")
    with_layers = run_id(load("moved/mine.yaml"))
    (moved / "layers.py").write_text("SIZE = 2\n")
    other_layers = run_id(load("moved/mine.yaml"))
    (moved / "my.txt").write_text(TEXT + "That is all.\n")
    assert len({before, edited, with_layers, other_layers, run_id(load("moved/mine.yaml"))}) == 5


def test_a_path_takes_the_place_of_an_inherited_corpus_and_back(folder: Path) -> None:
    (folder / "bundled.yaml").write_text("extends: mine.yaml\nname: b\ndata: {corpus: state_of_the_union}\n")
    (folder / "again.yaml").write_text("extends: bundled.yaml\nname: again\ndata: {path: my.txt, held_out: 10 %}\n")
    assert load("study/bundled.yaml").data.path is None
    assert load("study/again.yaml").data.corpus is None
    assert "corpus" not in resolved_text(load("study/mine.yaml"))
    assert "path" not in resolved_text(load(HERE / "base.yaml"))


def test_a_check_runs_none_of_the_users_code(folder: Path) -> None:
    (folder / "my_model.py").write_text("raise SystemExit('it was run')\n")
    scenario = load("study/mine.yaml")
    assert not scenario.model.known_before_run
    assert run_id(scenario)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.path=none.txt", "command line: data.path=none.txt: there is no file 'none.txt'"),
        ("data.path=study", "command line: data.path=study: there is no file 'study'"),
        (
            "data.path=study/mine.yaml",
            "command line: data.path=study/mine.yaml: 'mine.yaml' must end in .txt, .npy, .bin: text, an array, or "
            "16-bit tokens",
        ),
        ("data.path=3", "command line: data.path=3: must be text, not 3"),
        (
            "model.path=study/my_model.py",
            "command line: model.path=study/my_model.py: 'FOLDER/my_model.py' does not name a function in a Python "
            "file, as my_model.py:build does",
        ),
        ("model.path=x.py:build", "command line: model.path=x.py:build: there is no file 'x.py'"),
        ("model.options={width: [8]}", "command line: model.options={width: [8]}: model.options.width: must be true"),
    ],
)
def test_a_wrong_path_is_one_line(override: str, line: str, folder: Path) -> None:
    assert refusal("study/mine.yaml", [override]).startswith(line.replace("FOLDER", str(folder)))


def test_a_wrong_path_in_a_file_has_its_line(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"extends: {HERE / 'base.yaml'}\nname: mine\ndata:\n  path: your.txt\n")
    assert refusal("study/mine.yaml") == "study/mine.yaml:4:9: data.path: there is no file 'study/your.txt'"
    (folder / "mine.yaml").write_text(f"extends: {HERE / 'base.yaml'}\nname: m\ndata: {{path: {'x' * 5000}.txt}}\n")
    assert refusal("study/mine.yaml").startswith("study/mine.yaml:3:14: data.path: there is no file 'study/xxx")


def test_both_texts_at_once_are_refused(folder: Path) -> None:
    (folder / "both.yaml").write_text("extends: mine.yaml\nname: b\ndata: {path: my.txt, corpus: state_of_the_union}\n")
    assert refusal("study/both.yaml") == "study/both.yaml:3:7: data: give a corpus or a path, not both"
    (folder / "labels.yaml").write_text("extends: mine.yaml\nname: b\ndata: {shards: by_party}\n")
    assert refusal("study/labels.yaml").startswith("study/labels.yaml:3:7: data: these shards need the year")


def test_a_file_that_holds_no_tokens_is_refused_by_a_check(folder: Path) -> None:
    (folder / "my.txt").write_bytes(b"\xff" * 10_000)
    assert refusal("study/mine.yaml").startswith("study/mine.yaml:3:8: data.path: ")
    assert refusal("study/mine.yaml").endswith("my.txt: is not UTF-8 text; bring other tokens as .npy or .bin")
    (folder / "my.txt").write_text("short")
    assert "context 64 is too long for the text" in refusal("study/mine.yaml")
