"""What the others submit, as an attacker comes to know it: for nothing, or downloaded and paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from covsim.behaviors.base import PeerVerbs, Update, Verb
from covsim.units import Share

Reads = Annotated[
    Literal["observed", "omniscient"],
    Field(description="observed: downloads payloads and pays; omniscient: knows every update before it is sent, free"),
]
Most = Annotated[int, Field(ge=1, le=10_000, description="payloads that are downloaded in a round, where it observes")]

Until = Annotated[
    Share, Field(description="part of the put window after which it begins no more downloads, where it observes")
]


def updates_of_others(peer: PeerVerbs, reads: Reads, most: Most, until: Until) -> Verb[Sequence[Update]]:
    """What others submit in this round, each a pseudo-gradient [N]; none where nothing can be had in time.

    Who is omniscient gets them whole and by uid, who observes as the payloads say them and in the order of arrival.
    """
    if reads == "omniscient":
        return (yield from peer.updates_of_others())
    payloads = yield from peer.payloads_of_others(most, until)
    said = [peer.read(payload) for payload in payloads]
    return [update for update in said if update is not None]
