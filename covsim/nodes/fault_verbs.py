"""The verbs of `world.faults.FaultVerbs`: what a fault takes hold of, over nodes, links and the store of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TypeVar

from covsim.nodes.commons import Commons
from covsim.nodes.peer import Peer
from covsim.world.conditions import Damage, Direction, RateLimit, Renamed, SlowReads, Spoiled
from covsim.world.faults import Targets
from covsim.world.links import LinkRates
from covsim.world.network import Resource
from covsim.world.pauses import pause_of

Entry = TypeVar("Entry")
Hold = AbstractContextManager[None]


class Verbs:
    """What faults can do in a run; several of them at a time add up.

    `at_work` is True while a fault's script runs on the clock. A script that is only thrown away, with a run that has
    ended, lets go of nothing: nothing may happen any more.

    Args:
        peers: who may be struck, by the name that they have at the start. A peer keeps its machine and links when it
            takes another uid; what goes by name strikes the name that it has when the strike begins.
    """

    def __init__(self, commons: Commons, rates: LinkRates, peers: Mapping[str, Peer]) -> None:
        self.at_work = False
        self._commons, self._rates, self._peers = commons, rates, peers
        self._conditions = commons.store.conditions
        self._away: Counter[str] = Counter()
        self._down: Counter[str] = Counter()

    # What nodes ask -------------------------------------------------------------------------------------------------

    def is_away(self, validator: str) -> bool:
        """Whether a validator, `validator:<name>`, is to sit out the round that it would begin now."""
        return self._away[validator] > 0

    def is_reachable(self, node: str) -> bool:
        """Whether others hear of a node."""
        return not any(peer.name == node and self._conditions.is_cut(peer.uplink) for peer in self._peers.values())

    def names_now(self, nodes: Targets) -> tuple[str, ...]:
        """The names that these nodes have now."""
        return tuple(self._peers[node].name if node in self._peers else node for node in nodes)

    # What faults do -------------------------------------------------------------------------------------------------

    def slowed(self, nodes: Targets, directions: Collection[Direction], factor: float) -> Hold:
        links = self._links(nodes, directions)

        def slow() -> None:
            for link in links:
                self._rates.slow(link, factor)

        def mend() -> None:
            for link in links:
                self._rates.restore(link, factor)

        return self._held(slow, mend)

    def cut_off(self, nodes: Targets, directions: Collection[Direction]) -> Hold:
        links = self._links(nodes, directions)

        def cut() -> None:
            self._conditions.cut(links)
            for link in links:
                self._commons.store.cut(link)

        def mend() -> None:
            self._conditions.mend(links)
            self._commons.chain.hear_again()

        return self._held(cut, mend)

    def crashed(self, nodes: Targets) -> Hold:
        def crash() -> None:
            for node in nodes:
                self._down[node] += 1
                if self._down[node] == 1:
                    self._peers[node].crash()

        def come_back() -> None:
            for node in nodes:
                self._down[node] -= 1
                if not self._down[node]:
                    self._peers[node].come_back()

        return self._held(crash, come_back)

    def restarted_after(self, nodes: Targets) -> Hold:
        def restart() -> None:
            for node in nodes:
                if not self._down[node]:
                    self._peers[node].crash()
                    self._peers[node].come_back()

        return self._held(lambda: None, restart)

    def away(self, validators: Targets) -> Hold:
        return self._held(lambda: self._away.update(validators), lambda: self._away.subtract(validators))

    def spoiled_training(self, nodes: Targets, mishap: Literal["nan", "wrong_shard"]) -> Hold:
        spoiling = self._commons.mishaps.spoiling([self._peers[node].uid for node in nodes], mishap)
        return self._held(spoiling.__enter__, lambda: spoiling.__exit__(None, None, None))

    def renamed(self, nodes: Targets, version: str) -> Hold:
        return self._listed(self._conditions.renamed, Renamed(frozenset(self.names_now(nodes)), version))

    def damaged_uploads(self, nodes: Targets, damage: Damage, keeps: float = 0.0) -> Hold:
        return self._listed(self._conditions.spoiled, Spoiled(frozenset(self.names_now(nodes)), damage, keeps))

    def store_down(self) -> Hold:
        return self._listed(self._conditions.outages, pause_of(self._commons.env.now, math.inf))

    def rate_limited(self, requests_per_s: float) -> Hold:
        return self._listed(self._conditions.limits, RateLimit(requests_per_s, self._commons.env.now))

    def slow_reads(self, bits_per_s: float, delay_s: float) -> Hold:
        return self._listed(self._conditions.slow_reads, SlowReads(bits_per_s, delay_s))

    def store_clock(self, ahead_s: float) -> Hold:
        return self._listed(self._conditions.clock_offsets_s, ahead_s)

    # What verbs are made of -----------------------------------------------------------------------------------------

    def _listed(self, conditions: list[Entry], entry: Entry) -> Hold:
        """Hold an entry in a list of conditions."""
        return self._held(lambda: conditions.append(entry), lambda: conditions.remove(entry))

    @contextmanager
    def _held(self, take: Callable[[], object], let_go: Callable[[], object]) -> Iterator[None]:
        take()
        try:
            yield
        finally:
            if self.at_work:
                let_go()

    def _links(self, nodes: Targets, directions: Collection[Direction]) -> list[Resource]:
        peers = [self._peers[node] for node in nodes]
        return [
            peer.uplink if direction == "up" else peer.downlink
            for peer in peers
            for direction in ("up", "down")
            if direction in directions
        ]
