"""Peers that break the model in order to be paid for its repair."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class SpikeFarmer(Behavior):
    """Let the first of the cohort throw theta back now and then, and the others work only in the round after.

    A listed breaker submits its update with the sign turned and many times as long, on every `every`-th round. The
    others see by the public list whether that landed, and work when there is much to repair.
    Source: one-covenant/templar, #133, where a score without a cap made loss spikes worth farming.
    """

    kind: Literal["spike_farmer"] = "spike_farmer"
    every: int = Field(4, ge=2, le=100_000, description="rounds from one spike to the next")
    scale: float = Field(20.0, gt=0, le=1e6, description="length of the blow, in honest updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        breaker = peer.fellows[0]
        blows, repairs = peer.round % self.every == self.every - 1, peer.notes.get("broken", False)
        peer.notes["broken"] = blows and breaker in peer.gather_list()
        if blows if peer.uid == breaker else repairs:
            update = yield from peer.train(peer.assigned_batches())
            yield from peer.submit(-self.scale * update if peer.uid == breaker else update)
        yield from peer.sync()
