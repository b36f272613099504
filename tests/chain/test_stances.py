"""Weights: when they are in force, whose count and for how long, and how they stay hidden until their time."""

from __future__ import annotations

import pytest
from small_chain import Network, incentives

from covsim.chain.extrinsics import (
    CommitWeights,
    RevealWeights,
    sign,
)

# Weights --------------------------------------------------------------------------------------------------------------


def test_open_weights_are_in_force_at_once() -> None:
    network = Network().found(2, {"lead": 1})
    network.weigh("lead", 0, 1, 3)
    network.seal(10)
    assert network.chain.weights_of(network.public("lead")) == {1: 1, 2: 3}
    assert incentives(network) == pytest.approx({"peer1": 0.25, "peer2": 0.75})


def test_the_last_weights_count_and_replace_all_that_were_before() -> None:
    network = Network().found(2, {"lead": 1})
    network.weigh("lead", 0, 1, 3)
    network.seal(3)
    network.weigh("lead", 5)
    network.seal(4)
    network.seal(10)
    assert network.chain.weights_of(network.public("lead")) == {0: 5}
    assert incentives(network) == {"owner": 1.0}


def test_weights_wait_for_the_rate_limit() -> None:
    """Set at 2 with a limit of 5 blocks: refused at 6, allowed at 7; a refusal does not start the time again."""
    network = Network(rate_limit=5).found(2, {"lead": 1, "second": 1})
    for height, outcome in (
        (2, ""),
        (3, "weights were set 1 blocks ago, 5 must pass"),
        (6, "weights were set 4 blocks ago, 5 must pass"),
        (7, ""),
        (11, "weights were set 4 blocks ago, 5 must pass"),
        (12, ""),
    ):
        network.weigh("lead", height, 1)
        assert network.outcome(height) == outcome
    assert network.chain.last_set(network.public("lead")) == 12
    assert network.chain.weights_of(network.public("lead"))[0] == 12
    network.weigh("second", 1)
    assert network.outcome(13) == "", "everybody has a limit of its own"


def test_commitments_wait_for_the_rate_limit_too() -> None:
    network = Network(rate_limit=5, commit_reveal=1).found(2, {"lead": 1})
    for height, outcome in ((2, ""), (6, "weights were set 4 blocks ago, 5 must pass"), (7, "")):
        network.weigh("lead", height, 1, height=height, round=height)
        assert network.outcome(height) == outcome
    network.seal(10)
    outcomes = network.chain.blocks[-1].block.outcomes
    assert outcomes == ("", "no commitment says so, or it is not due", "")
    assert network.chain.weights_of(network.public("lead"))[0] == 7


def test_only_the_highest_stakes_have_a_say() -> None:
    """Of 3, 2, 2 and 5 the first two permits are 5's and 3's, the third that of the earlier 2."""
    stakes = {"ann": 3.0, "bob": 2.0, "cid": 2.0, "dee": 5.0}
    for permits, allowed in ((1, {"dee"}), (2, {"ann", "dee"}), (3, {"ann", "bob", "dee"}), (4, set(stakes))):
        network = Network(permits=permits).found(2, stakes)
        for height, name in enumerate(stakes, start=1):
            network.weigh(name, 1)
            assert (network.outcome(height) == "") == (name in allowed), (permits, name)


def test_who_loses_its_permit_loses_its_say() -> None:
    network = Network(permits=1).found(2, {"lead": 1})
    network.weigh("lead", 0, 1)
    network.seal(1)
    network.seal(10)
    assert incentives(network) == {"peer1": 1.0}
    network.register("rich", 5)
    network.seal(11)
    epoch = network.epoch(20)
    assert incentives(network) == {}
    assert epoch.shares[network.slot("rich")].validator_tokens == pytest.approx(0.82 * 10), (
        "by stake, as nobody weighed"
    )


def test_a_validator_that_falls_silent_no_longer_counts() -> None:
    """Both hold half of the stake; weights of height 1 count up to height 1 + 19 = 20, not at 30."""
    network = Network(activity_cutoff=19).found(2, {"lead": 1, "second": 1})
    network.weigh("lead", 0, 1)
    network.weigh("second", 0, 0, 1)
    network.seal(1)
    network.seal(10)
    network.seal(20)
    assert incentives(network) == {"peer1": 0.5, "peer2": 0.5}
    network.weigh("second", 0, 0, 1)
    network.seal(25)
    network.seal(30)
    assert incentives(network) == {"peer2": 1.0}


def test_a_validator_that_never_set_weights_gets_no_dividends() -> None:
    network = Network().found(2, {"lead": 1, "second": 9})
    network.weigh("lead", 0, 1)
    epoch = network.epoch(10)
    assert [epoch.shares[network.slot(name)].validator_tokens for name in ("lead", "second")] == [
        pytest.approx(4.1), 0,
    ]  # fmt: skip


def test_whole_numbers_say_the_same_as_the_floats_they_come_from() -> None:
    """Max-scaled to 65535: half of 0.4 becomes 32768 of 65535, off by 1 / 131070 of the largest at most."""
    shares = {}
    for kind, values in (("u16", (0, 65535, 32768, 7)), ("float", (0, 0.4, 0.2, 0.4 * 7 / 65535))):
        network = Network(weights=kind).found(3, {"lead": 1})
        network.weigh("lead", *values)
        network.seal(1)
        network.seal(10)
        shares[kind] = incentives(network)
    assert shares["u16"] == pytest.approx(shares["float"], abs=1 / 131070)
    assert shares["u16"] != shares["float"]


def test_floats_are_kept_as_they_are() -> None:
    network = Network(weights="float").found(2, {"lead": 1})
    network.weigh("lead", 0.1, 1e-300)
    network.seal(1)
    assert network.chain.weights_of(network.public("lead")) == {0: 0.1, 1: 1e-300}


# Hidden weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reveal", "committed", "shown"),
    [(1, 1, 10), (1, 9, 10), (1, 10, 20), (1, 11, 20), (1, 19, 20), (2, 1, 20), (2, 10, 30), (3, 29, 50)],
)
def test_weights_are_shown_when_their_epoch_begins(reveal: int, committed: int, shown: int) -> None:
    """Committed to in epoch n = height // 10, shown at (n + reveal) * 10, and paid for at that height."""
    network = Network(commit_reveal=reveal).found(2, {"lead": 1})
    lead = network.public("lead")
    for height in range(1, shown + 1):
        if height == committed:
            network.weigh("lead", 0, 1, height=height)
        network.seal(height)
        assert network.chain.weights_of(lead) == ({1: 1} if height >= shown else {})
    assert network.chain.last_set(lead) == committed
    assert incentives(network) == {"peer1": 1.0}
    assert all(not any(share.incentive for share in epoch.shares) for epoch in network.chain.epochs[:-1])


def test_nothing_in_a_commitment_tells_the_weights() -> None:
    network = Network(commit_reveal=1).found(2, {"lead": 1})
    network.weigh("lead", 0, 1, height=1)
    sealed = network.seal(1)
    assert sealed is not None
    (signed,) = sealed.block.extrinsics
    assert isinstance(signed.call, CommitWeights)
    assert len(signed.call.digest) == 64


def test_commitments_of_one_epoch_are_shown_in_their_order() -> None:
    network = Network(commit_reveal=1).found(3, {"lead": 1})
    for height in (1, 4, 7):
        network.weigh("lead", 0, *(uid * 3 == height - 1 for uid in range(3)), height=height, round=height)
        network.seal(height)
    network.seal(10)
    calls = [signed.call for signed in network.chain.blocks[-1].block.extrinsics]
    assert [call.round for call in calls if isinstance(call, RevealWeights)] == [1, 4, 7]
    assert incentives(network) == {"peer3": 1.0}


def test_who_shows_something_else_is_refused() -> None:
    network = Network(commit_reveal=1).found(2, {"lead": 1, "second": 1})
    lead = network.account("lead")
    promised, other = RevealWeights(0, ((1, 1),), "a"), RevealWeights(0, ((2, 1),), "a")
    network.chain.submit_sealed(sign(lead, 1, CommitWeights(0, promised.digest)), sign(lead, 1, other), 1)
    network.seal(1)
    network.chain.submit(sign(network.account("second"), 1, promised))
    assert network.outcome(2) == "no commitment says so, or it is not due", "it is another's"
    network.seal(10)
    assert network.chain.blocks[-1].block.outcomes == ("no commitment says so, or it is not due",)
    network.chain.submit(sign(lead, 1, promised))
    network.chain.submit(sign(lead, 1, promised))
    sealed = network.seal(11)
    assert sealed is not None
    assert sealed.block.outcomes == ("", "no commitment says so, or it is not due"), "late is allowed, twice is not"


def test_nobody_shows_weights_before_their_time() -> None:
    network = Network(commit_reveal=1).found(2, {"lead": 1})
    reveal = RevealWeights(0, ((1, 1),), "a")
    network.say("lead", CommitWeights(0, reveal.digest))
    network.seal(1)
    network.chain.submit(sign(network.account("lead"), 1, reveal))
    assert network.outcome(9) == "no commitment says so, or it is not due"
    assert network.chain.weights_of(network.public("lead")) == {}


def test_shown_weights_are_looked_at_when_they_are_shown() -> None:
    network = Network(commit_reveal=1).found(2, {"lead": 1})
    network.weigh("lead", 0, 0.5, height=1)
    assert network.outcome(1) == ""
    assert network.outcome(10) == "weights are whole numbers up to 65535 on this chain"
    assert incentives(network) == {}
