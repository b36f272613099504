"""Transfers that share links: flow-level max-min fairness on the virtual clock.

A transfer waits out its latency, then flows over all resources of its path at once at its max-min fair rate; rates
change when a transfer joins or leaves, or a resource changes. Packets, slow start and losses are not modeled.

A change costs by the number of bundles (flows over one path) in the connected component that it touches. Resources
that can never be full, for want of a limit or of demand, slow nobody down and connect nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

import simpy
from pydantic import BaseModel, ConfigDict, Field
from simpy.events import NORMAL, EventPriority

from covsim.units import Seconds
from covsim.world.clock import alarm, on_event
from covsim.world.fairness import Path, Resource, max_min_rates
from covsim.world.transfer import Bundle, Transfer

__all__ = ["Network", "NetworkSettings", "Path", "Resource", "Transfer"]

# After all other events of an instant, so that rates are computed once for everything that changed in it.
_SETTLING = EventPriority(NORMAL + 1)


class NetworkSettings(BaseModel):
    """The `network:` section: what holds between any two nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    latency: Seconds = Field(default=0.05, ge=0, le=60, description="One way, paid once by every request.")


class _Link:
    """A resource in use: by which bundles, and how much the rest of their paths lets them ask of it at most."""

    __slots__ = ("bundles", "demand_bits_per_s", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.bundles: dict[Bundle, None] = {}
        self.demand_bits_per_s = 0.0

    def add(self, bundle: Bundle, most_bits_per_s: float) -> None:
        """Take on a bundle that can ask for so much."""
        self.bundles[bundle] = None
        self.demand_bits_per_s += most_bits_per_s

    def remove(self, bundle: Bundle, most_bits_per_s: float) -> None:
        """Let go of a bundle."""
        del self.bundles[bundle]
        self.demand_bits_per_s -= most_bits_per_s

    @property
    def is_slack(self) -> bool:
        """Whether it can never be full, whatever its bundles do; the margin is for rounding."""
        return self.demand_bits_per_s < self.resource.capacity_bits_per_s * (1 - 1e-9)


class Network:
    """All transfers of a run, and the rates that they have.

    Args:
        env: the simulation whose time passes.
        settings: the `network:` section.
    """

    def __init__(self, env: simpy.Environment, settings: NetworkSettings) -> None:
        self.env = env
        self.settings = settings
        self._num_transfers = 0
        self._num_finishes = 0  # breaks ties in the heap below
        self._bundles: dict[Path, Bundle] = {}
        self._links: dict[Resource, _Link] = {}
        self._changed: dict[Bundle, None] = {}  # whose flows joined or left at this instant
        self._finishes: list[tuple[float, int, Bundle]] = []  # a heap; an entry is stale when finish_s has moved
        self._alarm_s = math.inf

    def transfer(self, path: Sequence[Resource], num_bytes: float, latency_s: float = 0.0) -> Transfer:
        """Send bytes over all resources of a path at once, after the latency.

        Args:
            path: the resources it takes; the order does not matter.
            num_bytes: size as charged.
            latency_s: wait before the first byte flows.

        Raises:
            ValueError: the size or the latency is negative or not finite.
        """
        if not (0 <= num_bytes < math.inf and 0 <= latency_s < math.inf):
            raise ValueError(f"cannot transfer {num_bytes} bytes after {latency_s} s")
        limited = tuple(dict.fromkeys(resource for resource in path if resource.is_limited))
        transfer = Transfer(self.env, self._num_transfers, limited, num_bytes, self._cut)
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
        users = list(self._links[resource].bundles) if resource in self._links else []
        # All that it connects now: a link that others could fill may be slack when these flows can ask for less.
        for bundle in self._component(users):
            self._note_change(bundle)
        for bundle in users:
            self._weigh(bundle, -1)
        resource.capacity_bits_per_s = bits_per_s
        for bundle in users:
            self._weigh(bundle, 1)

    def _weigh(self, bundle: Bundle, sign: int) -> None:
        """Count a bundle's demand in on all its links, or out."""
        for resource in bundle.path:
            self._links[resource].demand_bits_per_s += sign * _most_elsewhere(bundle.path, resource)

    def _cut(self, transfer: Transfer) -> None:
        bundle = transfer.bundle
        if bundle is not None:
            bundle.remove(transfer, self.env.now)
            self._note_change(bundle)
        transfer.done.succeed(False)

    def _join(self, transfer: Transfer) -> None:
        if transfer.done.triggered:  # cut while it waited out its latency
            return
        if not transfer.path:
            transfer.kept_bytes = transfer.num_bytes
            transfer.done.succeed(True)
            return
        bundle = self._bundle(transfer.path)
        bundle.add(transfer, self.env.now)
        self._note_change(bundle)

    def _bundle(self, path: Path) -> Bundle:
        bundle = self._bundles.get(path)
        if bundle is None:
            bundle = self._bundles[path] = Bundle(path, self.env.now)
            for resource in path:
                link = self._links.setdefault(resource, _Link(resource))
                link.add(bundle, _most_elsewhere(path, resource))
        return bundle

    def _note_change(self, bundle: Bundle) -> None:
        if not self._changed:
            on_event(alarm(self.env, self.env.now, _SETTLING), self._settle)
        self._changed[bundle] = None

    def _settle(self, _: simpy.Event) -> None:
        """Give new rates to all that the changes of this instant reach."""
        changed, self._changed = self._changed, {}
        touched = self._component(changed)
        rates = max_min_rates({bundle.path: bundle.num_flows for bundle in touched if bundle.num_flows})
        for bundle in touched:
            if not bundle.num_flows:
                self._drop(bundle)
            elif bundle in changed or rates[bundle.path] != bundle.rate_bits_per_s:
                bundle.set_rate(rates[bundle.path], self.env.now)
                if bundle.finish_s < math.inf:
                    self._num_finishes += 1
                    heappush(self._finishes, (bundle.finish_s, self._num_finishes, bundle))
        self._arm()

    def _component(self, changed: Iterable[Bundle]) -> dict[Bundle, None]:
        """The changed bundles and all that they may slow down or speed up, directly or not, in order of discovery.

        The links still count the bundles that will be dropped, so one that is slack now was so before the change.
        """
        reached = dict.fromkeys(changed)
        frontier = list(reached)
        walked: set[Resource] = set()
        for bundle in frontier:  # grows while it is walked
            for resource in bundle.path:
                if resource not in walked:
                    walked.add(resource)
                    link = self._links[resource]
                    found = [] if link.is_slack else [other for other in link.bundles if other not in reached]
                    reached.update(dict.fromkeys(found))
                    frontier += found
        return reached

    def _drop(self, bundle: Bundle) -> None:
        """Forget a bundle that has no flow left, and the completion that it may still have ahead."""
        bundle.finish_s = math.inf
        del self._bundles[bundle.path]
        for resource in bundle.path:
            link = self._links[resource]
            link.remove(bundle, _most_elsewhere(bundle.path, resource))
            if not link.bundles:
                del self._links[resource]

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
        self._alarm_s = math.inf
        complete: list[Transfer] = []
        while self._finishes and self._finishes[0][0] <= now_s:
            finish_s, _number, bundle = heappop(self._finishes)
            if finish_s == bundle.finish_s:
                complete += bundle.pop_complete(now_s)
                self._note_change(bundle)
        for transfer in sorted(complete, key=lambda transfer: transfer.serial):
            transfer.done.succeed(True)
        if not complete:
            self._arm()


def _most_elsewhere(path: Path, resource: Resource) -> float:
    """What the rest of a path lets through, in bits per second; all that the resource has if there is no rest."""
    others = (other.capacity_bits_per_s for other in path if other is not resource)
    return min(others, default=resource.capacity_bits_per_s)
