"""Studying for the test."""

from typing import ClassVar, Literal

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors


@behaviors.register
class EvalOverfit(Behavior):
    """Do all H steps, on nothing but the sequences on which it will be measured.

    Source: Gauntlet (arXiv 2505.21684), whose loss score takes it that nobody foresees which sequences are drawn.
    """

    knowledge: ClassVar[Knowledge] = "omniscient"
    kind: Literal["eval_overfit"] = "eval_overfit"

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.expected_batches())
        yield from peer.submit(update)
        yield from peer.sync()
