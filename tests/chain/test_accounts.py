"""Accounts: the same name has the same key, and a signature fits one message of one account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.chain.accounts import Account, is_signed

ANN, BOB = Account.derive(7, "peer:1"), Account.derive(7, "peer:11")


def test_a_name_has_one_key_under_a_seed() -> None:
    assert Account.derive(7, "peer:1").public == ANN.public
    assert Account.derive(7, "peer:1").sign(b"x") == ANN.sign(b"x")
    seeds_and_names = [(7, "peer:1"), (7, "peer:11"), (71, "peer:1"), (7, "peer:1 "), (8, "peer:1"), (77, "eer:1")]
    assert len({Account.derive(seed, name).public for seed, name in seeds_and_names}) == 6


def test_the_secret_key_is_not_shown() -> None:
    assert repr(ANN) == f"Account(name='peer:1', public='{ANN.public}')"


@given(st.binary(max_size=50), st.integers(0, 511))
def test_a_signature_fits_its_message_and_its_signer_only(message: bytes, bit: int) -> None:
    signature = ANN.sign(message)
    flipped = bytearray.fromhex(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert is_signed(ANN.public, message, signature)
    assert not is_signed(BOB.public, message, signature)
    assert not is_signed(ANN.public, message + b"\0", signature)
    assert not is_signed(ANN.public, message, flipped.hex())


@pytest.mark.parametrize("nonsense", ["", "00", "no hex", "é" * 64, "f" * 64, "f" * 128, "0" * 63])
def test_what_is_no_key_and_no_signature_fits_nothing(nonsense: str) -> None:
    assert not is_signed(nonsense, b"x", ANN.sign(b"x"))
    assert not is_signed(ANN.public, b"x", nonsense)
