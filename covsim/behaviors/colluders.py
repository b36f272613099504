"""One gradient dealt out among accomplices, so that no two of them look alike."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors


@behaviors.register
class Colluders(Behavior):
    """Let the first of the cohort train, and everyone submit another slice of the coordinates of its update.

    Their top-k indices do not overlap, and where a mean over senders divides, each slice counts as if all had sent it.
    Where the first has nothing to tell the others submit nothing. Source: the overlap check of one-covenant/templar
    (#370, #435), which looks for indices in common.
    """

    needs_coordinates: ClassVar[bool] = True
    kind: Literal["colluders"] = "colluders"
    scale: float = Field(
        1.0, ge=-1e6, le=1e6, description="length of what is dealt out, in trained updates; negative: against the model"
    )

    def play_round(self, peer: PeerVerbs) -> Script:
        if peer.uid == peer.fellows[0]:
            update = yield from peer.train(peer.assigned_batches())
            peer.tell("update", update)
        else:
            update = yield from peer.heard("update")
        if update is not None:
            place, num = list(peer.fellows).index(peer.uid), len(peer.fellows)
            yield from peer.submit(self.scale * update.map(lambda vector: slice_of(vector, place, num)))
        yield from peer.sync()


def slice_of(update: Any, place: int, num: int) -> Any:
    """Every `num`-th coordinate of an update [N] from `place` on, zeros elsewhere."""
    part = update * 0
    part[place::num] = update[place::num]
    return part
