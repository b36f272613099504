"""Where the tokens of an epoch go; the live split is 18 % to the owner, 41 % to peers, 41 % to validators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.chain.emission import Emission, share_out
from covsim.chain.yuma import Yuma2, normalized


def shared(incentive: list[float], dividends: list[float], stakes: list[float], **how: Any) -> Emission:
    """360 tokens at the live split, the owner in slot 0, unless told otherwise."""
    settings = {"total": 360.0, "owner_share": 0.18, "peer_share": 0.41, "owner_slot": 0} | how
    return share_out(incentive=np.array(incentive), dividends=np.array(dividends), stakes=np.array(stakes), **settings)


def total(emission: Emission) -> float:
    return float(emission.peers.sum() + emission.validators.sum()) + emission.owner + emission.burned


def test_an_epoch_of_360_tokens() -> None:
    """Owner 0.18 * 360 = 64.8; peers 147.6, of which the owner's slot burns half; validators 147.6 by dividends."""
    emission = shared([0.5, 0.3, 0.2], [0.75, 0.25], [1.0, 1.0])
    assert emission.owner == pytest.approx(64.8)
    assert emission.burned == pytest.approx(73.8)
    assert emission.peers == pytest.approx([0, 44.28, 29.52])
    assert emission.validators == pytest.approx([110.7, 36.9])


def test_the_owner_may_hold_any_slot() -> None:
    emission = shared([0.5, 0.3, 0.2], [1.0], [1.0], owner_slot=2)
    assert emission.burned == pytest.approx(0.2 * 147.6)
    assert emission.peers == pytest.approx([73.8, 44.28, 0])
    with pytest.raises(AssertionError, match="holds a slot"):
        shared([0.5, 0.5], [1.0], [1.0], owner_slot=2)


def test_without_incentive_validators_get_it_all_by_stake() -> None:
    """2 * 147.6 = 295.2 by 3 : 1; nothing is burned, for nobody weighed the owner's slot."""
    emission = shared([0.0, 0.0], [0.0, 0.0], [3.0, 1.0])
    assert emission.validators == pytest.approx([221.4, 73.8])
    assert not emission.peers.any()
    assert emission.burned == 0
    assert emission.owner == pytest.approx(64.8)


@pytest.mark.parametrize("stakes", [[], [0.0, 0.0]], ids=["no validators", "no stake"])
def test_what_nobody_can_claim_is_burned(stakes: list[float]) -> None:
    emission = shared([0.0, 0.0], [0.0] * len(stakes), stakes)
    assert emission.burned == pytest.approx(295.2)
    assert not emission.validators.any()


def test_an_epoch_without_blocks_pays_nothing() -> None:
    emission = shared([0.5, 0.5], [1.0], [1.0], total=0.0)
    assert total(emission) == 0


@pytest.mark.parametrize("owner_share", [0.1, 0.18, 0.3, 0.7, 0.82, 0.9, 1.0])
def test_shares_that_leave_validators_nothing(owner_share: float) -> None:
    """Also where a rounding error would leave them a negative amount."""
    emission = shared([0.5, 0.5], [1.0], [1.0], total=361.0, owner_share=owner_share, peer_share=1 - owner_share)
    assert 0 <= emission.validators[0] <= 1e-12
    assert total(emission) == pytest.approx(361)


AMOUNTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=8)


@given(st.data(), st.floats(0, 1e9), st.floats(0, 1), st.floats(0, 1), AMOUNTS, AMOUNTS)
def test_all_that_is_emitted_goes_somewhere(
    data: st.DataObject, tokens: float, owner_share: float, rest: float, ranks: list[float], stakes: list[float]
) -> None:
    """Nothing is negative or lost, the owner's slot earns nothing, and the owner gets exactly the owner's share."""
    incentive = normalized(np.array(ranks))
    dividends = normalized(np.array(stakes)) if incentive.any() else np.zeros(len(stakes))
    owner_slot = data.draw(st.integers(0, len(ranks) - 1))
    emission = share_out(
        tokens, owner_share, (1 - owner_share) * rest, incentive, dividends, np.array(stakes), owner_slot
    )
    assert total(emission) == pytest.approx(tokens, rel=1e-9, abs=1e-9)
    assert (emission.peers >= 0).all()
    assert (emission.validators >= 0).all()
    assert emission.burned >= 0
    assert emission.peers[owner_slot] == 0
    assert emission.owner == owner_share * tokens


def test_half_burned_on_a_real_epoch() -> None:
    """Two validators of one mind give half to the owner's slot and a quarter to each peer: 73.8 burned, 36.9 each."""
    weights = np.array([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
    result = Yuma2().epoch(np.array([2.0, 1.0]), weights, np.zeros((2, 3)))
    emission = share_out(360.0, 0.18, 0.41, result.incentive, result.dividends, np.array([2.0, 1.0]), owner_slot=0)
    assert emission.burned == pytest.approx(73.8)
    assert emission.peers == pytest.approx([0, 36.9, 36.9])
    assert emission.validators == pytest.approx([98.4, 49.2])
