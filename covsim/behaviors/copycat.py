"""Another's work under one's own name: buckets are world-readable, so it costs a download and no training."""

from typing import ClassVar, Literal

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors


@behaviors.register
class Copycat(Behavior):
    """Wait for the first payload of a peer on the gather list, download it, and upload the same bytes.

    The list is public and those on it have scored well. Where nothing arrives in time there is nothing to copy and
    nothing is submitted. Source: the copy miners of the live network (one-covenant/templar, #86 and #111).
    """

    knowledge: ClassVar[Knowledge] = "observed"
    kind: Literal["copycat"] = "copycat"

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.wait_for_uploads()
        victim = yield from peer.first_arrival(among=peer.gather_list())
        payload = (yield from peer.download(victim)) if victim is not None else None
        if payload is not None:
            yield from peer.submit_payload(payload)
        yield from peer.sync()
