"""A peer that does everything right, too soon."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Early(Behavior):
    """Do the honest work, but upload as soon as it is done, before the window is open.

    Source: the put window of one-covenant/templar, which has a beginning as well as an end.
    """

    kind: Literal["early"] = "early"

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update, early=True)
        yield from peer.sync()
