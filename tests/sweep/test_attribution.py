"""`covsim attribute`: one peer honest or absent, everybody else as they were, and what that changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from besieged import BESIEGED
from command import covsim

from covsim.events import CaughtUp, Event, NodeJoined, Submitted, Trained
from covsim.nodes.seam import Computed
from covsim.record.runner import CannotResume, Run, run, scenario_of
from covsim.scenario import Scenario, ScenarioError, clean_twin, loads, population, resolved_text, run_id, with_seed
from covsim.scenario.twins import cheaters, with_peer
from covsim.simulation import Simulation
from covsim.sweep.attribution import FILE, CannotAttribute, attribute

Play = Callable[..., tuple[list[Event], object]]


@pytest.fixture(scope="module")
def besieged() -> Scenario:
    return loads(BESIEGED)


@pytest.fixture(scope="module")
def done(besieged: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(besieged, resolved_text(besieged), tmp_path_factory.mktemp("results"))


def uids(scenario: Scenario, cohort: str) -> list[int]:
    return [peer.uid for peer in population(scenario) if peer.cohort == cohort]


# Twins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["honest", "absent"])
def test_nobody_else_is_dealt_anything_new(besieged: Scenario, how: Any) -> None:
    """Cohort, links and machine of all others stay, whether a peer or a cohort is changed."""
    uid = uids(besieged, "flippers")[0]
    before = {peer.uid: peer for peer in population(besieged)}
    for changed in (with_peer(besieged, uid, how), clean_twin(besieged, how)):
        after = {peer.uid: peer for peer in population(changed)}
        touched = {uid} if changed.name.endswith(how) else set(uids(besieged, "flippers"))
        assert {each: peer for each, peer in after.items() if each not in touched} == {
            each: peer for each, peer in before.items() if each not in touched
        }
        assert (touched & set(after) == set()) == (how == "absent")
        assert all(after[each].behavior.kind == "honest" for each in touched & set(after))
        assert all(after[each].uplink_bits_per_s == before[each].uplink_bits_per_s for each in touched & set(after))


def test_nobody_else_draws_anything_new(besieged: Scenario, play: Play) -> None:
    """In the first round, before a peer can have touched anybody, all others send the same to the last bit."""
    uid = uids(besieged, "flippers")[0]

    def first_payloads(scenario: Scenario) -> dict[int, str]:
        events, _ = play(scenario)
        return {e.uid: e.payload_sha256 for e in events if isinstance(e, Submitted) and e.round == 0 and e.uid != uid}

    as_it_was = first_payloads(besieged)
    assert len(as_it_was) == 5
    assert first_payloads(with_peer(besieged, uid, "absent")) == as_it_was
    assert first_payloads(with_peer(besieged, uid, "honest")) == as_it_was


def test_who_is_absent_leaves_no_trace(besieged: Scenario, play: Play) -> None:
    """It joins nothing, trains nothing, and the run ends all the same."""
    uid = uids(besieged, "honest")[0]
    events, _ = play(with_peer(besieged, uid, "absent"))
    assert uid not in {event.uid for event in events if isinstance(event, NodeJoined | Trained | Submitted)}
    assert sum(isinstance(event, Submitted) for event in events) == 5 * 6


def test_a_counterfactual_is_written_and_read_like_all_else(besieged: Scenario) -> None:
    twin = with_peer(with_peer(besieged, 1, "absent"), 2, "honest")
    assert loads(resolved_text(twin)) == twin
    assert run_id(twin) != run_id(besieged)
    assert twin.name == "besieged-1-absent-2-honest"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{absent: [6]}", "counterfactual: uid 6 does not exist; 6 peers have the uids 0 to 5"),
        ("{honest: [fliper]}", r"counterfactual: no cohort is called 'fliper' \(did you mean 'flippers'\?\)"),
        ("{absent: [2], honest: [2]}", "counterfactual: 2 cannot be both absent and honest"),
        ("{absent: [-1]}", "counterfactual"),
        ("{gone: [1]}", "counterfactual: unknown key 'gone'"),
    ],
)
def test_a_bad_counterfactual_is_one_line(section: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        loads(BESIEGED + f"counterfactual: {section}\n")


def test_somebody_must_be_left(besieged: Scenario) -> None:
    with pytest.raises(ValueError, match="nobody is left"):
        population(loads(BESIEGED + "counterfactual: {absent: [honest, flippers]}\n"))
    with pytest.raises(ValueError, match="nobody is left"):
        clean_twin(besieged, "absent", ["honest", "flippers"])


def test_in_a_clean_twin_nothing_fails() -> None:
    """No stalls, no outages, no validator that does as it likes; reads that fail now and then are how the store is."""
    text = BESIEGED.replace("gather_timeout: 15 s}", "gather_timeout: 15 s, stalls: [{at: 50 s, lasts: 20 s}]}")
    text = text.replace(
        "{lead: {stake: 1}}", "{lead: {stake: 1, behavior: {kind: offline, from_round: 2, to_round: 3}}}"
    )
    text += "store: {read_failure: 10 %, outages: [{at: 90 s, lasts: 10 s}]}\n"
    twin = clean_twin(loads(text))
    assert (twin.timeline.stalls, twin.store.outages, twin.store.read_failure) == ([], [], 0.1)
    assert twin.validators["lead"].behavior.kind == "honest"
    assert cheaters(twin) == []
    assert twin == clean_twin(loads(BESIEGED + "store: {read_failure: 10 %}\n"))


def test_a_twin_of_a_twin_is_the_same(besieged: Scenario) -> None:
    twin = clean_twin(besieged)
    assert clean_twin(twin).model_copy(update={"name": twin.name}) == twin
    absent = clean_twin(besieged, "absent")
    assert clean_twin(absent, "absent").model_copy(update={"name": absent.name}) == absent


# Attribution --------------------------------------------------------------------------------------------------------


def test_a_flipper_is_priced(besieged: Scenario, done: Run) -> None:
    """Figures are those of the two runs; the loss is worse by it, and the same numbers lie in the folder."""
    uid = uids(besieged, "flippers")[0]
    found = attribute(done.folder, uid, jobs=0)
    assert (found.how, found.cohort, found.seeds, found.uids) == ("honest", "flippers", (1,), (uid,))
    assert found.runs == (str(done.folder),)
    prices = {price.figure: price for price in found.prices}
    twin = json.loads((Path(found.twins[0]) / "summary.json").read_text())
    loss = prices["loss.final"]
    assert (loss.was, loss.would_be) == (done.summary["loss.final"], twin["loss.final"])
    assert loss.changed is not None
    assert loss.changed == pytest.approx(done.summary["loss.final"] - twin["loss.final"])
    assert loss.changed > 0
    written = json.loads((done.folder / FILE).read_text())
    assert written[f"{uid} honest"]["prices"][0]["changed"] == pytest.approx(loss.changed)


def test_tokens_of_a_cohort_are_without_those_of_the_peer(besieged: Scenario, done: Run) -> None:
    """All lines of tokens together are all that was paid."""
    uid = uids(besieged, "honest")[0]
    found = attribute(done.folder, uid, jobs=0)
    assert found.how == "absent"
    prices = {price.figure: price for price in found.prices}
    lines = ["tokens, the peer", "tokens, honest but for it", "tokens, flippers"]
    peers = pd.read_parquet(done.folder / "peers.parquet")
    assert sum(prices[line].was or 0 for line in lines) == pytest.approx(peers["payout"].sum())
    assert prices["tokens, the peer"].was == pytest.approx(peers.loc[peers["uid"] == uid, "payout"].sum())
    assert prices["tokens, the peer"].would_be == 0
    assert prices["rounds contributed, the peer"].was == 6
    assert prices["rounds contributed, the peer"].would_be == 0


def test_over_seeds_the_peer_keeps_its_place_in_its_cohort(besieged: Scenario, done: Run) -> None:
    uid = uids(besieged, "flippers")[1]
    found = attribute(done.folder, uid, seeds=2, jobs=0)
    assert found.seeds == (1, 2)
    assert found.uids == (uid, uids(with_seed(besieged, 2), "flippers")[1])
    loss = found.prices[0]
    values = []
    for its, twin in zip(found.runs, found.twins, strict=True):
        both = [json.loads((Path(each) / "summary.json").read_text())["loss.final"] for each in (its, twin)]
        values.append(both[0] - both[1])
    assert loss.changed == pytest.approx(sum(values) / 2)
    assert loss.half_width == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two peers with a short patience take new uids, one after the other."""
    restarters = "{count: 2, behavior: {kind: restarter, share: 100 %, below: 100 %, hopes: 2}}"
    text = BESIEGED.replace("{count: 2, behavior: {kind: sign_flip, scale: 2}}", restarters)
    scenario = loads(text.replace("stop: {rounds: 6}", "stop: {rounds: 8}"))
    return run(scenario, resolved_text(scenario), tmp_path_factory.mktemp("results"))


def test_a_peer_is_all_the_uids_that_it_had(restarted: Run) -> None:
    """Whichever is asked for. Catches tokens of a second name that are counted for the rest of the cohort, or lost."""
    peers = pd.read_parquet(restarted.folder / "peers.parquet")
    by_first = peers.groupby("first_uid")["uid"].unique()
    first, own = next((int(first), sorted(map(int, own))) for first, own in by_first.items() if len(own) > 1)
    assert first == own[0]
    assert len(set(peers["first_uid"])) == 6, "there are six people"
    found = attribute(restarted.folder, first, jobs=0)
    assert (found.uid, found.uids, found.all_uids) == (first, (first,), (tuple(own),))
    prices = {price.figure: price for price in found.prices}
    mine = peers[peers["uid"].isin(own)]
    assert mine.loc[mine["uid"] != first, "payout"].sum() > 0, "the later uids are paid"
    assert prices["tokens, the peer"].was == pytest.approx(mine["payout"].sum())
    assert prices["rounds contributed, the peer"].was == mine["contributed"].sum() > 0
    assert (prices["uids, the peer"].was, prices["uids, the peer"].would_be) == (len(own), 1)
    lines = ["tokens, the peer", "tokens, honest", "tokens, flippers but for it"]
    assert sum(prices[line].was or 0 for line in lines) == pytest.approx(peers["payout"].sum())
    for later in own[1:]:
        again = attribute(restarted.folder, later, jobs=0)
        assert (again.uid, again.prices) == (first, found.prices)


def test_whose_a_uid_is_agrees_with_what_the_run_tells(restarted: Run) -> None:
    """Who registers again takes its theta along, which an event says. Catches uids that go to somebody alike."""
    scenario = scenario_of(restarted.folder)
    events: list[Event] = []
    simulation = Simulation(scenario, Computed(), (events.append,))
    while not simulation.finished:
        simulation.step()
    taken = [(e.provider, e.node) for e in events if isinstance(e, CaughtUp) and e.provider.startswith("peer:")]
    first_of = pd.read_parquet(restarted.folder / "peers.parquet").groupby("uid")["first_uid"].first()
    assert len(taken) >= 4
    assert len({first_of[int(before[5:])] for before, _ in taken}) == 2
    for before, after in taken:
        assert first_of[int(before[5:])] == first_of[int(after[5:])]


def test_what_cannot_be_attributed_is_said(besieged: Scenario, done: Run, tmp_path: Path) -> None:
    with pytest.raises(CannotAttribute, match="no peer has uid 6"):
        attribute(done.folder, 6)
    with pytest.raises(CannotAttribute, match="is honest already"):
        attribute(done.folder, uids(besieged, "honest")[0], "honest")
    with pytest.raises(CannotResume):
        attribute(tmp_path, 1)


def test_the_command_prints_the_table(besieged: Scenario, done: Run) -> None:
    uid = uids(besieged, "flippers")[0]
    code, out, err = covsim("attribute", str(done.folder), "--uid", str(uid), "--jobs", "0")
    assert code == 0, err
    assert f"uid {uid} of flippers" in out
    assert "with it honest" in out
    assert "loss.final" in out
    assert "one seed: one world" in out
    assert out.rstrip().endswith(FILE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--uid", "99"], "no peer has uid 99"), (["--uid", "1", "--honest", "--absent"], "not both")],
)
def test_the_command_refuses_nonsense(done: Run, arguments: list[str], message: str) -> None:
    code, _, err = covsim("attribute", str(done.folder), *arguments)
    assert code == 2
    assert message in err


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    code, _, err = covsim("attribute", str(tmp_path), "--uid", "1")
    assert code == 2
    assert "no run" in err


def test_somebody_is_absent_while_others_come_and_go_and_things_break(besieged: Scenario, play: Play) -> None:
    """Uids dealt anew begin behind all others, the absent one's too, and a fault that names it strikes nobody."""
    absent = uids(besieged, "flippers")[0]
    text = BESIEGED.replace("{share: rest}", "{share: rest, membership: {kind: churn, leaves: 40 %, rounds_away: 1}}")
    text += f"faults: [{{kind: crash, at: 60 s, lasts: 20 s, uids: [{absent}]}}]\n"
    events, _ = play(loads(text + f"counterfactual: {{absent: [{absent}]}}\n"))
    joined = [event.uid for event in events if isinstance(event, NodeJoined) and event.uid >= 0]
    assert absent not in joined
    assert len(set(joined)) == len(joined)
    assert set(joined) > set(range(6)) - {absent}, "some came back under a new uid"
