"""Inner product manipulation: turn the mean around, or just hold it back."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors
from covsim.behaviors.others import Most, Reads, Until, updates_of_others


@behaviors.register
class Ipm(Behavior):
    """Submit the mean of the others times -epsilon, the same for the whole cohort.

    A small epsilon passes robust rules and slows learning, a large one turns a plain mean around (`turning_point`).
    Where there is nobody to read, nothing is submitted. The mean is of pseudo-gradients, which are subtracted as
    gradients are, so the sign is that of the paper and of ByzFL (its tau). Source: Xie, Koyejo and Gupta 2019 (arXiv
    1903.03936).
    """

    kind: Literal["ipm"] = "ipm"
    epsilon: float = Field(0.5, gt=0, le=1e6, description="length of the reversed mean, in means")
    reads: Reads = "omniscient"
    most: Most = 20
    until: Until = 0.5

    @property
    def knowledge(self) -> Knowledge:
        return self.reads

    def play_round(self, peer: PeerVerbs) -> Script:
        others = yield from updates_of_others(peer, self.reads, self.most, self.until)
        if others:
            yield from peer.submit(peer.combine(others, lambda stack: -self.epsilon * stack.mean(0)))
        yield from peer.sync()


def turning_point(n: int, m: int) -> float:
    """The epsilon above which m of n submissions turn a plain mean around: (n - m) / m.

    Source: Xie, Koyejo and Gupta 2019 (arXiv 1903.03936).
    """
    return (n - m) / m
