"""Part of a payload for all of the pay."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class Partial(Behavior):
    """Do a share of the steps, and submit a payload that leaves out every third tensor.

    Source: one-covenant/templar, #469: payloads that lacked tensors passed all checks.
    """

    kind: Literal["partial"] = "partial"
    share: Share = Field(1.0, gt=0, le=1, description="part of the H inner steps that is done")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), steps=max(1, round(self.share * peer.inner_steps)))
        payload = yield from peer.encode(update)
        yield from peer.submit_payload(peer.forge(payload, "missing_tensors"))
        yield from peer.sync()
