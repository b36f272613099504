"""The protocol as the paper states it."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Honest(Behavior):
    """Train H steps on the assigned shard, submit the pseudo-gradient, sync.

    Source: SparseLoCo (arXiv 2508.15706), algorithm 1.
    """

    kind: Literal["honest"] = "honest"

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update)
        yield from peer.sync()
