"""What is read off the rounds of a plan: shares of time, who meets which deadline, useful work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from covsim.sweep.plan.round import Round, steady_round
from covsim.sweep.plan.setting import Setting
from covsim.sweep.plan.sharing import Floats


@dataclass(frozen=True)
class Spread:
    """A quantity over peers and sampled rounds: mean, and the values below which 10, 50 and 90 % of them lie."""

    mean: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Deadlines:
    """Shares of all peers."""

    all_steps: float
    put_window: float
    gather_timeout: float


@dataclass(frozen=True)
class Measures:
    """The sampled rounds of a setting, and what follows from them."""

    setting: Setting
    rounds: tuple[Round, ...]

    @classmethod
    def of(cls, setting: Setting) -> Measures:
        """Those of a setting."""
        return cls(setting, tuple(steady_round(setting, sample) for sample in range(setting.samples)))

    @cached_property
    def utilization(self) -> float:
        """Compute over compute and communication, as `time.compute_utilization` of a run has it."""
        compute_s, blocked_s = self._sum(lambda x: x.compute_s), self._sum(lambda x: x.blocked_s)
        return compute_s / (compute_s + blocked_s) if compute_s else 0.0

    @cached_property
    def compute_share(self) -> float:
        """Compute over all time of all peers, as `time.compute_share` of a run has it."""
        compute_s, blocked_s = self._sum(lambda x: x.compute_s), self._sum(lambda x: x.blocked_s)
        return compute_s / (compute_s + blocked_s + self._sum(lambda x: x.idle_s)) if compute_s else 0.0

    @cached_property
    def round_s(self) -> float:
        """Mean seconds from one window to the next."""
        return float(np.mean([each.period_s for each in self.rounds]))

    @cached_property
    def deadlines(self) -> Deadlines:
        """Who does all inner steps on whole batches, lands in the put window, and ends its gather."""
        wanted = self.setting.inner_steps
        return Deadlines(
            all_steps=self._mean(lambda x: (x.steps * x.batch_share >= wanted - 1e-9).astype(float)),
            put_window=self._mean(lambda x: x.exchange.on_time.astype(float)),
            gather_timeout=self._mean(lambda x: x.exchange.complete.astype(float)),
        )

    @property
    def useful_steps_per_hour(self) -> float:
        """Inner steps whose payload lands in time, of all peers together, times the share of gathers that end."""
        steps = [float((x.steps * x.batch_share * x.exchange.on_time).sum()) / x.period_s for x in self.rounds]
        return float(np.mean(steps)) * 3600 * self.deadlines.gather_timeout

    @property
    def communication_s(self) -> float:
        """Mean seconds in which a peer waits for its exchange."""
        return self._mean(lambda x: x.blocked_s)

    @property
    def exchange_s(self) -> float:
        """Mean seconds of upload and gather, hidden or not."""
        return self._mean(lambda x: x.exchange.upload_s + x.exchange.gather_s)

    @property
    def validator_load(self) -> float:
        """Seconds that the busiest validator needs for a round, over those of a round."""
        return max(float(x.exchange.judged_s.max()) / x.period_s for x in self.rounds)

    def spread(self, quantity: Callable[[Round], Floats]) -> Spread:
        """Of a quantity over peers and sampled rounds."""
        values = np.concatenate([np.atleast_1d(quantity(each)) for each in self.rounds])
        low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
        return Spread(float(values.mean()), float(low), float(median), float(high))

    def total(self, quantity: Callable[[Round], Any]) -> float:
        """Mean over sampled rounds of a number that a round has once."""
        return float(np.mean([quantity(each) for each in self.rounds]))

    def _sum(self, quantity: Callable[[Round], Floats]) -> float:
        return float(sum(quantity(each).sum() for each in self.rounds))

    def _mean(self, quantity: Callable[[Round], Floats]) -> float:
        return float(np.mean([quantity(each) for each in self.rounds]))
