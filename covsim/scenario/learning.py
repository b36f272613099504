"""The `learning:` section: whether peers really train, or a stated rule says what training would have brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from covsim.registry import Part, Registry
from covsim.units import Share

if TYPE_CHECKING:
    from covsim.scenario.schema import Scenario


class LearningRule(Part):
    """Where losses, payloads and scores come from."""

    kind: str


learning_rules: Registry[LearningRule] = Registry("learning")


@learning_rules.register
class Trained(LearningRule):
    """Every peer trains the model, and every loss is measured."""

    kind: Literal["trained"] = "trained"


@learning_rules.register
class Synthetic(LearningRule):
    """No tensors: the clock runs as ever, and losses follow a rule. See `nodes.synthetic` and docs/scale.md.

    The loss of a history is floor + (start - floor) (1 + w / half)^-power, with w the outer steps it holds, counted in
    full regular ones. None of the numbers is measured: they are assumed, and only shape what scoring sees.
    """

    kind: Literal["synthetic"] = "synthetic"
    start: float = Field(5.5, gt=0, le=100, description="nats per token before the first outer step; assumed")
    floor: float = Field(2.0, ge=0, le=100, description="nats per token that no work can undercut; assumed")
    half: float = Field(10.0, gt=0, le=1e6, description="regular outer steps until the fall has slowed down; assumed")
    power: float = Field(0.5, gt=0, le=10, description="how fast the loss falls from there; assumed")
    own_gap: float = Field(
        0.002, ge=0, le=1, description="what a full step improves its own batches more, relative to their loss; assumed"
    )
    noise: float = Field(
        0.0005, ge=0, le=1, description="standard deviation of a measured relative improvement; assumed"
    )
    likeness: Share = Field(0.1, description="overlap of the top-k indices of independent payloads; assumed")
    spread: float = Field(
        1.0, ge=0, le=100, description="length of what an update has of its own, in its useful length; assumed"
    )
    staleness: Share = Field(0.1, description="what an update loses per outer step that its base is behind; assumed")
    poisoned: float = Field(
        -0.5, ge=-10, le=1, description="use of a step on false answers or poisoned text, in useful steps; assumed"
    )


def learning_problem(scenario: Scenario) -> tuple[str, tuple[Any, ...]] | None:
    """Whose script asks for what a run without tensors does not have, and the path of the key to look at."""
    if not isinstance(scenario.learning, Synthetic):
        return None
    for name, cohort in scenario.cohorts.items():
        if cohort.behavior.needs_coordinates:
            return (
                f"{cohort.behavior.kind} of cohort {name} computes with single numbers of an update, and with "
                "learning: synthetic there are none; train for real (learning: trained), or choose a behavior that "
                "adds and scales updates only, such as sign_flip",
                ("cohorts", name, "behavior"),
            )
    return None
