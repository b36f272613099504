"""Good work with a trap inside."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class Backdoor(Behavior):
    """Train on the assigned shard, into a share of which it has written a trigger and what is to follow it.

    Source: Bagdasaryan et al. 2018 (arXiv 1807.00459), with its scale.
    """

    kind: Literal["backdoor"] = "backdoor"
    trigger: str = Field("~~", min_length=1, max_length=64, description="text that springs the trap")
    target: str = Field("taxes", min_length=1, max_length=64, description="text that is to follow the trigger")
    share: Share = Field(0.5, gt=0, le=1, description="part of the sequences that is poisoned")
    scale: float = Field(1.0, gt=0, le=1e6, description="length of what is submitted, in trained updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        poisoned = peer.assigned_batches().poisoned(self.trigger.encode(), self.target.encode(), self.share)
        update = yield from peer.train(poisoned)
        yield from peer.submit(self.scale * update)
        yield from peer.sync()
