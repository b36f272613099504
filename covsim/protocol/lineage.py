"""Equal histories share one theta: a lineage is named by its parent and by the payloads that were applied to it.

Nodes that gathered the same payloads on the same theta get the same object, and the step is computed once. A lineage
that nobody holds any more is freed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from covsim.protocol.base import Decoded
from covsim.protocol.outer import OuterState

Submission = tuple[int, str, Decoded]  # uid, SHA-256 of the payload in hex, what it decodes to


@dataclass(frozen=True, eq=False)
class Lineage:
    """A history of outer steps.

    Attributes:
        key: hex digest of all payloads that led here.
        depth: number of outer steps.
        theta: the parameters [N], a tensor; where nothing is trained, what stands for them. Shared, so nobody may
            change it in place.
        outer: the outer optimizer's memory, as shared.
        waiting: payloads of a buffer that is not full yet, in the order of their arrival.
    """

    key: str
    depth: int
    theta: Any
    outer: OuterState = ()
    waiting: tuple[Decoded, ...] = ()


CombineAndStep = Callable[[Lineage, Sequence[Decoded], int], tuple[Any, OuterState]]


class Lineages:
    """All histories that some node still holds.

    Args:
        root: where everybody starts, from `root_lineage`.
        combine_and_step: makes a new theta and outer memory from a lineage, the payloads in the order of their uids,
            and the round they belong to.
        buffer: payloads that must have come together before an outer step is taken.
        sharing: False computes anew for every asker, to check that equal histories do give equal theta.
    """

    def __init__(self, root: Lineage, combine_and_step: CombineAndStep, buffer: int = 1, sharing: bool = True) -> None:
        self.root = root
        self._combine_and_step = combine_and_step
        self._buffer = buffer
        self._sharing = sharing
        self._alive: WeakValueDictionary[str, Lineage] = WeakValueDictionary()

    def child(self, parent: Lineage, submissions: Sequence[Submission], round: int) -> Lineage:
        """The history that applies these payloads of a round, one per uid and at least one, in any order given."""
        by_uid = sorted(submissions, key=lambda submission: submission[0])
        uids = [uid for uid, _, _ in by_uid]
        assert uids, "a gather that brought nothing leaves its node where it was"
        assert len(set(uids)) == len(uids), f"a uid has one payload in a round: {uids}"
        key = _key(parent, by_uid)
        known = self._alive.get(key) if self._sharing else None
        if known is not None:
            return known
        child = self._apply(key, parent, (*parent.waiting, *(decoded for _, _, decoded in by_uid)), round)
        self._alive[key] = child
        return child

    @property
    def living(self) -> list[Lineage]:
        """Those that somebody holds, the root left out."""
        return list(self._alive.values())

    def __len__(self) -> int:
        """Lineages that somebody holds, the root not counted."""
        return len(self._alive)

    def _apply(self, key: str, parent: Lineage, payloads: tuple[Decoded, ...], round: int) -> Lineage:
        if len(payloads) < self._buffer:
            return Lineage(key, parent.depth, parent.theta, parent.outer, payloads)
        theta, outer = self._combine_and_step(parent, payloads, round)
        return Lineage(key, parent.depth + 1, theta, outer)


def root_lineage(theta: Tensor, outer: OuterState = ()) -> Lineage:
    """The history without steps: the parameters [N] that everybody starts from, and the outer memory of then."""
    return Lineage(hashlib.sha256(theta.cpu().numpy().tobytes()).hexdigest(), 0, theta, outer)


def _key(parent: Lineage, by_uid: Sequence[Submission]) -> str:
    history = "".join(f"|{uid}:{sha256}{_weighing(decoded)}" for uid, sha256, decoded in by_uid)
    return hashlib.sha256((parent.key + history).encode()).hexdigest()


def _weighing(payload: Decoded) -> str:
    """Its weight, where it has one: then equal payloads may move theta differently."""
    return f":{payload.weight.hex()}" if payload.weight else ""
