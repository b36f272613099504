"""As far from all together as the honest update that is furthest from all."""

from typing import Any, ClassVar, Literal

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors
from covsim.behaviors.others import Most, Reads, Until, updates_of_others
from covsim.behaviors.spread import Direction, perturbation


@behaviors.register
class MinSum(Behavior):
    """Submit the mean of the others plus the largest perturbation whose squared distances sum to no more than theirs.

    The whole cohort submits the same; where there is nobody to read, nothing is submitted. Pseudo-gradients are
    subtracted as gradients are, so the signs are those of the paper. Source: Shejwalkar and Houmansadr 2021,
    Manipulating the Byzantine (NDSS), the min-sum attack.
    """

    needs_coordinates: ClassVar[bool] = True
    kind: Literal["min_sum"] = "min_sum"
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
    """The largest gamma for which mean + gamma p has squared distances to all that sum to no more than any update's.

    With c_i = x_i - mean, that sum is K gamma^2 |p|^2 + sum |c_i|^2 at the perturbed mean and K |c_j|^2 + sum |c_i|^2
    at update j, so gamma = max |c_j| / |p| is exact and nothing is searched for; the paper bisects to a tolerance. 0
    where there is no direction.
    """
    length = float(towards.norm())
    return float((stack - stack.mean(0)).norm(dim=1).max()) / length if length else 0.0
