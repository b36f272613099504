"""Spans of time in which something rests: the chain that stalls, the store that does not answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from covsim.units import Seconds, format_duration

_CENTURY_S = 100 * 365 * 86_400.0


class Pause(BaseModel):
    """One rest, half open: `[at, at + lasts)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    at: Seconds = Field(ge=0, le=_CENTURY_S, description="When it begins, from the start of the run.")
    lasts: Seconds = Field(gt=0, le=_CENTURY_S, description="How long it lasts.")

    @property
    def ends_s(self) -> float:
        """The first second that no longer belongs to it."""
        return self.at + self.lasts

    def holds(self, time_s: float) -> bool:
        """True for a time inside."""
        return self.at <= time_s < self.ends_s


def _one_after_the_other(pauses: list[Pause]) -> list[Pause]:
    for one, other in pairwise(pauses):
        if other.at < one.at:
            raise ValueError(
                f"must be sorted: one at {format_duration(other.at)} stands after one at {format_duration(one.at)}"
            )
        if other.at < one.ends_s:
            raise ValueError(
                f"must not overlap: one at {format_duration(other.at)} begins before "
                f"the one at {format_duration(one.at)} ends, at {format_duration(one.ends_s)}"
            )
    return pauses


Pauses = Annotated[list[Pause], AfterValidator(_one_after_the_other)]
"""Rests in their order; one may begin where another ends."""


def pause_of(at_s: float, lasts_s: float) -> Pause:
    """A rest from seconds; the fields of a scenario take texts with units."""
    assert at_s >= 0 < lasts_s, f"no rest of {lasts_s} s at {at_s} s"
    return Pause.model_construct(at=at_s, lasts=lasts_s)
