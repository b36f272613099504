"""What a learning rate is multiplied by from step to step: of the inner optimizers by inner step, of the outer ones by
outer step. Steps are counted from 0.
"""

from __future__ import annotations

import bisect
import itertools
import math
from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import Field, field_serializer, model_validator

from covsim.registry import Part, Registry
from covsim.units import Share

MOST_CHANGES = 1000
"""Longest list of steps at which a schedule may change."""

StepNumber = Annotated[int, Field(ge=0, le=10_000_000)]
Factor = Annotated[float, Field(ge=0, le=1000)]


class Schedule(Part):
    """A factor of the learning rate, by step."""

    @abstractmethod
    def factor(self, step: int, total_steps: int) -> float:
        """The factor, at least 0, of step `step` in a run that is planned for `total_steps`; it may go on longer."""


schedules: Registry[Schedule] = Registry("schedule")


@schedules.register
class Constant(Schedule):
    """The same rate at every step."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, total_steps: int) -> float:
        """One."""
        return 1.0


@schedules.register
class Cosine(Schedule):
    """Up to the peak linearly, then by half a cosine to a share of it at the end of the run; constant from there on.

    Source: Covenant-72B (arXiv 2603.08163), section 3, where the last rate is 10 % of the peak.
    """

    kind: Literal["cosine"] = "cosine"
    warmup_steps: StepNumber = Field(default=60, description="steps of linear warm-up")
    final_share: Share = Field(default=0.1, description="rate at the end of the run, as a share of the peak")

    def factor(self, step: int, total_steps: int) -> float:
        """(step + 1) / warmup_steps at first, then between 1 and `final_share`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = _progress(step, self.warmup_steps, total_steps)
        return self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * progress)) / 2


@schedules.register
class Linear(Schedule):
    """Up to the peak linearly, then linearly to a share of it at the end of the run; constant from there on.

    Source: BERT (arXiv 1810.04805), appendix A.2, where the last rate is 0.
    """

    kind: Literal["linear"] = "linear"
    warmup_steps: StepNumber = Field(default=60, description="steps of linear warm-up")
    final_share: Share = Field(default=0.0, description="rate at the end of the run, as a share of the peak")

    def factor(self, step: int, total_steps: int) -> float:
        """(step + 1) / warmup_steps at first, then between 1 and `final_share`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 1 - (1 - self.final_share) * _progress(step, self.warmup_steps, total_steps)


@schedules.register
class Steps(Schedule):
    """Factors that are in force from the given steps on; 1 before the first of them.

    Source: the outer learning rate in the live code of Covenant-72B's run (one-covenant/templar), lowered by hand from
    1.0 over 0.9 and so on to 0.4.
    """

    kind: Literal["steps"] = "steps"
    at: dict[StepNumber, Factor] = Field(
        max_length=MOST_CHANGES, description='factor by the step from which it is in force, {"step": factor}'
    )

    @field_serializer("at", when_used="json")
    def _keys_of_json(self, at: dict[int, float]) -> dict[str, float]:
        return {str(step): factor for step, factor in at.items()}  # a scenario's keys are text

    def factor(self, step: int, total_steps: int) -> float:
        """That of the last change at or before `step`."""
        last = max((change for change in self.at if change <= step), default=None)
        return 1.0 if last is None else self.at[last]


@schedules.register
class Points(Schedule):
    """Straight lines between points; constant before the first and behind the last.

    Source: the final anneal of Covenant-72B (arXiv 2603.08163): a warm-up to 0.25 of the peak, then linearly to 0.
    """

    kind: Literal["points"] = "points"
    points: tuple[tuple[StepNumber, Factor], ...] = Field(
        min_length=1, max_length=MOST_CHANGES, description="[step, factor] pairs, their steps ascending"
    )

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        for (before, _), (after, _) in itertools.pairwise(self.points):
            if before >= after:
                raise ValueError(f"the steps of points must ascend: {after} stands behind {before}")
        return self

    def factor(self, step: int, total_steps: int) -> float:
        """By linear interpolation."""
        behind = bisect.bisect_right(self.points, step, key=lambda point: point[0])
        (left, low), (right, high) = self.points[max(behind - 1, 0)], self.points[min(behind, len(self.points) - 1)]
        return low if left >= right else low + (high - low) * (step - left) / (right - left)


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    """How much of the run behind the warm-up is over, in [0, 1]."""
    return min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
