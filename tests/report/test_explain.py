"""A peer's story says what the tables say, leaves no round and no rule out, and folds what was quiet."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from covsim.gauntlet.settings import RULES
from covsim.report.explain import WIDTH, story
from covsim.report.explain_round import STAGES, story_of_round
from covsim.report.explain_tables import CannotExplain, number, read_peer, rules_that_acted, seconds

ROUNDS = 8
COPYCAT, HONEST = "copycat", "honest"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


def one_of(folder: Path, behavior: str) -> int:
    peers = table(folder, "peers")
    return int(peers.loc[peers["behavior"] == behavior, "uid"].min())


def changed(folder: Path, to: Path, name: str, change: Change) -> Path:
    """A copy of a run's tables, one of them changed."""
    copy = shutil.copytree(folder, to / "copy")
    change(table(folder, name)).to_parquet(copy / f"{name}.parquet")
    return copy


def setting(where: Callable[[pd.DataFrame], pd.Series], **values: object) -> Change:
    """Other values in the rows that `where` picks."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        for column, value in values.items():
            frame.loc[where(frame), column] = value
        return frame

    return change


def unwrapped(text: str) -> str:
    """The text with the lines joined that go on from the one before: they are indented by two, six or more columns."""
    return re.sub(r"\n( {6,}|  (?!lead:|second:))", " ", text)


def spoken_of(text: str) -> list[int]:
    """The rounds that lines begin with, in their order."""
    rounds: list[int] = []
    for first, last in re.findall(r"^rounds? (\d+)(?: to (\d+))?:", text, flags=re.MULTILINE):
        rounds += range(int(first), int(last or first) + 1)
    return rounds


@pytest.mark.parametrize("uid", range(0, 24, 5))
def test_every_round_is_told_once(uid: int, run_folder: Path) -> None:
    assert spoken_of(story(read_peer(run_folder, uid))) == list(range(ROUNDS))


def test_no_line_is_too_long(run_folder: Path) -> None:
    for uid in range(24):
        peer = read_peer(run_folder, uid)
        text = "\n".join([story(peer), *(story_of_round(peer, round) for round in range(ROUNDS))])
        assert max(map(len, text.splitlines())) <= WIDTH


def test_the_headline_adds_up(run_folder: Path) -> None:
    uid = one_of(run_folder, HONEST)
    own = table(run_folder, "peers").query("uid == @uid")
    first, second, third, *_ = story(read_peer(run_folder, uid)).splitlines()
    row = own.iloc[0]
    assert first.startswith(f"uid {uid}: cohort {row['cohort']}, behavior honest; ")
    assert f"{row['uplink_bits_per_s'] / 1e6:.4g} Mb/s up" in first
    assert f"on time {own['on_time'].sum()}, on the list {(own['place'] == 'selected').sum()}, " in second
    assert second.startswith(f"played {ROUNDS} of {ROUNDS} rounds, ")
    assert second.endswith(f"entered the model {own['contributed'].sum()}")
    paid, cost, profit = (number(own[name].sum()) for name in ("payout", "cost", "profit"))
    assert third == f"{paid} tokens, cost {cost}, profit {profit}"


def test_the_final_rating_is_that_of_the_last_verdict(run_folder: Path) -> None:
    uid = one_of(run_folder, HONEST)
    last = table(run_folder, "verdicts").query("uid == @uid and validator == 'lead'").sort_values("round").iloc[-1]
    ordinal = number(last["mu"] - 3 * last["sigma"])
    text = unwrapped(story(read_peer(run_folder, uid), "lead"))
    assert f"final rating: lead {ordinal} (mu {number(last['mu'])} - 3 x sigma {number(last['sigma'])})" in text


def test_a_round_says_what_was_measured_and_what_moved(run_folder: Path) -> None:
    verdicts = table(run_folder, "verdicts").query("validator == 'lead' and gradient_score.notna()")
    verdict = verdicts[verdicts["mu"] != verdicts["mu_before"]].iloc[-1]
    round, uid = int(verdict["round"]), int(verdict["uid"])
    seen = table(run_folder, "evidence").query("validator == 'lead' and uid == @uid and round == @round").iloc[0]
    text = unwrapped(story(read_peer(run_folder, uid), "lead"))
    line = text.split(f"\nround {round}: ")[1].split("\nround ")[0]
    own = (seen["own_before"] - seen["own_after"]) / seen["own_before"]
    assert f"own data {100 * own:+.3g} %, random data {100 * verdict['gradient_score']:+.3g} %" in line
    before, after = (verdict[f"mu{when}"] - 3 * verdict[f"sigma{when}"] for when in ("_before", ""))
    assert f"rating {number(before)} -> {number(after)}, indicator average" in line
    assert f"weight {number(verdict['weight'])}" in line


def test_the_story_tells_the_rank_of_each_evaluated_round(run_folder: Path) -> None:
    """The place by gradient score among all of the match, in both forms of the story."""
    verdicts = table(run_folder, "verdicts").query("validator == 'lead'")
    verdicts = verdicts[verdicts["mu"] != verdicts["mu_before"]]
    scored = verdicts[verdicts["gradient_score"].notna()]
    best = scored.sort_values(["round", "gradient_score"]).groupby("round").tail(1)
    for round, uid in best[["round", "uid"]].astype(int).to_numpy():
        peer, players = read_peer(run_folder, uid), int((scored["round"] == round).sum())
        told = " ".join(story(peer, "lead").split(f"\nround {round}: ")[1].split("\nround ")[0].split())
        assert f"; rank 1 of {players}; rating " in told
        assert f"rank 1 of {players} in the match, mu " in story_of_round(peer, round, "lead")
    assert len(best) == 8


def test_quiet_rounds_are_folded_and_their_pay_is_added(run_folder: Path, tmp_path: Path) -> None:
    uid = one_of(run_folder, HONEST)
    folder = changed(
        run_folder, tmp_path, "verdicts", lambda frame: frame[(frame["uid"] != uid) | (frame["round"] != 3)]
    )
    quiet = setting(lambda frame: frame["uid"] == uid, place="none", contributed=False, payout=0.25)
    quiet(table(folder, "peers")).to_parquet(folder / "peers.parquet")
    assert "\nround 3: not evaluated, not on the list; paid 0.25 tokens\n" in story(read_peer(folder, uid))
    few = table(folder, "verdicts")
    few[(few["uid"] != uid) | (few["round"] == 0)].to_parquet(folder / "verdicts.parquet")
    text = story(read_peer(folder, uid))
    assert text.endswith(f"\nrounds 1 to {ROUNDS - 1}: not evaluated, not on the list; paid 1.75 tokens")
    assert spoken_of(text) == list(range(ROUNDS))


def test_rounds_of_another_kind_are_folded_apart(run_folder: Path, tmp_path: Path) -> None:
    """Absent until round 2, skipped in round 4, nothing sent in round 5."""
    uid = one_of(run_folder, HONEST)
    folder = changed(run_folder, tmp_path, "verdicts", lambda frame: frame[frame["uid"] != uid])
    peers = setting(lambda frame: frame["uid"] == uid, place="none", contributed=False, payout=0.0)(
        table(folder, "peers").convert_dtypes()
    )
    idle = dict.fromkeys(("compute_s", "upload_s", "download_s"), 0.0)
    peers = setting(lambda frame: (frame["uid"] == uid) & (frame["round"] < 2), on_time=pd.NA, **idle)(peers)
    peers = setting(lambda frame: (frame["uid"] == uid) & (frame["round"] == 4), on_time=pd.NA, skipped=True)(peers)
    peers = setting(lambda frame: (frame["uid"] == uid) & (frame["round"] == 5), on_time=pd.NA)(peers)
    peers = setting(lambda frame: (frame["uid"] == uid) & (frame["round"] == 6), on_time=False, place="reserve")(peers)
    peers.to_parquet(folder / "peers.parquet")
    lines = story(read_peer(folder, uid)).split("\n\n")[1].splitlines()
    assert lines == [
        "rounds 0 to 1: not evaluated, not on the list, took no part",
        "rounds 2 to 3: not evaluated, not on the list",
        "round 4: not evaluated, not on the list, skipped: still busy with a round before",
        "round 5: not evaluated, not on the list, submitted nothing",
        "round 6: not evaluated, in reserve, its submission was not on time",
        "round 7: not evaluated, not on the list",
    ]
    assert "lead never judged it; second never judged it" in story(read_peer(folder, uid))


def test_every_rule_that_acted_is_told(run_folder: Path) -> None:
    verdicts = table(run_folder, "verdicts")
    acted = verdicts[verdicts["reasons"] != ""]
    for uid in sorted(set(acted["uid"])):
        text = unwrapped(story(read_peer(run_folder, int(uid))))
        for reason in acted.loc[acted["uid"] == uid, "reasons"]:
            assert reason in text


def test_a_problem_with_semicolons_is_one_reason() -> None:
    first = "evaluated_invalid: chunk 3; index 9 twice; also: nothing: final score 1 -> 0"
    second = "penalty_score: invalid, scores -99: ordinal 0 -> -1"
    assert rules_that_acted({"reasons": f"{first}; {second}"}) == [first, second]
    assert rules_that_acted({"reasons": ""}) == []


def test_stages_hold_every_rule_in_its_order() -> None:
    assert [rule for rules in STAGES.values() for rule in rules] == list(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_told_at_its_stage(rule: str, run_folder: Path, tmp_path: Path) -> None:
    reasons = f"{rule}: why; not: final score 3 -> 1"
    folder = changed(run_folder, tmp_path, "verdicts", lambda frame: frame.assign(reasons=reasons))
    uid, round = map(int, table(folder, "verdicts").query("validator == 'lead'")[["uid", "round"]].iloc[0])
    text = story_of_round(read_peer(folder, uid), round, "lead")
    stage = ""
    for line in text.splitlines():
        stage = line[2:15].strip() or stage
        if reasons in line:
            break
    assert rule in STAGES[stage]
    assert text.count(reasons) == 1


def test_one_round_tells_the_stages_in_order_by_validator(run_folder: Path) -> None:
    uid, round = map(int, table(run_folder, "verdicts").query("gradient_score.notna()")[["uid", "round"]].iloc[-1])
    peer = read_peer(run_folder, uid)
    text = story_of_round(peer, round)
    assert text.startswith(f"uid {uid} in round {round}: cohort ")
    own, *validators = text.split("\n\n")
    assert [block.partition(",")[0].partition(":")[0] for block in validators] == ["lead", "second"]
    row = table(run_folder, "peers").query("uid == @uid and round == @round").iloc[0]
    assert f"compute {seconds(row['compute_s'])}, upload {seconds(row['upload_s'])}" in own
    stages = ["gather", "draw", "fetch", "measure", "compare", *STAGES, "weigh", "set"]
    for block, name in zip(validators, ("lead", "second"), strict=True):
        if (round, name) in peer.verdicts:
            assert [line[2:15].strip() for line in block.splitlines()[1:] if line[2:15].strip()] == stages
    assert story_of_round(peer, round, "second").count("\n\n") == 1


def test_one_round_says_losses_and_stamps(run_folder: Path) -> None:
    seen = table(run_folder, "evidence").query("validator == 'lead' and own_after.notna()").iloc[-1]
    round, uid = int(seen["round"]), int(seen["uid"])
    text = re.sub(r"\s+", " ", story_of_round(read_peer(run_folder, uid), round, "lead"))
    assert f"own data {seen['own_before']:.6g} -> {seen['own_after']:.6g} nats per token" in text
    assert f"random data {seen['random_before']:.6g} -> {seen['random_after']:.6g} nats per token" in text
    opened_s = table(run_folder, "rounds").set_index("round")["opened_s"][round]
    assert f"stamped {number(seen['stored_s'] - opened_s)} s after its window opened" in text


def test_why_there_is_no_verdict(run_folder: Path, tmp_path: Path) -> None:
    uid = one_of(run_folder, HONEST)
    folder = changed(run_folder, tmp_path, "verdicts", lambda frame: frame[frame["uid"] != uid])
    evidence = table(folder, "evidence")
    here = (evidence["uid"] == uid) & (evidence["validator"] == "lead")
    evidence.loc[here & (evidence["round"] == 0), "active"] = True
    evidence = evidence[~(here & (evidence["round"] == 1))]
    evidence = evidence[(evidence["validator"] != "lead") | (evidence["round"] != 2)]
    evidence.to_parquet(folder / "evidence.parquet")
    peer = read_peer(folder, uid)
    assert "lead: active, but neither drawn nor asked" in story_of_round(peer, 0, "lead")
    assert "lead: not active, and no rule acted on it" in story_of_round(peer, 1, "lead")
    assert "lead: judged nobody in this round" in story_of_round(peer, 2, "lead")


@pytest.mark.parametrize("name", ["verdicts", "evidence", "weights", "epochs", "submissions"])
def test_a_table_that_was_not_recorded(name: str, run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    (folder / f"{name}.parquet").unlink()
    with pytest.raises(CannotExplain, match=rf"it has no {name}.parquet: the run was recorded at level summary; "):
        read_peer(folder, 0)


@pytest.mark.parametrize("name", ["rounds", "peers"])
def test_a_folder_without_a_finished_run(name: str, run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    (folder / f"{name}.parquet").unlink()
    with pytest.raises(CannotExplain, match=f"no finished run is here \\(it has no {name}.parquet\\)"):
        read_peer(folder, 0)


def test_tables_of_another_version(run_folder: Path, tmp_path: Path) -> None:
    folder = changed(run_folder, tmp_path, "verdicts", lambda frame: frame.drop(columns="mu_before"))
    with pytest.raises(CannotExplain, match="it has no column 'mu_before'; another version of covsim has written it"):
        read_peer(folder, 0)


def test_a_table_that_is_none(run_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "copy")
    (folder / "epochs.parquet").write_text("not a table")
    with pytest.raises(CannotExplain, match="no parquet file can be read here"):
        read_peer(folder, 0)


def test_whom_and_what_the_run_does_not_know(run_folder: Path) -> None:
    with pytest.raises(CannotExplain, match="there is no peer with uid 99; uids go from 0 to 23"):
        read_peer(run_folder, 99)
    with pytest.raises(CannotExplain, match="there is no peer with uid -1; "):
        read_peer(run_folder, -1)
    peer = read_peer(run_folder, 0)
    with pytest.raises(CannotExplain, match="round 8 was not played; the run has rounds 0 to 7"):
        story_of_round(peer, 8)
    with pytest.raises(CannotExplain, match=r"no validator is called 'laed' \(did you mean 'lead'\?\); there are lead"):
        story(peer, "laed")
