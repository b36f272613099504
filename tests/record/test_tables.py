"""Tables: one row per thing, columns whose type does not depend on what happened."""

import pandas as pd
import pytest
from synthetic import STAKES, play

from covsim.events import (
    Evaluated,
    Gathered,
    ListPublished,
    OuterStepTaken,
    RoundSettled,
    RunStopped,
    Submitted,
    Trained,
    Transferred,
    WeightsSet,
)
from covsim.record import tables
from covsim.record.recorder import Recorder

TABLES = {
    "rounds": tables.rounds,
    "peers": tables.peers,
    "submissions": tables.submissions,
    "verdicts": tables.verdicts,
    "evidence": tables.evidence,
    "transfers": tables.transfers,
}


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    recorder = Recorder("transfers", STAKES)
    for event in play(num_peers=24, rounds=6):
        recorder.observe(event)
    return recorder


@pytest.fixture(scope="module")
def nothing_happened() -> Recorder:
    recorder = Recorder("transfers", STAKES)
    recorder.observe(RunStopped(0.0, 0, "simulated"))
    return recorder


@pytest.mark.parametrize("name", TABLES)
def test_every_table_says_when(name: str, recorder: Recorder) -> None:
    frame = TABLES[name](recorder)
    assert {"round", "simulated_s"} <= set(frame.columns)
    assert len(frame) > 0
    assert frame["simulated_s"].notna().all()


@pytest.mark.parametrize("name", TABLES)
def test_types_do_not_depend_on_what_happened(name: str, recorder: Recorder, nothing_happened: Recorder) -> None:
    full, empty = TABLES[name](recorder), TABLES[name](nothing_happened)
    assert len(empty) == 0
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    assert not any(kind == object for kind in full.dtypes)  # noqa: E721


def test_one_row_per_thing(recorder: Recorder) -> None:
    assert len(tables.rounds(recorder)) == 6
    assert len(tables.peers(recorder)) == 6 * 24
    assert len(tables.submissions(recorder)) == len(recorder.of(Submitted))
    assert len(tables.verdicts(recorder)) == len(recorder.of(Evaluated))
    assert len(tables.evidence(recorder)) == 2 * 6 * 24  # validators, rounds, peers: all of them are active
    assert len(tables.weights(recorder)) == sum(1 + len(event.weights) for event in recorder.of(WeightsSet))
    assert len(tables.epochs(recorder)) == 6 * (24 + 2)  # the owner and what is burned beside the peers
    assert len(tables.transfers(recorder)) == len(recorder.of(Transferred))
    for name in ("rounds", "peers"):
        frame = TABLES[name](recorder)
        assert not frame.duplicated([key for key in ("round", "uid") if key in frame]).any()


def test_rounds_agree_with_the_events(recorder: Recorder) -> None:
    rounds = tables.rounds(recorder).set_index("round")
    trained = [event for event in recorder.of(Trained) if event.round == 4]
    assert rounds.loc[4, "steps"] == sum(event.steps for event in trained)
    (gathered,) = [e for e in recorder.of(Gathered) if e.round == 4 and e.node == "validator:lead"]
    assert rounds.loc[4, "num_contributing"] == len(gathered.uids)
    on_time = sum(event.on_time for event in recorder.of(Submitted) if event.round == 4)
    assert 0 < on_time == rounds.loc[4, "num_on_time"] < rounds.loc[4, "num_submitted"] == 24
    assert rounds["bytes_so_far"].is_monotonic_increasing
    assert rounds["bytes_up"].sum() == pytest.approx(recorder.traffic.up)
    assert (rounds["loss_lowest"] <= rounds["loss"]).all()
    assert (rounds["loss"] <= rounds["loss_highest"]).all()


def test_peers_agree_with_the_events(recorder: Recorder) -> None:
    peers = tables.peers(recorder).set_index(["round", "uid"])
    for event in recorder.of(RoundSettled):
        row = peers.loc[(event.round, event.uid)]
        assert row["simulated_s"] == event.time_s
        assert row["idle_s"] == event.idle_s
    (gathered,) = [e for e in recorder.of(Gathered) if e.round == 3 and e.node == "validator:lead"]
    entered = peers.loc[3]
    assert set(entered.index[entered["contributed"]]) == set(gathered.uids)
    assert (peers.loc[3]["place"] == "selected").sum() == 8


def test_list_counts_from_the_round_that_is_exchanged_in_its_first_window(recorder: Recorder) -> None:
    published = next(event for event in recorder.of(ListPublished) if event.effective_window == 3)
    peers = tables.peers(recorder)
    for round, is_in_force in ((1, False), (2, True), (3, True)):
        own = peers[(peers["round"] == round) & (peers["place"] == "selected")]
        assert (set(own["uid"]) == set(published.selected)) == is_in_force


def test_later_put_replaces_the_earlier_one(recorder: Recorder) -> None:
    copy = Recorder("transfers", STAKES)
    events = play(num_peers=24, rounds=1)
    first = next(event for event in events if isinstance(event, Submitted) and event.uid == 5)
    again = Submitted(first.time_s, 5, 0, first.num_bytes, first.stored_s + 9.0, False, first.model_bytes, "other")
    for event in events:
        copy.observe(event)
        if event is first:
            copy.observe(again)
    row = tables.peers(copy).set_index("uid").loc[5]
    assert row["stored_s"] == first.stored_s + 9.0
    assert not row["on_time"]


def test_transfer_belongs_to_the_round_of_its_object() -> None:
    recorder = Recorder("transfers", STAKES)
    for key in ("round-12/uid-3", "checkpoint"):
        recorder.observe(Transferred(1.0, "peer:0", key, "gather", "down", 1.0, 0.0, True))
    assert tables.transfers(recorder)["round"].tolist() == [12, -1]


def test_verdicts_carry_weights_and_reasons(recorder: Recorder) -> None:
    verdicts = tables.verdicts(recorder)
    paid = verdicts[verdicts["weight"] > 0]
    assert 0 < len(paid) < len(verdicts)
    assert (paid["final_score"] > 0).all()
    assert isinstance(verdicts["reasons"].iloc[0], str)


def test_evidence_says_who_was_on_the_list(recorder: Recorder) -> None:
    evidence = tables.evidence(recorder)
    peers = tables.peers(recorder)
    listed = {(row.round, row.uid) for row in peers[peers["place"] == "selected"].itertuples()}
    for row in evidence[evidence["evaluated"]].itertuples():
        assert row.on_gather_list == ((row.round, row.uid) in listed)


def test_frames_survive_parquet(recorder: Recorder, tmp_path: object) -> None:
    recorder.write(tmp_path)  # type: ignore[arg-type]
    for name, build in TABLES.items():
        frame = build(recorder)
        back = pd.read_parquet(tmp_path / f"{name}.parquet")  # type: ignore[operator]
        assert back.columns.tolist() == frame.columns.tolist()
        for column in frame:
            assert back[column].isna().tolist() == frame[column].isna().tolist()


def test_a_round_without_an_outer_step_has_a_time(recorder: Recorder) -> None:
    """The loss was measured all the same, and a curve needs to know when."""
    stepless = Recorder("transfers", STAKES)
    for event in play(num_peers=24, rounds=8):
        if not isinstance(event, OuterStepTaken):
            stepless.observe(event)
    rounds, whole = tables.rounds(stepless), tables.rounds(recorder)
    assert rounds["lineage"].isna().all()
    assert rounds["simulated_s"].is_monotonic_increasing
    assert rounds["simulated_s"].notna().all()
    assert whole["simulated_s"].notna().all()
