"""A peer that does everything right, too late."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Seconds


@behaviors.register
class Late(Behavior):
    """Do the honest work, but start the upload some time after the window has opened.

    Source: the late uploads of the live network (one-covenant/templar, #111).
    """

    kind: Literal["late"] = "late"
    delay: Seconds = Field(300.0, gt=0, le=86400, description="from the window's opening to the start of the upload")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.wait_for_uploads()
        yield from peer.pause(self.delay)
        yield from peer.submit(update)
        yield from peer.sync()
