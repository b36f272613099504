"""How what a link carries varies over time: steps, days, a random walk, a recorded trace.

A link's own rate is the most that it ever carries; what varies is the part of it that is there, above 0 and at most 1.
A link that carries nothing at all is a fault, see `world.link_faults`.
"""

from __future__ import annotations

import abc
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from covsim.registry import Part, Registry
from covsim.sources import SourcePath
from covsim.units import Seconds, Share, format_duration
from covsim.world.traces import Trace, must_be_csv, read_trace

_CENTURY_S = 100 * 365 * 86_400.0
_MOST_STEPS = 10_000

Factor = Annotated[float, Field(gt=0, le=1)]


class Stretch(NamedTuple):
    """What part of its own rate a link carries, and the first second at which that may change."""

    factor: float
    until_s: float


class Course(Protocol):
    """How one link varies. It is asked of times that never go back."""

    def at(self, time_s: float) -> Stretch:
        """What holds at a time; the end of it is later than that time."""


class Variation(Part, abc.ABC):
    """How the links of a cohort vary; each link has a course of its own."""

    @abc.abstractmethod
    def course(self, rate_bits_per_s: float, generator: np.random.Generator) -> Course:
        """The course of one link.

        Args:
            rate_bits_per_s: the link's own rate.
            generator: the link's own stream.
        """

    @abc.abstractmethod
    def lowest(self, rate_bits_per_s: float) -> float:
        """The lowest factor that a link may come to."""


variations: Registry[Variation] = Registry("variation")


class Step(BaseModel):
    """From when on a link carries which part of its rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    at: Seconds = Field(ge=0, le=_CENTURY_S, description="When it begins, from the start of the run.")
    factor: Factor = Field(description="Part of the link's own rate that is there from then on.")


@variations.register
class Steps(Variation):
    """A list of changes, the same for all links of the cohort; before the first, all of the rate is there."""

    kind: Literal["steps"] = "steps"
    steps: tuple[Step, ...] = Field(min_length=1, max_length=_MOST_STEPS, description="The changes, in their order.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for one, other in pairwise(self.steps):
            if other.at <= one.at:
                raise ValueError(
                    f"must be in order: a step at {format_duration(other.at)} stands after one at "
                    f"{format_duration(one.at)}"
                )
        return self

    def course(self, rate_bits_per_s: float, generator: np.random.Generator) -> Course:
        return _Listed([step.at for step in self.steps], [step.factor for step in self.steps])

    def lowest(self, rate_bits_per_s: float) -> float:
        return min(step.factor for step in self.steps)


@variations.register
class Daily(Variation):
    """A cosine over the day: all of the rate at the best hour, less by `depth` half a day from it."""

    kind: Literal["daily"] = "daily"
    depth: Share = Field(gt=0, lt=1, description="Part of the rate that is missing at the worst hour.")
    best: Seconds = Field(default=0.0, ge=0, le=_CENTURY_S, description="When all of the rate is there first.")
    spread: Seconds = Field(
        default=0.0, ge=0, le=_CENTURY_S, description="Each link is later than that by up to so much, drawn once."
    )
    period: Seconds = Field(default=86_400.0, gt=0, le=_CENTURY_S, description="From one best hour to the next.")
    every: Seconds = Field(default=900.0, ge=1, le=86_400, description="The rate changes in steps of this length.")

    def course(self, rate_bits_per_s: float, generator: np.random.Generator) -> Course:
        return _Cosine(self, self.best + self.spread * float(generator.random()))

    def lowest(self, rate_bits_per_s: float) -> float:
        return 1 - self.depth


@variations.register
class RandomWalk(Variation):
    """Small steps up and down, of the logarithm, that turn back at all of the rate and at the lowest part of it.

    Each link begins where a long walk may be: at any logarithm between the two, all as likely.
    """

    kind: Literal["random_walk"] = "random_walk"
    every: Seconds = Field(default=60.0, ge=1, le=86_400, description="From one step to the next.")
    sigma: float = Field(gt=0, le=3, description="Standard deviation of a step, of the natural logarithm.")
    bound: Factor = Field(default=0.25, lt=1, description="The lowest part of the rate.")

    def course(self, rate_bits_per_s: float, generator: np.random.Generator) -> Course:
        return _Walk(self, generator)

    def lowest(self, rate_bits_per_s: float) -> float:
        return self.bound


@variations.register
class Traced(Variation):
    """A recorded course, the same for all links of the cohort; no more is there than the link's own rate.

    The file has a line `seconds,factor` or `seconds,bits_per_s`, then rows in the order of time, the first at 0 s; each
    holds until the next.
    """

    kind: Literal["trace"] = "trace"
    path: Annotated[SourcePath, AfterValidator(must_be_csv)] = Field(
        description="A CSV file, relative to the scenario file."
    )
    longest_gap: Seconds = Field(
        default=3600.0, gt=0, le=_CENTURY_S, description="Rows farther apart than this are a gap, which is an error."
    )
    repeats: bool = Field(
        default=False, description="Begin again at the time of the last row; else that row holds for ever."
    )

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        trace = self._trace
        if self.repeats and len(trace.seconds) < 2:
            raise ValueError("one row cannot be repeated")
        return self

    @property
    def _trace(self) -> Trace:
        return read_trace(self.path, self.longest_gap)

    def course(self, rate_bits_per_s: float, generator: np.random.Generator) -> Course:
        trace = self._trace
        factors = trace.factors(rate_bits_per_s)
        if self.repeats:
            return _Listed(trace.seconds[:-1], factors[:-1], period_s=trace.seconds[-1])
        return _Listed(trace.seconds, factors)

    def lowest(self, rate_bits_per_s: float) -> float:
        return min(self._trace.factors(rate_bits_per_s))


class _Listed:
    """Factors that hold from listed times on, again in every period if there is one."""

    def __init__(self, seconds: Sequence[float], factors: Sequence[float], period_s: float = math.inf) -> None:
        self._seconds = [*seconds] if seconds[0] == 0 else [0.0, *seconds]
        self._factors = [*factors] if seconds[0] == 0 else [1.0, *factors]
        self._period_s = period_s

    def at(self, time_s: float) -> Stretch:
        begun_s = 0.0 if math.isinf(self._period_s) else math.floor(time_s / self._period_s) * self._period_s
        place = max(0, bisect_right(self._seconds, time_s - begun_s) - 1)
        # Sums are rounded: a row begins when the run's clock says so.
        while self._until_s(begun_s, place) <= time_s:
            place += 1
            if place == len(self._seconds):
                begun_s, place = begun_s + self._period_s, 0
        return Stretch(self._factors[place], self._until_s(begun_s, place))

    def _until_s(self, begun_s: float, place: int) -> float:
        after_s = self._seconds[place + 1] if place + 1 < len(self._seconds) else self._period_s
        return begun_s + after_s


class _Cosine:
    """One link's days."""

    def __init__(self, settings: Daily, best_s: float) -> None:
        self._settings, self._best_s = settings, best_s

    def at(self, time_s: float) -> Stretch:
        settings = self._settings
        step = _step_at(time_s, settings.every)
        middle_s = (step + 0.5) * settings.every
        missing = 0.5 - 0.5 * math.cos(2 * math.pi * (middle_s - self._best_s) / settings.period)
        return Stretch(1 - settings.depth * missing, (step + 1) * settings.every)


class _Walk:
    """One link's walk: the logarithm of its factor, from step to step."""

    def __init__(self, settings: RandomWalk, generator: np.random.Generator) -> None:
        self._settings, self._generator = settings, generator
        self._lowest = math.log(settings.bound)
        self._level = self._lowest * float(generator.random())
        self._step = 0

    def at(self, time_s: float) -> Stretch:
        settings = self._settings
        step = _step_at(time_s, settings.every)
        assert step >= self._step, f"a walk is not asked of {time_s} s when it is at step {self._step}"
        for luck in self._generator.standard_normal(step - self._step).tolist():
            self._level = self._turned_back(self._level + settings.sigma * luck)
        self._step = step
        return Stretch(math.exp(self._level), (step + 1) * settings.every)

    def _turned_back(self, level: float) -> float:
        """A level inside the bounds: one beyond is mirrored at them, as often as it takes."""
        beyond = (level - self._lowest) % (-2 * self._lowest)
        return self._lowest + min(beyond, -2 * self._lowest - beyond)


def _step_at(time_s: float, every_s: float) -> int:
    """The number of the last multiple of a length that is not after a time."""
    step = math.floor(time_s / every_s)
    if (step + 1) * every_s <= time_s:  # the quotient is rounded
        return step + 1
    return step - 1 if step * every_s > time_s else step
