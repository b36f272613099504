"""Noise, loud enough to drown the others."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class GaussianNoise(Behavior):
    """Train nothing, and submit independent normal numbers that are large against everything in theta.

    Source: Blanchard et al. 2017 (arXiv 1703.02757), the Gaussian attack, whose standard deviation is 200.
    """

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: float = Field(200.0, gt=0, le=1e6, description="standard deviation of each number, in units of theta")

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.submit(peer.noise(self.sigma))
        yield from peer.sync()
