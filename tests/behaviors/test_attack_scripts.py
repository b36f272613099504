"""What each behavior asks of its body in a round, over a stand-in that has the arithmetic and takes no time."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from stand_in import TRAINED, N, StandIn, text_of
from torch import Tensor

from covsim.behaviors import (
    Alie,
    Backdoor,
    Behavior,
    Colluders,
    Copycat,
    DataHog,
    DebugFlood,
    Desynced,
    DisguisedFreeRider,
    Early,
    EvalOverfit,
    FreeRider,
    GaussianNoise,
    Honest,
    Idle,
    Intermittent,
    Ipm,
    LabelFlip,
    Late,
    Lazy,
    Malformed,
    Mimic,
    MinMax,
    MinSum,
    NormStuffing,
    RandomPayload,
    Restarter,
    Scaling,
    SignFlip,
    Sleeper,
    StaleResubmit,
    Sybil,
    SyncFaker,
    WrongShard,
    ZeroPayload,
    alie,
    behaviors,
    min_max,
    min_sum,
)
from covsim.behaviors.malformed import Flaw
from covsim.protocol import forgery

CHANGE = torch.tensor([0.0, 1.0, -2.0, 0.0, 2.0, 0.0])
HONEST = torch.randn(7, N, generator=torch.Generator().manual_seed(1)) + 0.5
READERS: tuple[type[Any], ...] = (Alie, Ipm, MinMax, MinSum, Mimic)


def test_the_stand_in_notices_a_verb_that_was_not_waited_for() -> None:
    """Or else the tests below would say nothing about `yield from`."""

    class Hasty(Behavior):
        kind: str = "hasty"

        def play_round(self, peer: Any) -> Any:
            next(peer.wait_for_uploads())
            yield
            yield from peer.sync()

    assert StandIn().play(Hasty()).calls == ["wait_for_uploads begins", "sync"]


@pytest.mark.parametrize("part", [pytest.param(part, id=kind) for kind, part in behaviors.items()])
@pytest.mark.parametrize("situation", [{}, {"others": HONEST, "listed": [1, 5], "payloads": {1: text_of(TRAINED)}}])
@pytest.mark.parametrize("fellows", [(), (2, 5, 9), (5, 6)])
def test_waits_for_what_it_began_and_ends_by_keeping_up(
    part: type[Behavior], situation: dict[str, Any], fellows: tuple[int, ...]
) -> None:
    """Alone, and among others with everything to be had: no behavior may skip the gather, or its theta falls behind."""
    body = StandIn(3, fellows=fellows, **situation).play(part())
    assert not [verb for verb in body.verbs if verb.endswith(" begins")]
    assert body.verbs.count("sync") == 1
    assert body.verbs[-1] in ("sync", "register_again")


# What it trains on.


@pytest.mark.parametrize(
    ("behavior", "trained"),
    [
        (Honest(), ("assigned", None, 0)),
        (WrongShard(), ("random", None, 0)),
        (EvalOverfit(), ("expected", None, 0)),
        (LabelFlip(), ("assigned, flipped", None, 0)),
        (Backdoor(trigger="a", target="b", share=0.25), ("assigned, b'a' to b'b' in 0.25", None, 0)),
        (DataHog(), ("assigned", 60, 0)),
        (DataHog(factor=1.55), ("assigned", 46, 0)),
        (Lazy(share=0.01), ("assigned", 1, 0)),
        (Restarter(share=0.5), ("assigned", 15, 0)),
        (Desynced(), ("assigned", None, 3)),
        (Desynced(rounds_behind=7), ("assigned", None, 7)),
        (SyncFaker(rounds_behind=2), ("assigned", None, 2)),
        (Intermittent(), ("assigned", None, 0)),
        (Sleeper(), ("assigned", None, 0)),
        (Sybil(), ("assigned", None, 0)),
    ],
    ids=repr,
)
def test_trains_its_way_and_submits_what_came_of_it(behavior: Behavior, trained: tuple[Any, ...]) -> None:
    body = StandIn().play(behavior)
    assert [call[1:] for call in body.calls if call[0] == "train"] == [trained]
    assert body.verbs == ["train", "submit", "sync"]
    assert torch.equal(body.submitted, TRAINED)


@pytest.mark.parametrize(
    "behavior",
    [Idle(), FreeRider(), DisguisedFreeRider(), RandomPayload(), ZeroPayload(), GaussianNoise(), Malformed(), Alie()],
    ids=lambda behavior: behavior.kind,
)
def test_trains_nothing(behavior: Behavior) -> None:
    assert "train" not in StandIn(1, others=HONEST, change=CHANGE).play(behavior).verbs


# What it makes of its own.


@pytest.mark.parametrize(
    ("behavior", "submitted"),
    [
        (SignFlip(scale=2), -2 * TRAINED),
        (Scaling(), 10 * TRAINED),
        (Backdoor(scale=3), 3 * TRAINED),
        (FreeRider(scale=0.5), 0.5 * CHANGE),
        (ZeroPayload(), torch.zeros(N)),
        (Ipm(epsilon=0.5), -0.5 * HONEST.mean(0)),
        (Alie(z=1.5), HONEST.mean(0) - 1.5 * HONEST.std(0)),
        (Alie(), alie.shifted(HONEST, alie.tolerated_z(8, 1))),
        (MinMax(direction="unit"), min_max.strayed(HONEST, "unit")),
        (MinSum(direction="sign"), min_sum.strayed(HONEST, "sign")),
        (Mimic(victim=9), HONEST[2]),
    ],
    ids=repr,
)
def test_submits(behavior: Behavior, submitted: Tensor) -> None:
    torch.testing.assert_close(StandIn(1, change=CHANGE, others=HONEST).play(behavior).submitted, submitted)


def test_the_tolerated_shift_counts_the_whole_cohort() -> None:
    """7 honest and 3 attackers, not 7 and 1."""
    submitted = StandIn(fellows=(2, 5, 9), others=HONEST).play(Alie()).submitted
    torch.testing.assert_close(submitted, alie.shifted(HONEST, alie.tolerated_z(10, 3)))


def test_stuffing_is_as_long_as_the_work_and_elsewhere() -> None:
    submitted = StandIn().play(NormStuffing(coordinates=2, scale=3)).submitted
    assert submitted.nonzero()[:, 0].tolist() == [2, 3]
    torch.testing.assert_close(submitted.norm(), 3 * TRAINED.norm())


@pytest.mark.parametrize(("behavior", "sigma"), [(RandomPayload(), 0.01), (GaussianNoise(), 200.0)], ids=repr)
def test_noise_has_its_size_and_changes_from_round_to_round(behavior: Behavior, sigma: float) -> None:
    first, second = (StandIn(round).play(behavior).submitted for round in (0, 1))
    assert sigma / 4 < first.std() < 4 * sigma
    assert not torch.equal(first, second)


def test_the_disguise_is_as_long_as_the_first_change_and_then_decays() -> None:
    """Whatever theta does later: the honest updates that it imitates shrink as well."""
    notes: dict[str, Any] = {}
    lengths = []
    for round, change in enumerate([torch.zeros(N), CHANGE, 100 * CHANGE, 100 * CHANGE]):
        body = StandIn(round, change=change, notes=notes).play(DisguisedFreeRider(scale=2, decay=0.5))
        lengths.append(float(body.submitted.norm()))
    assert lengths == pytest.approx([0, 2 * 3 * 2**-0.5, 2 * 3 * 3**-0.5, 2 * 3 * 4**-0.5])


# When it speaks.


def test_early_does_not_wait() -> None:
    assert [call[-1] for call in StandIn().play(Early()).calls if call[0] == "submit"] == [True]
    assert [call[-1] for call in StandIn().play(Honest()).calls if call[0] == "submit"] == [False]


def test_late_waits_first() -> None:
    assert StandIn().play(Late(delay="7 s")).verbs == ["train", "wait_for_uploads", "pause", "submit", "sync"]


@pytest.mark.parametrize(("luck", "verbs"), [(0.49, ["train", "submit", "sync"]), (0.5, ["sync"])])
def test_the_intermittent_works_when_luck_has_it(luck: float, verbs: list[str]) -> None:
    assert StandIn(luck=luck).play(Intermittent(share=0.5)).verbs == verbs


def test_stale_bytes_are_those_of_the_round_that_was_worked() -> None:
    """Two repeats: works in every third round."""
    notes: dict[str, Any] = {}
    bodies = [StandIn(round, notes=notes).play(StaleResubmit(repeats=2)) for round in range(4)]
    worked, stale = ["train", "encode", "submit_payload", "sync"], ["submit_payload", "sync"]
    assert [body.verbs for body in bodies] == [worked, stale, stale, worked]
    assert {body.calls[-2] for body in bodies} == {("submit_payload", text_of(TRAINED))}


def test_a_sleeper_turns_after_its_paid_rounds() -> None:
    notes: dict[str, Any] = {}
    signs = []
    for pay in (0, 0.1, 0, 0.2, 0, 0):
        body = StandIn(pay=pay, notes=notes).play(Sleeper(paid_rounds=2, scale=1))
        signs.append(int((body.submitted / TRAINED)[0]))
    assert signs == [1, 1, 1, -1, -1, -1]


def restarts(restarter: Restarter, pays: list[float]) -> list[int]:
    """The rounds in which it registers again."""
    notes: dict[str, Any] = {}
    bodies = [StandIn(pay=pay, notes=notes).play(restarter) for pay in pays]
    return [round for round, body in enumerate(bodies) if "register_again" in body.verbs]


def test_restarts_when_the_pay_falls_and_begins_to_hope_again() -> None:
    """The best pay of the old uid is forgotten, or it would restart every round."""
    assert restarts(Restarter(below=0.5, hopes=3), [0, 0.4, 0.2, 0.19, 0.1, 0.05, 0.04]) == [3, 6]


def test_restarts_when_it_has_hoped_for_nothing() -> None:
    assert restarts(Restarter(hopes=3), [0] * 7) == [2, 5]
    assert restarts(Restarter(hopes=3), [0, 0, 0.1, 0.1, 0.1]) == []


# Whom it reads.


@pytest.mark.parametrize("part", READERS)
def test_says_what_the_instance_reads(part: type[Any]) -> None:
    assert part().knowledge == "omniscient"
    assert part(reads="observed").knowledge == "observed"
    assert Honest().knowledge == "own"


@pytest.mark.parametrize("part", READERS)
def test_who_observes_pays_and_reads_what_it_can(part: type[Any]) -> None:
    """The same vectors come of the same updates, read from payloads; those that cannot be read are passed over."""
    payloads = {uid: text_of(row) for uid, row in enumerate(HONEST)} | {9: b"what?"}
    body = StandIn(payloads=payloads, others=HONEST + 1).play(part(reads="observed", most=8, until="80 %"))
    assert body.verbs == ["payloads_of_others", "submit", "sync"]
    assert body.calls[0] == ("payloads_of_others", 8, 0.8)
    torch.testing.assert_close(body.submitted, StandIn(others=HONEST).play(part()).submitted)


@pytest.mark.parametrize("part", READERS)
@pytest.mark.parametrize(("reads", "verb"), [("observed", "payloads_of_others"), ("omniscient", "updates_of_others")])
def test_where_there_is_nobody_to_read_nothing_is_submitted(part: type[Any], reads: str, verb: str) -> None:
    assert StandIn().play(part(reads=reads)).verbs == [verb, "sync"]


ORIGINAL = text_of(TRAINED)


def test_a_copycat_uploads_the_same_bytes_or_nothing() -> None:
    body = StandIn(listed=[1, 2], payloads={2: ORIGINAL}).play(Copycat())
    assert body.verbs == ["wait_for_uploads", "first_arrival", "download", "submit_payload", "sync"]
    assert body.calls[-2] == ("submit_payload", ORIGINAL)
    assert StandIn(listed=[1]).play(Copycat()).verbs == ["wait_for_uploads", "first_arrival", "sync"]


def test_a_disguised_copy_is_encoded_anew() -> None:
    body = StandIn(listed=[2], payloads={2: ORIGINAL}).play(Copycat(scale=0.5))
    assert body.verbs == ["wait_for_uploads", "first_arrival", "download", "encode", "submit_payload", "sync"]
    assert body.calls[-2] == ("submit_payload", text_of(0.5 * TRAINED))
    noisy = StandIn(listed=[2], payloads={2: ORIGINAL}).play(Copycat(noise=0.1)).submitted
    torch.testing.assert_close((noisy - TRAINED).norm(), 0.1 * TRAINED.norm())
    moved = StandIn(listed=[2], payloads={2: ORIGINAL}).play(Copycat(shuffle="100 %")).submitted
    assert sorted(moved.tolist()) == sorted(TRAINED.tolist())
    assert moved.tolist() != TRAINED.tolist()


def test_what_cannot_be_read_cannot_be_disguised() -> None:
    body = StandIn(listed=[2], payloads={2: b"what?"})
    assert body.play(Copycat(noise=0.1)).verbs == ["wait_for_uploads", "first_arrival", "download", "sync"]


@pytest.mark.parametrize(("listed", "shown"), [([], []), ([5], []), ([9, 3, 1], [3])])
def test_shows_the_sample_of_somebody_honest(listed: list[int], shown: list[int]) -> None:
    """After training, for that is when its own goes up; not of a fellow, whose sample is as bad."""
    body = StandIn(fellows=(5, 9), listed=listed).play(SyncFaker())
    assert [call[1] for call in body.calls if call[0] == "show_sample_of"] == shown
    assert body.verbs == ["train", *(["show_sample_of"] if shown else []), "submit", "sync"]


# Conspiracies.


def test_the_first_of_each_group_trains_for_it() -> None:
    """Six fellows in groups of four and two."""
    cohort = (1, 3, 5, 7, 8, 9)
    trained = {}
    for uid in cohort:
        body = StandIn(uid=uid, fellows=cohort).play(Sybil(identities=4))
        trained[uid] = "train" in body.verbs, [call[1] for call in body.calls if call[0] == "heard"], list(body.said)
    key, other = "update of 1", "update of 8"
    silent = {uid: (False, [key], []) for uid in (3, 5, 7)} | {9: (False, [other], [])}
    assert trained == {1: (True, [], [key]), 8: (True, [], [other]), **silent}


def test_names_submit_what_they_heard() -> None:
    told = {"update of 1": StandIn().noise(3.0)}
    body = StandIn(fellows=(1, 5), told=told).play(Sybil())
    assert body.verbs == ["heard", "submit", "sync"]
    assert torch.equal(body.submitted, told["update of 1"].value())
    assert StandIn(fellows=(1, 5)).play(Sybil()).verbs == ["heard", "sync"]


def test_names_can_be_told_apart() -> None:
    told = {"update of 1": StandIn().noise(3.0)}
    heard = [StandIn(uid=uid, fellows=(1, 4, 5), told=told).play(Sybil(noise=0.1)).submitted for uid in (4, 5)]
    assert not torch.equal(*heard)
    assert (heard[0] - told["update of 1"].value()).norm() < 0.1 * 3 * N**0.5


def test_accomplices_deal_out_one_gradient() -> None:
    cohort = (4, 5, 8)
    first = StandIn(uid=4, fellows=cohort).play(Colluders(scale=-2))
    slices = [first.submitted]
    for uid in cohort[1:]:
        body = StandIn(uid=uid, fellows=cohort, told=first.said).play(Colluders(scale=-2))
        assert body.verbs == ["heard", "submit", "sync"]
        slices.append(body.submitted)
    torch.testing.assert_close(sum(slices), -2 * TRAINED)
    assert (sum((part != 0).int() for part in slices) <= 1).all()
    assert StandIn(uid=5, fellows=cohort).play(Colluders()).verbs == ["heard", "sync"]


# What it throws at others.


@pytest.mark.parametrize(("luck", "flaw"), [(0.0, "nan"), (0.49, "nan"), (0.5, "empty"), (0.999, "empty")])
def test_a_flaw_is_drawn(luck: float, flaw: str) -> None:
    body = StandIn(luck=luck).play(Malformed(flaws=("nan", "empty")))
    assert body.verbs == ["encode", "submit_payload", "sync"]
    assert body.calls[1][1].endswith(flaw.encode())


def test_flaws_are_those_that_can_be_forged() -> None:
    """The list stands in two rooms that do not see each other."""
    assert get_args(Flaw) == get_args(forgery.Flaw)
    assert Malformed().flaws == get_args(Flaw)


def test_a_flood_follows_the_payload() -> None:
    body = StandIn().play(DebugFlood(puts=3, size="50 %"))
    assert body.verbs == ["train", "submit", "encode", "put", "put", "put", "sync"]
    puts = [call for call in body.calls if call[0] == "put"]
    assert len({name for _, name, _ in puts}) == 3
    assert {len(payload) for _, _, payload in puts} == {round(len(text_of(TRAINED)) / 2)}


# What is refused.


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (DataHog, {"factor": 0.5}),
        (Desynced, {"rounds_behind": 0}),
        (SyncFaker, {"rounds_behind": 0}),
        (FreeRider, {"scale": 0}),
        (DisguisedFreeRider, {"decay": -1}),
        (Copycat, {"shuffle": "110 %"}),
        (Copycat, {"noise": -0.1}),
        (StaleResubmit, {"repeats": 0}),
        (Sybil, {"identities": 1}),
        (Restarter, {"below": 0}),
        (Restarter, {"hopes": 0}),
        (Sleeper, {"paid_rounds": 0}),
        (Colluders, {"scale": float("inf")}),
        (Alie, {"reads": "minds"}),
        (Alie, {"most": 0}),
        (Ipm, {"epsilon": 0}),
        (MinMax, {"direction": "up"}),
        (Backdoor, {"trigger": ""}),
        (Malformed, {"flaws": []}),
        (Malformed, {"flaws": ["rude"]}),
        (DebugFlood, {"puts": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(part: type[Behavior], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        part(**settings)
