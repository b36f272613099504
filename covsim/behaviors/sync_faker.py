"""A peer that has fallen behind and shows another's theta as its own."""

from typing import ClassVar, Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors


@behaviors.register
class SyncFaker(Behavior):
    """Train from the theta of some rounds ago, and publish the sync sample of a peer on the gather list.

    Samples are world-readable and tiny, so a copy costs nothing. Source: Gauntlet (arXiv 2505.21684), whose sync score
    believes the sample that a peer publishes.
    """

    knowledge: ClassVar[Knowledge] = "observed"
    kind: Literal["sync_faker"] = "sync_faker"
    rounds_behind: int = Field(3, ge=1, le=1000, description="age of the theta that it trains from")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches(), rounds_behind=self.rounds_behind)
        for uid in peer.gather_list():
            if uid not in peer.fellows:
                peer.show_sample_of(uid)
                break
        yield from peer.submit(update)
        yield from peer.sync()
