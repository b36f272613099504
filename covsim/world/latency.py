"""What lies between two places: how long a request takes to get there, and which links all share who go that way.

A place is a region by name, or None for who names none. Nodes say where their links are; see `Ways.place`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covsim.choice import OneOf
from covsim.registry import Part, Registry, did_you_mean
from covsim.units import Rate, Seconds
from covsim.world.fairness import Resource
from covsim.world.faults import Label

Latency = Annotated[Seconds, Field(ge=0, le=60)]
LinkRate = Annotated[Rate, Field(gt=0, le=1e18)]
Value = TypeVar("Value")

_MOST_REGIONS = 1000


class Jitter(Part, abc.ABC):
    """How the latency of one request differs from that of another between the same places."""

    @abc.abstractmethod
    def of(self, latency_s: float, drawn: float) -> float:
        """The latency of one request, in seconds, for a number drawn from [0, 1)."""

    @abc.abstractmethod
    def mean_of(self, latency_s: float) -> float:
        """The mean latency of requests, in seconds."""


jitters: Registry[Jitter] = Registry("jitter")


@jitters.register
class LognormalJitter(Jitter):
    """Latencies whose logarithm is normal, with the latency of the way as their median."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: float = Field(gt=0, le=3, description="Standard deviation of the natural logarithm.")

    def of(self, latency_s: float, drawn: float) -> float:
        return latency_s * math.exp(self.sigma * NormalDist().inv_cdf(max(drawn, 2.0**-57)))

    def mean_of(self, latency_s: float) -> float:
        return latency_s * math.exp(self.sigma**2 / 2)


@jitters.register
class UniformJitter(Jitter):
    """A delay on top of the latency, each up to a limit as likely."""

    kind: Literal["uniform"] = "uniform"
    most: Latency = Field(description="The longest delay.")

    def of(self, latency_s: float, drawn: float) -> float:
        return latency_s + self.most * drawn

    def mean_of(self, latency_s: float) -> float:
        return latency_s + self.most / 2


class RegionalLinks(BaseModel):
    """What all of a region share on their way to other regions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    uplink: LinkRate | None = Field(default=None, description="Out of the region; unlimited if not given.")
    downlink: LinkRate | None = Field(default=None, description="Into the region; unlimited if not given.")


class NetworkSettings(BaseModel):
    """The `network:` section: what holds between any two nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    latency: Seconds = Field(default=0.05, ge=0, le=60, description="One way, paid once by every request.")
    latencies: dict[Label, dict[Label, Latency]] = Field(
        default={},
        max_length=_MOST_REGIONS,
        description="The same between two regions, {eu: {us: 40 ms}} for both ways; `latency` for who has no region.",
    )
    jitter: Annotated[Jitter, OneOf(jitters)] | None = Field(
        default=None, description="How the latency of each request is spread; not at all if not given."
    )
    request_overhead: Seconds = Field(
        default=0.0, ge=0, le=60, description="Time of every request beside the latency: connection, TLS; no bytes."
    )
    regions: dict[Label, RegionalLinks] = Field(
        default={}, max_length=_MOST_REGIONS, description="Links that all of a region share on their way out and in."
    )
    trunks: dict[Label, dict[Label, LinkRate]] = Field(
        default={},
        max_length=_MOST_REGIONS,
        description="What all share between two regions, {eu: {us: 10 Gb/s}}: so much each way.",
    )

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> NetworkSettings:
        for name, table in (("latencies", self.latencies), ("trunks", self.trunks)):
            for one, others in table.items():
                for other, value in others.items():
                    back = table.get(other, {}).get(one, value)
                    if one != other and back != value:
                        raise ValueError(f"{name} says two things of {one} and {other}; give one value for both ways")
                    if one == other and name == "trunks":
                        raise ValueError(f"trunks join two regions, and {one} is one")
        return self

    def latency_between(self, one: str | None, other: str | None) -> float:
        """Seconds one way between two places.

        Raises:
            ValueError: there is a table, and it has no entry for two regions.
        """
        if not self.latencies or one is None or other is None:
            return self.latency
        found = _either_way(self.latencies, one, other)
        if found is None:
            known = {*self.latencies, *(name for others in self.latencies.values() for name in others)}
            unknown = next((name for name in (one, other) if name not in known), None)
            hint = "" if unknown is None else did_you_mean(unknown, known)
            raise ValueError(f"network.latencies has no entry for {one} and {other}{hint}")
        return found

    def request_between(self, one: str | None, other: str | None) -> float:
        """Seconds that a request between two places takes on average before its first byte.

        Raises:
            ValueError: as `latency_between`.
        """
        latency_s = self.latency_between(one, other)
        if self.jitter is not None:
            latency_s = self.jitter.mean_of(latency_s)
        return latency_s + self.request_overhead


class Ways:
    """Where the links of a run are, and what is between them.

    Args:
        settings: the `network:` section.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._regions: dict[Resource, str] = {}
        self._shared: dict[tuple[str, ...], Resource] = {}

    def place(self, link: Resource, region: str | None) -> None:
        """Say in which region a node's link, or the store's, is."""
        if region is not None:
            self._regions[link] = region

    def latency_s(self, one: Resource, other: Resource) -> float:
        """Seconds one way between the places of two links.

        Raises:
            ValueError: the table of latencies has no entry for their regions.
        """
        if not self._regions:
            return self._settings.latency
        return self._settings.latency_between(self._regions.get(one), self._regions.get(other))

    def between(self, source: Resource, sink: Resource) -> tuple[Resource, ...]:
        """The links that bytes share with all others on their way from one place to another, beside these two."""
        settings = self._settings
        if not settings.regions and not settings.trunks:
            return ()
        one, other = self._regions.get(source), self._regions.get(sink)
        if one is None or other is None or one == other:
            return ()
        out = settings.regions.get(one, RegionalLinks()).uplink
        into = settings.regions.get(other, RegionalLinks()).downlink
        found = (
            self._link(("up", one), f"{one} up", out),
            self._link(("trunk", one, other), f"{one} to {other}", _either_way(settings.trunks, one, other)),
            self._link(("down", other), f"{other} down", into),
        )
        return tuple(link for link in found if link is not None)

    def _link(self, key: tuple[str, ...], name: str, bits_per_s: float | None) -> Resource | None:
        """The one link of a name; None where there is no limit."""
        if bits_per_s is None:
            return None
        if key not in self._shared:
            self._shared[key] = Resource(name, bits_per_s)
        return self._shared[key]


def _either_way(table: Mapping[str, Mapping[str, Value]], one: str, other: str) -> Value | None:
    """What a table has for two regions, in whichever order it names them."""
    found = table.get(one, {}).get(other)
    return table.get(other, {}).get(one) if found is None else found
