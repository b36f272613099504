"""Another's work under one's own name: buckets are world-readable, so it costs a download and no training."""

from statistics import NormalDist
from typing import Any, ClassVar, Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, Verb, behaviors
from covsim.units import Share


@behaviors.register
class Copycat(Behavior):
    """Wait for the first payload of a peer on the gather list, download it, and upload it as one's own.

    The list is public and those on it have scored well. Where nothing arrives in time there is nothing to copy and
    nothing is submitted. As it stands it uploads the same bytes; the settings disguise the copy, which is then encoded
    anew, and nothing is submitted where the original is not valid. Source: the copy miners of the live network
    (one-covenant/templar, #86 and #111).
    """

    knowledge: ClassVar[Knowledge] = "observed"
    kind: Literal["copycat"] = "copycat"
    shuffle: Share = Field(0.0, description="part of the values that is moved to random other coordinates")
    noise: float = Field(0.0, ge=0, le=1e3, description="length of noise added to the copy, in lengths of the copy")
    scale: float = Field(1.0, gt=0, le=1e6, description="length of what is submitted, in copies")

    @property
    def needs_coordinates(self) -> bool:
        return self.shuffle > 0

    def play_round(self, peer: PeerVerbs) -> Script:
        yield from peer.wait_for_uploads()
        victim = yield from peer.first_arrival(among=peer.gather_list())
        payload = (yield from peer.download(victim)) if victim is not None else None
        if payload is not None and (self.shuffle, self.noise, self.scale) != (0, 0, 1):
            payload = yield from self._disguised(peer, payload)
        if payload is not None:
            yield from peer.submit_payload(payload)
        yield from peer.sync()

    def _disguised(self, peer: PeerVerbs, payload: bytes) -> Verb[bytes | None]:
        copy = peer.read(payload)
        if copy is None:
            return None
        if self.shuffle:
            dice = [peer.noise(1.0, "moved"), peer.noise(1.0, "places")]
            copy = peer.combine([copy, *dice], lambda stack: shuffled(stack[0], stack[1], stack[2], self.shuffle))
        if self.noise:
            copy = peer.combine([copy, peer.noise(1.0)], lambda stack: blurred(stack[0], stack[1], self.noise))
        return (yield from peer.encode(self.scale * copy))


def shuffled(update: Any, dice: Any, order: Any, share: float) -> Any:
    """An update [N], a share of its values moved to other coordinates, where they add to what is there.

    Normal numbers [N] say which ones move (`dice`) and in which order all coordinates are dealt out again (`order`).
    """
    moving = update * (dice < NormalDist().inv_cdf(share)) if share < 1 else update
    return update - moving + moving[order.argsort()]


def blurred(update: Any, normal: Any, length: float) -> Any:
    """An update [N] plus independent normal numbers [N], brought to `length` times its norm."""
    return update + (length * update.norm() / normal.norm()) * normal
