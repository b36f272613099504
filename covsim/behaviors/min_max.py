"""As far off as the two honest updates that are furthest apart."""

from typing import Any, ClassVar, Literal

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors
from covsim.behaviors.others import Most, Reads, Until, updates_of_others
from covsim.behaviors.spread import Direction, perturbation


@behaviors.register
class MinMax(Behavior):
    """Submit the mean of the others plus the largest perturbation that is no further from any than they are apart.

    The whole cohort submits the same; where there is nobody to read, nothing is submitted. Pseudo-gradients are
    subtracted as gradients are, so the signs are those of the paper. Source: Shejwalkar and Houmansadr 2021,
    Manipulating the Byzantine (NDSS), the min-max attack.
    """

    needs_coordinates: ClassVar[bool] = True
    kind: Literal["min_max"] = "min_max"
    direction: Direction = "std"
    reads: Reads = "omniscient"
    most: Most = 20
    until: Until = 0.5

    @property
    def knowledge(self) -> Knowledge:
        return self.reads

    def play_round(self, peer: PeerVerbs) -> Script:
        others = yield from updates_of_others(peer, self.reads, self.most, self.until)
        if others:
            yield from peer.submit(peer.combine(others, lambda stack: strayed(stack, self.direction)))
        yield from peer.sync()


def strayed(stack: Any, direction: Direction) -> Any:
    """The mean of some updates [K, N] plus gamma times the perturbation, [N]."""
    towards = perturbation(stack, direction)
    return stack.mean(0) + largest_gamma(stack, towards) * towards


def largest_gamma(stack: Any, towards: Any) -> float:
    """The largest gamma for which mean + gamma p is no further from any update than two updates are from each other.

    With c_i = x_i - mean and D the largest |x_i - x_j|^2, each update allows gamma up to the positive root of
    |p|^2 gamma^2 - 2 (p . c_i) gamma + |c_i|^2 = D, so the least root is exact and nothing is searched for; the paper
    bisects to a tolerance. 0 where there is no direction.
    """
    centered = stack - stack.mean(0)  # [K, N]
    gram = centered @ centered.T  # [K, K]
    squares = gram.diagonal()
    apart = (squares[:, None] + squares - 2 * gram).max()
    along, length = centered @ towards, float(towards @ towards)
    if length == 0:
        return 0.0
    room = (apart - squares).clamp(min=0)  # nobody is further from the mean than from the furthest other
    return float((along + (along.square() + length * room).sqrt()).min()) / length
