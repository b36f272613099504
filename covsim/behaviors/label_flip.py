"""Honest training towards false answers."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class LabelFlip(Behavior):
    """Do all H steps on the assigned shard, with token t of every answer replaced by V - 1 - t.

    Source: Fang et al. 2020 (arXiv 1911.11815), for V classes; here V is the vocabulary.
    """

    kind: Literal["label_flip"] = "label_flip"

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches().flipped())
        yield from peer.submit(update)
        yield from peer.sync()
