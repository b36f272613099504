"""Machines and how they differ: seconds per inner step, and how link rates and speeds vary over a cohort.

A distribution is drawn once per peer, from that peer's own stream. Link rates and speeds are two families, since one
has a unit and the other is a factor around 1; both know the kinds constant, lognormal, uniform and choice. Machines
also come with heavy tails of slow ones: pareto and lognormal_mixture, each cut off at a stated bound.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from covsim.registry import Part, Registry
from covsim.units import Rate, Share

LinkRate = Annotated[Rate, Field(gt=0, le=1e15)]
Speed = Annotated[float, Field(gt=0, le=1000)]
Sigma = Annotated[float, Field(ge=0, le=3)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes: it needs `seconds_per_step` for every inner step."""

    seconds_per_step: float

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        return steps * self.seconds_per_step

    def steps_within(self, seconds: float, wanted: int) -> int:
        """How many whole steps of `wanted` fit into a span."""
        return steps_within(seconds, self.seconds_per_step, wanted)


def steps_within(seconds: float, step_s: float, wanted: int) -> int:
    """How many whole steps of `step_s` seconds, of `wanted`, fit into a span."""
    if math.isinf(seconds):
        return wanted
    # A billionth of a step is rounding: 0.3 s hold three steps of 0.1 s.
    return max(0, min(wanted, math.floor(seconds / step_s + 1e-9)))


class RateDistribution(Part, abc.ABC):
    """How the rate of a link varies over the peers of a cohort."""

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator) -> float:
        """Draw one rate, in bits per second."""


class SpeedDistribution(Part, abc.ABC):
    """How speed varies over the machines of a cohort: 1 is the deployment's machine, 2 halves its step time."""

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator) -> float:
        """Draw one speed, a factor."""


link_rates: Registry[RateDistribution] = Registry("distribution of link rates")
speeds: Registry[SpeedDistribution] = Registry("distribution of speeds")


@link_rates.register
class ConstantRate(RateDistribution):
    """The same link for all."""

    kind: Literal["constant"] = "constant"
    value: LinkRate = Field(description="The rate of every link.")

    def draw(self, generator: np.random.Generator) -> float:
        """Return the value."""
        return self.value


@link_rates.register
class LognormalRate(RateDistribution):
    """Rates whose logarithm is normal: as many at half the median as at twice."""

    kind: Literal["lognormal"] = "lognormal"
    median: LinkRate = Field(description="Half of the links are slower.")
    sigma: Sigma = Field(description="Standard deviation of the natural logarithm.")

    def draw(self, generator: np.random.Generator) -> float:
        """Draw median * exp(sigma * z), z standard normal."""
        return self.median * math.exp(self.sigma * generator.standard_normal())


@link_rates.register
class UniformRate(RateDistribution):
    """Any rate between two, all as likely."""

    kind: Literal["uniform"] = "uniform"
    low: LinkRate = Field(description="The slowest link.")
    high: LinkRate = Field(description="The fastest link.")

    @model_validator(mode="after")
    def _ordered(self) -> UniformRate:
        _check_range(self.low, self.high)
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw from [low, high)."""
        return float(generator.uniform(self.low, self.high))


@link_rates.register
class ChoiceRate(RateDistribution):
    """One of a few classes of link."""

    kind: Literal["choice"] = "choice"
    values: tuple[LinkRate, ...] = Field(min_length=1, max_length=1000, description="The rates to choose from.")
    weights: tuple[Weight, ...] | None = Field(default=None, description="How often each is chosen; equally if absent.")

    @model_validator(mode="after")
    def _weighted(self) -> ChoiceRate:
        _check_weights(self.values, self.weights)
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw one of the values in proportion to its weight."""
        return _choose(self.values, self.weights, generator)


@speeds.register
class ConstantSpeed(SpeedDistribution):
    """The same machine for all."""

    kind: Literal["constant"] = "constant"
    value: Speed = Field(default=1.0, description="The speed of every machine.")

    def draw(self, generator: np.random.Generator) -> float:
        """Return the value."""
        return self.value


@speeds.register
class LognormalSpeed(SpeedDistribution):
    """Speeds whose logarithm is normal: as many at half the median as at twice."""

    kind: Literal["lognormal"] = "lognormal"
    median: Speed = Field(default=1.0, description="Half of the machines are slower.")
    sigma: Sigma = Field(description="Standard deviation of the natural logarithm.")

    def draw(self, generator: np.random.Generator) -> float:
        """Draw median * exp(sigma * z), z standard normal."""
        return self.median * math.exp(self.sigma * generator.standard_normal())


@speeds.register
class UniformSpeed(SpeedDistribution):
    """Any speed between two, all as likely."""

    kind: Literal["uniform"] = "uniform"
    low: Speed = Field(description="The slowest machine.")
    high: Speed = Field(description="The fastest machine.")

    @model_validator(mode="after")
    def _ordered(self) -> UniformSpeed:
        _check_range(self.low, self.high)
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw from [low, high)."""
        return float(generator.uniform(self.low, self.high))


@speeds.register
class ChoiceSpeed(SpeedDistribution):
    """One of a few classes of machine."""

    kind: Literal["choice"] = "choice"
    values: tuple[Speed, ...] = Field(min_length=1, max_length=1000, description="The speeds to choose from.")
    weights: tuple[Weight, ...] | None = Field(default=None, description="How often each is chosen; equally if absent.")

    @model_validator(mode="after")
    def _weighted(self) -> ChoiceSpeed:
        _check_weights(self.values, self.weights)
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw one of the values in proportion to its weight."""
        return _choose(self.values, self.weights, generator)


@speeds.register
class ParetoSpeed(SpeedDistribution):
    """Step times with a heavy tail: that of the fastest machine times a Pareto number, of those up to a bound.

    P(factor > x) falls as x**-tail, until it is cut off at fastest / slowest.
    """

    kind: Literal["pareto"] = "pareto"
    fastest: Speed = Field(default=1.0, description="The speed of the fastest machine, and about the most common one.")
    tail: float = Field(gt=0, le=100, description="Index of the tail; the smaller, the more machines are very slow.")
    slowest: Speed = Field(description="No machine is slower.")

    @model_validator(mode="after")
    def _ordered(self) -> ParetoSpeed:
        _check_range(self.slowest, self.fastest)
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw fastest / x, x from the Pareto distribution cut off at fastest / slowest, by its inverse."""
        within = 1 - (self.slowest / self.fastest) ** self.tail
        return float(self.fastest * (1 - generator.uniform() * within) ** (1 / self.tail))


@speeds.register
class LognormalMixtureSpeed(SpeedDistribution):
    """Two lognormal crowds, the usual machines and a share of stragglers; both are cut off at the same bounds."""

    kind: Literal["lognormal_mixture"] = "lognormal_mixture"
    median: Speed = Field(default=1.0, description="Half of the usual machines are slower, before bounds.")
    sigma: Sigma = Field(description="Standard deviation of the natural logarithm of usual speeds, before bounds.")
    stragglers: Share = Field(description="How likely a machine is a straggler.")
    straggler_median: Speed = Field(description="Half of the stragglers are slower, before bounds.")
    straggler_sigma: Sigma = Field(description="The same as sigma, of the stragglers.")
    slowest: Speed = Field(description="No machine is slower.")
    fastest: Speed = Field(description="No machine is faster.")

    @model_validator(mode="after")
    def _ordered(self) -> LognormalMixtureSpeed:
        _check_range(self.slowest, self.fastest)
        for name in ("median", "straggler_median"):
            if not self.slowest <= getattr(self, name) <= self.fastest:
                raise ValueError(f"{name} must lie between slowest and fastest")
        return self

    def draw(self, generator: np.random.Generator) -> float:
        """Draw the crowd, then exp of a normal number from the part of its distribution that lies within the bounds."""
        is_straggler = generator.uniform() < self.stragglers
        median, sigma = (self.straggler_median, self.straggler_sigma) if is_straggler else (self.median, self.sigma)
        place = generator.uniform()
        if sigma == 0:
            return median
        logs = NormalDist(math.log(median), sigma)
        low, high = (logs.cdf(math.log(bound)) for bound in (self.slowest, self.fastest))
        chance = min(max(low + place * (high - low), 1e-300), 1 - 1e-16)  # the inverse knows neither 0 nor 1
        return min(max(math.exp(logs.inv_cdf(chance)), self.slowest), self.fastest)


def _check_range(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low must not be above high: {low:g} > {high:g}")


def _check_weights(values: Sequence[float], weights: Sequence[float] | None) -> None:
    if weights is None:
        return
    if len(weights) != len(values):
        raise ValueError(f"{len(values)} values need as many weights, not {len(weights)}")
    if not sum(weights) > 0:
        raise ValueError("at least one weight must be above 0")


def _choose(values: Sequence[float], weights: Sequence[float] | None, generator: np.random.Generator) -> float:
    shares = None if weights is None else np.asarray(weights) / sum(weights)
    return values[int(generator.choice(len(values), p=shares))]
