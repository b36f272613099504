"""The studies of published claims: fair arms, verdicts by their rules, files that hold what they should."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from covsim.gauntlet.weights import Ramp
from covsim.scenario import load, warnings
from covsim.sweep.interval import Interval
from covsim.sweep.local import FailedRuns
from covsim.sweep.papers import (
    ALL,
    STUDIES,
    Places,
    Scale,
    Verdict,
    centralized,
    publish,
    publish_formulas,
    replicas,
    run_studies,
    scoring_formulas,
    tables,
    verdicts,
)
from covsim.sweep.papers import __main__ as command
from covsim.sweep.papers.study import FULL, LOSS, Arm, scenario_of

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
TINY = Scale(
    num_seeds=2,
    grid=1,
    shorter=15,
    overrides={
        "model": {"layers": 1, "width": 8, "context": 16},
        "stop.rounds": 2,
        "data.held_out_sequences": 16,
        "training.inner.schedule.warmup_steps": 1,
    },
)
NUM_RUNS = {"c1": 12, "c2": 12, "c3": 8, "c4": 8, "c5": 42, "c6": 6}
"""Of the tiny studies."""

Labels = dict[str, Any]


def table_of(name: str, loss: Callable[[Labels], float], noise: float = 0.001) -> pd.DataFrame:
    """A made-up table of a whole study: means as asked, luck that the arms of a seed share, and luck of their own."""
    study, table = STUDIES[name], pd.DataFrame()
    for stage in study.stages:
        rows = [row for arm in stage(table, FULL) for row in made_up(arm, study.seeds, loss(dict(arm.labels)), noise)]
        table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
    return table


def made_up(arm: Arm, seeds: range, mean: float, noise: float) -> list[dict[str, Any]]:
    own = np.random.default_rng([*arm.name.encode()]).normal(size=len(seeds))
    luck = 0.05 * np.linspace(-1, 1, len(seeds)) + noise * (own - own.mean())
    return [
        {
            "arm": arm.name,
            **arm.labels,
            "seed": seed,
            "parameters": 185_216 if arm.labels.get("size") == "large" else 43_328,
            LOSS: mean + of_seed,
            "bits_per_byte.last": (mean + of_seed) / math.log(2),
            **dict.fromkeys(centralized.TASKS, 0.5 + of_seed),
        }
        for seed, of_seed in zip(seeds, luck, strict=True)
    ]


def statuses(name: str, table: pd.DataFrame) -> dict[str, str]:
    return {verdict.id: verdict.status for verdict in STUDIES[name].judge(table)}


# Arms ----------------------------------------------------------------------------------------------------------------


def arms_of(name: str) -> list[Arm]:
    """All arms of a study, with whatever an earlier stage would have tuned; of tuned rates one each."""
    table = table_of(name, lambda labels: 2.0)
    scale, found = Scale(grid=1), {}
    for stage in STUDIES[name].stages:
        found |= {arm.name: arm for arm in stage(table, scale)}
    return list(found.values())


@pytest.mark.parametrize("name", STUDIES)
def test_all_arms_see_equally_many_tokens_and_time_decides_nothing(name: str) -> None:
    seen = set()
    for arm in arms_of(name):
        scenario = scenario_of(arm)
        steps = scenario.planned_rounds * scenario.plan.inner_steps
        seen.add(scenario.peers * steps * scenario.tokens_per_step)
        assert not warnings(scenario), arm.name
        assert scenario.cohorts["honest"].behavior.kind == "honest"
        assert scenario.selection.kind == "all"
        assert scenario.data.held_out_sequences == 256
    assert len(seen) == 1


@pytest.mark.parametrize("name", STUDIES)
def test_arms_have_names_of_their_own_and_seeds_enough(name: str) -> None:
    rows = table_of(name, lambda labels: 2.0)
    assert not rows.duplicated(["arm", "seed"]).any()
    assert len(STUDIES[name].seeds) >= {"c1": 5, "c4": 5, "c6": 5}.get(name, 3)


def test_tokens_that_make_no_whole_rounds_are_refused() -> None:
    arm = Arm("odd", "papers/c1", {"protocol.inner_steps": 7}, {})
    with pytest.raises(ValueError, match="odd: rounds of 14336 tokens do not make up 1228800"):
        scenario_of(arm)


@pytest.mark.parametrize("name", ["papers/c1", "papers/c5", "papers/c6"])
def test_matrices_are_cut_into_blocks_of_4096(name: str) -> None:
    """So that k of 4096 is the density that the claims speak of."""
    shapes = [shape for shape in load(name).model.shapes.values() if len(shape) == 2]
    assert all(size % 64 == 0 for shape in shapes for size in shape)


def test_the_two_sizes_differ_by_4_or_more() -> None:
    small, large = (load(name).model.num_parameters for name in ("papers/c2", "papers/c3"))
    assert (small, large) == (43_328, 185_216)
    assert large >= 4 * small


def test_the_small_size_of_c3_shares_its_runs_with_c2() -> None:
    arms = {arm.name: arm for arm in arms_of("c2")}
    shared = [arm for arm in arms_of("c3") if arm.name.startswith("small")]
    assert shared
    assert all(scenario_of(arm) == scenario_of(arms[arm.name.removeprefix("small, ")]) for arm in shared)


# Verdicts ------------------------------------------------------------------------------------------------------------


def feedback_helps(gain_all: float, gain_senders: float, at_best: float) -> Callable[[Labels], float]:
    """Losses of C1: what is lost without feedback at the report's rate, by divisor, and at rate 2."""

    def loss(labels: Labels) -> float:
        if labels["feedback"] == "decay 0.95":
            return 2.0 + 0.5 * (labels["outer_lr"] - 1)
        gain = gain_all if labels["over"] == "all" else gain_senders
        return 2.0 + {1.0: gain, 2.0: at_best}[labels["outer_lr"]]

    return loss


def test_c1_reproduced_only_beyond_two_deviations() -> None:
    table = table_of("c1", feedback_helps(gain_all=0.4, gain_senders=0.005, at_best=3.0))
    assert statuses("c1", table) == {
        "C1": "reproduced",
        "C1b": "not reproduced",
        "C1c": "reproduced",
        "C1d": "not reproduced",
    }


def test_c1_lets_either_side_have_its_best_rate() -> None:
    table = table_of("c1", feedback_helps(gain_all=0.4, gain_senders=0.4, at_best=-0.2))
    found = statuses("c1", table)
    assert (found["C1"], found["C1c"]) == ("reproduced", "not reproduced")
    (report,) = (verdict for verdict in STUDIES["c1"].judge(table) if verdict.id == "C1c")
    assert "outer rates 1 (border), 2 (border)" in report.ours


def test_c1_is_inconclusive_between() -> None:
    table = table_of("c1", feedback_helps(gain_all=0.13, gain_senders=0.13, at_best=3.0), noise=0.05)
    assert statuses("c1", table)["C1"] == "inconclusive"


def penalties(**of_replicas: float) -> Callable[[Labels], float]:
    """Losses of C2 in percent above data parallelism by M, with the best rates in the middle of their grids."""

    def loss(labels: Labels) -> float:
        if labels["family"] != "diloco":
            return 2.0 if labels["peak"] == 8e-3 else 2.5
        off = abs(labels["outer_lr"] - 0.5) + (labels["peak"] != 8e-3)
        return 2.0 * (1 + of_replicas[f"m{labels['replicas']}"] / 100) + off

    return loss


@pytest.mark.parametrize(
    ("of_replicas", "expected"),
    [
        ({"m1": -0.1, "m2": 0.7, "m4": 2.0, "m8": 3.9}, "reproduced"),
        ({"m1": -3.0, "m2": 0.7, "m4": 5.0, "m8": 20.0}, "not reproduced"),
        ({"m1": 4.0, "m2": 5.0, "m4": 6.0, "m8": 7.0}, "not reproduced"),
        ({"m1": 0.0, "m2": 3.0, "m4": 2.0, "m8": 4.0}, "not reproduced"),
        ({"m1": 0.0, "m2": 1.0, "m4": 0.99, "m8": 4.0}, "inconclusive"),
    ],
)
def test_c2(of_replicas: dict[str, float], expected: str) -> None:
    table = table_of("c2", penalties(**of_replicas))
    (verdict,) = STUDIES["c2"].judge(table)
    assert verdict.status == expected
    assert "peak of DP 0.008 (border), of M 0.008, 0.008, 0.008, 0.008; outer rates 0.5, 0.5, 0.5, 0.5" in verdict.ours
    assert f"M8 {of_replicas['m8']:+.1f}" in verdict.ours


def test_c2_names_steps_within_their_interval() -> None:
    (verdict,) = STUDIES["c2"].judge(table_of("c2", penalties(m1=0.0, m2=0.05, m4=2.0, m8=4.0), noise=0.01))
    assert verdict.ours.endswith("within the interval: M 2 over M 1")


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [(10.0, 5.0, "reproduced"), (5.0, 10.0, "not reproduced"), (5.0, 5.01, "inconclusive")],
)
def test_c3(small: float, large: float, expected: str) -> None:
    def loss(labels: Labels) -> float:
        gap = {"small": small, "large": large}[labels["size"]] if labels["family"] == "diloco" else 0.0
        return 2.0 * (1 + gap / 100)

    (verdict,) = STUDIES["c3"].judge(table_of("c3", loss))
    assert verdict.status == expected
    assert "43,328 parameters" in verdict.ours
    assert "185,216 parameters" in verdict.ours


@pytest.mark.parametrize(
    ("percent", "noise", "expected"),
    [
        (0.1, 0.001, "reproduced"),
        (-0.1, 0.001, "reproduced"),
        (0.6, 0.001, "not reproduced"),
        (-0.6, 0.001, "not reproduced"),
        (0.3, 0.001, "inconclusive"),
        (0.0, 0.05, "inconclusive"),
    ],
)
def test_c4_bounds_the_change_either_way(percent: float, noise: float, expected: str) -> None:
    table = table_of("c4", lambda labels: 2.0 * (1 + percent / 100 * (labels["values"] != "fp32")), noise)
    assert set(statuses("c4", table).values()) == {expected}


def densities(best: dict[int, float], excess: float) -> Callable[[Labels], float]:
    """Losses of C5: the best density by H, and how far SparseLoCo is above DiLoCo there."""

    def loss(labels: Labels) -> float:
        if labels["family"] == "diloco":
            return 2.0
        return 2.0 + excess + 0.05 * abs(math.log2(labels["density"] / best[labels["inner_steps"]]))

    return loss


RISING, FALLING, FLAT = (
    dict(zip((15, 30, 60), values, strict=True))
    for values in ((0.78125, 1.5625, 3.125), (3.125, 1.5625, 0.78125), (1.5625, 1.5625, 1.5625))
)


@pytest.mark.parametrize(
    ("best", "excess", "sign", "way"),
    [
        (RISING, -0.1, "reproduced", "reproduced"),
        (FALLING, 0.1, "not reproduced", "not reproduced"),
        (FLAT, 0.0, "inconclusive", "inconclusive"),
    ],
)
def test_c5(best: dict[int, float], excess: float, sign: str, way: str) -> None:
    assert statuses("c5", table_of("c5", densities(best, excess))) == {"C5": sign, "C5b": way, "C5c": sign, "C5d": way}


def test_c5_does_not_take_luck_for_a_rise() -> None:
    """The best density seems to rise, by less than the luck of single runs."""
    table = table_of("c5", lambda labels: densities(RISING, -0.1)(labels) / 1000 + 2, noise=0.01)
    assert statuses("c5", table)["C5b"] == "inconclusive"


def test_c6_is_a_whole_table_whoever_wins() -> None:
    table = table_of("c6", lambda labels: 2.0)
    assert statuses("c6", table) == {"C6": "reproduced"}
    assert statuses("c6", table[table["seed"] < 5]) == {"C6": "not reproduced"}
    missing = table.assign(**{"task.order_4": math.nan})
    assert statuses("c6", missing) == {"C6": "not reproduced"}


def test_intervals_decide() -> None:
    assert [verdicts.above(Interval(mean, 1.0), 0) for mean in (2, -2, 0.5)] == [
        "reproduced",
        "not reproduced",
        "inconclusive",
    ]
    assert [verdicts.within(Interval(mean, 1.0), 3) for mean in (1.5, -1.5, 2.5, -2.5, 5.0, -5.0)] == [
        "reproduced",
        "reproduced",
        "inconclusive",
        "inconclusive",
        "not reproduced",
        "not reproduced",
    ]


def test_pairs_need_the_same_seeds() -> None:
    table = table_of("c4", lambda labels: 2.0)
    with pytest.raises(ValueError, match="'fp4' and 'fp32' have different seeds"):
        tables.paired(table[(table["arm"] == "fp4") | (table["seed"] > 1)], "fp4", "fp32")
    with pytest.raises(ValueError, match="no arm 'fp5'"):
        tables.by_seed(table, "fp5")


def test_pairing_removes_what_seeds_share() -> None:
    table = table_of("c4", lambda labels: 2.0 + 0.01 * (labels["values"] == "fp4"), noise=0.0)
    found = tables.paired(table, "fp4", "fp32")
    assert found.differences == pytest.approx([0.01] * 10)
    assert tables.deviation(table, "fp4") > 0.02


def test_a_best_value_at_the_end_of_its_grid_is_marked() -> None:
    table = pd.DataFrame({"arm": ["low", "middle", "high"], "seed": 1, "rate": [1.0, 2.0, 3.0], LOSS: 2.0})
    marks = [tables.border(table, arm, "rate") for arm in ("low", "middle", "high")]
    assert marks == [" (border)", "", " (border)"]
    assert tables.border(table, "low", "rate", seed=1, rate=1.0) == " (not tuned)"


# Files ---------------------------------------------------------------------------------------------------------------


def places(folder: Path) -> Places:
    return Places(folder / "runs", folder / "published", folder / "validation.md")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if NUM_RUNS[name] > 10 else []) for name in STUDIES]
)
def test_a_reduced_study_publishes_everything(name: str, tmp_path: Path) -> None:
    lines: list[str] = []
    found = run_studies([name], places(tmp_path), jobs=0, say=lines.append, scale=TINY)
    study, published = STUDIES[name], tmp_path / "published" / "papers"
    table = pd.read_csv(published / f"{name}.csv")
    assert len(table) == NUM_RUNS[name]
    assert set(table.groupby("arm")["seed"].nunique()) == {2}
    assert table["tokens"].nunique() == 1
    assert table[LOSS].between(4.5, 6.5).all()
    assert table["digest.learning"].str.fullmatch("[0-9a-f]{64}").all()
    assert len(pd.read_csv(published / f"{name}-means.csv")) == NUM_RUNS[name] / 2
    differences = pd.read_csv(published / f"{name}-differences.csv")
    assert len(differences) == len(study.baselines(table))
    assert differences["percent +-"].ge(0).all()
    assert found == study.judge(table)
    assert [row["id"] for row in verdicts.read(tmp_path / "published" / "papers.csv")] == [each.id for each in found]
    assert all(f"| {verdict.id} | {verdict.kind} |" in (tmp_path / "validation.md").read_text() for verdict in found)
    check_figure(published / f"{name}.png")
    if name == "c1":
        dropped, no_buffer = (table[table["feedback"] == each] for each in ("decay 0", "no buffer"))
        assert no_buffer[LOSS].tolist() == dropped[LOSS].tolist()


def check_figure(path: Path) -> None:
    pixels = imread(path)
    assert path.stat().st_size > 10_000
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100


@pytest.mark.parametrize("name", STUDIES)
def test_everything_follows_from_the_published_table(name: str, tmp_path: Path) -> None:
    """Published twice, with nothing but the table: equal bytes."""
    where = places(tmp_path)
    path = where.table(STUDIES[name])
    path.parent.mkdir(parents=True)
    losses = {"c2": penalties(m1=0.0, m2=1.0, m4=2.0, m8=4.0), "c5": densities(RISING, 0.1)}
    table_of(name, losses.get(name, lambda labels: 2.0 + 0.01 * len(str(labels)))).to_csv(path, index=False)
    publish(STUDIES[name], where)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert len(before) == 6
    publish(STUDIES[name], where)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    check_figure(where.table(STUDIES[name], ".png"))


def verdict(id: str, status: verdicts.Status = "reproduced") -> Verdict:
    return Verdict(id, "gate", "a | b", "here", "1", "equal", "1", "0", status)


def test_saving_replaces_rows_of_its_own_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "papers.csv"
    verdicts.save([verdict("A10"), verdict("A2"), verdict("C1b"), verdict("C1"), verdict("C10")], ["a2", "c1"], path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["note"] = f"of {row['id']}"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    saved = verdicts.save([verdict("C1", "not reproduced")], ["c1"], path)
    assert verdicts.read(path) == saved
    assert [(row["id"], row["status"], row["note"]) for row in saved] == [
        ("A2", "reproduced", "of A2"),
        ("A10", "reproduced", "of A10"),
        ("C1", "not reproduced", ""),
        ("C10", "reproduced", "of C10"),
    ]


@pytest.mark.parametrize(
    "before", [None, "# Mine\n\ntext\n", f"# Mine\n\n{verdicts.BEGIN}\nold\n{verdicts.END}\nend\n"]
)
def test_a_page_keeps_what_stands_around_its_table(before: str | None, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "validation.md"
    page.parent.mkdir()
    if before is not None:
        page.write_text(before)
    for status in ("inconclusive", "reproduced"):
        rows = verdicts.save([verdict("C1", status)], ["c1"], tmp_path / "papers.csv")
        verdicts.document(rows, page)
    text = page.read_text()
    assert text.count(verdicts.BEGIN) == text.count(verdicts.END) == 1
    assert r"| C1 | gate | a \| b | here | 1 | equal | 1 | 0 | reproduced |" in text
    assert "old" not in text
    assert "inconclusive" not in text
    if before is not None:
        assert text.startswith("# Mine\n\n")
        assert text.endswith("end\n") == ("end" in before)


# Command -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command runs, which is nothing."""
    calls: list[Any] = []

    def fake(names: list[str], jobs: int) -> list[Verdict]:
        calls.append((names, jobs))
        return [verdict("C1"), verdict("C2", "not reproduced")]

    monkeypatch.setattr(command, "run_studies", fake)
    return calls


def test_a_finding_is_no_failure_unless_it_is_asked_to_be(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["c1", "c2", "--jobs", "3"]) == 0
    assert command.main(["all", "--strict"]) == 1
    assert asked == [(["c1", "c2"], 3), (list(ALL), 2)]
    assert "C2   gate   not reproduced a | b: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted; go on with: python -m covsim.sweep.papers c1 --jobs 1"),
        (FailedRuns({Path("results/x"): "no"}, 3), 1, "1 of 3 runs failed: results/x: no"),
        (ValueError("jobs must be 0 or more, not -1"), 2, "jobs must be 0 or more, not -1"),
    ],
)
def test_what_stops_it_is_one_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(names: list[str], jobs: int) -> list[Verdict]:
        raise error

    monkeypatch.setattr(command, "run_studies", fail)
    assert command.main(["c1", "--jobs", "1"]) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_tables_alone_need_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["c1", "--tables"]) == 2
    assert capsys.readouterr().err == (
        "results/published/papers/c1.csv: is not there; run the study without --tables\n"
    )


def test_an_unknown_study_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["c7"])
    assert caught.value.code == 2
    assert "invalid choice: 'c7'" in capsys.readouterr().err


# What is published ---------------------------------------------------------------------------------------------------

KINDS = {
    **{"C1": "gate", "C1b": "gate", "C1c": "report", "C1d": "report", "C2": "gate", "C3": "gate"},
    **{"C4": "gate", "C4b": "report", "C4c": "report", "C6": "gate"},
    **dict.fromkeys(("C5", "C5b", "C5c", "C5d"), "report"),
}
published = pytest.mark.skipif(
    not (PUBLISHED / "papers").is_dir(), reason="no study is published yet: python -m covsim.sweep.papers all"
)


def test_published_penalties_are_those_of_the_paper() -> None:
    assert replicas.PUBLISHED == {1: -0.1, 2: 0.7, 4: 2.0, 8: 3.9}


@published
def test_every_claim_about_learning_has_its_rows() -> None:
    rows = [row for row in verdicts.read(PUBLISHED / "papers.csv") if row["id"].startswith("C")]
    assert {row["id"]: row["kind"] for row in rows} == KINDS


@published
@pytest.mark.parametrize("name", STUDIES)
def test_published_rows_follow_from_the_published_table(name: str) -> None:
    table = pd.read_csv(PUBLISHED / "papers" / f"{name}.csv")
    assert table.groupby("arm")["seed"].nunique().min() >= len(STUDIES[name].seeds) >= 3
    assert table["tokens"].nunique() == 1
    rows = {row["id"]: row for row in verdicts.read(PUBLISHED / "papers.csv")}
    for found in STUDIES[name].judge(table):
        row = rows[found.id]
        assert (row["status"], row["ours"], row["expected"]) == (found.status, found.ours, found.expected)
    check_figure(PUBLISHED / "papers" / f"{name}.png")


@published
def test_the_page_shows_the_published_rows() -> None:
    page = (PUBLISHED.parents[1] / "docs" / "validation.md").read_text(encoding="utf-8")
    table = page.split(verdicts.BEGIN)[1].split(verdicts.END)[0]
    for row in verdicts.read(PUBLISHED / "papers.csv"):
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {row['id']} |"))
        assert line.endswith(f"| {row['status']} |")


def test_sizes_are_judged_by_formula(tmp_path: Path) -> None:
    """All five targets, each with the number that its own formula gives, and they stand in file and page."""
    places = Places(published=tmp_path, page=tmp_path / "validation.md")
    found = {each.id: each for each in publish_formulas("sizes", places)}
    assert list(found) == ["A1", "A2", "A3", "A10", "A11"]
    assert {each.status for each in found.values()} == {"reproduced"}
    assert found["A1"].ours.startswith("1.99 GB; 146.3x vs fp32, 73.1x vs bf16")
    assert [row["id"] for row in verdicts.read(tmp_path / "papers.csv")] == ["A1", "A2", "A3", "A10", "A11"]
    assert "7.364 bits" in places.page.read_text()


def test_the_scoring_is_judged_by_formula(tmp_path: Path) -> None:
    """D2, D4 and D7 by the published figures, and they stand beside what other commands have written."""
    places = Places(published=tmp_path, page=tmp_path / "validation.md")
    publish_formulas("sizes", places)
    found = {each.id: each for each in publish_formulas("scoring", places)}
    assert list(found) == ["D2", "D4", "D7"]
    assert {each.status for each in found.values()} == {"reproduced"}
    assert found["D2"].ours == "1.000, 0.363, 0.064, 0.000; 1.000, 0.572, 0.279, 0.101"
    assert found["D7"].ours == "3.2, 1.6, 0.81, 0.0016 %; burned 50 %"
    assert [row["id"] for row in verdicts.read(tmp_path / "papers.csv")][-3:] == ["D2", "D4", "D7"]


def test_a_formula_that_is_wrong_is_not_reproduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three fails when what it looks at is another rule."""
    monkeypatch.setattr(scoring_formulas, "sync_score", lambda rules, x: 1.0)
    monkeypatch.setattr(scoring_formulas, "rate_match", lambda settings, ratings, scores: ratings)
    monkeypatch.setattr(scoring_formulas, "Ramp", lambda burn: Ramp(burn=burn, reserve_ratio=0.4))
    assert {each.status for each in scoring_formulas.judge()} == {"not reproduced"}
