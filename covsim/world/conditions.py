"""What is wrong with the store at the moment: outages, limits, slow reads, damage, a false clock, renamed objects.

Faults put things in and take them out again; the store asks before it acts. In a run without faults nothing is in here
but the outages of the `store:` section.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from covsim.world.fairness import Resource
from covsim.world.pauses import Pause

Direction = Literal["up", "down"]
Damage = Literal["lost", "truncated"]


class RateLimit:
    """Lets so many requests a second through: a token bucket that holds one second's worth, full at first."""

    def __init__(self, requests_per_s: float, now_s: float) -> None:
        self._per_s = requests_per_s
        self._most = max(1.0, requests_per_s)
        self._tokens = self._most
        self._updated_s = now_s

    def grants(self, now_s: float) -> bool:
        """Take a token for a request, if there is one."""
        self._tokens = min(self._most, self._tokens + self._per_s * (now_s - self._updated_s))
        self._updated_s = now_s
        if self._tokens < 1 - 1e-9:  # what refilled to one token may fall short of it by rounding
            return False
        self._tokens = max(0.0, self._tokens - 1)
        return True


@dataclass(frozen=True, eq=False)
class SlowReads:
    """Each download that begins now gets no more than this, and its first byte only after a delay."""

    bits_per_s: float
    delay_s: float


@dataclass(frozen=True, eq=False)
class Spoiled:
    """What these nodes upload is damaged as it lands; of a truncated object this share is kept."""

    nodes: frozenset[str]
    damage: Damage
    keeps: float = 0.0


@dataclass(frozen=True, eq=False)
class Renamed:
    """These nodes write and look for objects under names that end in a version."""

    nodes: frozenset[str]
    version: str


class Conditions:
    """What holds at the store now.

    Args:
        outages: when no request is answered, whoever asks.
    """

    def __init__(self, outages: Iterable[Pause] = ()) -> None:
        self.outages = list(outages)
        self.limits: list[RateLimit] = []
        self.slow_reads: list[SlowReads] = []
        self.spoiled: list[Spoiled] = []
        self.clock_offsets_s: list[float] = []
        self.renamed: list[Renamed] = []
        self._cut: Counter[Resource] = Counter()

    def is_down(self, link: Resource, now_s: float) -> bool:
        """Whether a request over a node's link gets no answer."""
        return self.is_cut(link) or (bool(self.outages) and any(outage.holds(now_s) for outage in self.outages))

    def is_cut(self, link: Resource) -> bool:
        """Whether a node is cut off from all others over this link."""
        return bool(self._cut) and self._cut[link] > 0

    def grants(self, now_s: float) -> bool:
        """Whether every rate limit lets a request through; the first that refuses it ends the asking."""
        return not self.limits or all(limit.grants(now_s) for limit in self.limits)

    def cut(self, links: Collection[Resource]) -> None:
        """Answer no requests over these links, until `mend` has been called as often."""
        self._cut.update(links)

    def mend(self, links: Collection[Resource]) -> None:
        """Take back one `cut`."""
        self._cut.subtract(links)

    def slow_read_by(self, node: str) -> tuple[list[Resource], float]:
        """What slows a read that begins now: limits of its own, and seconds before its first byte."""
        slow = self.slow_reads
        if not slow:  # as almost always
            return [], 0.0
        return [Resource(f"slow read of {node}", each.bits_per_s) for each in slow], sum(each.delay_s for each in slow)

    def damage_to(self, node: str) -> Spoiled | None:
        """What becomes of an object that lands now; of several troubles the first counts."""
        return next((trouble for trouble in self.spoiled if node in trouble.nodes), None)

    @property
    def clock_ahead_s(self) -> float:
        """How far the store's stamps are ahead of the time."""
        return sum(self.clock_offsets_s)

    def name_for(self, node: str, key: str) -> str:
        """Under which name a node writes and looks for an object; of several versions the latest counts."""
        if not self.renamed:  # as almost always, and everybody asks again and again
            return key
        versions = [each.version for each in self.renamed if node in each.nodes]
        return f"{key}@{versions[-1]}" if versions else key
