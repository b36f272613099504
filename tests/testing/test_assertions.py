"""`covsim.testing`: what converges passes, what does not fails and says all of it, and nonsense is refused."""

from __future__ import annotations

import shlex
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import covsim

from covsim.record.lock import locked
from covsim.record.runner import Run
from covsim.scenario import Scenario, clean_twin, load, run_id, with_seed
from covsim.sweep import assertion
from covsim.sweep.trials import Trial, losses, run_patiently, trials
from covsim.testing import ClaimFailed, Inconclusive, Report, assert_converges, assert_recovers, assert_unprofitable

DEFENDED = {"selection": {"kind": "gauntlet", "gather": 3, "reserve": 1}, "aggregate": {"clip": "median_norm"}}


@pytest.fixture
def here(results: Path) -> dict[str, Any]:
    """Options: results of this session, in this process, two seeds."""
    return {"out": results, "jobs": 0, "seeds": 2}


def told(results: Path, **loss: list[float]) -> list[Run]:
    """Runs that only have losses by round, 10 s apart."""
    runs = []
    for name, values in loss.items():
        folder = results / name
        folder.mkdir(parents=True, exist_ok=True)
        rounds = range(len(values))
        seconds = [10.0 * (round + 1) for round in rounds]
        frame = pd.DataFrame({"round": rounds, "simulated_s": seconds, "loss": values, "loss_highest": values})
        frame.assign(loss_highest=frame["loss"] + 1).to_parquet(folder / "rounds.parquet")
        runs.append(Run(folder, {}))
    return runs


# Convergence --------------------------------------------------------------------------------------------------------


def test_flippers_that_nobody_minds_are_found_out(besieged: Path, here: dict[str, Any]) -> None:
    """The companion of every test that passes: it can fail, and says what, where, how far, and how to see it again."""
    with pytest.raises(ClaimFailed) as failure:
        assert_converges(besieged, margin="5 %", **here)
    report, text = failure.value.report, str(failure.value)
    assert report.outcome == "fail"
    assert "seeds 1, 2: fail" in text
    assert "flippers honest" in text
    assert "expected  at most 5 %" in text
    assert report.findings[0].seen in text
    assert report.findings[0].mean > 0.1
    for trial in report.trials:
        assert f"seed {trial.seed}: loss" in text
        assert str(trial.run.folder) in text


def test_the_commands_make_the_very_same_runs(besieged: Path, here: dict[str, Any]) -> None:
    """From a path with overrides as a mapping, with texts, and from a value: `covsim run` finds each run done."""
    few = load(besieged, ["peers=5"])
    for source, overrides, seeds in [(besieged, {"peers": 5}, [1]), (besieged, ["peers=5"], [1, 2]), (few, (), [2])]:
        report = assert_converges(source, to=6.0, overrides=overrides, **(here | {"seeds": seeds}))
        assert len(report.commands) == len(seeds)
        for command, trial in zip(report.commands, report.trials, strict=True):
            program, *arguments = shlex.split(command)
            assert program == "covsim"
            code, out, err = covsim(*arguments, "--quiet")
            assert code == 0, err
            assert "this very run is there already" in out
            assert trial.run.folder.name in out


def test_honest_peers_converge(besieged: Path, here: dict[str, Any]) -> None:
    """To a level from which flippers keep it away: the same claim fails with them."""
    report = assert_converges(besieged, to=4.9, overrides=["~cohorts.flippers"], **here)
    assert report.outcome == "pass"
    with pytest.raises(ClaimFailed):
        assert_converges(besieged, to=4.9, **here)


def test_within_looks_at_that_round_and_not_at_the_end(besieged: Path, here: dict[str, Any]) -> None:
    honest = {"overrides": ["~cohorts.flippers"], **here}
    late = assert_converges(besieged, to=5.5, **honest).findings[0]
    early = assert_converges(besieged, to=5.6, within=3, **honest).findings[0]
    by_time = assert_converges(besieged, to=5.6, within="165 s", **honest).findings[0]
    assert early.mean > late.mean
    assert by_time.mean > late.mean
    run = next(iter(assert_converges(besieged, to=5.6, **honest).trials)).run
    assert early.values[0] == pytest.approx(losses(run).by_round.loc[0:2].mean())


def test_runs_are_not_made_twice(besieged: Path, here: dict[str, Any]) -> None:
    first = assert_converges(besieged, to=6.0, **here)
    again = assert_converges(besieged, to=6.0, **here)
    assert all(trial.run.skipped for trial in again.trials)
    assert [trial.run.folder for trial in first.trials] == [trial.run.folder for trial in again.trials]
    scenario = with_seed(load(besieged), 2)
    assert again.trials[1].run.folder == here["out"] / "besieged" / run_id(scenario)


def test_any_scenario_can_be_the_other_one(besieged: Path, here: dict[str, Any]) -> None:
    """With itself nothing is lost; and the seeds are the same on both sides."""
    report = assert_converges(besieged, margin=0, versus=load(besieged), **here)
    assert report.findings[0].values == (0.0, 0.0)
    assert [trial.twin.folder for trial in report.trials if trial.twin] == [t.run.folder for t in report.trials]


def test_absent_flippers_are_another_twin_than_honest_ones(besieged: Path, here: dict[str, Any]) -> None:
    found = {}
    for twin in ("honest", "absent"):
        with pytest.raises(ClaimFailed) as failure:
            assert_converges(besieged, margin="1 %", twin=twin, **here)
        report = failure.value.report
        assert f"flippers {twin}" in report.compared_with
        found[twin] = report.findings[0].mean
    assert found["honest"] != found["absent"]


# Money --------------------------------------------------------------------------------------------------------------


def test_flippers_earn_nothing_where_payloads_are_scored(besieged: Path, here: dict[str, Any]) -> None:
    report = assert_unprofitable(besieged, "flippers", at_most=0.5, **here)
    assert report.findings[0].mean < 0


def test_honest_peers_are_profitable(besieged: Path, here: dict[str, Any]) -> None:
    """Seen as a cohort of their own, so that the assertion has something to find."""
    split = {"cohorts.honest": {"share": "rest"}, "cohorts.twins": {"count": 2, "behavior": "honest"}}
    with pytest.raises(ClaimFailed, match="tokens of a peer of twins"):
        assert_unprofitable(besieged, "twins", at_most=0.1, overrides=split, **(here | {"seeds": 1}))


def test_profit_compares_with_the_same_peers_honest(besieged: Path, here: dict[str, Any]) -> None:
    report = assert_unprofitable(besieged, "flippers", of="profit", versus="clean", **(here | {"seeds": [2]}))
    own, twin = report.trials[0].run.summary, report.trials[0].twin
    assert twin is not None
    assert twin.summary["profit_per_peer.flippers"] > own["profit_per_peer.flippers"]
    expected = own["profit_per_peer.flippers"] - twin.summary["profit_per_peer.flippers"]
    assert report.findings[0].values[0] == pytest.approx(expected)


def paid(
    monkeypatch: pytest.MonkeyPatch, besieged: Path, folder: Path, uids: dict[str, list[int]], **tokens: float
) -> None:
    """Let the one run be one in which the uids of each cohort earned so many tokens each."""
    rows = [(uid, cohort) for cohort, own in uids.items() for uid in own]
    pd.DataFrame(rows, columns=["uid", "cohort"]).to_parquet(folder / "peers.parquet")
    summary = {f"tokens_per_peer.{cohort}": each for cohort, each in tokens.items()}
    done = [Trial(1, load(besieged), Run(folder, summary))]
    monkeypatch.setattr(assertion, "trials", lambda *_, **__: done)


def test_where_nobody_honest_is_paid_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, besieged: Path, tmp_path: Path
) -> None:
    """0 is at most 0, and would pass however well cheating pays."""
    paid(monkeypatch, besieged, tmp_path, {"flippers": [0], "honest": [1]}, flippers=0.0, honest=0.0)
    with pytest.raises(ClaimFailed, match="no number in 1 of 1 runs"):
        assert_unprofitable(besieged, "flippers", seeds=1)


def test_who_registers_anew_is_still_one_peer(monkeypatch: pytest.MonkeyPatch, besieged: Path, tmp_path: Path) -> None:
    """Two machines under ten uids, each of which earned a fifth of what an honest peer did: together as much."""
    paid(
        monkeypatch,
        besieged,
        tmp_path,
        {"flippers": [*range(10)], "honest": [10, 11, 12, 13]},
        flippers=2.0,
        honest=8.0,
    )
    report = assert_unprofitable(besieged, "flippers", at_most=1.25, seeds=1)
    assert report.findings[0].values == (0.0,)
    with pytest.raises(ClaimFailed):
        assert_unprofitable(besieged, "flippers", seeds=1)


# Recovery -----------------------------------------------------------------------------------------------------------


def staged(monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[Run, Run]], besieged: Path) -> None:
    """Let these be the runs and twins of seeds 1, 2, ..."""
    scenario = load(besieged)
    done = [Trial(seed, with_seed(scenario, seed), *pair) for seed, pair in enumerate(pairs, 1)]
    monkeypatch.setattr(assertion, "trials", lambda *_, **__: done)


def test_recovery_looks_behind_the_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, besieged: Path) -> None:
    """A hole in rounds 1 and 2 does not count; what is left of it in rounds 3 and 4 does."""
    own, clean = told(tmp_path, own=[5.0, 9.0, 9.0, 4.4, 3.9, 3.0], clean=[5.0, 4.5, 4.2, 4.0, 3.8, 3.0])
    staged(monkeypatch, [(own, clean)], besieged)
    arguments: dict[str, Any] = {"after": 3, "within": 2, "seeds": 1, "theta": "lead"}
    report = assert_recovers(besieged, margin="7 %", **arguments)
    assert report.findings[0].values[0] == pytest.approx((4.4 + 3.9) / (4.0 + 3.8) - 1)
    assert "at worst +114" in report.findings[0].shown[0]
    with pytest.raises(ClaimFailed):
        assert_recovers(besieged, margin="6 %", **arguments)
    assert assert_recovers(besieged, margin="1 %", **(arguments | {"after": 5, "within": 1}))


def test_the_worst_history_is_another_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, besieged: Path) -> None:
    own, clean = told(tmp_path, own=[3.0] * 6, clean=[2.0] * 6)
    staged(monkeypatch, [(own, clean)], besieged)
    lead = assert_recovers(besieged, after=2, within=2, margin=1.0, theta="lead", seeds=1).findings[0]
    worst = assert_recovers(besieged, after=2, within=2, margin=1.0, theta="worst", seeds=1).findings[0]
    assert (lead.mean, worst.mean) == (pytest.approx(3 / 2 - 1), pytest.approx(4 / 3 - 1))


def test_a_diverged_run_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, besieged: Path) -> None:
    own, clean = told(tmp_path, own=[3.0, 3.0, float("nan"), 3.0, 3.0, 3.0], clean=[4.0] * 6)
    staged(monkeypatch, [(own, clean)], besieged)
    with pytest.raises(ClaimFailed, match="no number in 1 of 1 runs"):
        assert_recovers(besieged, after=2, within=2, margin="50 %", seeds=1)


def test_a_real_run_does_not_recover_from_flippers_that_stay(besieged: Path, here: dict[str, Any]) -> None:
    with pytest.raises(ClaimFailed, match="3 rounds from round 2 on"):
        assert_recovers(besieged, after=2, within=3, margin="2 %", **here)


@pytest.mark.parametrize(
    ("overrides", "over"),
    [
        ({"store.outages": [{"at": "90 s", "lasts": "30 s"}]}, 3),
        ({"timeline.stalls": [{"at": "50 s", "lasts": "31 s"}]}, 3),
        ({"faults": [{"kind": "crash", "at": "100 s", "lasts": "61 s", "share": "50 %"}]}, 5),
        ({"faults": [{"kind": "partition", "from_round": 1, "to_round": 4, "share": "30 %"}]}, 4),
        ({"validators.lead.behavior": {"kind": "offline", "from_round": 1, "to_round": 2}}, 2),
    ],
)
def test_when_faults_are_over_is_read_off_the_scenario(besieged: Path, overrides: dict[str, Any], over: int) -> None:
    """Windows of 40 s; the first one that begins when all is well."""
    assert assertion.faults_over(load(besieged, overrides)) == over


def test_a_fault_at_a_rate_is_never_over(besieged: Path) -> None:
    crash = {"kind": "crash", "rate": "1 %", "lasts": "10 s"}
    with pytest.raises(ValueError, match="crash at a rate has no end"):
        assertion.faults_over(load(besieged, {"faults": [crash]}))


# What the seeds cannot tell ------------------------------------------------------------------------------------------


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, besieged: Path) -> None:
    runs = told(tmp_path, a=[3.0] * 6, b=[5.0] * 6)
    staged(monkeypatch, [(run, run) for run in runs], besieged)


@pytest.mark.usefixtures("untold")
def test_inconclusive_is_a_failure_of_its_own(besieged: Path) -> None:
    with pytest.raises(Inconclusive, match="take more seeds") as failure:
        assert_converges(besieged, to=4.1, seeds=2)
    assert not isinstance(failure.value, ClaimFailed)
    assert isinstance(failure.value, AssertionError)


@pytest.mark.usefixtures("untold")
def test_inconclusive_can_skip_or_warn(besieged: Path) -> None:
    with pytest.raises(unittest.SkipTest, match="inconclusive"):
        assert_converges(besieged, to=4.1, seeds=2, inconclusive="skip")
    with pytest.warns(UserWarning, match="take more seeds"):
        report = assert_converges(besieged, to=4.1, seeds=2, inconclusive="warn")
    assert isinstance(report, Report)
    assert report.outcome == "inconclusive"


@pytest.mark.usefixtures("untold")
def test_less_confidence_may_tell(besieged: Path) -> None:
    assert assert_converges(besieged, to=4.5, seeds=2, confidence=0.55).outcome == "pass"


@pytest.mark.usefixtures("untold")
def test_the_worse_of_two_claims_counts(besieged: Path) -> None:
    """`margin` holds (a run beside itself), `to` does not."""
    with pytest.raises(ClaimFailed) as failure:
        assert_converges(besieged, to=1.0, margin="0 %", seeds=2, confidence=0.6)
    assert [finding.outcome for finding in failure.value.report.findings] == ["fail", "pass"]


# Nonsense -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "say what converging means"),
        ({"to": -1.0}, "a loss is positive"),
        ({"margin": "5 apples"}, "margin: 'apples' is not a unit"),
        ({"margin": -0.1}, "is not a share between"),
        ({"to": 4.0, "versus": "quickstart"}, "versus= needs a margin"),
        ({"margin": 0.1, "versus": "quickstart"}, "their losses do not compare"),
        ({"to": 4.0, "within": 0}, "within is rounds, 1 or more"),
        ({"to": 4.0, "within": 7}, "the run ends after 6 rounds"),
        ({"to": 4.0, "within": "20 bananas"}, "is not a unit of a duration"),
        ({"to": 4.0, "seeds": 0}, "seeds is 1 or more"),
        ({"to": 4.0, "seeds": [1, 1]}, "seeds must be some that differ"),
        ({"to": 4.0, "seeds": []}, "seeds must be some that differ"),
        ({"to": 4.0, "confidence": 95}, "confidence lies between"),
        ({"margin": 0.1, "cheaters": ["flipers"]}, r"did you mean 'flippers'\?"),
        ({"margin": 0.1, "cheaters": "flippers"}, "cheaters is a list"),
        ({"margin": 0.1, "twin": "gone"}, "'honest' or 'absent'"),
        ({"margin": 0.1, "twin": "absent", "cheaters": ["honest", "flippers"]}, "nobody is left"),
        ({"margin": 0.1, "cheaters": []}, "its clean twin is itself"),
        ({"to": 4.0, "inconclusive": "maybe"}, "'fail', 'skip' or 'warn'"),
        ({"to": 4.0, "jobs": -1}, "jobs must be 0 or more"),
        ({"to": 4.0, "overrides": ["peer=3"]}, "unknown key 'peer'"),
    ],
)
def test_convergence_that_makes_no_sense(
    besieged: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        assert_converges(besieged, **({"out": tmp_path} | arguments))
    assert not list(tmp_path.iterdir()), "refused before anything was run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cohort": "fliper"}, r"did you mean 'flippers'\?"),
        ({"cohort": "flippers", "of": "profit", "at_most": 0.5}, "leave at_most out"),
        ({"cohort": "flippers", "at_most": -1}, "nobody earns less than nothing"),
        ({"cohort": "honest"}, "no honest peers to compare with"),
        ({"cohort": "honest", "versus": "clean"}, "would not be made honest"),
        ({"cohort": "flippers", "versus": "clean", "twin": "absent"}, "would not be made honest"),
    ],
)
def test_profit_that_makes_no_sense(besieged: Path, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assert_unprofitable(besieged, out=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": 0, "within": 1}, "1 or more"),
        ({"after": 1, "within": 0}, "1 or more"),
        ({"after": 4, "within": 3}, "the run ends after 6 rounds"),
        ({"within": 3}, "nothing fails in it for a while"),
    ],
)
def test_recovery_that_makes_no_sense(besieged: Path, tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assert_recovers(besieged, margin="1 %", out=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_overrides_of_a_value_are_refused(besieged: Path) -> None:
    with pytest.raises(ValueError, match="overrides need a file"):
        assert_converges(load(besieged), to=4.0, overrides=["peers=3"])


def test_a_misspelt_argument_is_an_error(besieged: Path) -> None:
    with pytest.raises(TypeError, match="confidense"):
        assert_converges(besieged, to=4.0, confidense=0.9)  # type: ignore[call-arg]


# Runs ---------------------------------------------------------------------------------------------------------------


def test_a_run_of_another_process_is_waited_for(besieged: Path, tmp_path: Path) -> None:
    """Two tests may want the same twin at a time."""
    scenario = load(besieged)
    folder = tmp_path / scenario.name / run_id(scenario)
    released: list[float] = []
    holding = locked(folder)
    holding.__enter__()

    def let_go() -> None:
        released.append(time.monotonic())
        holding.__exit__(None, None, None)

    timer = threading.Timer(1.0, let_go)
    timer.start()
    (run,) = run_patiently([scenario], jobs=0, out=tmp_path)
    timer.join()
    assert time.monotonic() >= released[0]
    assert run.folder == folder


def test_twins_are_paired_by_seed(besieged: Path, results: Path) -> None:
    scenario: Scenario = load(besieged)
    done = trials(scenario, [2, 1], clean_twin, jobs=0, out=results)
    assert [trial.seed for trial in done] == [2, 1]
    for trial in done:
        assert trial.twin is not None
        own = load(trial.run.folder / "resolved.yaml")
        clean = load(trial.twin.folder / "resolved.yaml")
        assert (own.seed, clean.seed) == (trial.seed, trial.seed)
        assert clean == clean_twin(own)
