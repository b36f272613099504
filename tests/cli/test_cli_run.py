"""`covsim run` around a runner that plays its runs: exit codes, claims, twins, interruptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from covsim import cli_run
from covsim.cli import app
from covsim.events import Event, HeldOutMeasured
from covsim.record.lock import FolderInUse
from covsim.record.runner import CannotResume, CannotWrite, Interrupted, Run, UnfinishedRun
from covsim.scenario import Scenario, resolved_text

BASE = Path(__file__).parents[1] / "scenario" / "base.yaml"
CLAIM = "expect={seeds: 3, claims: [{metric: loss.final, at_most: 2.7}]}"
VERSUS = "expect={seeds: 3, claims: [{metric: loss.final, versus: clean, margin: 2 %}]}"


@dataclass
class Played:
    """Stands in for the runner: remembers what it was asked to run and answers with a loss."""

    loss: Callable[[Scenario], float] = lambda scenario: 2.5
    asked: list[tuple[Scenario, dict[str, Any]]] = field(default_factory=list)
    drawn: list[Path] = field(default_factory=list)
    skipped: bool = False
    error: BaseException | None = None

    def run(
        self,
        scenario: Scenario,
        source_text: str,
        out: Path | None = None,
        force: bool = False,
        observers: Sequence[Callable[[Event], None]] = (),
    ) -> Run:
        self.asked.append((scenario, {"text": source_text, "out": out, "force": force}))
        if self.error is not None:
            raise self.error
        for observer in observers:
            observer(HeldOutMeasured(0.0, "validator:lead", 0, "x", self.loss(scenario)))
        return Run(Path("results/played"), {"loss.final": self.loss(scenario)}, self.skipped)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """The player, in place of the runner, the figures and the closing table."""
    player = Played()
    monkeypatch.setattr(cli_run, "run", player.run)
    monkeypatch.setattr(cli_run.figures, "draw_all", player.drawn.append)
    monkeypatch.setattr(cli_run.headline, "table", lambda summary, folder: f"TABLE {summary['loss.final']} {folder}")
    return player


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["run", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_run_warns_draws_and_ends_with_a_table(played: Played) -> None:
    code, out, err = run(str(BASE), "timeline.put_window=70 s", "--seed", "4", "--out", "there")
    assert code == 0
    assert "warning: 24 of 24 peers can never land" in err
    assert "base  round   1/12" in out
    assert out.endswith("TABLE 2.5 results/played\n")
    assert played.drawn == [Path("results/played")]
    [(scenario, options)] = played.asked
    assert scenario.seed == 4
    assert scenario.timeline.put_window == 70
    assert options == {"text": BASE.read_text(), "out": Path("there"), "force": False}


def test_quiet_prints_the_folder_alone(played: Played) -> None:
    assert run(str(BASE), "--quiet", "--force")[:2] == (0, "results/played\n")
    assert played.asked[0][1]["force"]


def test_a_run_that_is_there_is_skipped(played: Played) -> None:
    played.skipped = True
    code, out, _ = run(str(BASE))
    assert code == 0
    assert "results/played: this very run is there already; --force runs it again" in out


@pytest.mark.parametrize("skipped", [False, True])
def test_figures_are_drawn_where_they_are_missing(
    skipped: bool, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption may come between a run's end and its figures."""
    played.skipped = skipped
    run(str(BASE))
    assert played.drawn == [Path("results/played")]
    monkeypatch.setattr(cli_run.figures, "all_drawn", lambda folder: True)
    run(str(BASE))
    assert played.drawn == [Path("results/played")]


def test_claims_that_hold(played: Played) -> None:
    code, out, _ = run(str(BASE), CLAIM)
    assert code == 0
    assert [scenario.seed for scenario, _ in played.asked] == [0, 1, 2]
    assert "pass" in out


def test_a_claim_that_fails_gives_code_1_and_a_table(played: Played) -> None:
    played.loss = lambda scenario: 2.9 + scenario.seed / 100
    code, out, _ = run(str(BASE), CLAIM, "--quiet")
    assert code == 1
    assert "loss.final at most 2.7" in out
    assert "fail" in out


def test_an_inconclusive_claim_is_no_failure(played: Played) -> None:
    played.loss = lambda scenario: 2.7 + (scenario.seed - 1) / 10
    code, out, _ = run(str(BASE), CLAIM)
    assert code == 0
    assert "inconclusive" in out


def test_a_claim_against_the_clean_twin_runs_both(played: Played) -> None:
    played.loss = lambda scenario: 2.5 if scenario.cohorts["flippers"].behavior.kind == "honest" else 2.6
    code, out, _ = run(str(BASE), VERSUS, "seed=5")
    assert code == 1
    kinds = [(scenario.seed, scenario.cohorts["flippers"].behavior.kind) for scenario, _ in played.asked]
    assert kinds == [(seed, kind) for seed in (5, 6, 7) for kind in ("sign_flip", "honest")]
    assert [scenario.name for scenario, _ in played.asked] == ["base", "base-clean"] * 3
    texts = [options["text"] for _, options in played.asked]
    assert texts[0] == BASE.read_text()
    assert texts[1] == resolved_text(played.asked[1][0])
    assert "fail" in out


def test_a_claim_about_an_unknown_metric(played: Played) -> None:
    code, out, err = run(str(BASE), CLAIM.replace("loss.final", "loss.finale"))
    assert (code, out, played.asked) == (2, "", [])
    assert err.endswith("expect.claims.0.metric: no metric is called 'loss.finale' (did you mean 'loss.final'?)\n")


def test_a_claim_about_a_rule_that_never_was_judged(played: Played) -> None:
    code, _, err = run(str(BASE), CLAIM.replace("loss.final", "rules.inactive.fired"))
    assert code == 2
    assert err.splitlines()[-1] == "expect: the summary has no metric 'rules.inactive.fired'"


def test_an_interruption_says_how_to_go_on(played: Played) -> None:
    played.error = Interrupted(Path("results/base/0123"))
    code, _, err = run(str(BASE))
    assert code == 130
    assert err.splitlines()[-1] == "interrupted; go on with: covsim run --resume results/base/0123"


def test_an_interruption_between_runs_is_one_too(played: Played) -> None:
    played.error = KeyboardInterrupt()
    code, _, err = run(str(BASE))
    assert (code, err.splitlines()[-1]) == (130, "interrupted; the same command goes on where it was")


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            UnfinishedRun(Path("my results/0123")),
            "my results/0123: an unfinished run lies here; go on with: covsim run --resume 'my results/0123', "
            "or start over with --force",
        ),
        (FolderInUse(Path("results/base/0123")), "results/base/0123: is running in another process"),
        (CannotWrite("there: cannot be written: Not a directory"), "there: cannot be written: Not a directory"),
        (CannotResume("there: cannot be resumed"), "there: cannot be resumed"),
    ],
)
def test_a_refusal_is_one_line(refusal: Exception, line: str, played: Played) -> None:
    played.error = refusal
    code, _, err = run(str(BASE))
    assert (code, err.splitlines()[-1]) == (2, line)


def test_results_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    code, _, err = run(str(BASE), "--out", str(file))
    assert code == 2
    assert re.fullmatch(rf"{file}/base/\w+: cannot be written: Not a directory", err.splitlines()[-1])
    assert list(tmp_path.iterdir()) == [file]


def test_our_own_mistakes_keep_their_traceback(played: Played) -> None:
    played.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        run(str(BASE))


def test_resume_finds_the_scenario_in_the_folder(
    played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from covsim.scenario import load

    (tmp_path / "resolved.yaml").write_text(resolved_text(load(BASE)))
    resumed: list[Path] = []

    def resume(folder: Path, observers: Sequence[Callable[[Event], None]]) -> Run:
        resumed.append(folder)
        return Run(folder, {"loss.final": 2.4})

    monkeypatch.setattr(cli_run, "resume", resume)
    code, out, _ = run("--resume", str(tmp_path))
    assert code == 0
    assert resumed == played.drawn == [tmp_path]
    assert "TABLE 2.4" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give a scenario, or --resume with the folder of an interrupted run"),
        (["--resume", "nowhere"], "nowhere: no run to resume here (it has no resolved.yaml)"),
        (["quickstart", "--resume", "x"], "--resume brings its own scenario: covsim run --resume x"),
        (["--resume", "x", "--seed", "3"], "--resume brings its own scenario: covsim run --resume x"),
        (["--resume", "x", "peers=3"], "--resume brings its own scenario: covsim run --resume x"),
        (["--resume", "x", "--force"], "--resume goes on in its own folder: covsim run --resume x"),
        (["--resume", "x", "--out", "y"], "--resume goes on in its own folder: covsim run --resume x"),
    ],
)
def test_wrong_combinations(arguments: list[str], line: str) -> None:
    assert run(*arguments) == (2, "", line + "\n")
