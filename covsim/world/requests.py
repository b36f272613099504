"""How a node asks the store: how long it waits after a failure, and in how many ranges it reads an object."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covsim.registry import Part, Registry
from covsim.units import Rate, Seconds, Share, Size


class Backoff(Part, abc.ABC):
    """How long to wait before the next attempt."""

    @property
    def draws(self) -> bool:
        """Whether the wait is a matter of luck."""
        return False

    @abc.abstractmethod
    def wait_s(self, delay_s: float, attempt: int, drawn: float) -> float:
        """Seconds to wait after an attempt.

        Args:
            delay_s: the plain wait, `store.retry_delay`.
            attempt: how many failed before this one.
            drawn: from [0, 1).
        """


backoffs: Registry[Backoff] = Registry("backoff")


@backoffs.register
class ConstantBackoff(Backoff):
    """The same wait each time."""

    kind: Literal["constant"] = "constant"

    def wait_s(self, delay_s: float, attempt: int, drawn: float) -> float:
        return delay_s


@backoffs.register
class ExponentialBackoff(Backoff):
    """A wait that grows each time, spread so that those who failed together do not all come back together.

    Source: AWS Architecture Blog, "Exponential Backoff and Jitter", 2015: half of the wait spread is "equal jitter",
    all of it "full jitter".
    """

    kind: Literal["exponential"] = "exponential"
    base: float = Field(default=2.0, ge=1, le=100, description="By how much the wait grows with each attempt.")
    spread: Share = Field(default=0.5, description="Which part of the wait is a matter of luck.")
    longest: Seconds | None = Field(default=None, gt=0, le=86_400, description="No wait is longer; no limit if absent.")

    @property
    def draws(self) -> bool:
        return self.spread > 0

    def wait_s(self, delay_s: float, attempt: int, drawn: float) -> float:
        growth = self.base**attempt if attempt * math.log(self.base) < 700 else math.inf
        wait_s: float = delay_s * (growth * ((1 - self.spread) + drawn * self.spread)) if delay_s else 0.0
        return wait_s if self.longest is None else min(wait_s, self.longest)


@dataclass(frozen=True, slots=True)
class Flow:
    """What a download in ranges is to the network: how it shares, what it takes at most, and how often it asks."""

    weight: float = 1.0
    cap_bits_per_s: float = math.inf
    num_turns: int = 1


class Ranges(BaseModel):
    """How a large object is read: in ranges, several at a time, each over a connection of its own.

    Source: one-covenant/templar v2.1.28 reads in ranges of 64 MB, 6 to 8 at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Size = Field(default=64e6, ge=1, le=1e18, description="Bytes of one range.")
    parallel: int = Field(default=8, ge=1, le=10_000, description="Ranges that are read at a time.")
    per_connection: Rate | None = Field(
        default=None, gt=0, le=1e18, description="The most that one connection gets; unlimited if not given."
    )

    def flow(self, num_bytes: float) -> Flow:
        """An object of so many bytes: as many flows as it has connections, in so many turns of requests."""
        num_ranges = max(1, math.ceil(num_bytes / self.size))
        connections = min(self.parallel, num_ranges)
        cap = math.inf if self.per_connection is None else connections * self.per_connection
        return Flow(float(connections), cap, math.ceil(num_ranges / self.parallel))
