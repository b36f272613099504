"""A peer that takes up a slot and nothing else."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Idle(Behavior):
    """Register, keep theta up to date, and never submit anything.

    Source: one-covenant/templar, #51, where peers that had stopped submitting kept their score.
    """

    kind: Literal["idle"] = "idle"

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.sync()
