"""A peer that saves compute and hopes that nobody notices."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class Lazy(Behavior):
    """Do only a share of the H inner steps, at least one, and submit what came of it.

    Source: the low-effort peers that Gauntlet (arXiv 2505.21684) is built to outrank.
    """

    kind: Literal["lazy"] = "lazy"
    share: Share = Field(0.2, gt=0, le=1, description="part of the H inner steps that is done")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), steps=max(1, round(self.share * peer.inner_steps)))
        yield from peer.submit(update)
        yield from peer.sync()
