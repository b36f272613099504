"""The scenario: one frozen value that says who takes part, over what links, under which protocol and rules.

Each section is a model of the room that acts on it; this file only composes them and checks what spans several.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from covsim.choice import OneOf
from covsim.gauntlet.selection import FixedSelection, GauntletSelection, Selection, selections
from covsim.gauntlet.settings import GauntletSettings
from covsim.learning.corpus import Corpus, Data
from covsim.learning.inner_loop import Training
from covsim.learning.model import Gpt, Model, models
from covsim.protocol.aggregators import Aggregator, Mean, aggregators
from covsim.protocol.base import Protocol, protocols
from covsim.protocol.sparseloco import SparseLoCo
from covsim.randomness import Streams
from covsim.scenario.deployment import Deployment
from covsim.scenario.messages import CONTRADICTION
from covsim.scenario.metrics import check_metric
from covsim.scenario.sections import Cohort, Compute, Expect, Record, Section, Stop, ValidatorNode, leader
from covsim.scenario.sizes import cohort_sizes
from covsim.world.clock import Timeline
from covsim.world.network import NetworkSettings
from covsim.world.store import StoreSettings

LONGEST_NAME = 64

Name = Annotated[str, StringConstraints(pattern=rf"^[a-z0-9][a-z0-9_-]{{0,{LONGEST_NAME - 1}}}$")]
"""Names become folders, keys of the summary and parts of overrides: a-z, 0-9, _ and -, at most 64."""

MODERATE_CONTEXT = 256
"""Tokens that fit whatever part of the bundled text is held out and however it is dealt."""


class Scenario(Section):
    """Everything that a run depends on."""

    version: Literal[1] = Field(description="of this format")
    name: Name = Field(description="names the folder of the results")
    description: str = Field("", max_length=10_000, description="what the scenario is for")
    seed: int = Field(0, ge=0, lt=2**63, description="the address of all randomness of the run")
    stop: Stop = Field(description="when the run ends")
    model: Annotated[Model, OneOf(models, default="gpt")] = Field(Gpt(), description="what every peer really trains")
    data: Data = Field(Data(), description="the text, and how it is dealt over uids")
    training: Training = Field(Training(), description="the inner loop")
    deployment: Deployment = Field(Deployment.model_validate("same"), description="what the clock charges for")
    protocol: Annotated[Protocol, OneOf(protocols, default="sparseloco")] = Field(
        SparseLoCo(), description="what is sent, and how it is applied"
    )
    aggregate: Annotated[Aggregator, OneOf(aggregators, default="mean")] = Field(
        Mean(), description="how the gathered payloads are combined"
    )
    timeline: Timeline = Field(Timeline(), description="blocks and windows")
    network: NetworkSettings = Field(NetworkSettings(), description="what all links have in common")
    store: StoreSettings = Field(StoreSettings(), description="the object store that payloads pass through")
    peers: int = Field(gt=0, le=100_000, description="how many peers there are, over all cohorts")
    cohorts: dict[Name, Cohort] = Field(min_length=1, max_length=1000, description="who they are, by name")
    validators: dict[Name, ValidatorNode] = Field(min_length=1, max_length=256, description="who scores them, by name")
    selection: Annotated[Selection, OneOf(selections, default="gauntlet", bare="kind")] = Field(
        GauntletSelection(), description="whose payloads are gathered"
    )
    gauntlet: GauntletSettings = Field(GauntletSettings(), description="the scoring rules")
    expect: Expect | None = Field(None, description="makes the scenario a test")
    record: Record = Field(Record(), description="what is kept")
    compute: Compute = Field(Compute(), description="where the tensors live")

    @model_validator(mode="after")
    def _cohorts_make_up_the_peers(self) -> Self:
        try:
            cohort_sizes(self.peers, self.cohorts)
        except ValueError as error:
            raise _contradiction(str(error), "cohorts") from None
        return self

    @model_validator(mode="after")
    def _fixed_uids_exist(self) -> Self:
        if isinstance(self.selection, FixedSelection) and max(self.selection.uids) >= self.peers:
            last = self.peers - 1
            message = f"uid {max(self.selection.uids)} does not exist; {self.peers} peers have the uids 0 to {last}"
            raise _contradiction(message, "selection", "uids")
        return self

    @model_validator(mode="after")
    def _tensors_fit_protocol(self) -> Self:
        try:
            self.protocol.regular_bytes(self.model.shapes.values())
            _ = self.payload_bytes
        except ValueError as error:
            raise _contradiction(str(error), "deployment") from None
        return self

    @model_validator(mode="after")
    def _text_is_long_enough(self) -> Self:
        """Any text holds sequences of a moderate context; for a longer one, cut it and see."""
        if self.model.context > MODERATE_CONTEXT:
            try:
                Corpus(self.data, self.model.context, Streams(self.seed))
            except ValueError as error:
                raise _contradiction(str(error), "model", "context") from None
        return self

    @model_validator(mode="after")
    def _claims_name_metrics(self) -> Self:
        for position, claim in enumerate(self.expect.claims if self.expect else ()):
            try:
                check_metric(claim.metric, self.cohorts)
            except ValueError as error:
                raise _contradiction(str(error), "expect", "claims", position, "metric") from None
        return self

    @property
    def planned_rounds(self) -> int:
        """Rounds until the first end that does not depend on learning, if every peer does all its steps."""
        tokens = self.peers * self.protocol.inner_steps * self.training.batch * self.model.context
        ends: list[tuple[float | None, float]] = [
            (self.stop.rounds, 1),
            (self.stop.tokens, tokens),
            (self.stop.simulated, self.window_s),
            (self.stop.bytes, self.peers * self.payload_bytes),
        ]
        return min(math.ceil(end / per_round) for end, per_round in ends if end is not None)

    @property
    def lead_validator(self) -> str:
        """The one that publishes the gather list."""
        return leader({name: validator.stake for name, validator in self.validators.items()})

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.timeline.blocks_per_window * self.timeline.block

    @property
    def payload_bytes(self) -> int:
        """Bytes of the deployment's regular payload."""
        return self.protocol.payload_bytes(self.deployment.groups(self.model.shapes.values()))


def _contradiction(message: str, *path: Any) -> PydanticCustomError:
    """An error about settings that do not go together, which names the key to look at first."""
    text = message.replace("{", "{{").replace("}", "}}")
    return PydanticCustomError(CONTRADICTION, text, {"path": path, "message": message})
