"""Equal histories share one theta: a lineage is named by its parent and by the payloads that were applied to it.

Nodes that gathered the same payloads on the same theta get the same object, and the step is computed once. A lineage
that nobody holds any more is freed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from torch import Tensor

from covsim.protocol.base import Decoded

Submission = tuple[int, str, Decoded]  # uid, SHA-256 of the payload in hex, what it decodes to
CombineAndStep = Callable[[Tensor, Sequence[Decoded], int], Tensor]


@dataclass(frozen=True, eq=False)
class Lineage:
    """A history of outer steps.

    Attributes:
        key: hex digest of all payloads that led here.
        depth: number of outer steps.
        theta: the parameters [N]; shared, so nobody may change it in place.
    """

    key: str
    depth: int
    theta: Tensor


class Lineages:
    """All histories that some node still holds.

    Args:
        root_theta: the parameters [N] that everybody starts from.
        combine_and_step: makes a new theta from a theta [N], the payloads in the order of their uids, and the number
            of outer steps taken before.
        sharing: False computes anew for every asker, to check that equal histories do give equal theta.
    """

    def __init__(self, root_theta: Tensor, combine_and_step: CombineAndStep, sharing: bool = True) -> None:
        self.root = Lineage(hashlib.sha256(root_theta.cpu().numpy().tobytes()).hexdigest(), 0, root_theta)
        self._combine_and_step = combine_and_step
        self._sharing = sharing
        self._alive: WeakValueDictionary[str, Lineage] = WeakValueDictionary()

    def child(self, parent: Lineage, submissions: Sequence[Submission]) -> Lineage:
        """The history that applies these payloads, one per uid and at least one, to `parent`, in any order given."""
        by_uid = sorted(submissions, key=lambda submission: submission[0])
        uids = [uid for uid, _, _ in by_uid]
        assert uids, "a gather that brought nothing leaves its node where it was"
        assert len(set(uids)) == len(uids), f"a uid has one payload in a round: {uids}"
        key = _key(parent, by_uid)
        known = self._alive.get(key) if self._sharing else None
        if known is not None:
            return known
        theta = self._combine_and_step(parent.theta, [decoded for _, _, decoded in by_uid], parent.depth)
        child = Lineage(key, parent.depth + 1, theta)
        self._alive[key] = child
        return child

    def __len__(self) -> int:
        """Lineages that somebody holds, the root not counted."""
        return len(self._alive)


def _key(parent: Lineage, by_uid: Sequence[Submission]) -> str:
    history = "".join(f"|{uid}:{sha256}" for uid, sha256, _ in by_uid)
    return hashlib.sha256((parent.key + history).encode()).hexdigest()
