"""Yesterday's work of everybody as one's own of today."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class FreeRider(Behavior):
    """Train nothing, and submit how theta last changed.

    It knows that change because it takes the outer steps itself. Before the first one it submits zeros.
    Source: Lin, Du and Liu 2019 (arXiv 1911.12560), the delta weights attack.
    """

    kind: Literal["free_rider"] = "free_rider"
    scale: float = Field(1.0, gt=0, le=1e6, description="length of what is submitted, in changes of theta")

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.submit(self.scale * peer.last_change())
        yield from peer.sync()
