"""The right direction, far too far."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Scaling(Behavior):
    """Do the work, and submit it many times as long, to outweigh everybody else.

    Source: Bagdasaryan et al. 2018 (arXiv 1807.00459), model replacement; one-covenant/templar, #133.
    """

    kind: Literal["scaling"] = "scaling"
    scale: float = Field(10.0, gt=0, le=1e6, description="length of what is submitted, in honest updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(self.scale * update)
        yield from peer.sync()
