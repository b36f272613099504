"""One round's work, submitted for several."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class StaleResubmit(Behavior):
    """Do the work once, and submit the same bytes in the rounds that follow as well.

    The payload is made without error feedback, so that its bytes are at hand. Source: replay, to which every protocol
    is open whose payloads do not say of which round they are.
    """

    kind: Literal["stale_resubmit"] = "stale_resubmit"
    repeats: int = Field(3, ge=1, le=100_000, description="rounds in which a payload is submitted after its own")

    def play_round(self, peer: PeerVerbs) -> Script:
        made, payload = peer.notes.get("payload", (0, None))
        if payload is None or peer.round - made > self.repeats:
            update = yield from peer.train(peer.assigned_batches())
            payload = yield from peer.encode(update)
            peer.notes["payload"] = (peer.round, payload)
        yield from peer.submit_payload(payload)
        yield from peer.sync()
