"""A peer that is there now and then."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class Intermittent(Behavior):
    """Do the honest work in some rounds, drawn one by one, and nothing but keep up in the others.

    Source: one-covenant/templar, #51 and #52: whoever stopped submitting kept the score.
    """

    kind: Literal["intermittent"] = "intermittent"
    share: Share = Field(0.5, description="part of the rounds in which it works")

    def play_round(self, peer: PeerVerbs) -> Script:
        if peer.chance("works") < self.share:
            update = yield from peer.train(peer.assigned_batches())
            yield from peer.submit(update)
        yield from peer.sync()
