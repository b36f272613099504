"""A peer that sheds its past when that begins to cost."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class Restarter(Behavior):
    """Save compute like a lazy peer, and register again under a new uid when the pay has fallen.

    Source: one-covenant/templar, #622: restarts to dodge penalties.
    """

    kind: Literal["restarter"] = "restarter"
    share: Share = Field(0.2, gt=0, le=1, description="part of the H inner steps that is done")
    below: Share = Field(0.5, gt=0, le=1, description="it restarts when paid less than this part of its best pay")
    hopes: int = Field(8, ge=1, le=100_000, description="rounds under one uid before it restarts for having no pay")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), steps=max(1, round(self.share * peer.inner_steps)))
        yield from peer.submit(update)
        yield from peer.sync()
        if self._has_fallen(peer):
            peer.notes.clear()
            yield from peer.register_again()

    def _has_fallen(self, peer: PeerVerbs) -> bool:
        """Whether the last epoch paid too little, by what was earned under this uid."""
        paid = peer.incentive()
        best: float = max(paid, peer.notes.get("best", 0.0))
        rounds: int = peer.notes.get("rounds", 0) + 1
        peer.notes.update(best=best, rounds=rounds)
        return paid < self.below * best or (best == 0 and rounds >= self.hopes)
