"""A peer that has fallen behind and goes on as if it had not."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Desynced(Behavior):
    """Train from the theta of some rounds ago, and submit the pseudo-gradient as if it were of today.

    Source: the desynchronized peer of Gauntlet (arXiv 2505.21684), figure 2, which had paused for 3 rounds.
    """

    kind: Literal["desynced"] = "desynced"
    rounds_behind: int = Field(3, ge=1, le=1000, description="age of the theta that it trains from")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), rounds_behind=self.rounds_behind)
        yield from peer.submit(update)
        yield from peer.sync()
