"""Transfers that share links: flow-level max-min fairness on the virtual clock.

A transfer waits out its latency, then flows over all resources of its path at once at its max-min fair rate; rates
change when a transfer joins or leaves, or a resource changes. Packets, slow start and losses are not modeled.

A change costs by the number of bundles (flows over one path) in the connected component that it touches. Resources
that can never be full, for want of a limit or of demand, slow nobody down and connect nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL, EventPriority

from covsim.world.clock import alarm, on_event
from covsim.world.fairness import Path, Resource, max_min_rates
from covsim.world.latency import NetworkSettings, Ways
from covsim.world.transfer import Bundle, Link, Transfer

__all__ = ["Network", "NetworkSettings", "Path", "Resource", "Transfer"]

# After all other events of an instant, so that rates are computed once for everything that changed in it.
_SETTLING = EventPriority(NORMAL + 1)


class Network:
    """All transfers of a run, and the rates that they have.

    Args:
        env: the simulation whose time passes.
        settings: the `network:` section.
    """

    def __init__(self, env: simpy.Environment, settings: NetworkSettings) -> None:
        self.env = env
        self.settings = settings
        self.ways = Ways(settings)
        self.on_use: Callable[[Resource], None] | None = None  # told of a link before something flows over it again
        self._num_transfers = 0
        self._num_finishes = 0  # breaks ties in the heap below
        self._bundles: dict[tuple[Any, ...], Bundle] = {}
        self._links: dict[Resource, Link] = {}
        self._changed: dict[Bundle, None] = {}  # whose flows joined or left at this instant
        self._emptied: list[Bundle] = []  # whose last flow is complete, and nobody else is touched
        self._emptied_s = -math.inf
        self._finishes: list[tuple[float, int, Bundle]] = []  # a heap; an entry is stale when finish_s has moved
        self._alarm_s = math.inf

    def transfer(
        self,
        path: Sequence[Resource],
        num_bytes: float,
        latency_s: float = 0.0,
        *,
        weight: float = 1.0,
        cap_bits_per_s: float = math.inf,
    ) -> Transfer:
        """Send bytes over all resources of a path at once, after the latency.

        Args:
            path: the resources it takes; the order does not matter.
            num_bytes: size as charged.
            latency_s: wait before the first byte flows.
            weight: as how many flows it counts where it shares a resource.
            cap_bits_per_s: the most that it takes.

        Raises:
            ValueError: the size or the latency is negative or not finite, or weight or cap are not positive.
        """
        if not (0 <= num_bytes < math.inf and 0 <= latency_s < math.inf):
            raise ValueError(f"cannot transfer {num_bytes} bytes after {latency_s} s")
        if not (0 < weight < math.inf and cap_bits_per_s > 0):
            raise ValueError(f"cannot transfer with a weight of {weight} and at most {cap_bits_per_s} b/s")
        limited: list[Resource] = []
        for resource in path:
            if resource.capacity_bits_per_s < math.inf and resource not in limited:
                limited.append(resource)
        transfer = Transfer(self.env, self._num_transfers, tuple(limited), num_bytes, weight, cap_bits_per_s, self._cut)
        self._num_transfers += 1
        if latency_s:
            on_event(self.env.timeout(latency_s), lambda _: self._join(transfer))
        else:
            self._join(transfer)
        return transfer

    def set_capacity(self, resource: Resource, bits_per_s: float) -> None:
        """Let all flows over a resource have so much together from now on; over one of 0 they wait where they are.

        Args:
            resource: one with a limit: what has none is not among the paths that are kept.
            bits_per_s: its capacity, finite.

        Raises:
            ValueError: the capacity is negative or not finite.
        """
        if not 0 <= bits_per_s < math.inf:
            raise ValueError(f"{resource.name} cannot have a capacity of {bits_per_s} b/s")
        assert resource.is_limited, f"{resource.name} has no limit to change"
        if resource.capacity_bits_per_s == bits_per_s:
            return
        self._forget_emptied()
        users = list(self._links[resource].bundles) if resource in self._links else []
        # All that it connects now: a link that others could fill may be slack when these flows can ask for less.
        for bundle in _component(users):
            self._note_change(bundle)
        for bundle in users:
            bundle.weigh(-1)
        resource.capacity_bits_per_s = bits_per_s
        for bundle in users:
            bundle.weigh(1)

    def is_used(self, resource: Resource) -> bool:
        """Whether anything flows over a limited resource, or did at this very instant."""
        self._forget_emptied()
        return resource in self._links

    def _cut(self, transfer: Transfer) -> None:
        bundle = transfer.bundle
        if bundle is not None:
            bundle.remove(transfer, self.env.now)
            self._note_change(bundle)
        transfer.done.succeed(False)

    def _join(self, transfer: Transfer) -> None:
        if transfer.done.triggered:  # cut while it waited out its latency
            return
        if not transfer.path and transfer.cap_bits_per_s == math.inf:
            transfer.kept_bytes = transfer.num_bytes
            transfer.done.succeed(True)
            return
        bundle = self._bundle(transfer)
        bundle.add(transfer, self.env.now)
        self._note_change(bundle)

    def _bundle(self, transfer: Transfer) -> Bundle:
        """The bundle in which a transfer flows from now on, a new one if nobody is like it."""
        self._forget_emptied()
        key = _key(transfer)
        bundle = self._bundles.get(key)
        if bundle is None:
            fresh = [resource for resource in transfer.path if resource not in self._links]
            if fresh and self.on_use is not None:
                for resource in fresh:
                    self.on_use(resource)
            for resource in fresh:
                self._links[resource] = Link(resource)
            links = tuple([self._links[resource] for resource in transfer.path])
            bundle = self._bundles[key] = Bundle(transfer, links, self.env.now)
            for link in links:
                link.bundles[bundle] = None
            bundle.weigh(1)
        return bundle

    def _note_change(self, bundle: Bundle) -> None:
        if not self._changed:
            on_event(alarm(self.env, self.env.now, _SETTLING), self._settle)
            self._forget_emptied()
            self._changed.update(dict.fromkeys(self._emptied))
            self._emptied.clear()
        self._changed[bundle] = None

    def _settle(self, _: simpy.Event) -> None:
        """Give new rates to all that the changes of this instant reach."""
        changed, self._changed = self._changed, {}
        now_s = self.env.now
        entangled: list[Bundle] = []
        alone: list[Bundle] = []
        for bundle in changed:
            (alone if bundle.is_alone else entangled).append(bundle)
        for bundle in alone:
            if bundle.num_flows:
                self._set_rate(bundle, bundle.rate_alone(), now_s)
        dropped = [bundle for bundle in alone if not bundle.num_flows]
        if entangled:
            dropped += self._settle_together(entangled, changed, now_s)
        for bundle in dropped:
            self._drop(bundle)
        self._arm()

    def _settle_together(self, entangled: list[Bundle], changed: dict[Bundle, None], now_s: float) -> list[Bundle]:
        """Give new rates to all that some bundles reach; returns those who have no flow left."""
        touched = _component(entangled)
        flowing = [bundle for bundle in touched if bundle.num_flows]
        for bundle, rate in zip(flowing, max_min_rates(flowing), strict=True):
            if bundle in changed or rate != bundle.rate_bits_per_s:
                self._set_rate(bundle, rate, now_s)
        return [bundle for bundle in touched if not bundle.num_flows]

    def _set_rate(self, bundle: Bundle, bits_per_s: float, now_s: float) -> None:
        bundle.set_rate(bits_per_s, now_s)
        if bundle.finish_s < math.inf:
            self._num_finishes += 1
            heappush(self._finishes, (bundle.finish_s, self._num_finishes, bundle))

    def _drop(self, bundle: Bundle) -> None:
        """Forget a bundle that has no flow left, and the completion that it may still have ahead."""
        bundle.finish_s = math.inf
        del self._bundles[_key(bundle)]
        bundle.weigh(-1)
        for link in bundle.links:
            del link.bundles[bundle]
            if not link.bundles:
                del self._links[link.resource]

    def _forget_emptied(self) -> None:
        """Drop who was empty at an earlier instant; at the same, somebody like it may still join."""
        if self._emptied and self._emptied_s < self.env.now:
            for bundle in self._emptied:
                self._drop(bundle)
            self._emptied.clear()

    def _arm(self) -> None:
        """Set the alarm for the next completion, unless one will ring before."""
        while self._finishes and self._finishes[0][0] != self._finishes[0][2].finish_s:
            heappop(self._finishes)
        if self._finishes and self._finishes[0][0] < self._alarm_s:
            self._alarm_s = self._finishes[0][0]
            on_event(alarm(self.env, self._alarm_s), self._ring)

    def _ring(self, _: simpy.Event) -> None:
        """Complete what is due now; an alarm that an earlier one has replaced does nothing."""
        now_s = self.env.now
        if now_s != self._alarm_s:
            return
        self._forget_emptied()
        self._alarm_s = math.inf
        complete: list[Transfer] = []
        while self._finishes and self._finishes[0][0] <= now_s:
            finish_s, _number, bundle = heappop(self._finishes)
            if finish_s == bundle.finish_s:
                complete += bundle.pop_complete(now_s)
                self._note_completion(bundle)
        if len(complete) > 1:
            complete.sort(key=_serial)
        for transfer in complete:
            transfer.done.succeed(True)
        if not self._changed:
            self._arm()

    def _note_completion(self, bundle: Bundle) -> None:
        """A bundle that is empty now and alone changes nothing for others: no rates need to be settled."""
        if self._changed or bundle.num_flows or not bundle.is_alone:
            self._note_change(bundle)
        else:
            self._emptied.append(bundle)
            self._emptied_s = self.env.now


def _component(changed: Iterable[Bundle]) -> dict[Bundle, None]:
    """The changed bundles and all that they may slow down or speed up, directly or not, in order of discovery.

    The links still count the bundles that will be dropped, so one that is slack now was so before the change.
    """
    reached = dict.fromkeys(changed)
    frontier = list(reached)
    walked: set[Link] = set()
    for bundle in frontier:  # grows while it is walked
        for link in bundle.links:
            if link not in walked:
                walked.add(link)
                if len(link.bundles) > 1 and not link.is_slack:
                    found = [other for other in link.bundles if other not in reached]
                    reached.update(dict.fromkeys(found))
                    frontier += found
    return reached


def _key(flows: Transfer | Bundle) -> tuple[Any, ...]:
    """By what flows are alike."""
    if flows.weight == 1.0 and flows.cap_bits_per_s == math.inf:
        return flows.path
    return flows.path, flows.weight, flows.cap_bits_per_s


def _serial(transfer: Transfer) -> int:
    return transfer.serial
