"""The plainest sabotage: the right direction, reversed."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class SignFlip(Behavior):
    """Do the work, then push the model the other way.

    Source: Li et al. 2019, RSA (arXiv 1811.03761), with a scale.
    """

    kind: Literal["sign_flip"] = "sign_flip"
    scale: float = Field(1.0, gt=0, le=1e6, description="length of the reversed update, in honest updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(-self.scale * update)
        yield from peer.sync()
