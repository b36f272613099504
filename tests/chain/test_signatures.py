"""Signatures that are remembered: the same as those that are made, and nothing passes for genuine that is not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from test_extrinsics import CALLS

from covsim.chain.accounts import Account
from covsim.chain.extrinsics import Call, PayloadHash, SetWeights, sign
from covsim.chain.signatures import Signatures

ANN, BOB = Account.derive(1, "ann"), Account.derive(1, "bob")
ANY_CALL = CALLS["payload_hash"] | CALLS["set_weights"] | CALLS["commit_bucket"] | CALLS["register"]
known = Signatures()  # by all examples: one of them must not get what belongs to another


@given(ANY_CALL, ANY_CALL)
def test_what_is_remembered_is_what_is_signed(one: Call, other: Call) -> None:
    """Catches a signature under another call's, nonce's or account's name."""
    for account in (ANN, BOB):
        for nonce, call in ((0, one), (1, one), (0, other), (0, one)):
            found = known.sign(account, nonce, call)
            assert found.spelled == sign(account, nonce, call).spelled
            assert known.is_genuine(found)


def test_equal_numbers_may_be_spelled_differently() -> None:
    """Catches a signature over 0.0 for -0.0, which Python holds to be equal."""
    calls = [SetWeights(0, ((1, weight),)) for weight in (0.0, -0.0, 0)]
    assert [known.sign(ANN, 0, call).is_genuine for call in calls] == [True] * 3
    assert len({known.sign(ANN, 0, call).spelled for call in calls}) == 3


def test_a_forgery_stays_one() -> None:
    """Catches a check that goes by who is known, or by what was genuine before."""
    genuine = known.sign(ANN, 0, PayloadHash(0, "ab"))
    for forged in (replace(genuine, call=PayloadHash(1, "ab")), replace(genuine, public=BOB.public)):
        assert known.is_genuine(genuine)
        assert not known.is_genuine(forged)
        assert not known.is_genuine(forged)


def test_accounts_are_those_of_the_seed() -> None:
    """Catches an account of another seed or name."""
    for seed, name in ((1, "ann"), (2, "ann"), (1, "bob"), (1, "ann")):
        assert known.account(seed, name).public == Account.derive(seed, name).public
