"""Nothing, made to look like somebody's converging training."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, Update, behaviors


@behaviors.register
class DisguisedFreeRider(Behavior):
    """Hand theta back plus noise that decays from round to round as an honest update would.

    In round t the noise is `scale * (t + 1) ** -decay` times as long as the first change of theta that it saw; until
    theta has moved it hands theta back as it is, and submits zeros. Source: Fraboni, Vidal and Lorenzi 2021 (arXiv
    2006.11901); there theta plus noise is sent, here that minus theta, with either sign.
    """

    kind: Literal["disguised_free_rider"] = "disguised_free_rider"
    scale: float = Field(1.0, gt=0, le=1e6, description="length of the first noise, in first changes of theta")
    decay: float = Field(0.5, ge=0, le=10, description="exponent with which the noise decays over rounds; 0: it stays")

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.submit(self._noise(peer))
        yield from peer.sync()

    def _noise(self, peer: PeerVerbs) -> Update:
        if not peer.notes.get("first_change"):
            peer.notes["first_change"] = peer.observe(peer.last_change().norm())
        length: float = self.scale * (peer.round + 1) ** -self.decay * peer.notes["first_change"]
        unit = peer.noise(1.0)
        return (length / peer.observe(unit.norm())) * unit
