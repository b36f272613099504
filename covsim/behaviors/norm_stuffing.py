"""A blow where nobody else is."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class NormStuffing(Behavior):
    """Do the work, and put all of its length into the coordinates that matter least to it, away from the optimum.

    With top-k, nobody else sends those coordinates: a norm clip sees nothing unusual, and a mean over senders divides
    by one. Source: the mean over senders of SparseLoCo (arXiv 2508.15706), read as an attacker would.
    """

    needs_coordinates: ClassVar[bool] = True
    kind: Literal["norm_stuffing"] = "norm_stuffing"
    coordinates: int = Field(64, ge=1, le=10_000_000, description="coordinates that are hit; all of them if N is less")
    scale: float = Field(1.0, gt=0, le=1e6, description="length of what is submitted, in honest updates")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update.map(lambda vector: self.scale * stuffed(vector, self.coordinates)))
        yield from peer.sync()


def stuffed(update: Any, num: int) -> Any:
    """A vector [N] as long as the update [N], all of it in the `num` coordinates where the update is smallest.

    There it points against the update, and down where that is 0; ties go to the lower coordinate.
    """
    weakest = update.abs().argsort(stable=True)[:num]
    against = 1 - 2.0 * (update[weakest] >= 0)
    blow = update * 0
    blow[weakest] = against * (update.norm() / len(weakest) ** 0.5)
    return blow
