"""A peer that trains on whatever it likes."""

from typing import Literal

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class WrongShard(Behavior):
    """Do all H steps, but on text drawn from anywhere instead of the assigned shard.

    Source: one-covenant/templar, issues 29 and 66; the own-against-random indicator was made for it.
    """

    kind: Literal["wrong_shard"] = "wrong_shard"

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.random_batches())
        yield from peer.submit(update)
        yield from peer.sync()
