"""What a peer's work costs and what its tokens are worth: prices, and plain arithmetic over them."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from covsim.choice import OneOf
from covsim.schedules import Constant, Schedule, schedules

_HOUR_S = 3600.0
_GIGABYTE = 1e9

Price = Annotated[float, Field(ge=0, le=1e12)]


class EconomicsSettings(BaseModel):
    """The `economics:` section: prices in one currency, whichever it is. Defaults are round figures, not quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    compute_per_hour: Price = Field(default=16.0, description="an hour of a peer's machine, while it computes")
    upload_per_gb: Price = Field(default=0.0, description="a gigabyte sent to the store")
    download_per_gb: Price = Field(default=0.0, description="a gigabyte fetched from the store")
    token_price: Price = Field(default=100.0, description="one token, before the schedule's factor")
    price_schedule: Annotated[Schedule, OneOf(schedules, bare="kind")] = Field(
        default=Constant(), description="what the token price is multiplied by, by round"
    )

    def cost(self, compute_s: float, up_bytes: float, down_bytes: float) -> float:
        """What so much compute and traffic costs."""
        traffic = up_bytes * self.upload_per_gb + down_bytes * self.download_per_gb
        return compute_s / _HOUR_S * self.compute_per_hour + traffic / _GIGABYTE

    def price(self, round: int, total_rounds: int) -> float:
        """Of a token in a round of a run that is planned for so many."""
        return self.token_price * self.price_schedule.factor(round, total_rounds)


def break_even_price(cost: float, tokens: float) -> float:
    """The token price at which earnings equal cost; infinite for who spent and earned nothing, NaN for neither."""
    if tokens > 0:
        return cost / tokens
    return math.inf if cost > 0 else math.nan
