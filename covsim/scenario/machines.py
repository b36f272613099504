"""What the machines of a scenario ask of the rest of it, said before a run starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from covsim.scenario.inner_step import DAY_S
from covsim.scenario.rounded import time_text
from covsim.world.slow import SmallerBatch

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario


def machine_problems(scenario: Scenario) -> Iterator[tuple[str, *tuple[Any, ...]]]:
    """What does not go together, each with the path of the key to look at."""
    if scenario.size_is_known and scenario.inner_step_s > DAY_S:
        took = time_text(scenario.inner_step_s)
        yield f"an inner step takes {took}, more than a day", "deployment", "inner_step"
    reason = _no_smaller_batch(scenario)
    for name, cohort in scenario.cohorts.items():
        if reason is not None and isinstance(cohort.when_slow, SmallerBatch):
            yield reason, "cohorts", name, "when_slow"


def _no_smaller_batch(scenario: Scenario) -> str | None:
    """Why nobody can choose its batch by the time that is left, or None."""
    kind = scenario.timeline.kind
    if kind == "layered":  # it refuses all policies itself
        return None
    if scenario.plan.asynchrony is not None:
        return f"{scenario.protocol.kind} cuts nobody when a window closes, so no batch is ever too large for it"
    if not scenario.timeline.foresees:
        return f"when its window closes, which decides on the batch, nobody can know on a {kind}"
    return None
