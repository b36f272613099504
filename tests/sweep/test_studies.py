"""A study that was stopped goes on where it was, and says in one line what stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from covsim.record import runner
from covsim.record.lock import FolderInUse
from covsim.record.runner import Interrupted, Run, UnfinishedRun
from covsim.scenario import Scenario, resolved_text
from covsim.sweep import studies

FOLDER = Path("results/tiny/0123")
DONE = Run(FOLDER, {"loss.final": 2.5})


def raising(error: BaseException) -> Any:
    def run(*arguments: Any, **options: Any) -> Run:
        raise error

    return run


@pytest.fixture
def study(tiny: Scenario, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """A study of one run, by the name of `one`; holds what it got."""
    got: list[Run] = []
    monkeypatch.setitem(studies.STUDIES, "one", lambda: got.append(studies._run(tiny)))
    return got


def test_a_run_that_was_cut_is_resumed(study: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[Path] = []
    monkeypatch.setattr(runner, "run", raising(UnfinishedRun(FOLDER)))
    monkeypatch.setattr(runner, "resume", lambda folder: resumed.append(folder) or DONE)
    assert studies.main(["one"]) == 0
    assert (study, resumed) == ([DONE], [FOLDER])


@pytest.mark.parametrize("error", [Interrupted(FOLDER), KeyboardInterrupt()])
def test_an_interruption_says_how_to_go_on(
    error: BaseException, study: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "run", raising(error))
    assert studies.main(["one"]) == 130
    assert capsys.readouterr().err == "interrupted; go on with: python -m covsim.sweep.studies one\n"


def test_a_refusal_is_one_line(
    study: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "run", raising(FolderInUse(FOLDER)))
    assert studies.main(["one"]) == 2
    assert capsys.readouterr().err == "results/tiny/0123: is running in another process\n"


def test_the_scenario_beside_a_run_is_its_own(
    study: list[Run], tiny: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Scenario, str]] = []
    monkeypatch.setattr(runner, "run", lambda scenario, text, out: asked.append((scenario, text)) or DONE)
    assert studies.main(["one"]) == 0
    assert asked == [(tiny, resolved_text(tiny))]
