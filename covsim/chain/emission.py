"""Tokens of an epoch: to the owner, to peers by incentive, to validators by dividends; the owner's incentive burns."""

from __future__ import annotations

from dataclasses import dataclass

from covsim.chain.yuma import Floats, normalized


@dataclass(frozen=True, slots=True)
class Emission:
    """Tokens by slot as a peer [n], by validator [V], to the owner, and burned; together what the epoch emits."""

    peers: Floats
    validators: Floats
    owner: float
    burned: float


def share_out(
    total: float,
    owner_share: float,
    peer_share: float,
    incentive: Floats,
    dividends: Floats,
    stakes: Floats,
    owner_slot: int,
) -> Emission:
    """Share out what an epoch emits.

    What the owner's slot would earn is burned. Where no peer has incentive, the peers' part goes to validators too, and
    where no validator has dividends, by stake; without any stake it is burned. Source: Bittensor subtensor, which falls
    back on stake for all-zero emission, on that of the active if there are any.

    Args:
        total: tokens of the epoch.
        owner_share, peer_share: of the total; validators get the rest.
        incentive: [n], summing to 1 or 0.
        dividends: [V], summing to 1 or 0.
        stakes: [V], of validators with a permit that are active, or if none is, of all with a permit; 0 for the others.
        owner_slot: whose incentive is burned.
    """
    assert 0 <= owner_slot < len(incentive), "the owner holds a slot"
    owner, for_peers = owner_share * total, peer_share * total
    for_validators = max(0.0, total - owner - for_peers)  # shares that sum to 1 may do so with a rounding error
    peers, burned = for_peers * incentive, 0.0
    if incentive.any():
        burned = float(peers[owner_slot])
        peers[owner_slot] = 0.0
    else:
        for_validators += for_peers
    claims = dividends if dividends.any() else stakes
    if not claims.any():
        burned += for_validators
    return Emission(peers, for_validators * normalized(claims), owner, burned)
