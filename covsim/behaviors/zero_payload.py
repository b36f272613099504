"""A payload in good form that says nothing."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class ZeroPayload(Behavior):
    """Train nothing, and submit zeros: present, on time and harmless.

    Source: Fraboni, Vidal and Lorenzi 2021 (arXiv 2006.11901), the plain free rider, which hands theta back.
    """

    kind: Literal["zero_payload"] = "zero_payload"

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.submit(peer.noise(0.0))
        yield from peer.sync()
