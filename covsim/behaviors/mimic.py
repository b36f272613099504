"""One honest voice, heard many times."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors
from covsim.behaviors.others import Most, Reads, Until, updates_of_others


@behaviors.register
class Mimic(Behavior):
    """Submit what one of the others submits, the same one every round, so that its data counts too much.

    Each payload is honest; together they take weight from everybody else. Where there is nobody to read, nothing is
    submitted. Source: Karimireddy, He and Jaggi 2022 (arXiv 2006.09365), with a victim by place as in
    ByzFL.
    """

    kind: Literal["mimic"] = "mimic"
    victim: int = Field(0, ge=0, le=100_000, description="place among the others, modulo how many there are")
    reads: Reads = "omniscient"
    most: Most = 20
    until: Until = 0.5

    @property
    def knowledge(self) -> Knowledge:
        return self.reads

    def play_round(self, peer: PeerVerbs) -> Script:
        others = yield from updates_of_others(peer, self.reads, self.most, self.until)
        if others:
            yield from peer.submit(others[self.victim % len(others)])
        yield from peer.sync()
