"""When a peer takes part: from the start, from a later round, off and on, or for as long as it pays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from covsim.registry import Part, Registry
from covsim.units import Share

Luck = Callable[[str], float]
"""A number from [0, 1) of a stream of the peer's own, by a name; the same name in a round gives the same number."""

FromRoundField = Annotated[int, Field(ge=0, le=100_000, description="the first round for which it trains")]


@dataclass(frozen=True, slots=True)
class Absence:
    """A peer goes after a round: for so many rounds, or for good; whether it comes back under a new uid."""

    rounds: int | None = None
    anew: bool = False


class Membership(Part):
    """When a peer comes, and when it goes.

    Who was not there catches up before a round in which it takes part: it downloads the newest checkpoint and the
    payloads that were gathered since, and pays for those bytes.
    """

    kind: str
    reads_profits: ClassVar[bool] = True
    """Whether `after` looks at the profits; where it does not, it is given none."""

    @property
    @abstractmethod
    def first_round(self) -> int:
        """The round for which it first trains; it is ready by then if its links allow."""

    @property
    @abstractmethod
    def catches_up(self) -> bool:
        """Whether it may ever have missed something, so that somebody must keep checkpoints."""

    @abstractmethod
    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """How long it is away after a round, or None if it goes on.

        Args:
            round: that was settled.
            profits: its profit in each round since it came, in the currency of the prices.
            luck: its own, for this round.
        """


memberships: Registry[Membership] = Registry("membership")


@memberships.register
class Always(Membership):
    """Takes part in every round, whatever it earns.

    Source: the peers of a fixed experiment.
    """

    kind: Literal["always"] = "always"
    reads_profits: ClassVar[bool] = False

    @property
    def first_round(self) -> int:
        return 0

    @property
    def catches_up(self) -> bool:
        return False

    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """Goes on."""
        return None


@memberships.register
class FromRound(Membership):
    """Comes in a later round and stays.

    Source: Covenant-72B (arXiv 2603.08163), whose 70 and more peers came and went over the run.
    """

    kind: Literal["from_round"] = "from_round"
    reads_profits: ClassVar[bool] = False
    round: FromRoundField

    @property
    def first_round(self) -> int:
        return self.round

    @property
    def catches_up(self) -> bool:
        return self.round > 0

    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """Goes on."""
        return None


@memberships.register
class UntilRound(Membership):
    """Takes part in the rounds before a given one, then goes for good.

    Source: Covenant-72B (arXiv 2603.08163), whose 70 and more peers came and went over the run.
    """

    kind: Literal["until_round"] = "until_round"
    reads_profits: ClassVar[bool] = False
    from_round: FromRoundField = 0
    round: int = Field(ge=1, le=100_000, description="the first round in which it is gone")

    @model_validator(mode="after")
    def _comes_before_it_goes(self) -> Self:
        if self.round <= self.from_round:
            raise ValueError(f"round {self.round} must come after from_round {self.from_round}")
        return self

    @property
    def first_round(self) -> int:
        return self.from_round

    @property
    def catches_up(self) -> bool:
        return self.from_round > 0

    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """For good, once the next round is the one in which it is gone."""
        return Absence() if round + 1 >= self.round else None


@memberships.register
class Churn(Membership):
    """Goes after a round with a chance, and comes back after a geometric number of rounds.

    Source: Covenant-72B (arXiv 2603.08163): at least 70 distinct peers, 24.4 submitting in a round; geometric spans are
    the memoryless choice, which the report says nothing about.
    """

    kind: Literal["churn"] = "churn"
    reads_profits: ClassVar[bool] = False
    from_round: FromRoundField = 0
    leaves: Share = Field(description="chance that it goes after a round")
    rounds_away: float = Field(default=3.0, ge=1, le=100_000, description="mean number of rounds that it is away")
    returns_as: Literal["same", "new"] = Field(
        default="new", description="under the uid that it had, or registered again under a new one without a past"
    )

    @property
    def first_round(self) -> int:
        return self.from_round

    @property
    def catches_up(self) -> bool:
        return self.from_round > 0 or self.leaves > 0

    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """With chance `leaves`, for 1, 2, ... rounds: each further one with chance 1 - 1 / `rounds_away`."""
        if luck("leaves") >= self.leaves:
            return None
        return Absence(geometric(luck("rounds away"), self.rounds_away), anew=self.returns_as == "new")


@memberships.register
class Rational(Membership):
    """Leaves when its profit over some rounds together is negative, after a time of hoping; may try again later.

    Source: individual rationality of mechanism design; a peer that loses money stops paying for its machines.
    """

    kind: Literal["rational"] = "rational"
    from_round: FromRoundField = 0
    hopes: int = Field(default=10, ge=1, le=100_000, description="rounds of its own before it judges at all")
    over: int = Field(default=5, ge=1, le=100_000, description="rounds over which it sums its profit")
    returns_after: int | None = Field(
        default=None, ge=1, le=100_000, description="rounds after which it hopes again; for good if not given"
    )

    @property
    def first_round(self) -> int:
        return self.from_round

    @property
    def catches_up(self) -> bool:
        return self.from_round > 0 or self.returns_after is not None

    def after(self, round: int, profits: Sequence[float], luck: Luck) -> Absence | None:
        """Goes if the last `over` rounds lost money together; not before `hopes` rounds have passed."""
        goes_on = len(profits) < self.hopes or sum(profits[-self.over :]) >= 0
        return None if goes_on else Absence(self.returns_after)


def geometric(luck: float, mean: float) -> int:
    """A whole number from 1 up with this mean, each further one with chance 1 - 1 / mean, from a number in [0, 1)."""
    if mean <= 1:
        return 1
    return 1 + math.floor(math.log1p(-luck) / math.log1p(-1 / mean))
