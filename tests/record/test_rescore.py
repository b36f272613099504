"""Recorded evidence judged again: bit for bit the same by the same rules, and different where other rules say so."""

import gzip
import math
import shutil
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import covsim

from covsim.events import Event, Registered, RuleApplied, Scored, WeightsSet
from covsim.nodes.rescoring import rescore
from covsim.record.events_file import read_events
from covsim.record.evidence_file import COLUMNS, BadEvidence, read_evidence
from covsim.record.other_rules import EVIDENCE_BOUND
from covsim.record.rescore import (
    CannotRescore,
    Case,
    Outcome,
    compared,
    open_case,
    outcome,
    with_rules,
)
from covsim.record.runner import Run, run
from covsim.report.rescoring import peer_table
from covsim.scenario import load
from covsim.scenario.resolve import resolved_text

BASE = Path(__file__).parents[1] / "scenario" / "base.yaml"
SMALL = {
    "stop.rounds": 9,
    "model": {"kind": "gpt", "layers": 1, "width": 16, "heads": 1, "context": 16},
    "training": {"batch": 1},
    "protocol.inner_steps": 2,
    "gauntlet.overlap.from_round": 2,
    "gauntlet.indicator_grace_windows": 3,
    "gauntlet.weights.set_every_windows": 1,
    "chain.tempo": 200,
    "store.read_failure": "5 %",
}
LEAVES_SOON = {"kind": "rational", "hopes": 2, "over": 1}
SCRIPTS: dict[str, dict[str, Any]] = {
    "honest": {},
    "copier": {"validators": {"third": {"stake": 0.2, "behavior": "weight_copier"}}},
    "bribed": {"validators.second.behavior": {"kind": "bribed", "cohort": "lazy", "share": "40 %"}},
    "offline": {
        "validators.lead.behavior": {"kind": "offline", "from_round": 3, "to_round": 6},
        "selection.failover_windows": 1,
    },
    "newcomers": {"cohorts.lazy.membership": {"kind": "from_round", "round": 4}, "chain.commit_reveal": "none"},
    "coming and going": {
        "cohorts.honest.membership": {"kind": "churn", "leaves": "20 %", "rounds_away": 1},
        "deployment": "same",
    },
    "slots change hands": {
        "cohorts.honest.membership": {"kind": "churn", "leaves": "20 %", "rounds_away": 1, "returns_as": "same"},
        "cohorts.lazy.membership": {"kind": "churn", "leaves": "60 %", "rounds_away": 1, "returns_as": "new"},
        "deployment": "same",
        "chain.slots": 27,  # as many as 24 peers, 2 validators and the owner need
        "chain.immunity": 50,
    },
    "registered while the lead evaluates": {
        "cohorts.lazy.membership": {"kind": "from_round", "round": 4},
        "selection.refresh_windows": 1,
        "deployment.evaluation": "12 s",
    },
    "the last verdict ends the run": {
        **{f"cohorts.{cohort}.membership": LEAVES_SOON for cohort in ("honest", "lazy", "flippers", "copycats")},
        "economics.token_price": 0.0,
        "selection.refresh_windows": 1,
    },
}


def made(folder: Path, overrides: dict[str, Any]) -> Run:
    scenario = load(BASE, {**SMALL, **overrides})
    return run(scenario, resolved_text(scenario), out=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("rescored"), {}).folder


@pytest.fixture(scope="module")
def case(folder: Path) -> Case:
    return open_case(folder)


def differences(one: tuple[Event, ...], other: tuple[Event, ...]) -> list[str]:
    assert len(one) == len(other)
    return [
        f"{type(first).__name__}.{item.name}: {mine} is not {yours}"
        for first, second in zip(one, other, strict=True)
        for item in fields(first)
        if (mine := getattr(first, item.name)) != (yours := getattr(second, item.name))
        and not (isinstance(mine, float) and math.isnan(mine) and math.isnan(yours))
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_rules_lead_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Verdicts with their reasons, gather lists and payments."""
    case = open_case(made(tmp_path, SCRIPTS[name]).folder)
    assert case.recorded is not None
    again = outcome(case, case.scenario)

    def by_peer(found: Outcome) -> tuple[Event, ...]:
        return tuple(sorted(found.verdicts, key=lambda verdict: (verdict.validator, verdict.round, verdict.uid)))

    assert again.verdicts
    assert again.epochs
    assert differences(by_peer(again), by_peer(case.recorded)) == []
    assert differences(again.lists, case.recorded.lists) == []
    assert differences(again.epochs, case.recorded.epochs) == []


@pytest.mark.parametrize("kind", [Scored, WeightsSet, RuleApplied, Registered])
def test_weights_and_coverage_are_the_same_bits(kind: type[Event], case: Case, folder: Path) -> None:
    """What everybody was found worth, what was handed to the chain, what rules could do, and who got a slot."""
    events: list[Event] = []
    rescore(case.scenario, case.turns, case.joined, case.end_s, [events.append], case.stamps)

    def in_order(found: Iterable[Event]) -> tuple[Event, ...]:
        return tuple(sorted(found, key=lambda event: (event.time_s, str(event))))

    recorded = in_order(read_events(folder / "events.jsonl.gz", [kind]))
    assert recorded
    assert differences(in_order(event for event in events if isinstance(event, kind)), recorded) == []


def test_the_comparison_is_what_the_tables_say(case: Case, folder: Path) -> None:
    """Before as after, when nothing is changed."""
    assert case.recorded is not None
    frame = compared(case, case.recorded, outcome(case, case.scenario)).set_index("uid")
    peers = pd.read_parquet(folder / "peers.parquet")
    last = pd.read_parquet(folder / "verdicts.parquet").query("validator == 'lead'").groupby("uid").last()
    for side in ("before", "after"):
        for name in ("mu", "sigma", "final_score"):
            pd.testing.assert_series_equal(frame[f"{name}_{side}"].dropna(), last[name], check_names=False)
        paid, profit = (peers.groupby("uid")[name].sum() for name in ("payout", "profit"))
        pd.testing.assert_series_equal(frame[f"tokens_{side}"], paid, check_names=False)
        pd.testing.assert_series_equal(frame[f"profit_{side}"], profit, check_names=False)
        listed = (peers["place"] == "selected").groupby(peers["uid"]).sum().astype(float)
        pd.testing.assert_series_equal(frame[f"selected_rounds_{side}"], listed, check_names=False)
    assert frame["profit_before"].nunique() > 1
    assert frame["selected_rounds_before"].nunique() > 1


def test_other_prices_move_profit_and_no_token(case: Case) -> None:
    assert case.recorded is not None
    changed = with_rules(case.scenario, ["economics.token_price=50", "economics.upload_per_gb=0.5"])
    frame = compared(case, case.recorded, outcome(case, changed))
    assert (frame["tokens_before"] == frame["tokens_after"]).all()
    per_token = case.scenario.economics.token_price
    uploads = 9 * 1.989 * 0.5
    lost = frame["profit_before"] - frame["profit_after"] - frame["tokens_before"] * (per_token - 50)
    assert lost.max() == pytest.approx(uploads, rel=0.01)
    assert peer_table(frame) is not None


def test_what_work_cost_is_not_guessed(tmp_path: Path, folder: Path) -> None:
    """Where traffic has a price and no single transfers were kept, and of bare evidence."""
    coarse = open_case(made(tmp_path, {"stop.rounds": 3, "record.level": "rounds"}).folder)
    for price, known in (("0.0", True), ("1.0", False)):
        changed = with_rules(coarse.scenario, [f"economics.download_per_gb={price}"])
        frame = compared(coarse, outcome(coarse, coarse.scenario), outcome(coarse, changed))
        assert frame["profit_before"].notna().all()
        assert frame["profit_after"].notna().all() == known
    bare = open_case(folder / "evidence.parquet")
    same = outcome(bare, bare.scenario)
    assert compared(bare, same, same)["profit_before"].isna().all()
    code, out, _ = covsim("rescore", str(folder / "evidence.parquet"))
    assert code == 0
    assert "┃ profit" not in out


def test_another_selection_would_have_listed_others(case: Case) -> None:
    assert case.recorded is not None
    frame = compared(case, case.recorded, outcome(case, with_rules(case.scenario, ["selection.gather=2"])))
    rounds = case.scenario.planned_rounds
    assert frame["selected_rounds_before"].sum() == 8 * rounds
    assert frame["selected_rounds_after"].sum() == 2 * rounds


def test_another_stake_moves_the_consensus(case: Case) -> None:
    assert case.recorded is not None
    frame = compared(case, case.recorded, outcome(case, with_rules(case.scenario, ["validators.second.stake=7"])))
    assert (frame["ordinal_before"].dropna() == frame["ordinal_after"].dropna()).all()
    assert (frame["tokens_before"] != frame["tokens_after"]).any()


def test_another_burn_moves_tokens_and_no_rating(case: Case) -> None:
    assert case.recorded is not None
    after = outcome(case, with_rules(case.scenario, ["gauntlet.weights.burn=0 %"]))
    frame = compared(case, case.recorded, after)
    assert (frame["ordinal_before"].dropna() == frame["ordinal_after"].dropna()).all()
    assert frame["tokens_after"].sum() > 1.5 * frame["tokens_before"].sum() > 0


def test_another_beta_moves_ratings(case: Case) -> None:
    assert case.recorded is not None
    frame = compared(case, case.recorded, outcome(case, with_rules(case.scenario, ["gauntlet.beta=30"])))
    assert (frame["mu_before"] != frame["mu_after"]).any()


def test_a_preset_keeps_what_evidence_depends_on(case: Case) -> None:
    changed = with_rules(case.scenario, ["gauntlet.preset=paper"])
    assert changed.gauntlet.weights.kind == "power"  # type: ignore[attr-defined]
    assert changed.gauntlet.score.indicator == "signed"
    assert changed.gauntlet.evaluated_per_window == case.scenario.gauntlet.evaluated_per_window
    assert outcome(case, changed).verdicts


@pytest.mark.parametrize("name", EVIDENCE_BOUND)
def test_what_evidence_was_made_with_cannot_change(name: str, case: Case) -> None:
    with pytest.raises(CannotRescore, match=f"gauntlet.{name}: the evidence was gathered with it"):
        with_rules(case.scenario, [f"gauntlet.{name}=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batch=8", "training.batch: the run would have to be made again; here only gauntlet, selection"),
        ("seed=2", "seed: the run would have to be made again"),
        ("gauntlet.quirks={reserve_unchecked: false}", "gauntlet.quirks: the evidence was gathered with it"),
        ("validators.lead.behavior=weight_copier", "of a validator only the stake can change"),
        ("gauntlet={trial_factor: 0.5}", "gauntlet.trial_factor: the evidence was gathered with it"),
        ("gauntlet={preset: paper}", "gauntlet.preset: write gauntlet.preset=paper, apart from the rest of gauntlet"),
        ("+validators.third.stake=0.1", "validators.third: no such validator took part"),
        ("validators.second.steak=0.1", "of a validator only the stake can change"),
        ("gauntlet.off=[overlap_exclud]", "no rule of the Gauntlet is called 'overlap_exclud'"),
    ],
)
def test_what_needs_a_run_is_refused(override: str, message: str, folder: Path) -> None:
    code, _, err = covsim("rescore", str(folder), override)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_command_says_that_the_loop_is_open(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "peers.csv"
    code, out, err = covsim("rescore", str(folder), "gauntlet.weights.burn=0 %", "--out", str(table))
    assert (code, err) == (0, "")
    assert out.startswith("OPEN LOOP: ")
    assert "what would have been trained after a different selection is not known" in out
    assert len(pd.read_csv(table)) == 24
    code, out, _ = covsim("rescore", str(folder))
    assert code == 0
    assert "nobody's tokens or profit change" in out


def test_bare_evidence_is_scored(folder: Path) -> None:
    """By two validators of equal stake then."""
    case = open_case(folder / "evidence.parquet")
    assert case.recorded is None
    assert {validator.stake for validator in case.scenario.validators.values()} == {1.0}
    code, out, err = covsim("rescore", str(folder / "evidence.parquet"), "gauntlet.beta=20")
    assert (code, err) == (0, "")
    assert "the default rules" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="uid"), "column 'uid' is missing"),
        (lambda frame: frame.assign(losses=1.0), "column 'losses' is not known"),
        (lambda frame: frame.assign(status="fine"), "row 0: status must be one of ok, missing"),
        (lambda frame: frame.assign(overlap=2.0), "row 0: overlap must be a share from 0 to 1, not 2.0"),
        (lambda frame: frame.assign(round=-1), "row 0: round must be a whole number from 0 to 99999, not -1"),
        (lambda frame: frame.assign(steps_behind=-0.5), "row 0: steps_behind must be outer steps from 0 up, not -0.5"),
        (lambda frame: frame.assign(evaluated=1), "row 0: evaluated must be true or false, not 1"),
        (lambda frame: frame.assign(simulated_s=math.nan), "row 0: simulated_s is empty"),
        (lambda frame: pd.concat([frame, frame.head(1)]), "stands twice in round 0"),
        (lambda frame: frame.assign(uid="1"), "row 0: uid must be a whole number from 0 to 99999, not '1'"),
        (lambda frame: frame.assign(uid=1e9), "row 0: uid must be a whole number from 0 to 99999, not 1000000000.0"),
        (lambda frame: frame.assign(validator="a.b"), "row 0: validator must be a name of 64 letters"),
        (lambda frame: frame.assign(simulated_s=1.7e9), "row 0: simulated_s must be seconds from the start, at most"),
        (lambda frame: frame.assign(own_after=-1.0), "row 0: own_after must be nats per token, from 0 up, not -1.0"),
        (lambda frame: frame.assign(random_before=math.nan), "random_before is empty, but the row is evaluated and ok"),
        (lambda frame: frame.assign(evaluated=False), "own_before is given, but evaluated is false"),
        (lambda frame: frame.drop(columns="evaluated"), "own_before is given, but evaluated is false"),
        (
            lambda frame: frame.assign(on_gather_list=True, asked_as_reserve=True),
            "row 0: asked_as_reserve is true, and on_gather_list is too",
        ),
        (
            lambda frame: frame.assign(gathered=True, on_gather_list=False, asked_as_reserve=False),
            "row 0: gathered is true, but on_gather_list and asked_as_reserve are false",
        ),
        (
            lambda frame: pd.DataFrame(
                {"round": [0], "simulated_s": [1.0], "validator": ["v"], "uid": [1], "status": ["late"]}
            ),
            "row 0: status must be unseen, for evaluated, on_gather_list and asked_as_reserve are false",
        ),
        (
            lambda frame: frame.assign(simulated_s=100_000.0 - frame["simulated_s"]),
            "simulated_s of round 1 of lead lies before that of an earlier round",
        ),
        (lambda frame: frame.head(0), "it has no rows"),
    ],
)
def test_bad_evidence_is_one_line(change: Any, message: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "evidence.parquet"
    change(pd.read_parquet(folder / "evidence.parquet")).to_parquet(path)
    code, _, err = covsim("rescore", str(path))
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "evidence.parquet").write_text("not a table")
    for path, message in (
        (tmp_path / "gone", "no run and no evidence file is there"),
        (tmp_path, "no run to score again here"),
        (tmp_path / "evidence.parquet", "no parquet file can be read here"),
    ):
        code, _, err = covsim("rescore", str(path))
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1


def test_a_log_of_another_version_is_one_line(folder: Path, tmp_path: Path) -> None:
    old = shutil.copytree(folder, tmp_path / "old")
    log = old / "events.jsonl.gz"
    lines = gzip.decompress(log.read_bytes()).replace(b'"previous_stored_s"', b'"another_field"')
    log.write_bytes(gzip.compress(lines))
    code, _, err = covsim("rescore", str(old))
    assert code == 2
    assert "an event has no 'previous_stored_s'; another version of covsim has written it" in err
    assert len(err.splitlines()) == 1


def test_a_run_of_level_summary_has_no_evidence(tmp_path: Path) -> None:
    folder = made(tmp_path, {"stop.rounds": 1, "record.level": "summary"}).folder
    code, _, err = covsim("rescore", str(folder))
    assert code == 2
    assert err == f"{folder}: it has no evidence; it was recorded at level summary, or cut\n"


def test_the_file_of_the_table_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = covsim("rescore", str(folder), "--out", str(tmp_path / "file" / "peers.csv"))
    assert code == 2
    assert "cannot be written: " in err
    assert len(err.splitlines()) == 1


def test_a_table_of_few_columns_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "evidence.parquet"
    pd.DataFrame(
        {"round": [0], "simulated_s": [10], "validator": ["v"], "uid": [3], "status": ["missing"], "evaluated": [True]}
    ).to_parquet(path)
    frame = read_evidence(path)
    assert list(frame.columns) == list(COLUMNS)
    assert math.isnan(frame["steps_behind"][0])
    assert bool(frame["active"][0])
    with pytest.raises(BadEvidence):
        read_evidence(tmp_path / "none.parquet")
