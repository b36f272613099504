"""A peer that does more than it is asked for."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class DataHog(Behavior):
    """Train on several times the data: so many times H inner steps, if the window has room for them.

    Source: the peer with more data of Gauntlet (arXiv 2505.21684), figure 2. It needs a faster machine for it.
    """

    kind: Literal["data_hog"] = "data_hog"
    factor: float = Field(2.0, ge=1, le=1000, description="inner steps, in multiples of H")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), steps=round(self.factor * peer.inner_steps))
        yield from peer.submit(update)
        yield from peer.sync()
