"""Slots: who gets one, who has to go for a newcomer, and that the newcomer inherits nothing."""

from __future__ import annotations

from typing import Any

import pytest
from small_chain import Network, incentives

from covsim.chain.extrinsics import (
    PayloadHash,
)

HASH = PayloadHash(0, "ab" * 32)


# Slots ----------------------------------------------------------------------------------------------------------------


def test_slots_are_given_in_turn() -> None:
    network = Network().found(2, {"lead": 1.5})
    network.register("peer9")
    network.seal(4)
    holders = network.chain.slots.holders
    assert [(slot, holder.name, holder.role) for slot, holder in holders.items()] == [
        (0, "owner", "owner"),
        (1, "peer1", "peer"),
        (2, "peer2", "peer"),
        (3, "lead", "validator"),
        (4, "peer9", "peer"),
    ]
    assert (holders[3].stake, holders[4].registered_at) == (1.5, 4)


def full(**settings: Any) -> Network:
    """All five slots are taken; peers 1, 2, 3 have earned a fifth, nothing, four fifths. Block 10 was the last."""
    network = Network(slots=5, **settings).found(3, {"lead": 1})
    network.weigh("lead", 0, 1, 0, 4)
    network.seal(1)
    network.seal(10)
    return network


def test_when_all_slots_are_taken_the_lowest_peer_goes() -> None:
    network = full()
    network.register("peer7")
    assert network.outcome(11) == ""
    assert network.slot("peer7") == 2
    assert network.chain.holder(network.public("peer2")) is None
    assert {holder.name for holder in network.chain.slots.holders.values()} == {
        "owner", "peer1", "peer7", "peer3", "lead",
    }  # fmt: skip
    network.register("peer8")
    assert network.outcome(12) == ""
    assert network.slot("peer8") == 2, "who has never been paid has the lowest incentive"


def test_of_equals_who_came_first_goes() -> None:
    network = Network(slots=4).found(1, {"lead": 1})
    network.register("peer2")
    network.seal(3)
    for uid, replaced in ((7, 1), (8, 3), (9, 1)):
        network.register(f"peer{uid}")
        network.seal(uid)
        assert network.slot(f"peer{uid}") == replaced


def test_a_newcomer_is_immune_for_a_while() -> None:
    """Registered at 0 with an immunity of 12 blocks, peers can be replaced from block 12 on."""
    network = full(immunity=12)
    refusal = "all 5 slots are held by peers in immunity, validators or the owner"
    network.register("peer7")
    assert network.outcome(11) == refusal
    network.register("peer7")
    assert network.outcome(12) == ""
    network.register("peer8")
    assert network.outcome(13) == ""
    assert (network.slot("peer7"), network.slot("peer8")) == (2, 1), "peer7 is immune now, peer1 has the next lowest"


def test_validators_and_the_owner_are_never_replaced() -> None:
    network = Network(slots=2).found(0, {"lead": 1})
    network.register("peer1")
    assert network.outcome(1).startswith("all 2 slots are held by")


def test_a_slot_costs_nothing_at_the_start_and_its_price_later() -> None:
    network = Network(registration_cost=2.5).found(2, {"lead": 1})
    network.register("peer3")
    network.seal(1)
    assert {name: network.chain.spent[network.public(name)] for name in ("owner", "peer1", "lead", "peer3")} == {
        "owner": 0.0, "peer1": 0.0, "lead": 0.0, "peer3": 2.5,
    }  # fmt: skip


def test_who_lost_its_slot_can_come_back_and_pays_again() -> None:
    network = full(registration_cost=1.0)
    network.register("peer7")
    network.seal(11)
    network.say("peer2", HASH)
    assert network.outcome(12) == "the account has no slot"
    network.register("peer2")
    network.say("peer2", HASH)
    assert network.outcome(13) == ""
    assert network.slot("peer2") == 2
    assert network.chain.spent[network.public("peer2")] == 1.0


# Newcomers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["yuma2", "yuma3"])
def test_weights_and_bonds_of_a_former_holder_do_not_count_for_the_newcomer(rule: str) -> None:
    """Lead pays peers 1 and 2, second only peer 2; peer 1's slot is taken at 12, and lead's weight for it is void."""
    network = Network(slots=5, consensus=rule, immunity=11).found(2, {"lead": 1, "second": 1})
    network.weigh("lead", 0, 3, 4)
    network.weigh("second", 0, 0, 1)
    network.seal(1)
    network.seal(10)
    assert set(incentives(network)) == {"peer1", "peer2"}
    assert network.chain.stances.bonds[network.public("lead")][1] > 0
    network.register("peer7")
    network.seal(12)
    assert network.slot("peer7") == 1
    assert network.chain.weights_of(network.public("lead")) == {2: 4}
    assert network.chain.stances.bonds[network.public("lead")][1] == 0
    network.seal(20)
    assert incentives(network) == {"peer2": 1.0}
    assert network.paid("peer7") == 0
    network.weigh("lead", 0, 1, 1)
    network.seal(21)
    network.seal(30)
    assert incentives(network)["peer7"] > 0


@pytest.mark.parametrize(("registered", "counts"), [(3, True), (4, False), (5, False)])
def test_weights_decided_before_a_newcomer_or_in_its_block_are_void(registered: int, counts: bool) -> None:
    """Committed to at 4, shown at 10: what counts is when they were decided."""
    network = Network(slots=3, commit_reveal=1).found(1, {"lead": 1})
    for height in (3, 4, 5):
        if height == registered:
            network.register("peer7")
        if height == 4:
            network.weigh("lead", 0, 1, height=4)
        network.seal(height)
    network.seal(10)
    assert incentives(network) == ({"peer7": 1.0} if counts else {})


def test_a_newcomer_has_none_of_the_incentive_of_whom_it_replaced() -> None:
    network = full()
    network.register("peer7")
    network.register("peer8")
    network.seal(11)
    assert network.slot("peer8") == 2, "peer7 went again: it had nothing"
