"""The chain as a state machine: what a block is, who may say what, how a run ends, and that no token is lost."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chain import Network, played

from covsim.chain.extrinsics import (
    CloseRun,
    CommitBucket,
    CommitWeights,
    LogVerdicts,
    PayloadHash,
    Register,
    RevealWeights,
    SetWeights,
    sign,
)

HASH = PayloadHash(0, "ab" * 32)
CLOSE = CloseRun("ab" * 32, "cd" * 32, 2.5, 3)
VERDICTS = LogVerdicts(0, (), (1, 1), ())


# Blocks ---------------------------------------------------------------------------------------------------------------


def test_where_nothing_happens_there_is_no_block() -> None:
    network = Network().found(2, {"lead": 1})
    assert network.seal(3) is None
    network.say("peer1", HASH)
    assert network.seal(4) is not None
    assert network.seal(5) is None
    assert network.seal(10) is not None, "an epoch ends, though nobody said a thing"
    assert [sealed.block.height for sealed in network.chain.blocks] == [0, 4, 10]


def test_every_block_names_the_one_before() -> None:
    blocks = played().chain.blocks
    assert blocks[0].block.parent == "0" * 64
    assert [sealed.block.parent for sealed in blocks[1:]] == [sealed.sha256 for sealed in blocks[:-1]]
    assert [sealed.block.height for sealed in blocks] == [0, 2, 4, 7, 10, 13, 20, 24, 26]
    assert [sealed.block.closing for sealed in blocks] == [False] * 8 + [True]


def test_a_block_takes_what_waits_in_its_order_and_nothing_twice() -> None:
    network = Network().found(2, {"lead": 1})
    network.say("peer2", HASH)
    network.say("peer1", HASH)
    network.say("peer2", CommitBucket("there"))
    sealed = network.seal(1)
    assert sealed is not None
    assert [signed.public for signed in sealed.block.extrinsics] == [network.public(f"peer{uid}") for uid in (2, 1, 2)]
    assert sealed.block.outcomes == ("", "", "")
    assert network.seal(2) is None


def test_heights_rise() -> None:
    network = Network().found(1, {"lead": 1})
    network.say("peer1", HASH)
    with pytest.raises(AssertionError, match="heights rise"):
        network.seal(0)


def test_a_chain_without_owner_ends_no_epoch() -> None:
    network = Network()
    network.register("peer1")
    network.seal(0)
    with pytest.raises(ValueError, match="nobody owns the chain"):
        network.seal(10)


# Who may speak --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "call", "reason"),
    [
        ("peer1", VERDICTS, "who registered as peer may not log_verdicts"),
        ("peer1", SetWeights(0, ((0, 1),)), "who registered as peer may not set_weights"),
        ("peer1", CommitWeights(0, "ab"), "who registered as peer may not commit_weights"),
        ("peer1", RevealWeights(0, ((0, 1),), ""), "who registered as peer may not reveal_weights"),
        ("peer1", CLOSE, "who registered as peer may not close_run"),
        ("lead", HASH, "who registered as validator may not payload_hash"),
        ("owner", HASH, "who registered as owner may not payload_hash"),
        ("owner", SetWeights(0, ((1, 1),)), "who registered as owner may not set_weights"),
        ("owner", CommitBucket(""), "who registered as owner may not commit_bucket"),
        ("peer9", HASH, "the account has no slot"),
        ("peer1", Register("peer1", "peer", 0), "the account has a slot already"),
        ("peer1", Register("peer1", "validator", 9), "the account has a slot already"),
        ("peer9", Register("x", "king", 0), "one registers as peer, validator or owner, with a finite stake"),
        ("peer9", Register("x", "peer", -1), "one registers as peer, validator or owner, with a finite stake"),
        ("peer9", Register("x", "peer", math.inf), "one registers as peer, validator or owner, with a finite stake"),
        ("peer9", Register("x", "peer", math.nan), "one registers as peer, validator or owner, with a finite stake"),
        ("peer9", Register("x", "owner", 0), "the chain has an owner"),
        ("lead", CommitWeights(0, "ab"), "weights are open on this chain"),
        ("lead", RevealWeights(0, ((0, 1),), ""), "no commitment says so, or it is not due"),
        ("third", SetWeights(0, ((0, 1),)), "the validator is not among the 2 of the highest stake"),
        ("lead", SetWeights(0, ((0, 1), (0, 2))), "a slot has two weights"),
        ("lead", SetWeights(0, ((0, 1), (7, 2))), "a weight is for a slot that nobody holds"),
        ("lead", SetWeights(0, ((-1, 1),)), "a weight is for a slot that nobody holds"),
        ("lead", SetWeights(0, ((0, 1), (3, 2))), "a validator gives itself no weight"),
        ("lead", SetWeights(0, ((0, 0.5),)), "weights are whole numbers up to 65535 on this chain"),
        ("lead", SetWeights(0, ((0, 65536),)), "weights are whole numbers up to 65535 on this chain"),
        ("lead", SetWeights(0, ((0, -1),)), "weights are whole numbers up to 65535 on this chain"),
        ("lead", SetWeights(0, ((0, 0), (1, 0))), "weights are finite numbers from 0 up, not all of them 0"),
        ("lead", SetWeights(0, ()), "weights are finite numbers from 0 up, not all of them 0"),
    ],
)
def test_what_may_not_be_said_is_refused_and_stays_in_the_block(name: str, call: Any, reason: str) -> None:
    """Slots: owner 0, peers 1 and 2, then lead, second, third."""
    network = Network(permits=2).found(2, {"lead": 3, "second": 2, "third": 1})
    before = network.chain.slots.holders.copy()
    network.say(name, call)
    assert network.outcome(1) == reason
    assert network.chain.blocks[-1].block.extrinsics[0].call == call or call != call  # noqa: PLR0124
    assert network.chain.slots.holders == before
    assert network.chain.weights_of(network.public(name)) == {}
    assert network.chain.last_set(network.public(name)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_no_weight_is_less_than_nothing_or_endless(value: float) -> None:
    network = Network(weights="float").found(2, {"lead": 1})
    network.say("lead", SetWeights(0, ((0, 1.0), (1, value))))
    assert network.outcome(1) == "weights are finite numbers from 0 up, not all of them 0"


def test_another_chain_refuses_open_weights() -> None:
    network = Network(commit_reveal=1).found(2, {"lead": 1})
    network.say("lead", SetWeights(0, ((0, 1),)))
    assert network.outcome(1) == "weights must be committed to on this chain"


def test_a_forged_signature_is_refused_and_uses_up_no_nonce() -> None:
    network = Network().found(2, {"lead": 1})
    signed = sign(network.account("peer1"), network.nonces["peer1"], HASH)
    network.chain.submit(dataclasses.replace(signed, call=PayloadHash(1, "cd" * 32)))
    network.chain.submit(dataclasses.replace(signed, public=network.public("peer2")))
    network.chain.submit(dataclasses.replace(signed, signature=signed.signature.upper()))
    network.chain.submit(signed)
    sealed = network.seal(1)
    assert sealed is not None
    assert sealed.block.outcomes == ("the signature does not fit",) * 3 + ("",)


def test_a_nonce_counts_once_and_in_its_turn() -> None:
    network = Network().found(2, {"lead": 1})
    first, second, third = (sign(network.account("peer1"), nonce, HASH) for nonce in (1, 2, 3))
    for signed in (third, first, first, second, third):
        network.chain.submit(signed)
    sealed = network.seal(1)
    assert sealed is not None
    assert sealed.block.outcomes == (
        "nonce 3 is not the next one, 1",
        "",
        "nonce 1 is not the next one, 2",
        "",
        "",
    )


def test_a_refused_call_uses_up_its_nonce() -> None:
    """Or else who was refused once, having signed on, could never say anything again."""
    network = Network(slots=3, immunity=100).found(1, {"lead": 1})
    network.register("peer7")
    network.say("peer7", CommitBucket("there"), HASH)
    sealed = network.seal(1)
    assert sealed is not None
    assert sealed.block.outcomes[0].startswith("all 3 slots are held by")
    assert sealed.block.outcomes[1:] == ("the account has no slot",) * 2
    network.register("peer7")
    network.say("peer7", CommitBucket("there"))
    sealed = network.seal(100)
    assert sealed is not None
    assert sealed.block.outcomes == ("", "")


# The end --------------------------------------------------------------------------------------------------------------


def test_the_last_block_shows_all_and_pays_for_the_rest() -> None:
    """After the epoch at 10, blocks 11 to 14 are paid for at the end, by weights that were due at 20."""
    network = Network(commit_reveal=1).found(2, {"lead": 1})
    network.seal(10)
    network.weigh("lead", 0, 1, height=12)
    network.seal(12)
    network.say("lead", CLOSE)
    closing = network.chain.close(14).block
    assert (closing.closing, closing.height) == (True, 14)
    assert [type(signed.call) for signed in closing.extrinsics] == [CloseRun, RevealWeights]
    assert closing.outcomes == ("", "")
    assert closing.epoch is not None
    assert (closing.epoch.height, closing.epoch.blocks) == (14, 4)
    assert network.paid("peer1") == pytest.approx(0.41 * 4)


def test_the_last_block_may_end_an_epoch() -> None:
    network = Network().found(1, {"lead": 1})
    closing = network.chain.close(10).block
    assert closing.epoch is not None
    assert closing.epoch.blocks == 10
    assert len(network.chain.epochs) == 1


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_where_the_tokens_of_an_epoch_go() -> None:
    """10 blocks of 2 tokens: owner 3.6; peers 8.2, of which the owner's half is burned; validators 8.2."""
    network = Network(emission_per_block=2).found(2, {"lead": 1})
    network.weigh("lead", 2, 1, 1)
    epoch = network.epoch(10)
    assert (epoch.owner, epoch.burned) == (pytest.approx(3.6), pytest.approx(4.1))
    assert [network.paid(name) for name in ("owner", "peer1", "peer2", "lead")] == [
        pytest.approx(tokens) for tokens in (3.6, 2.05, 2.05, 8.2)
    ]
    assert [share.peer_tokens for share in epoch.shares] == [0, pytest.approx(2.05), pytest.approx(2.05), 0]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["weigh", "register", "hash", "wait"]),
        st.integers(0, 3),
        st.lists(st.integers(0, 65535), min_size=4, max_size=4),
        st.integers(1, 7),
    ),
    max_size=25,
)


@given(
    ACTIONS,
    st.sampled_from(["none", 1, 2]),
    st.sampled_from(["yuma2", "yuma3"]),
    st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=2, max_size=2),
    st.sampled_from([(0.18, 0.41), (0.0, 1.0), (0.3, 0.7), (1.0, 0.0)]),
)
def test_no_token_is_made_or_lost(actions: Any, reveal: Any, rule: str, stakes: Any, split: Any) -> None:
    """Over any run: what was paid and burned is the emission of all blocks, and each epoch's is that of its own."""
    shares = {"owner_share": split[0], "peer_share": split[1]}
    network = Network(slots=6, commit_reveal=reveal, consensus=rule, emission_per_block=0.7, **shares)
    network.found(2, dict(zip(["lead", "second"], stakes, strict=True)))
    height = 0
    for number, (action, who, values, blocks) in enumerate(actions):
        act(network, action, who, values, height + 1, number)
        for sealed in range(height + 1, height + blocks + 1):
            network.seal(sealed)
        height += blocks
    network.chain.close(height + 1)
    chain = network.chain
    for epoch in chain.epochs:
        tokens = math.fsum(share.peer_tokens + share.validator_tokens for share in epoch.shares)
        assert tokens + epoch.owner + epoch.burned == pytest.approx(0.7 * epoch.blocks)
        assert all(share.peer_tokens >= 0 and share.validator_tokens >= 0 for share in epoch.shares)
    assert sum(epoch.blocks for epoch in chain.epochs) == height + 1
    burned = math.fsum(epoch.burned for epoch in chain.epochs)
    assert math.fsum(chain.balances.values()) + burned == pytest.approx(0.7 * (height + 1))


def act(network: Network, action: str, who: int, values: list[int], height: int, number: int) -> None:
    if action == "weigh":
        network.weigh(["lead", "second"][who % 2], *values, height=height, round=number)
    elif action == "register":
        network.register(f"peer{number + 10}")
    elif action == "hash":
        network.say(["peer1", "peer2", "lead", "peer10"][who], HASH)


def test_who_loses_its_permit_loses_its_bonds() -> None:
    """Slots: owner 0, peers 1 and 2, lead 3, then a newcomer of more stake."""
    network = Network(permits=1).found(2, {"lead": 1})
    network.weigh("lead", 0, 3, 1)
    network.seal(1)
    network.seal(10)
    network.register("newer", stake=2)
    network.seal(11)
    network.weigh("newer", 0, 1, 1)
    network.seal(12)
    network.seal(20)
    first, second = ({share.public: share.dividend for share in epoch.shares} for epoch in network.chain.epochs)
    assert first[network.public("lead")] == 1.0
    assert second[network.public("lead")] == 0.0
    assert second[network.public("newer")] == 1.0


def test_without_incentive_the_active_are_paid_by_stake() -> None:
    """And all with a permit where none is active; what the only weight was for has gone."""
    network = Network(slots=4, activity_cutoff=15).found(1, {"lead": 1.0, "second": 3.0})
    network.weigh("lead", 0, 1)
    network.seal(1)
    network.register("peer2")  # takes the slot of peer1
    epoch = network.epoch(10)
    assert not any(share.incentive for share in epoch.shares)
    assert network.paid("second") == 0
    lead = network.paid("lead")
    assert lead > 0
    network.epoch(20)  # lead was heard of 19 blocks ago
    assert network.paid("second") == pytest.approx(3 * (network.paid("lead") - lead))
    assert network.paid("lead") > lead
