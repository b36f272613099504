"""A peer that lives on its good name."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Seconds, Share


@behaviors.register
class Coaster(Behavior):
    """Be honest for some rounds, then do a share of the steps, or nothing, and perhaps upload late.

    Source: one-covenant/templar, #51, #297 and #592, where what was earned once went on being paid.
    """

    kind: Literal["coaster"] = "coaster"
    good_rounds: int = Field(8, ge=1, le=100_000, description="rounds in which it is honest")
    share: Share = Field(0.0, description="part of the H inner steps that is done afterwards; 0 submits nothing")
    delay: Seconds = Field(0.0, ge=0, le=86400, description="from the window's opening to the upload, afterwards")

    def play_round(self, peer: PeerVerbs) -> Script:
        if peer.round < self.good_rounds:
            update = yield from peer.train(peer.assigned_batches())
            yield from peer.submit(update)
        elif self.share:
            update = yield from peer.train(peer.assigned_batches(), steps=max(1, round(self.share * peer.inner_steps)))
            if self.delay:
                yield from peer.wait_for_uploads()
                yield from peer.pause(self.delay)
            yield from peer.submit(update)
        yield from peer.sync()
