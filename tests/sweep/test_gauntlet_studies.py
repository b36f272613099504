"""The scenarios of the Gauntlet let their rules fire, and the studies of the scoring say what their tables hold."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from covsim.behaviors import Bribed
from covsim.events import (
    BlockSealed,
    CaughtUp,
    EpochSettled,
    Evaluated,
    Event,
    Gathered,
    ListPublished,
    NodeJoined,
    NodeLeft,
    Registered,
    RuleApplied,
    WeightsSet,
    WindowOpened,
)
from covsim.gauntlet.loss_score import measure
from covsim.learning.corpus import Corpus
from covsim.randomness import Streams
from covsim.record.runner import run_or_resume
from covsim.scenario import Scenario, load, shipped_scenarios
from covsim.sweep.papers import (
    ALL,
    SCORING,
    STUDIES,
    Places,
    Scale,
    copies,
    evaluations,
    noise,
    participation,
    publish,
    ratings,
    run_studies,
    verdicts,
)
from covsim.sweep.papers import __main__ as command
from covsim.sweep.papers.measured_again import Setting, measure_round
from covsim.sweep.papers.open_loop import Replay
from covsim.sweep.papers.scoring_study import auc, roc, share_interval, shown_share

NAMES = sorted(name for name in shipped_scenarios() if name.startswith("gauntlet/"))
SMALL: dict[str, Any] = {
    "model": {"layers": 1, "width": 8, "context": 16},
    "training.batch": 1,
    "protocol.inner_steps": 2,
    "gauntlet.own_sequences": 1,
    "gauntlet.random_sequences": 1,
    "data.held_out_sequences": 4,
    "data.held_out_every": 100,
}
"""Learns next to nothing: what these scenarios are about does not depend on it."""

AnyEvent = TypeVar("AnyEvent", bound=Event)


@pytest.fixture(scope="module")
def played(play: Callable[..., Any]) -> Callable[..., list[Event]]:
    """The events of a small version of a scenario; each is played once."""
    known: dict[str, list[Event]] = {}

    def events(name: str, **overrides: Any) -> list[Event]:
        key = f"{name} {sorted(overrides.items())}"
        if key not in known:
            known[key] = play(load(f"gauntlet/{name}", {**SMALL, **overrides}))[0]
        return known[key]

    return events


def of(events: Iterable[Event], kind: type[AnyEvent]) -> list[AnyEvent]:
    return [event for event in events if isinstance(event, kind)]


def fired(events: Iterable[Event]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for event in of(events, RuleApplied):
        counts[event.rule] += event.fired
    return counts


def tokens(events: Iterable[Event], cohort: str) -> float:
    """What the chain paid to the peers of a cohort."""
    uids = {event.uid for event in of(events, NodeJoined) if event.cohort == cohort}
    assert uids
    return math.fsum(paid for event in of(events, EpochSettled) for uid, paid in event.paid if uid in uids)


def dividends(events: Iterable[Event]) -> dict[str, float]:
    earned: dict[str, float] = defaultdict(float)
    for event in of(events, EpochSettled):
        for name, paid in event.dividends:
            earned[name] += paid
    return earned


# Scenarios -----------------------------------------------------------------------------------------------------------


def test_every_asked_for_scenario_is_there() -> None:
    depends = {"store-outage", "chain-stall", "leader-offline", "second-offline", "all-burned", "peers-late"}
    others = {"d1", "d3", "noise", "newcomer", "disagreeing-validators", "stake-majority", "stake-minority"}
    others |= {"commit-reveal-on", "commit-reveal-off", "unusual-shards", "leader-failover", "rational"}
    presets = {f"presets/{name}" for name in ("paper", "v0.2", "v1.0", "v2.1.0", "v2.1.28")}
    assert {f"gauntlet/{name}" for name in depends | others | presets} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_ask_and_say_where_to_look(name: str) -> None:
    description = load(name).description
    assert "?" in description or name.startswith("gauntlet/presets/")
    assert "Look at" in description or name.startswith("gauntlet/presets/")


def test_presets_are_judged_over_one_population() -> None:
    scenarios = {name: load(f"gauntlet/presets/{name}") for name in ("paper", "v0.2", "v1.0", "v2.1.0", "v2.1.28")}
    places = {name: (each.selection.gather, each.selection.reserve) for name, each in scenarios.items()}  # type: ignore[attr-defined]
    assert places == {"paper": (15, 0), "v0.2": (15, 0), "v1.0": (20, 10), "v2.1.0": (20, 10), "v2.1.28": (20, 10)}
    assert {name: each.gauntlet.evaluated_per_window for name, each in scenarios.items()} == {
        **{"paper": 5, "v0.2": 4, "v1.0": 10, "v2.1.0": 15, "v2.1.28": 20}
    }
    assert all(each.gauntlet.preset == name for name, each in scenarios.items())
    same = [
        each.model_copy(update={"name": "", "description": "", "gauntlet": None, "selection": None})
        for each in scenarios.values()
    ]
    assert all(other == same[0] for other in same)


@pytest.mark.parametrize(
    ("name", "twin", "section"),
    [
        ("stake-minority", "stake-majority", "validators"),
        ("commit-reveal-on", "commit-reveal-off", "chain"),
        ("store-outage-spared", "store-outage", "gauntlet"),
        ("leader-failover", "leader-offline", "selection"),
    ],
)
def test_twins_differ_in_one_section(name: str, twin: str, section: str) -> None:
    one, other = load(f"gauntlet/{name}"), load(f"gauntlet/{twin}")
    own = {"name", "description", "expect", section}
    differing = {field for field in Scenario.model_fields if getattr(one, field) != getattr(other, field)}
    assert section in differing <= own


def test_a_majority_decides_and_a_minority_does_not(played: Callable[..., list[Event]]) -> None:
    assert isinstance(load("gauntlet/stake-majority").validators["bought"].behavior, Bribed)
    bought = played("stake-majority")
    assert tokens(bought, "lazy") / 3 > 2 * tokens(bought, "honest") / 18
    earned = dividends(played("stake-minority"))
    assert earned["bought"] / 0.4 < earned["lead"] / 0.35
    assert tokens(played("stake-minority"), "lazy") < 0.1 * tokens(bought, "lazy")


def test_nobody_is_paid_whom_no_half_of_the_stake_pays(played: Callable[..., list[Event]]) -> None:
    events = played("everybody-their-own")
    assert all(not any(paid for _, paid in event.paid) for event in of(events, EpochSettled))
    assert any(event.weights for event in of(events, WeightsSet))
    earned = dividends(events)
    assert earned["lead"] == pytest.approx(earned["second"]) == pytest.approx(earned["third"])


def test_all_is_burned(played: Callable[..., list[Event]]) -> None:
    events = played("all-burned")
    assert {event.burned for event in of(events, WeightsSet)} == {1.0}
    assert tokens(events, "honest") == 0
    assert sum(event.burned for event in of(events, EpochSettled)) > 0


def test_hidden_weights_count_later_and_copying_pays_less(played: Callable[..., list[Event]]) -> None:
    first_paid = {
        name: next(event.height for event in of(played(name), EpochSettled) if any(dict(event.consensus).values()))
        for name in ("commit-reveal-off", "commit-reveal-on")
    }
    assert first_paid["commit-reveal-on"] >= first_paid["commit-reveal-off"] + 2 * 360
    share = {name: dividends(played(name))["copier"] / sum(dividends(played(name)).values()) for name in first_paid}
    assert share["commit-reveal-on"] < share["commit-reveal-off"]


def test_validators_disagree(played: Callable[..., list[Event]]) -> None:
    settings = of(played("disagreeing-validators"), WeightsSet)
    last = {event.validator: dict(event.weights) for event in settings}
    assert len(last) == 4
    assert len({tuple(sorted(weights)) for weights in last.values()}) > 1


def test_newcomers_register_and_are_evaluated(played: Callable[..., list[Event]]) -> None:
    events = played("newcomer", **{"stop.rounds": 14})
    uids = {event.uid for event in of(events, NodeJoined) if event.cohort == "newcomers"}
    opened = {event.window: event.time_s for event in of(events, WindowOpened)}
    joined = [event for event in of(events, Registered) if event.uid in uids]
    assert len(joined) == 4
    assert all(opened[9] <= event.time_s < opened[11] for event in joined)  # 291 GB at 500 Mb/s take 2.3 windows
    assert uids <= {event.uid for event in of(events, Evaluated) if event.evaluated}


def test_unusual_shards_are_of_one_era_each() -> None:
    shards = load("gauntlet/unusual-shards").data.shards
    assert (shards.kind, shards.eras) == ("by_era", 8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "publishers"), [("leader-offline", set()), ("leader-failover", {"second"})])
def test_who_publishes_while_the_leader_is_away(
    name: str, publishers: set[str], played: Callable[..., list[Event]]
) -> None:
    events = played(name)
    assert {event.validator for event in of(events, ListPublished) if 3 <= event.round < 9} == publishers
    assert [(event.node, event.round) for event in of(events, CaughtUp)] == [("validator:lead", 7)]  # the last of 3, 7


def test_the_second_is_away_and_catches_up(played: Callable[..., list[Event]]) -> None:
    events = played("second-offline")
    assert {event.round for event in of(events, WeightsSet) if event.validator == "second"} & set(range(3, 9)) == set()
    assert [(event.node, event.round) for event in of(events, CaughtUp)] == [("validator:second", 7)]
    assert {event.validator for event in of(events, ListPublished)} == {"lead"}


@pytest.mark.parametrize(("name", "hit"), [("store-outage", True), ("store-outage-spared", False)])
def test_an_outage_empties_one_round(name: str, hit: bool, played: Callable[..., list[Event]]) -> None:
    events = played(name, **{"stop.rounds": 9})
    empty = {event.round for event in of(events, Gathered) if event.node == "validator:lead" and not event.uids}
    assert empty == {6}
    assert (fired(events)["gather_quorum"] > 0) == hit


def test_a_stall_delays_windows_and_blocks(played: Callable[..., list[Event]]) -> None:
    events = played("chain-stall")
    opened = {event.window: event.time_s for event in of(events, WindowOpened)}
    assert opened[6] == 6 * 2040
    assert opened[7] == 7 * 2040 + 7200
    assert not [event for event in of(events, BlockSealed) if 13000 <= event.time_s < 13000 + 7200]
    assert fired(events)["gather_miss"] == 0


def test_late_peers_are_missed_and_earn_nothing(played: Callable[..., list[Event]]) -> None:
    events = played("peers-late", **{"stop.rounds": 12})
    assert fired(events)["gather_miss"] > 0
    assert tokens(events, "late") == 0


def test_those_who_lose_money_leave(played: Callable[..., list[Event]]) -> None:
    events = played("rational", **{"stop.rounds": 17})
    cohort_of = {event.uid: event.cohort for event in of(events, NodeJoined)}
    left = of(events, NodeLeft)
    assert {"lazy", "flippers"} <= {cohort_of[event.uid] for event in left}
    assert all(event.round >= 13 for event in left)  # rounds 0 to 13 are the 14 in which all hope


# Numbers -------------------------------------------------------------------------------------------------------------


def test_the_area_under_the_curve_is_that_of_the_curve() -> None:
    generator = np.random.default_rng(7)
    positive = np.round(generator.normal(0.5, 1, 40), 1).tolist()
    negative = np.round(generator.normal(0.0, 1, 30), 1).tolist()
    false, true = roc(positive, negative)
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(true, false) == pytest.approx(auc(positive, negative))
    assert auc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert auc([1.0], [1.0]) == 0.5


def test_shares_have_the_interval_of_wilson() -> None:
    """Reference: Newcombe (1998), table I: 81 of 263, and 0 of 20."""
    measured = share_interval(81, 263)
    assert (measured.low, measured.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    measured = share_interval(0, 20)
    assert (measured.low, measured.high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert shown_share(20, 20) == "20 of 20 (100 %; 84 to 100 %)"


# Open loop -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Scenario) -> Path:
    """The folder of a whole run with copycats, latecomers and failing reads."""
    return run_or_resume(tiny, tmp_path_factory.mktemp("runs")).folder


def test_a_tape_gives_the_losses_that_the_run_saw(finished: Path) -> None:
    """The same sequences, from theta and payloads of the tape: equal to the last bit."""
    replay = Replay(finished)
    scenario, parts = replay.scenario, replay.parts
    evidence = pd.read_parquet(finished / "evidence.parquet")
    streams, compared = Streams(scenario.seed), 0
    corpus = Corpus(scenario.data, scenario.model.context, streams)
    for exchanged in replay.rounds():
        rows = evidence[(evidence["validator"] == "lead") & (evidence["round"] == exchanged.round)]
        rows = rows[rows["own_before"].notna()].set_index("uid")
        submissions = [each for each in exchanged.submissions if each.uid in rows.index]
        assert len(submissions) == len(rows)
        entered = [each.decoded for each in exchanged.submissions if each.uid in exchanged.entered]
        limits = parts.exchange.clip_norms(exchanged.lineage, entered)
        trials = [
            parts.exchange.trial_theta(exchanged.lineage, each.decoded, exchanged.round, 0.2, limits)
            for each in submissions
        ]
        labels = [("own sample", "lead", exchanged.round, each.uid) for each in submissions]
        own = [corpus.assigned_sample(label[3], exchanged.round, 3, 2, 2, streams.numpy(*label)) for label in labels]
        random = corpus.random_sample(2, streams.numpy("random sample", "lead", exchanged.round))
        found = measure(scenario.model, exchanged.lineage.theta, trials, torch.stack(own), random)
        for i, each in enumerate(submissions):
            for name in ("own_before", "own_after", "random_before", "random_after"):
                assert getattr(found, name)[i] == rows.loc[each.uid, name]
                compared += 1
    assert compared >= 40


def test_a_tape_of_another_history_is_refused(finished: Path) -> None:
    replay = Replay(finished)
    first = replay.peers[(replay.peers["round"] == 0) & replay.peers["contributed"]].index[0]
    replay.peers.loc[first, "contributed"] = False
    with pytest.raises(ValueError, match="round 0: the tape leads to another theta than the run had"):
        list(replay.rounds())


def test_smaller_samples_are_beginnings_of_larger_ones(finished: Path) -> None:
    replay = Replay(finished)
    exchanged = next(replay.rounds())
    few, many, whole = (Setting(*each) for each in ((2, 0.2, 0.1875), (4, 0.2, 0.1875), (4, 0.2, 1.0)))
    measured = measure_round(replay, exchanged, (few, many, whole))
    alone = measure_round(replay, exchanged, (whole,))[whole]
    assert alone.own_before.tolist() == measured[whole].own_before.tolist()
    assert alone.random_before == measured[many].random_before == measured[whole].random_before
    assert measured[few].random_before != measured[many].random_before
    assert measured[many].own_before.tolist() != measured[whole].own_before.tolist()
    scores = measured[many].gradient_scores()
    assert [math.isfinite(score) for score in scores] == [True] * len(exchanged.submissions)
    assert scores.tolist() != measured[many].gradient_scores(again=True).tolist()


# Verdicts ------------------------------------------------------------------------------------------------------------


def ratings_table(right: int, seeds: int = 20, evaluations: int = 50) -> pd.DataFrame:
    """So many seeds in the order of the paper, the others with more data and baseline exchanged."""
    rows = []
    for arm in ratings.ARMS:
        for seed in range(1, seeds + 1):
            mus = dict(zip(ratings.COHORTS, (40.0, 30.0, 5.0) if seed <= right else (30.0, 40.0, 5.0), strict=True))
            for cohort, mu in mus.items():
                for round in (0, evaluations - 1):
                    value = 25.0 + (mu - 25.0) * (round > 0)
                    columns = {"mu": value, "sigma": 6.0, "final_score": 1.0, "evaluations": round + 1}
                    rows.append({"arm": arm, "seed": seed, "cohort": cohort, "round": round, **columns})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("right", "evaluations", "expected"),
    [
        (20, 50, "reproduced"),
        (18, 50, "reproduced"),
        (17, 50, "inconclusive"),
        (12, 50, "not reproduced"),
        (20, 49, "inconclusive"),
    ],
)
def test_d1(right: int, evaluations: int, expected: str) -> None:
    found = ratings.judge({"": ratings_table(right, evaluations=evaluations)})
    assert [(each.id, each.kind) for each in found] == [
        ("D1", "gate"),
        ("D1b", "report"),
        ("D1c", "report"),
        ("D1d", "report"),
    ]
    assert {each.status for each in found} == {expected}
    assert f"{right} of 20" in found[0].ours
    assert "stale last in 20" in found[0].ours


def copies_table(**changed: int) -> pd.DataFrame:
    """Three seeds of 25 rounds as they should be; `changed` holds in the last round of seed 2."""
    row: dict[str, Any] = {"pairs": 2080, "mean": 0.05, "median": 0.05, "largest": 0.2, "at_level": 0}
    row |= {"sent_whole": 0.02, "largest_with_whole": 0.22, "at_level_with_whole": 0, "copies": 8, "flagged": 8}
    row |= {"originals": 1, "originals_flagged": 0, "flagged_by_previous": 8, "originals_flagged_by_previous": 0}
    row |= {"comparable": 2, "honest": 65, "honest_flagged": 0}
    rows = []
    for seed in (1, 2, 3):
        for round in range(25):
            early = {"at_level": 5, "largest": 0.45} if round < 2 else {}
            last = changed if (seed, round) == (2, 24) else {}
            rows.append({"arm": "all", "seed": seed, "round": round, **row, **early, **last})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ("reproduced", "reproduced", "not reproduced", "reproduced")),
        ({"at_level": 20}, ("reproduced", "reproduced", "not reproduced", "reproduced")),
        ({"at_level": 21}, ("not reproduced", "reproduced", "not reproduced", "reproduced")),
        ({"pairs": 1999}, ("inconclusive", "reproduced", "not reproduced", "reproduced")),
        ({"flagged": 7}, ("reproduced", "not reproduced", "not reproduced", "reproduced")),
        ({"originals_flagged": 1}, ("reproduced", "not reproduced", "not reproduced", "reproduced")),
        ({"originals_flagged_by_previous": 1}, ("reproduced", "reproduced", "reproduced", "reproduced")),
    ],
)
def test_d3(changed: dict[str, int], expected: tuple[str, ...]) -> None:
    found = copies.judge({"": copies_table(**changed)})
    assert tuple(each.status for each in found) == expected
    assert [each.id for each in found] == ["D3", "D3b", "D3c", "D3d"]


def test_d3_without_early_overlaps() -> None:
    table = copies_table().assign(at_level=0)
    assert copies.judge({"": table})[3].status == "not reproduced"


def noise_table(
    area: dict[Setting, float], passing: float = 0.25, agreement: Callable[[Setting], float] = float
) -> Any:
    rows = []
    for setting in evaluations.SETTINGS:
        for seed in range(1, 6):
            luck = 0.002 * (seed - 3)
            row: dict[str, Any] = {"arm": "all", "seed": seed, **dataclasses.asdict(setting)}
            for group, sign in ((evaluations.HONEST, 1), (evaluations.WRONG, -1)):
                row |= {f"indicator.{group}": 0.1 * sign + luck, f"advantage_e4.{group}": sign + luck}
                row |= {f"average.{group}": 0.1 * sign + luck, f"passing.{group}": passing + luck}
            row |= {name: area.get(setting, 0.7) + luck for name in ("auc.average", "auc.final_score")}
            row |= {"auc.mu_of_lazy": 0.9, "auc.final_score_of_lazy": 0.9, "negative": 0.1}
            row["agreement"] = agreement(setting) + luck
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("deployed", "exact", "passing", "of_factor", "of_sequences", "expected"),
    [
        (0.6, 0.97, 0.25, -0.1, 0.001, ["reproduced"] * 5),
        (0.8, 0.8, 0.6, 0.1, -0.001, ["not reproduced"] * 5),
        (0.75, 0.9, 0.4, 0.0, 0.0, ["inconclusive"] * 5),
    ],
)
def test_noise(
    deployed: float, exact: float, passing: float, of_factor: float, of_sequences: float, expected: list[str]
) -> None:
    def agreement(setting: Setting) -> float:
        return 0.5 + of_factor * setting.trial_factor + of_sequences * setting.sequences

    table = noise_table({evaluations.DEPLOYED: deployed, evaluations.EXACT_POOL: exact}, passing, agreement)
    if expected[0] == "inconclusive":  # level for all seeds: only luck of its own, which pairing does not remove
        wobble = np.where(table["sequences"] == 32, 0.01, np.where(table["trial_factor"] == 0.5, -0.01, 0.0))
        table["agreement"] += wobble * np.where(table["seed"] % 2 == 1, 1.0, -1.0)
    found = noise.judge({"": table})
    assert [each.status for each in found] == expected
    assert {each.kind for each in found} == {"report"}
    assert all(verdicts.target_of(each.id) == "NOISE" for each in found)


@pytest.mark.parametrize(
    ("contributing", "submitting", "distinct", "expected"),
    [
        ((17, 17, 16), (24, 25, 25), (73, 70, 80), "reproduced"),
        ((17, 17, 16), (24, 25, 30), (73, 70, 80), "inconclusive"),
        ((17, 17, 16), (24, 25, 25), (73, 69, 80), "inconclusive"),
        ((17, 17, 16), (24, 25, 25), (60, 69, 61), "not reproduced"),
        ((14, 13, 14), (24, 25, 25), (73, 70, 80), "not reproduced"),
    ],
)
def test_d8(
    contributing: tuple[int, ...], submitting: tuple[int, ...], distinct: tuple[int, ...], expected: str
) -> None:
    rows = [
        {"arm": "live", "seed": seed, "round": round, "contributing": entered, "submitting": sent, "distinct": ever}
        for seed, (entered, sent, ever) in enumerate(zip(contributing, submitting, distinct, strict=True))
        for round in range(3)
    ]
    (found,) = participation.judge({"": pd.DataFrame(rows)})
    assert (found.id, found.kind, found.status) == ("D8", "report", expected)


# Files ---------------------------------------------------------------------------------------------------------------

TINY: dict[str, Scale] = {
    "d1": Scale(num_seeds=2, overrides={"stop.rounds": 6, "model": SMALL["model"], "data.held_out_sequences": 4}),
    "d3": Scale(
        num_seeds=2,
        overrides={
            "stop.rounds": 4,
            "peers": 12,
            "cohorts.copycats.count": 3,
            "model": SMALL["model"],
            "protocol.inner_steps": 3,
            "selection": {"gather": 5, "reserve": 2},
            "gauntlet.evaluated_per_window": 2,
            "data.held_out_sequences": 4,
        },
    ),
    "d8": Scale(
        num_seeds=2,
        overrides={
            "stop.rounds": 5,
            "model": SMALL["model"],
            "training.batch": 1,
            "protocol.inner_steps": 2,
            "gauntlet.own_sequences": 1,
            "gauntlet.random_sequences": 1,
            "data.held_out_sequences": 4,
        },
    ),
    "noise": Scale(
        num_seeds=2,
        overrides={
            "stop.rounds": 2,
            "model": SMALL["model"],
            "protocol.inner_steps": 5,
            "gauntlet.evaluated_per_window": 1,
            "data.held_out_sequences": 4,
        },
    ),
}


def places(folder: Path) -> Places:
    return Places(folder / "runs", folder / "published", folder / "validation.md")


@pytest.mark.parametrize("name", SCORING)
def test_a_reduced_study_publishes_everything(name: str, tmp_path: Path) -> None:
    """And all follows from its tables: published again without any run, bytes are equal. Tapes stay where needed."""
    where, study = places(tmp_path), SCORING[name]
    found = run_studies([name], where, jobs=0, say=lambda _: None, scale=TINY[name])
    published = tmp_path / "published" / "papers"
    for suffix in study.suffixes:
        table = pd.read_csv(published / f"{name}{suffix}.csv")
        assert len(table)
        shown_alone = (name, suffix) in (("d3", "-weights"), ("d3", "-pay"))
        assert set(table["seed"]) == ({101} if shown_alone else {201, 202} if name == "d1" else {101, 102})
    assert [row["id"] for row in verdicts.read(tmp_path / "published" / "papers.csv")] == [each.id for each in found]
    assert all(f"| {each.id} | {each.kind} |" in (tmp_path / "validation.md").read_text() for each in found)
    figures = list(published.glob("*.png"))
    assert len(figures) == {"d1": 1, "d3": 2, "d8": 1, "noise": 2}[name]
    for figure in figures:
        check_figure(figure)
    assert bool(list((tmp_path / "runs").rglob("tape.bin"))) == study.needs_tapes
    before = {path: path.read_bytes() for path in (tmp_path / "published").rglob("*.*")}
    assert publish(study, where) == found
    assert {path: path.read_bytes() for path in (tmp_path / "published").rglob("*.*")} == before
    if name == "d3":
        table = pd.read_csv(published / "d3.csv")
        assert table["copies"].sum() > 0
        assert (table["flagged"] == table["copies"]).all()
        assert set(pd.read_csv(published / "d3-weights.csv")["uid"]) == set(range(12)), "who never got weight is shown"


def check_figure(path: Path) -> None:
    pixels = imread(path)
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100


def test_all_studies_have_names_of_their_own() -> None:
    assert list(ALL) == [*STUDIES, *SCORING]
    assert [*SCORING] == ["d1", "d3", "d8", "noise"]
    assert len(SCORING["d1"].seeds) == 20
    assert len(SCORING["noise"].seeds) >= 5


def test_the_command_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(command, "run_studies", lambda names, jobs: asked.append((names, jobs)) or [])
    assert command.main(["d1", "d3", "noise"]) == 0
    assert asked == [(["d1", "d3", "noise"], 2)]


# What is published ---------------------------------------------------------------------------------------------------

PUBLISHED = Path(__file__).parents[2] / "results" / "published"


@pytest.mark.parametrize("name", SCORING)
def test_published_rows_follow_from_the_published_tables(name: str) -> None:
    study = SCORING[name]
    if not (PUBLISHED / "papers" / f"{name}.csv").is_file():
        pytest.skip(f"not published yet: covsim papers {name}")
    read = {suffix: pd.read_csv(PUBLISHED / "papers" / f"{name}{suffix}.csv") for suffix in study.suffixes}
    assert set(read[""]["seed"]) == set(study.seeds)
    rows = {row["id"]: row for row in verdicts.read(PUBLISHED / "papers.csv")}
    for found in study.judge(read):
        row = rows[found.id]
        assert (row["status"], row["ours"], row["expected"]) == (found.status, found.ours, found.expected)
