"""What keeps a machine from its usual pace: steps that vary from round to round, slow-downs, preemption.

Each is a value of the scenario, and what it does to a machine in a round follows from the machine's own streams.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from covsim.randomness import Streams
from covsim.units import Seconds, Share

_YEAR_S = 365 * 86_400.0


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StepNoise(_Settings):
    """In every round a machine's step time is multiplied by a number drawn anew, whose mean is 1."""

    kind: Literal["lognormal"] = Field(default="lognormal", description="The logarithm of the factor is normal.")
    sigma: float = Field(ge=0, le=3, description="Standard deviation of the natural logarithm of the factor.")

    def factor(self, streams: Streams, machine: int, round: int) -> float:
        """What a step time is multiplied by in a round: exp(sigma z - sigma**2 / 2), z standard normal."""
        z = streams.numpy("step noise", machine, round).standard_normal()
        return math.exp(self.sigma * z - self.sigma**2 / 2)


class Slowdowns(_Settings):
    """Now and then a machine is slow for some rounds; one that begins while another lasts adds nothing to its depth.

    In the long run a machine is slow in `1 - (1 - rate)**lasts` of its rounds.
    """

    rate: Share = Field(description="How likely it is that a slow-down begins in a round.")
    factor: float = Field(ge=1, le=1000, description="What the step time is multiplied by meanwhile.")
    lasts: int = Field(default=1, ge=1, le=1000, description="Rounds, the one in which it begins among them.")

    def is_slow(self, streams: Streams, machine: int, round: int) -> bool:
        """Whether a slow-down of a machine lasts in a round."""
        begun = range(max(0, round - self.lasts + 1), round + 1)
        return any(streams.uniform("slow-down", machine, when) < self.rate for when in begun)


class Preemption(_Settings):
    """From time to time the machine is taken away, and computes nothing until it is given back; nothing is lost.

    Both spans are exponential, so it has the machine for every / (every + lasts) of the time. Source: the Poisson
    arrivals by which spot markets are modeled, e.g. Varuna (arXiv 2111.04007) and Bamboo (arXiv 2204.12013) measure
    their preemptions; the rates are the author's of the scenario.
    """

    every: Annotated[Seconds, Field(ge=1, le=_YEAR_S)] = Field(description="Mean time from its return to the next.")
    lasts: Annotated[Seconds, Field(ge=1, le=_YEAR_S)] = Field(description="Mean time for which it is gone.")


@dataclass(frozen=True, slots=True)
class Unsteadiness:
    """All that varies about the machines of a cohort; by default nothing."""

    step_noise: StepNoise | None = None
    slowdowns: Slowdowns | None = None
    preemption: Preemption | None = None

    def step_factor(self, streams: Streams, machine: int, round: int) -> float:
        """What the step time of a machine is multiplied by in a round."""
        factor = 1.0
        if self.step_noise is not None:
            factor *= self.step_noise.factor(streams, machine, round)
        if self.slowdowns is not None and self.slowdowns.is_slow(streams, machine, round):
            factor *= self.slowdowns.factor
        return factor

    def absences(self, streams: Streams, machine: int) -> Absences | None:
        """When a machine is gone, None if never."""
        return None if self.preemption is None else Absences(self.preemption, streams.numpy("preemption", machine))


class Absences:
    """The spans `[from, to)` in which one machine is gone, drawn as far as somebody has asked.

    Args:
        preemption: how often and how long.
        generator: the machine's own, used by nobody else.
    """

    def __init__(self, preemption: Preemption, generator: np.random.Generator) -> None:
        self._preemption, self._generator = preemption, generator
        self._from_s: list[float] = []
        self._to_s: list[float] = []

    def away_s(self, began_s: float, until_s: float) -> float:
        """Seconds of `[began_s, until_s)` in which the machine is gone."""
        assert math.isfinite(until_s)
        self._draw_until(until_s)
        away_s, number = 0.0, bisect_right(self._to_s, began_s)
        while self._from_s[number] < until_s:
            away_s += min(self._to_s[number], until_s) - max(self._from_s[number], began_s)
            number += 1
        return away_s

    def away_while_working_s(self, began_s: float, work_s: float) -> float:
        """Seconds for which the machine is gone before so much work that begins now is done."""
        self._draw_until(began_s)
        away_s, number = 0.0, bisect_right(self._to_s, began_s)
        while True:
            self._draw_until(began_s + work_s + away_s)
            if self._from_s[number] >= began_s + work_s + away_s:
                return away_s
            away_s += self._to_s[number] - max(self._from_s[number], began_s)
            number += 1

    def _draw_until(self, time_s: float) -> None:
        """Know at least one absence that begins at or after a time."""
        while not self._from_s or self._from_s[-1] < time_s:
            back_s = self._to_s[-1] if self._to_s else 0.0
            self._from_s.append(back_s + self._generator.exponential(self._preemption.every))
            self._to_s.append(self._from_s[-1] + self._generator.exponential(self._preemption.lasts))
