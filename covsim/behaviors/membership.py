"""When a peer takes part: from the start, from a later round, or for as long as it pays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from covsim.registry import Part, Registry


class Membership(Part):
    """When a peer registers, and whether it stays.

    Before it registers, a peer reads the public payloads and keeps its theta up to date, and pays for those bytes.
    """

    kind: str

    @property
    @abstractmethod
    def first_round(self) -> int:
        """The round for which it first trains, registered by then."""

    @abstractmethod
    def stays(self, profits: Sequence[float]) -> bool:
        """Whether it goes on, given its profit in each round it took part in, in the currency of the prices."""


memberships: Registry[Membership] = Registry("membership")


@memberships.register
class Always(Membership):
    """Takes part in every round, whatever it earns.

    Source: the peers of a fixed experiment.
    """

    kind: Literal["always"] = "always"

    @property
    def first_round(self) -> int:
        return 0

    def stays(self, profits: Sequence[float]) -> bool:
        """Always."""
        return True


@memberships.register
class FromRound(Membership):
    """Registers at the beginning of a later round and stays.

    Source: Covenant-72B (arXiv 2603.08163), whose 70 and more peers came and went over the run.
    """

    kind: Literal["from_round"] = "from_round"
    round: int = Field(ge=0, le=100_000, description="the first round for which it trains")

    @property
    def first_round(self) -> int:
        return self.round

    def stays(self, profits: Sequence[float]) -> bool:
        """Always."""
        return True


@memberships.register
class Rational(Membership):
    """Leaves for good when its profit over some rounds together is negative, after a time of hoping.

    Source: individual rationality of mechanism design; a peer that loses money stops paying for its machines.
    """

    kind: Literal["rational"] = "rational"
    from_round: int = Field(default=0, ge=0, le=100_000, description="the first round for which it trains")
    hopes: int = Field(default=10, ge=1, le=100_000, description="rounds of its own before it judges at all")
    over: int = Field(default=5, ge=1, le=100_000, description="rounds over which it sums its profit")

    @property
    def first_round(self) -> int:
        return self.from_round

    def stays(self, profits: Sequence[float]) -> bool:
        """Unless the last `over` rounds lost money together; not before `hopes` rounds have passed."""
        return len(profits) < self.hopes or sum(profits[-self.over :]) >= 0
