"""Catching up: the leading validator puts its theta into the store; who comes later takes it, and gathers the rest.

A checkpoint is charged at the full size of theta; its content never crosses the seam, the lineage stands for it.
Source: one-covenant/templar v2.1.28, where validators write a checkpoint every 10 outer steps, and a node that starts
takes the newest one and replays the gathers since.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import simpy

from covsim.events import CaughtUp, CheckpointStored, OuterStepTaken
from covsim.nodes.commons import Commons, checkpoint_key
from covsim.nodes.gather import Gather, Submission, take_outer_step
from covsim.nodes.shelf import Checkpoint
from covsim.nodes.spent import Spent
from covsim.protocol.lineage import Lineage
from covsim.world.network import Resource

Waiting: TypeAlias = Generator[Any, Any, None]


def put_checkpoint(commons: Commons, node: str, uplink: Resource, round: int, lineage: Lineage) -> Waiting:
    """Upload the theta that a validator has after a round; the body of a process, which may be interrupted.

    An upload that fails is tried again when the next window opens, until a newer checkpoint is due.
    """
    shelf, clock = commons.shelf, commons.clock
    key = checkpoint_key(round, node.partition(":")[2])
    try:
        while (yield from commons.store.put(node, uplink, key, b"", shelf.num_bytes, purpose="checkpoint")) is None:
            window = clock.window_at(commons.env.now) + 1
            if window > round + 1 + shelf.every:
                return
            yield clock.opened(window)
    except simpy.Interrupt:
        return
    shelf.add(Checkpoint(round, key, node, lineage))
    commons.emit(CheckpointStored(commons.env.now, node, round, shelf.num_bytes, lineage.key))


@dataclass
class CatchUp:
    """One node's way to the present: from the newest checkpoint, or from a history that it still has.

    Args:
        lineage: what it still has; None if it must take a checkpoint.
        round: the first round whose gather is missing from `lineage`.
    """

    commons: Commons
    node: str
    downlink: Resource
    lineage: Lineage | None = None
    round: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.lineage is None:
            self.commons.shelf.check_wanted(self.node)
            self.round = self.commons.shelf.newest.round + 1  # from now on the store keeps what follows

    def run(self, until: int | None = None) -> Generator[Any, Any, Lineage]:
        """Gather every round before `until`, or before the one that the present window is for; returns the history.

        The last of them may still be under way: then this waits for the end of its put window, as any gather does.
        """
        commons = self.commons
        lineage = self.lineage if self.lineage is not None else (yield from self._take_checkpoint())
        while self.round < self._end(until):
            entered = yield from self._fetch(self.round)
            lineage = self.lineage = take_outer_step(commons, lineage, entered, self.round)
            if entered:
                commons.emit(OuterStepTaken(commons.env.now, self.node, self.round, lineage.key))
            self.round += 1
        return lineage

    def _fetch(self, round: int) -> Generator[Any, Any, tuple[Submission, ...]]:
        """What everybody gathered in a round, or exchanged."""
        commons = self.commons
        if commons.collectives is not None:
            return (yield from commons.collectives.fetch(self.node, self.downlink, round, Spent()))
        wanted = commons.board.in_force(round + 1)
        return (yield from Gather(commons, self.node, self.downlink, round, wanted).run())

    def _end(self, until: int | None) -> int:
        commons = self.commons
        present = commons.clock.window_at(commons.env.now) if until is None else until
        return min(present, commons.num_rounds)

    def _take_checkpoint(self) -> Generator[Any, Any, Lineage]:
        """Download the newest checkpoint, as often as it takes; the theta of the start is everybody's, and free."""
        commons, attempts = self.commons, 0
        while True:
            newest = commons.shelf.newest
            self.round = newest.round + 1
            if not newest.key:
                break
            read = yield from commons.store.get(
                self.node, self.downlink, newest.key, purpose="checkpoint", attempts_before=attempts
            )
            if read is not None and read.charged_bytes >= commons.shelf.num_bytes:  # else it is damaged
                break
            attempts += commons.store.settings.retries + 1
            yield commons.env.timeout(commons.clock.timeline.block)
        self.lineage = newest.lineage
        commons.emit(CaughtUp(commons.env.now, self.node, newest.round, newest.provider, newest.lineage.key))
        return newest.lineage
