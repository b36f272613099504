"""The public shelf of checkpoints: which one is the newest that lies whole in the store."""

from __future__ import annotations

from dataclasses import dataclass

from covsim.protocol.lineage import Lineage


@dataclass(frozen=True)
class Checkpoint:
    """The theta that `provider` had after the outer step of a round; `key` is empty for the theta of the start."""

    round: int
    key: str
    provider: str
    lineage: Lineage


class Shelf:
    """Keeps the newest checkpoint.

    Args:
        root: the history that everybody starts from.
        every: rounds between two checkpoints.
        num_bytes: size of one, as charged.
        wanted: False where nobody can ever miss a round; then nobody keeps or uploads anything for who might.
    """

    def __init__(self, root: Lineage, every: int, num_bytes: float, wanted: bool) -> None:
        self.newest = Checkpoint(-1, "", "", root)
        self.every, self.num_bytes, self.wanted = every, num_bytes, wanted

    def add(self, checkpoint: Checkpoint) -> None:
        """Put up a checkpoint, unless a newer one is there."""
        if checkpoint.round > self.newest.round:
            self.newest = checkpoint

    def check_wanted(self, node: str) -> None:
        """Raise ValueError where nothing was kept for who catches up."""
        if not self.wanted:
            raise ValueError(
                f"{node} must catch up, and nothing is kept for that: what makes somebody miss rounds says so by "
                "`catches_up = True`, as a membership or as a validator's behavior"
            )

    def is_due(self, round: int) -> bool:
        """Whether the one who leads uploads its theta after a round."""
        return self.wanted and (round + 1) % self.every == 0
