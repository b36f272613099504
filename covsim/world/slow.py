"""What a slow peer does: the inner steps that it takes on when they do not all fit before the window closes."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from covsim.registry import Part, Registry
from covsim.units import Share
from covsim.world.machine import steps_within


@dataclass(frozen=True, slots=True)
class Stint:
    """Inner steps on end: how many, on how many sequences each, and the seconds of work in one."""

    steps: int
    batch: int
    step_s: float

    @property
    def work_s(self) -> float:
        """Seconds of work in all of them."""
        return self.steps * self.step_s


class SlowPolicy(Part, abc.ABC):
    """Which steps a peer takes on, given the time until its window closes.

    With `is_cut` it stops at the last whole step before the window closes, whatever it took on.
    """

    is_cut: ClassVar[bool] = True
    kind: str

    @abc.abstractmethod
    def stint(self, left_s: float, step_s: float, steps: int, batch: int) -> Stint:
        """The steps to take on.

        Args:
            left_s: seconds until the window closes; infinite if nothing cuts the steps.
            step_s: seconds of a step on a whole batch.
            steps: how many are wanted.
            batch: sequences of a whole batch.
        """


slow_policies: Registry[SlowPolicy] = Registry("policy for slow peers")


@slow_policies.register
class FewerSteps(SlowPolicy):
    """As many whole steps as fit. Source: the peers of one-covenant/templar stop when the window ends."""

    kind: Literal["fewer_steps"] = "fewer_steps"

    def stint(self, left_s: float, step_s: float, steps: int, batch: int) -> Stint:
        """Whole batches, fewer of them."""
        return Stint(steps_within(left_s, step_s, steps), batch, step_s)


@slow_policies.register
class SmallerBatch(SlowPolicy):
    """All steps, each on the largest batch with which they all fit.

    A step on b of B sequences takes b / B of the time, but never less than `floor`: below it nothing is gained, so no
    smaller batch is taken, and if not even then all steps fit, fewer are done. The default floor is assumed.
    """

    kind: Literal["smaller_batch"] = "smaller_batch"
    floor: Annotated[Share, Field(ge=0, le=1)] = Field(
        default=0.25, description="Part of a step's time that no batch goes below, however small it is."
    )

    def stint(self, left_s: float, step_s: float, steps: int, batch: int) -> Stint:
        """The largest batch that fits; the smallest one that saves time, if none does."""
        whole = Stint(steps, batch, step_s)
        if whole.work_s <= left_s * (1 + 1e-12) or not steps:
            return whole
        fitting = math.floor(batch * max(left_s, 0.0) / whole.work_s + 1e-9)
        size = max(1, fitting, math.floor(batch * self.floor + 1e-9))
        shorter_s = step_s * self.share(size, batch)
        return Stint(steps_within(left_s, shorter_s, steps), size, shorter_s)

    def share(self, size: int, batch: int) -> float:
        """Part of a whole batch's time that a step on so many sequences takes."""
        return max(size / batch, self.floor)

    def least_share(self, batch: int) -> float:
        """Part of a whole batch's time below which no batch brings a step."""
        return self.share(1, batch)


@slow_policies.register
class Late(SlowPolicy):
    """All steps on whole batches, however long they take: the upload comes late, and the store's stamp says so."""

    is_cut: ClassVar[bool] = False

    kind: Literal["late"] = "late"

    def stint(self, left_s: float, step_s: float, steps: int, batch: int) -> Stint:
        """Everything that is wanted."""
        return Stint(steps, batch, step_s)
