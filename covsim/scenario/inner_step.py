"""How long an inner step takes on a machine of speed 1, and from which source: measured, tokens/s, or FLOP/s.

The step is the deployment's: its own parameters, and its own tokens, not those of the small model.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from covsim.registry import Part, Registry
from covsim.units import Flops, Seconds, Share

DAY_S = 86_400.0

FLOP_PER_PARAMETER_AND_TOKEN = 6
"""Forward 2, backward 4; attention's own products are left out. Source: Kaplan et al. 2020 (arXiv 2001.08361)."""


def flop_of_step(parameters: int, tokens: int) -> float:
    """FLOP of one inner step: 6 N D. Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1.

    Args:
        parameters: N, all that take part in it.
        tokens: D, of the step.
    """
    return float(FLOP_PER_PARAMETER_AND_TOKEN * parameters * tokens)


class StepTime(Part, abc.ABC):
    """Where the seconds of an inner step come from; `needs` names what of the deployment must be known for it."""

    needs: ClassVar[tuple[str, ...]] = ()
    kind: str

    @abc.abstractmethod
    def step_s(self, parameters: Callable[[], int], tokens: int, gpus: int) -> float:
        """Seconds of an inner step on a machine of speed 1.

        Args:
            parameters: tells how many the deployment has; not asked where it does not matter.
            tokens: of an inner step of the deployment; 0 where nobody needs it.
            gpus: of the machine; likewise.
        """


step_times: Registry[StepTime] = Registry("source of step times")


@step_times.register
class MeasuredStep(StepTime):
    """So many seconds; a bare duration stands for it."""

    kind: Literal["measured"] = "measured"
    seconds: Annotated[Seconds, Field(gt=0, le=DAY_S)] = Field(description="One inner step on a machine of speed 1.")

    def step_s(self, parameters: Callable[[], int], tokens: int, gpus: int) -> float:
        """What was measured."""
        return self.seconds


@step_times.register
class ThroughputStep(StepTime):
    """From the tokens that a machine of speed 1 trains on in a second, all its GPUs together."""

    needs: ClassVar[tuple[str, ...]] = ("tokens_per_step",)

    kind: Literal["throughput"] = "throughput"
    tokens_per_s: float = Field(gt=0, le=1e12, description="Tokens per second of the whole machine.")

    def step_s(self, parameters: Callable[[], int], tokens: int, gpus: int) -> float:
        """Tokens of a step over tokens per second."""
        return tokens / self.tokens_per_s


@step_times.register
class FlopsStep(StepTime):
    """From what a GPU could do and the part of it that training reaches: 6 N D / (peak x GPUs x utilization).

    Source: Kaplan et al. 2020 (arXiv 2001.08361) for 6 N D; PaLM (arXiv 2204.02311), appendix B, for the utilization.
    """

    needs: ClassVar[tuple[str, ...]] = ("tokens_per_step", "gpus")

    kind: Literal["flops"] = "flops"
    peak: Annotated[Flops, Field(gt=0, le=1e18)] = Field(description="What one GPU could do, such as 989 TFLOP/s.")
    utilization: Annotated[Share, Field(gt=0, le=1)] = Field(
        description="Part of the peak that training reaches (model FLOP utilization)."
    )

    def step_s(self, parameters: Callable[[], int], tokens: int, gpus: int) -> float:
        """FLOP of a step over FLOP per second."""
        return flop_of_step(parameters(), tokens) / (self.peak * gpus * self.utilization)
