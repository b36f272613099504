"""Dice instead of work."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class RandomPayload(Behavior):
    """Train nothing, and submit independent normal numbers in a valid payload.

    Their size is meant to pass for that of a trained update. Source: Lin, Du and Liu 2019 (arXiv 1911.12560), the
    random weights attack.
    """

    kind: Literal["random_payload"] = "random_payload"
    sigma: float = Field(0.01, gt=0, le=1e6, description="standard deviation of each number, in units of theta")

    def play_round(self, peer: PeerVerbs) -> Script:
        payload = yield from peer.encode(peer.noise(self.sigma))
        yield from peer.submit_payload(payload)
        yield from peer.sync()
