"""Faults of links: slow, cut, flapping; and partitions, in which requests fail instead of waiting."""

from contextlib import nullcontext
from typing import Literal

from pydantic import Field

from covsim.units import Seconds, Share
from covsim.world.faults import UNTIL_THE_END, Directions, Fault, FaultVerbs, Harm, Targets, directions_of, faults


@faults.register
class LinkSlow(Fault):
    """Links carry only part of what they can.

    Source: a congested uplink; Covenant-72B (arXiv 2603.08163) trains over links of 110 and 500 Mb/s.
    """

    kind: Literal["link_slow"] = "link_slow"
    factor: float = Field(gt=0, lt=1, description="What is left of the rate.")
    direction: Directions = Field(default="both", description="Which links.")

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.slowed(targets, directions_of(self.direction), self.factor):
            yield UNTIL_THE_END


@faults.register
class LinkCut(Fault):
    """Links carry nothing: what flows stands still, what begins waits, and all goes on when they are back.

    Source: an unplugged cable; connections that do not know of it hang.
    """

    kind: Literal["link_cut"] = "link_cut"
    direction: Directions = Field(default="both", description="Which links.")
    restarts: bool = Field(default=False, description="Restart the peers when it is over, so that they catch up.")

    @property
    def makes_catch_up(self) -> bool:
        return self.restarts

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        after = verbs.restarted_after(targets) if self.restarts else nullcontext()
        with after, verbs.slowed(targets, directions_of(self.direction), 0.0):
            yield UNTIL_THE_END


@faults.register
class Flapping(Fault):
    """Links come and go: down for part of every period, up for the rest.

    Source: a route that flaps.
    """

    kind: Literal["flapping"] = "flapping"
    period: Seconds = Field(gt=0, le=86_400, description="From one cut to the next.")
    duty: Share = Field(default=0.5, gt=0, lt=1, description="Part of every period in which the links are up.")
    direction: Directions = Field(default="both", description="Which links.")

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        while True:
            with verbs.slowed(targets, directions_of(self.direction), 0.0):
                yield self.period * (1 - self.duty)
            yield self.period * self.duty


@faults.register
class Partition(Fault):
    """Peers are cut from the store and the chain: transfers break off, requests fail, extrinsics wait until it heals.

    Who is cut both ways takes no outer step, and afterwards goes on from the theta it has, unless it `restarts`. With
    `direction: up` it still reads what others write; with `down` it
    still writes.

    Source: a network partition in a topology where all meet in an object store, so a node is cut from all or none.
    """

    kind: Literal["partition"] = "partition"
    direction: Directions = Field(default="both", description="Which way nothing passes.")
    restarts: bool = Field(default=False, description="Restart the peers when it is over, so that they catch up.")

    @property
    def makes_catch_up(self) -> bool:
        return self.restarts

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        after = verbs.restarted_after(targets) if self.restarts else nullcontext()
        with after, verbs.cut_off(targets, directions_of(self.direction)):
            yield UNTIL_THE_END
