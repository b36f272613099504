"""How many payloads a method puts up with, and what becomes of that when few were gathered.

Every method states how many it can tolerate at most among n. Where its setting asks for more, it acts with the most
that n allows: a round never fails for want of payloads. `any_falls_short` tells such rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field

from covsim.units import Share

Tolerated = Annotated[int, Field(ge=0, le=100_000)] | Annotated[Share, Field(lt=0.5)]
"""A number of payloads, or a share of those that were gathered: `f: 4`, `f: 20 %`."""

DEFAULT_TOLERATED: Tolerated = Field(default=0.2, description="how many are tolerated, or which share of the gathered")


def wished(f: int | float, num: int) -> int:
    """How many of `num` payloads a setting asks to tolerate; a share is rounded down."""
    return f if isinstance(f, int) else math.floor(f * num + 1e-9)


@runtime_checkable
class Tolerant(Protocol):
    """A method with a limit on what it tolerates."""

    @property
    def f(self) -> int | float:
        """As set."""

    def tolerated(self, num: int) -> int:
        """How many of `num` payloads it really tolerates."""


@runtime_checkable
class _LeavesFewer(Protocol):
    def num_left(self, num: int) -> int:
        """How many payloads take the place of `num`."""


def any_falls_short(methods: Iterable[object], num: int) -> bool:
    """True if some method of a chain tolerates fewer than its setting asks for, when the first is given `num`."""
    for method in methods:
        if isinstance(method, Tolerant) and method.tolerated(num) < wished(method.f, num):
            return True
        if isinstance(method, _LeavesFewer):
            num = method.num_left(num)
    return False
