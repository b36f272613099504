"""A little is enough: shifted by as much as the honest differ anyway."""

from statistics import NormalDist
from typing import Any, ClassVar, Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, Knowledge, PeerVerbs, Script, behaviors
from covsim.behaviors.others import Most, Reads, Until, updates_of_others
from covsim.behaviors.spread import deviation


@behaviors.register
class Alie(Behavior):
    """Submit the mean of the others minus z standard deviations in every coordinate, the same for the whole cohort.

    Where there is nobody to read, nothing is submitted. Mean and deviation are of pseudo-gradients, which are
    subtracted as gradients are, so the sign is that of the paper; ByzFL adds, so its tau is -z. Source: Baruch, Baruch
    and Goldberg 2019 (arXiv 1902.06156), the attack that prevents convergence.
    """

    needs_coordinates: ClassVar[bool] = True
    kind: Literal["alie"] = "alie"
    z: float | None = Field(None, ge=-1e3, le=1e3, description="deviations to shift by; empty: what the paper reckons")
    reads: Reads = "omniscient"
    most: Most = 20
    until: Until = 0.5

    @property
    def knowledge(self) -> Knowledge:
        return self.reads

    def play_round(self, peer: PeerVerbs) -> Script:
        others = yield from updates_of_others(peer, self.reads, self.most, self.until)
        if others:
            m = len(peer.fellows)
            z = tolerated_z(len(others) + m, m) if self.z is None else self.z
            yield from peer.submit(peer.combine(others, lambda stack: shifted(stack, z)))
        yield from peer.sync()


def tolerated_z(n: int, m: int) -> float:
    """The deviations by which m of n submissions can shift, and still have a majority with those beyond them.

    s = floor(n / 2 + 1) - m honest ones must lie further out, so z = Phi^-1((n - m - s) / (n - m)). 0 where that is
    negative or undefined (attackers so few that the formula would have them help), and as for s = 1 where the attackers
    are a majority by themselves. Source: Baruch, Baruch and Goldberg 2019 (arXiv 1902.06156).
    """
    honest = n - m
    needed = max(1, n // 2 + 1 - m)
    share = (honest - needed) / honest
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0


def shifted(stack: Any, z: float) -> Any:
    """The mean of some updates [K, N] minus z times the standard deviation of each coordinate, [N]."""
    return stack.mean(0) - z * deviation(stack)
