"""A good name first, and then sabotage under it."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Sleeper(Behavior):
    """Be honest until it has been paid for some rounds, and push the model the other way from then on.

    After a crash it has to earn its name again. Source: on-off attacks on reputation, Sun, Han, Yu and Liu 2006,
    Information Theoretic Framework of Trust Modeling and Evaluation for Ad Hoc Networks.
    """

    kind: Literal["sleeper"] = "sleeper"
    paid_rounds: int = Field(3, ge=1, le=100_000, description="rounds with pay, after which it turns")
    scale: float = Field(1.0, gt=0, le=1e6, description="length of the reversed update, in honest updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        if peer.incentive() > 0:
            peer.notes["paid_rounds"] = peer.notes.get("paid_rounds", 0) + 1
        turned = peer.notes.get("paid_rounds", 0) >= self.paid_rounds
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(-self.scale * update if turned else update)
        yield from peer.sync()
