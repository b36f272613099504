"""Every verb of a peer, by scripts in small whole runs: it does what it says, and is charged for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from scripted import resumed_at, scripted, simulate, with_scripts

from covsim.behaviors.base import Script
from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    Gathered,
    NodeJoined,
    RoundSettled,
    Submitted,
    Transferred,
)
from covsim.learning.corpus import Batches
from covsim.nodes import trained as trained_module
from covsim.nodes.mishaps import Mishaps
from covsim.nodes.seam import Computed
from covsim.protocol import protocols
from covsim.protocol.base import Claims
from covsim.protocol.forgery import FLAWS
from covsim.scenario import Scenario
from covsim.simulation import Simulation


def uids(events: list[Event], cohort: str) -> list[int]:
    return sorted(event.uid for event in events if isinstance(event, NodeJoined) and event.cohort == cohort)


def transfers(events: list[Event], uid: int, purpose: str) -> list[Transferred]:
    return [e for e in events if isinstance(e, Transferred) and e.node == f"peer:{uid}" and e.purpose == purpose]


def submissions(events: list[Event], uid: int) -> list[Submitted]:
    return [event for event in events if isinstance(event, Submitted) and event.uid == uid]


def settled(events: list[Event], uid: int) -> list[RoundSettled]:
    return [event for event in events if isinstance(event, RoundSettled) and event.uid == uid]


def opening_s(scenario: Scenario, window: int) -> float:
    return window * scenario.timeline.blocks_per_window * scenario.timeline.block


# Sending ------------------------------------------------------------------------------------------------------------


def test_who_submits_early_is_stamped_early_and_may_replace_it(tiny: Scenario) -> None:
    """The first upload lies before the window and counts for nothing, the second counts, and is what others read."""

    def script(peer: Any) -> Script:
        update = yield from peer.train(peer.assigned_batches(), 1)
        yield from peer.submit(update, early=True)
        peer.notes["early"] = peer._commons.env.now
        if peer.round == 1:
            yield from peer.submit(2 * update)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=2)
    simulation, events, _ = simulate(scenario)
    (uid,) = uids(events, "lazy")
    first, *second = submissions(events, uid)
    assert first.stored_s < opening_s(scenario, 1)
    assert not first.on_time
    assert [(each.round, each.on_time) for each in second] == [(1, False), (1, True)]
    assert second[0].payload_sha256 != second[1].payload_sha256
    early = [e for e in events if isinstance(e, Evaluated) and (e.uid, e.round) == (uid, 0)]
    assert {event.status for event in early} <= {"early", "late", "missing"}
    assert simulation.peers[uid].body.notes["early"] < opening_s(scenario, 2)


def test_any_bytes_may_be_early_too(tiny: Scenario) -> None:
    def script(peer: Any) -> Script:
        yield from peer.submit_payload(b"x" * 1000, early=True)
        yield from peer.wait_for_uploads()
        yield from peer.submit_payload(b"y" * 1000)
        yield from peer.sync()

    _, events, _ = simulate(with_scripts(tiny, {"lazy": script}, rounds=1))
    (uid,) = uids(events, "lazy")
    assert [(event.on_time, event.model_bytes) for event in submissions(events, uid)] == [(False, 1000), (True, 1000)]


def test_an_encoded_update_is_said_without_error_feedback(tiny: Scenario) -> None:
    """It is the plain payload of the update, waits for the window, and leaves no error buffer behind."""
    seen: dict[str, Any] = {}

    def script(peer: Any) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        payload = yield from peer.encode(update)
        again = yield from peer.encode(update)
        seen.update(update=update.value(), payload=payload, again=again, now_s=peer._commons.env.now)
        yield from peer.submit_payload(payload)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=1)
    simulation, events, _ = simulate(scenario)
    (uid,) = uids(events, "lazy")
    assert seen["now_s"] == opening_s(scenario, 1)
    assert seen["payload"] == seen["again"], "a first payload has changed what a second one says"
    claims = simulation.exchange.decode(0, seen["payload"]).claims
    assert claims.tokens == 3 * scenario.tokens_per_step
    plain = simulation.exchange.encode(0, [99], seen["update"][None], [Claims(claims.tokens)], feedback=False)[0]
    assert seen["payload"] == plain
    assert simulation.exchange.buffers is not None
    assert simulation.exchange.buffers.buffer(uid) is None
    others = uids(events, "honest")
    assert all(simulation.exchange.buffers.buffer(other) is not None for other in others)


def test_what_is_put_aside_is_charged_and_nobody_is_told(tiny: Scenario) -> None:
    """Twice the bytes take twice the time of the link, which is booked as upload; it is no submission."""

    def script(peer: Any) -> Script:
        payload = yield from peer.encode(peer.noise(1.0))
        yield from peer.put("debug-0", payload)
        yield from peer.put("debug-1", payload + payload)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=1)
    simulation, events, _ = simulate(scenario)
    (uid,) = uids(events, "lazy")
    one, two = transfers(events, uid, "aside")
    assert one.key == f"round-0/uid-{uid}/debug-0"
    assert one.num_bytes == pytest.approx(scenario.payload_bytes)
    assert two.num_bytes == pytest.approx(2 * scenario.payload_bytes)
    (joined,) = [event for event in events if isinstance(event, NodeJoined) and event.uid == uid]
    moved_s = 8 * 3 * scenario.payload_bytes / joined.uplink_bits_per_s
    latency_s = 2 * scenario.network.latency
    assert settled(events, uid)[0].upload_s == pytest.approx(moved_s + latency_s)
    assert not submissions(events, uid)
    assert simulation.commons.store.stat(one.key) is not None


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_is_forged_harms_nobody(flaw: str, tiny: Scenario) -> None:
    """All but `huge` is found invalid by whoever reads it, and everyone plays on."""

    def script(peer: Any) -> Script:
        payload = yield from peer.encode(peer.noise(0.01))
        forged = peer.forge(payload, flaw)
        assert peer.forge(b"nonsense", flaw) == b"nonsense"
        assert (peer.read(forged) is not None) == (flaw == "huge")
        yield from peer.submit_payload(forged)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=2, lazy=4)
    _, events, _ = simulate(scenario)
    forgers = uids(events, "lazy")
    assert len([e for e in events if isinstance(e, RoundSettled)]) == 2 * scenario.peers
    read = [event for event in events if isinstance(event, Evaluated) and event.evaluated and event.uid in forgers]
    found = {event.status for event in read} - {"missing"}
    entered = {uid for e in events if isinstance(e, Gathered) for uid in e.uids}
    if flaw == "huge":
        assert "invalid" not in found
    elif flaw != "oversized":  # which takes its time, and may come late
        assert found == {"invalid"}
    assert flaw == "huge" or not entered & set(forgers)


def test_a_flaw_must_be_known(tiny: Scenario) -> None:
    def script(peer: Any) -> Script:
        yield from peer.wait_for_uploads()
        peer.forge(b"", "rotten")

    with pytest.raises(ValueError, match="unknown flaw 'rotten'; there are truncated, empty"):
        simulate(with_scripts(tiny, {"lazy": script}, rounds=1))


# Reading ------------------------------------------------------------------------------------------------------------


def test_others_payloads_come_in_the_order_of_their_arrival_and_are_paid(tiny: Scenario) -> None:
    read: list[list[bytes]] = []

    def script(peer: Any) -> Script:
        payloads = yield from peer.payloads_of_others(most=2, until_share=0.9)
        read.append(list(payloads))
        yield from peer.sync()

    scenario = with_scripts(tiny, {"copycats": script}, rounds=2, knowledge="observed")
    scenario = scenario.model_copy(update={"store": scenario.store.model_copy(update={"read_failure": 0.0})})
    simulation, events, _ = simulate(scenario)
    (uid,) = uids(events, "copycats")
    observed = transfers(events, uid, "observe")
    assert [len(each) for each in read] == [2, 2]
    assert len(observed) == 4
    stamps = {f"round-{e.round}/uid-{e.uid}": e.stored_s for e in events if isinstance(e, Submitted)}
    for round, pair in enumerate((observed[:2], observed[2:])):
        assert [stamps[each.key] for each in pair] == sorted(stamps[each.key] for each in pair)
        listed = {key for key in stamps if key.startswith(f"round-{round}/") and key != f"round-{round}/uid-{uid}"}
        asked = {f"round-{round}/uid-{other}" for other in simulation.commons.board.in_force(round + 1).selected}
        first = min(listed & asked, key=lambda key: stamps[key])
        assert pair[0].key == first, "somebody else's payload had arrived before"
        assert all(each.num_bytes == pytest.approx(scenario.payload_bytes) for each in pair)
    spent_s = sum(each.time_s - each.started_s for each in observed[:2])
    assert settled(events, uid)[0].download_s >= spent_s > 0


def test_nobody_is_asked_for_after_the_deadline(tiny: Scenario) -> None:
    """A share of 0.4 of the put window, in which no upload can have ended; and one in which the first has."""
    read: list[tuple[int, float]] = []
    shares = [0.1, 0.99]

    def script(peer: Any) -> Script:
        payloads = yield from peer.payloads_of_others(most=100, until_share=shares[peer.round])
        read.append((len(payloads), peer._commons.env.now))
        yield from peer.sync()

    scenario = with_scripts(tiny, {"copycats": script}, rounds=2, knowledge="observed")
    _, events, _ = simulate(scenario)
    (uid,) = uids(events, "copycats")
    put_window_s = scenario.timeline.put_window
    assert read[0] == (0, pytest.approx(opening_s(scenario, 1) + 0.1 * put_window_s))
    assert 0 < read[1][0] <= 4
    starts = [each.started_s for each in transfers(events, uid, "observe")]
    assert all(start < opening_s(scenario, 2) + 0.99 * put_window_s for start in starts)


def test_what_a_payload_says_is_a_dense_update(tiny: Scenario) -> None:
    seen: dict[str, Any] = {}

    def script(peer: Any) -> Script:
        update = peer.noise(0.01)
        payload = yield from peer.encode(update)
        said = peer.read(payload)
        assert peer.read(b"nonsense") is None
        seen.update(said=said.value(), payload=payload, update=update.value())
        yield from peer.sync()

    simulation, _, _ = simulate(with_scripts(tiny, {"lazy": script}, rounds=1))
    decoded = simulation.exchange.decode(0, seen["payload"])
    expected = torch.zeros(simulation.scenario.model.num_parameters)
    expected[decoded.index] = decoded.value
    assert torch.equal(seen["said"], expected)
    assert torch.cosine_similarity(seen["said"], seen["update"], dim=0) > 0.1


@pytest.mark.parametrize("knowledge", ["own", "observed"])
def test_who_is_not_omniscient_may_not_look(knowledge: Literal["own", "observed"], tiny: Scenario) -> None:
    def script(peer: Any) -> Script:
        yield from peer.updates_of_others()

    with pytest.raises(ValueError, match='which none may know: state `knowledge = "omniscient"`'):
        simulate(with_scripts(tiny, {"lazy": script}, rounds=1, knowledge=knowledge))


def test_the_omniscient_see_what_others_are_about_to_submit(tiny: Scenario) -> None:
    """All of them, by uid, before a byte has moved; not fellows, not who answers to the same look, not who is late."""
    sent: dict[tuple[int, int], Any] = {}
    seen: dict[tuple[int, int], Any] = {}

    def honest(peer: Any) -> Script:
        update = yield from peer.train(peer.assigned_batches(), 1)
        sent[peer.round, peer.uid] = update
        yield from peer.submit(update)
        yield from peer.sync()

    def attacker(peer: Any) -> Script:
        others = yield from peer.updates_of_others()
        seen[peer.round, peer.uid] = (peer._commons.env.now, others)
        yield from peer.submit(peer.combine(others, lambda stack: stack.mean(dim=0)))
        yield from peer.sync()

    scripts = {"honest": honest, "lazy": attacker, "flippers": attacker}
    scenario = with_scripts(tiny, scripts, rounds=2, knowledge="omniscient", lazy=2, copycats=0)
    _, events, _ = simulate(scenario)
    good, late = uids(events, "honest"), uids(events, "late")
    assert late
    for uid in [*uids(events, "lazy"), *uids(events, "flippers")]:
        for round in range(2):
            now_s, others = seen[round, uid]
            assert now_s == opening_s(scenario, round + 1)
            assert [id(other) for other in others] == [id(sent[round, other]) for other in good]
    assert all(event.on_time for uid in uids(events, "lazy") for event in submissions(events, uid))


def test_a_later_look_sees_more(tiny: Scenario) -> None:
    """A fellow's update is never among them; a late peer's is, once it has been handed in."""
    numbers: list[int] = []

    def attacker(peer: Any) -> Script:
        first = yield from peer.updates_of_others()
        yield from peer.pause(190.0)
        second = yield from peer.updates_of_others()
        numbers.extend([len(first), len(second)])
        yield from peer.sync()

    def latecomer(peer: Any) -> Script:
        yield from peer.wait_for_uploads()
        yield from peer.pause(100.0)
        yield from peer.submit(peer.noise(1e-3))
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": attacker, "late": latecomer}, 1, "omniscient", copycats=0)
    simulate(scenario)
    assert numbers == [8, 9]


def test_nothing_is_kept_for_nobody(tiny: Scenario) -> None:
    """Without an omniscient behavior the board stays empty; with one, it holds no round that is over."""
    simulation, _, _ = simulate(with_scripts(tiny, {}, rounds=3))
    assert not simulation.commons.conspiracy._board

    def attacker(peer: Any) -> Script:
        yield from peer.updates_of_others()
        yield from peer.sync()

    simulation, _, _ = simulate(with_scripts(tiny, {"lazy": attacker}, 4, "omniscient"))
    assert set(simulation.commons.conspiracy._board) <= {2, 3}


def test_the_expected_sequences_are_those_that_are_measured(tiny: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leading validator's own; another validator draws others."""
    measured: list[torch.Tensor] = []
    original = trained_module.measure

    def noting(model: Any, theta: Any, trials: Any, own: torch.Tensor, random: Any) -> Any:
        measured.append(own)
        return original(model, theta, trials, own, random)

    monkeypatch.setattr(trained_module, "measure", noting)
    expected: dict[int, torch.Tensor] = {}

    def script(peer: Any) -> Script:
        batches = peer.expected_batches()
        corpus = peer._commons.trainer._corpus
        expected[peer.round] = corpus.batches(batches, 3, 2)
        update = yield from peer.train(batches)
        yield from peer.submit(update)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=2)
    rules = scenario.gauntlet.model_copy(update={"evaluated_per_window": 10})
    _, events, _ = simulate(scenario.model_copy(update={"gauntlet": rules}))
    (uid,) = uids(events, "lazy")
    measured_of = [e for e in events if isinstance(e, Evaluated) and e.uid == uid and not math.isnan(e.own_before)]
    assert {event.validator for event in measured_of} == {"lead", "second"}
    for round in {event.round for event in measured_of}:
        sequences = expected[round].flatten(0, 1)
        assert torch.equal(sequences[:2], sequences[2:4]), "they are not repeated"
        rows = [row for own in measured for row in own if torch.equal(row, sequences[:2])]
        assert len(rows) == 1, "it is one validator's sample of one peer"


# Conspiring ---------------------------------------------------------------------------------------------------------


def test_fellows_hear_each_other(tiny: Scenario) -> None:
    """The others train nothing and submit what the first has told; a stranger hears nothing and waits in vain."""
    heard: dict[tuple[int, int], tuple[float, Any]] = {}

    def script(peer: Any) -> Script:
        if peer.uid == peer.fellows[0]:
            update = yield from peer.train(peer.assigned_batches())
            peer.tell("update", update)
            yield from peer.submit(update)
        else:
            update = yield from peer.heard("update")
            heard[peer.round, peer.uid] = (peer._commons.env.now, update)
            yield from peer.submit(update)
        yield from peer.sync()

    def stranger(peer: Any) -> Script:
        update = yield from peer.heard("update")
        heard[peer.round, peer.uid] = (peer._commons.env.now, update)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script, "flippers": stranger}, rounds=2, lazy=3, copycats=0)
    simulation, events, _ = simulate(scenario)
    first, *followers = uids(events, "lazy")
    (alone,) = uids(events, "flippers")
    assert simulation.peers[first].body.fellows == (first, *followers)
    for round in range(2):
        payload = submissions(events, first)[round]
        for uid in followers:
            now_s, update = heard[round, uid]
            assert update is not None
            assert now_s <= opening_s(scenario, round + 1)
            assert len(submissions(events, uid)) == 2
        same = {submissions(events, uid)[round].payload_sha256 for uid in followers}
        assert len(same) == 1, "one trainer, one payload"
        assert payload.payload_sha256 not in same, "who has not trained claims tokens"
        now_s, update = heard[round, alone]
        assert update is None
        assert now_s == opening_s(scenario, round + 1) + scenario.timeline.put_window


def test_what_was_told_before_is_heard_at_once_and_only_in_its_round(tiny: Scenario) -> None:
    heard: list[tuple[float, Any]] = []

    def script(peer: Any) -> Script:
        if peer.round == 0:
            peer.tell("word", 1)
            peer.tell("word", 2)
        yield from peer.pause(1.0)
        began_s = peer._commons.env.now
        word = yield from peer.heard("word")
        heard.append((peer._commons.env.now - began_s, word))
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=2)
    simulate(scenario)
    assert heard[0] == (0.0, 2)
    assert heard[1][0] > 100
    assert heard[1][1] is None


def test_another_s_sync_sample_can_be_shown(tiny: Scenario) -> None:
    """A desynced peer looks fresh by it; where the other has published nothing, nothing happens."""
    shown: list[tuple[str, str]] = []

    def script(peer: Any) -> Script:
        yield from peer.train(peer.assigned_batches(), 1, rounds_behind=2)
        samples = peer._commons.samples
        own = samples.of(peer.round, peer.uid).lineage.key
        peer.show_sample_of(99)
        assert samples.of(peer.round, peer.uid).lineage.key == own
        peer.show_sample_of(honest_uid)
        shown.append((own, samples.of(peer.round, peer.uid).lineage.key))
        assert samples.of(peer.round, peer.uid).published_s == peer._commons.env.now
        yield from peer.wait_for_uploads()
        yield from peer.sync()

    honest_uid = uids(simulate(with_scripts(tiny, {}, rounds=1))[1], "honest")[0]
    scenario = with_scripts(tiny, {"lazy": script}, rounds=3)
    scenario = scenario.model_copy(update={"store": scenario.store.model_copy(update={"read_failure": 0.0})})
    simulate(scenario)
    assert [own == fresh for own, fresh in shown] == [True, False, False]


# Knowing ------------------------------------------------------------------------------------------------------------


def test_chances_and_noise_have_an_address_each(tiny: Scenario) -> None:
    """The same again for the same name; another for another name, round or uid; of the scale that was asked for."""
    drawn: dict[tuple[int, int], tuple[float, float, torch.Tensor, torch.Tensor]] = {}

    def script(peer: Any) -> Script:
        assert peer.chance("a") == peer.chance("a")
        assert torch.equal(peer.noise(2.0).value(), 2 * peer.noise(1.0).value())
        assert not peer.noise(0).value().any()
        numbers = (peer.chance("a"), peer.chance("b"), peer.noise(0.5).value(), peer.noise(0.5, "other").value())
        drawn[peer.round, peer.uid] = numbers
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=2, lazy=2)
    _, events, _ = simulate(scenario)
    simulate(with_scripts(tiny, {}, rounds=1))
    chances = [number for each in drawn.values() for number in each[:2]]
    assert len(set(chances)) == 8
    assert all(0 <= number < 1 for number in chances)
    vectors = [vector for each in drawn.values() for vector in each[2:]]
    for place, vector in enumerate(vectors):
        assert vector.std().item() == pytest.approx(0.5, rel=0.1)
        assert abs(vector.mean().item()) < 0.05
        assert not any(torch.equal(vector, other) for other in vectors[place + 1 :])
    assert len(uids(events, "lazy")) == 2


def test_noise_of_a_scale_that_is_none_is_refused(tiny: Scenario) -> None:
    def script(peer: Any) -> Script:
        yield from peer.wait_for_uploads()
        peer.noise(-1.0)

    with pytest.raises(ValueError, match="noise has a finite standard deviation from 0 up, not -1"):
        simulate(with_scripts(tiny, {"lazy": script}, rounds=1))


def test_the_last_change_is_what_the_network_did(tiny: Scenario) -> None:
    """Theta before minus theta now; zeros as long as nothing is remembered, and also for who asks every other round."""
    thetas: dict[int, list[torch.Tensor]] = {}
    changes: dict[int, dict[int, list[torch.Tensor]]] = {}

    def script(peer: Any) -> Script:
        thetas.setdefault(peer.uid, []).append(peer.lineage.theta)
        if peer.round % 2 == 0:
            answers = [peer.last_change(), peer.last_change(2), peer.last_change(50)]
            changes.setdefault(peer.uid, {})[peer.round] = [each.value() for each in answers]
        yield from peer.wait_for_uploads()
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=5)
    _, events, _ = simulate(scenario)
    (uid,) = uids(events, "lazy")
    theta = thetas[uid]
    assert all(not torch.equal(one, other) for one, other in pairwise(theta)), "theta stood still"
    assert not any(each.any() for each in changes[uid][0])
    for round in (2, 4):
        one, two, all_of_it = changes[uid][round]
        assert torch.equal(one, theta[round - 1] - theta[round])
        assert torch.equal(two, theta[round - 2] - theta[round])
        assert torch.equal(all_of_it, theta[0] - theta[round])


def test_the_future_is_not_remembered(tiny: Scenario) -> None:
    def script(peer: Any) -> Script:
        yield from peer.wait_for_uploads()
        peer.last_change(-1)

    with pytest.raises(ValueError, match="nobody knows the theta of 1 rounds ahead"):
        simulate(with_scripts(tiny, {"lazy": script}, rounds=1))


def test_the_incentive_is_the_last_epochs(tiny: Scenario) -> None:
    """What the chain's last epoch paid this peer, of all that it paid to peers or burned."""
    known: dict[tuple[int, float], float] = {}

    def script(peer: Any) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        known[peer.uid, peer._commons.env.now] = peer.incentive()
        yield from peer.submit(update)
        yield from peer.sync()

    scenario = with_scripts(tiny, {"honest": script}, rounds=5)
    simulation, events, _ = simulate(scenario)
    epochs = [event for event in events if isinstance(event, EpochSettled)]
    settings = simulation.commons.chain.settings
    positive = 0
    for (uid, now_s), share in known.items():
        past = [epoch for epoch in epochs if epoch.time_s <= now_s]
        paid = dict(past[-1].paid).get(uid, 0.0) if past else 0.0
        peers_part = settings.emission_per_block * settings.peer_share * (past[-1].blocks if past else 1)
        assert share == pytest.approx(paid / peers_part)
        positive += share > 0
    assert positive, "nobody was ever paid"
    assert min(now_s for _, now_s in known) < epochs[0].time_s, "no question came before the first epoch"


def test_updates_are_combined_late_and_must_keep_their_length(tiny: Scenario) -> None:
    seen: list[torch.Tensor] = []

    def script(peer: Any) -> Script:
        one, two = peer.noise(1.0, "one"), peer.noise(1.0, "two")
        both = peer.combine([one, two], lambda stack: stack.amax(dim=0))
        seen.append(both.value() - torch.maximum(one.value(), two.value()))
        with pytest.raises(ValueError, match="there are no updates to combine"):
            peer.combine([], lambda stack: stack.mean(dim=0))
        short = peer.combine([one], lambda stack: stack[0, :5])
        with pytest.raises(ValueError, match=r"must give as many; it gave a tensor of shape \(5,\)"):
            short.value()
        yield from peer.wait_for_uploads()
        yield from peer.sync()

    simulate(with_scripts(tiny, {"lazy": script}, rounds=1))
    assert not seen[0].any()


# Going wrong --------------------------------------------------------------------------------------------------------


class Spoiler(Mishaps):
    """Spoils everything that one peer trains."""

    def __init__(self, uid: int, mishap: Literal["nan", "wrong_shard"]) -> None:
        self.uid, self.mishap = uid, mishap

    def spoils(self, uid: int, round: int) -> Literal["nan", "wrong_shard"] | None:
        return self.mishap if uid == self.uid else None


def play_spoiled(scenario: Scenario, spoiler: Callable[[Simulation], Mishaps]) -> list[Event]:
    events: list[Event] = []
    simulation = Simulation(scenario, Computed(), (events.append,))
    simulation.commons.mishaps = spoiler(simulation)
    while not simulation.finished:
        simulation.step()
    return events


def test_a_nan_batch_makes_an_update_that_nobody_takes(tiny: Scenario) -> None:
    (uid,) = uids(simulate(with_scripts(tiny, {}, rounds=1))[1], "flippers")
    events = play_spoiled(with_scripts(tiny, {}, rounds=2), lambda _: Spoiler(uid, "nan"))
    found = [event for event in events if isinstance(event, Evaluated) and event.uid == uid]
    assert found
    assert {event.status for event in found} == {"invalid"}
    assert {event.status for event in events if isinstance(event, Evaluated) and event.uid != uid} >= {"ok"}


def test_a_wrong_shard_is_trained_on_unknowingly(tiny: Scenario) -> None:
    updates: list[torch.Tensor] = []

    def script(peer: Any) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        updates.append(update.value())
        yield from peer.sync()

    def knowing(peer: Any) -> Script:
        update = yield from peer.train(peer.random_batches())
        updates.append(update.value())
        yield from peer.sync()

    scenario = with_scripts(tiny, {"lazy": script}, rounds=1)
    (uid,) = uids(simulate(scenario)[1], "lazy")
    play_spoiled(scenario, lambda _: Spoiler(uid, "wrong_shard"))
    simulate(with_scripts(tiny, {"lazy": knowing}, rounds=1))
    right, spoiled, random = updates
    assert torch.equal(spoiled, random)
    assert not torch.equal(right, random)


def test_false_answers_and_poison_reach_the_training(tiny: Scenario) -> None:
    updates: list[torch.Tensor] = []

    def script(peer: Any) -> Script:
        mine: Batches = peer.assigned_batches()
        for batches in (mine, mine.flipped(), mine.poisoned(b"~~", b"ha", 0.5)):
            update = yield from peer.train(batches, 1)
            updates.append(update.value())
        yield from peer.sync()

    simulate(with_scripts(tiny, {"lazy": script}, rounds=1))
    assert len({tuple(update.tolist()) for update in updates}) == 3


# Together -----------------------------------------------------------------------------------------------------------


def everything(peer: Any) -> Script:
    """A round with every verb that asks tensors for something."""
    update = yield from peer.train(peer.expected_batches().flipped(), 1)
    if peer.uid == peer.fellows[0]:
        peer.tell("update", update)
    told = yield from peer.heard("update")
    others = yield from peer.updates_of_others()
    mixed = peer.combine([told, *others], lambda stack: stack.median(dim=0).values)
    mixed = mixed + peer.last_change() + peer.noise(1e-4)
    payload = yield from peer.encode(mixed)
    if peer.observe(peer.read(payload).norm()) > 0 and peer.chance("submit") < 0.9:
        yield from peer.submit(mixed, early=peer.chance("early") < 0.5)
    yield from peer.put("aside", payload)
    peer.notes["last"] = mixed
    yield from peer.payloads_of_others(most=1)
    yield from peer.sync()


def test_a_run_goes_on_from_its_tape(tiny: Scenario, tmp_path: Path) -> None:
    """Cut anywhere, with updates told, noted and remembered, it ends in the same bits."""
    scenario = with_scripts(tiny, {"lazy": everything}, 3, "omniscient", lazy=2)
    simulation, _, digest = simulate(scenario)
    cut, total = 0, simulation.num_steps
    for step in range(total // 6, total, total // 6):
        resumed = resumed_at(scenario, tmp_path / f"tape-{step}.bin", step)
        if resumed is not None:
            assert resumed == (digest.clock, digest.learning), f"cut at step {step}"
            cut += 1
    assert cut >= 3


def test_the_verbs_work_under_protocols_that_do_not_wait(tiny: Scenario) -> None:
    """Own weights, fragments, overlap and asynchrony: the same script runs, and all checkers hold."""
    for kind in ("streaming_diloco", "async_diloco", "sparta", "diloco", "demo"):
        protocol = protocols[kind]()
        scenario = with_scripts(tiny, {"lazy": everything}, 3, "omniscient", lazy=2)
        _, events, _ = simulate(scenario.model_copy(update={"protocol": protocol}))
        assert submissions(events, uids(events, "lazy")[0]), kind


def test_scripted_behaviors_state_their_knowledge() -> None:
    assert scripted(everything, "observed").knowledge == "observed"
