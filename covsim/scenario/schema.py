"""The scenario: one frozen value that says who takes part, over what links, under which protocol and rules.

Each section is a model of the room that acts on it; this file only composes them and checks what spans several.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from covsim.behaviors import Backdoor, Bribed
from covsim.chain.economics import EconomicsSettings
from covsim.chain.settings import ChainSettings
from covsim.choice import OneOf
from covsim.gauntlet.selection import FixedSelection, GauntletSelection, Selection, selections
from covsim.gauntlet.settings import GauntletSettings
from covsim.learning import module_model  # noqa: F401  # registers its model
from covsim.learning.corpus import Corpus, Data
from covsim.learning.inner_loop import Training
from covsim.learning.model import Gpt, Model, models
from covsim.learning.tasks import Task
from covsim.learning.tasks import tasks as task_kinds
from covsim.protocol import Plan, Protocol, SparseLoCo, protocols
from covsim.protocol.aggregators import Aggregator, Mean, aggregators
from covsim.randomness import Streams
from covsim.registry import did_you_mean
from covsim.scenario import bundling
from covsim.scenario.counterfactual import Counterfactual
from covsim.scenario.deployment import Deployment, Groups, num_parameters
from covsim.scenario.emulation import Emulation
from covsim.scenario.faults import Misplaced, check_faults, labels
from covsim.scenario.layered import CannotLayer, check_layers
from covsim.scenario.learning import LearningRule, Trained, learning_problem, learning_rules
from covsim.scenario.machines import machine_problems
from covsim.scenario.messages import CONTRADICTION
from covsim.scenario.metrics import check_metric
from covsim.scenario.reach import Unreachable, check_reachable
from covsim.scenario.sections import (
    Checkpointing,
    Cohort,
    Compute,
    Expect,
    Record,
    Section,
    Stop,
    ValidatorNode,
    by_stake,
)
from covsim.scenario.sizes import cohort_sizes
from covsim.scenario.timing import timeline_problem
from covsim.sources import SourcePath, must_be_code
from covsim.world import barrier  # noqa: F401  # registers its timeline
from covsim.world.clock import Timeline, Windowed, timelines
from covsim.world.faults import Fault
from covsim.world.faults import faults as fault_kinds
from covsim.world.layers import Layered
from covsim.world.network import NetworkSettings
from covsim.world.store import StoreSettings
from covsim.world.topology import ObjectStoreTopology, Topology, topologies

LONGEST_NAME = 64

CodePath = Annotated[SourcePath, AfterValidator(must_be_code)]
"""A function of a user's file, such as `my_probe.py:spread`."""

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
    learning: Annotated[LearningRule, OneOf(learning_rules, default="trained", bare="kind")] = Field(
        Trained(), description="whether peers really train, or a stated rule stands for it"
    )
    protocol: Annotated[Protocol, OneOf(protocols, default="sparseloco", bare="kind")] = Field(
        SparseLoCo(), description="what is sent, and how it is applied"
    )
    aggregate: Annotated[Aggregator, OneOf(aggregators, default="mean")] = Field(
        Mean(), description="how the gathered payloads are combined"
    )
    timeline: Annotated[Timeline, OneOf(timelines, default="windowed")] = Field(
        Windowed(), description="blocks and windows"
    )
    topology: Annotated[Topology, OneOf(topologies, default="object_store", bare="kind")] = Field(
        ObjectStoreTopology(), description="which way payloads take"
    )
    network: NetworkSettings = Field(NetworkSettings(), description="what all links have in common")
    store: StoreSettings = Field(StoreSettings(), description="the object store that payloads pass through")
    checkpoints: Checkpointing = Field(Checkpointing(), description="what those take over who come later")
    peers: int = Field(gt=0, le=100_000, description="how many peers there are, over all cohorts")
    cohorts: dict[Name, Cohort] = Field(min_length=1, max_length=1000, description="who they are, by name")
    validators: dict[Name, ValidatorNode] = Field(min_length=1, max_length=256, description="who scores them, by name")
    selection: Annotated[Selection, OneOf(selections, default="gauntlet", bare="kind")] = Field(
        GauntletSelection(), description="whose payloads are gathered"
    )
    gauntlet: GauntletSettings = Field(GauntletSettings(), description="the scoring rules")
    chain: ChainSettings = Field(ChainSettings(), description="slots, weights, consensus and emission")
    economics: EconomicsSettings = Field(EconomicsSettings(), description="what work costs and tokens are worth")
    faults: list[Annotated[Fault, OneOf(fault_kinds)]] = Field(
        [], max_length=1000, description="what breaks, when, and whom it strikes"
    )
    tasks: list[Annotated[Task, OneOf(task_kinds, bare="kind")]] = Field(
        [], max_length=100, description="zero-shot questions that the lead validator's final theta is asked"
    )
    probes: dict[Name, CodePath] = Field(
        {}, max_length=100, description="functions of yours over a round's decoded updates; each adds a column"
    )
    plugins: list[SourcePath] = Field(
        [], max_length=100, description="Python files of yours that register parts; run loads them, check does not"
    )
    expect: Expect | None = Field(None, description="makes the scenario a test")
    counterfactual: Counterfactual | None = Field(None, description="who is taken out, or made honest")
    record: Record = Field(Record(), description="what is kept")
    compute: Compute = Field(Compute(), description="where the tensors live")
    emulation: Emulation = Field(Emulation(), description="how `covsim emulate` sets it to real processes and links")

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
    def _counterfactual_names_peers(self) -> Self:
        try:
            if self.counterfactual is not None:
                self.counterfactual.check(self.peers, self.cohorts)
        except ValueError as error:
            raise _contradiction(str(error), "counterfactual") from None
        return self

    @model_validator(mode="after")
    def _everybody_has_a_slot(self) -> Self:
        there_at_first = sum(
            size
            for name, size in cohort_sizes(self.peers, self.cohorts).items()
            if self.cohorts[name].membership.first_round == 0
        )
        needed = there_at_first + len(self.validators) + 1
        if needed > self.chain.slots:
            message = (
                f"{needed} slots are needed from the start (peers, validators, owner), there are {self.chain.slots}"
            )
            raise _contradiction(message, "chain", "slots")
        return self

    @model_validator(mode="after")
    def _transfers_can_be_bundled(self) -> Self:
        reason = bundling.refusal(self) if self.compute.transfers == "bundled" else None
        if reason is not None:
            raise _contradiction(f"bundled does not go together with {reason}", "compute", "transfers")
        apart = bundling.refusal_of_company(self) if self.compute.rounds == "together" else None
        if apart is not None:
            raise _contradiction(f"together does not go with {apart}; take single", "compute", "rounds")
        return self

    @model_validator(mode="after")
    def _learning_has_what_scripts_ask_for(self) -> Self:
        problem = learning_problem(self)
        if problem is not None:
            raise _contradiction(problem[0], *problem[1])
        return self

    @model_validator(mode="after")
    def _poison_fits_sequences(self) -> Self:
        for name, cohort in self.cohorts.items():
            attack = cohort.behavior
            if (
                isinstance(attack, Backdoor)
                and len(f"{attack.trigger}{attack.target}".encode()) > self.model.context + 1
            ):
                message = f"trigger and target do not fit into sequences of {self.model.context + 1} bytes"
                raise _contradiction(message, "cohorts", name, "behavior", "trigger")
        return self

    @model_validator(mode="after")
    def _bribes_name_cohorts(self) -> Self:
        for name, validator in self.validators.items():
            bribe = validator.behavior
            if isinstance(bribe, Bribed) and bribe.cohort not in self.cohorts:
                message = f"no cohort is called {bribe.cohort!r}{did_you_mean(bribe.cohort, self.cohorts)}"
                raise _contradiction(message, "validators", name, "behavior", "cohort")
        return self

    @model_validator(mode="after")
    def _faults_strike_what_is_there(self) -> Self:
        regions = {name: cohort.region for name, cohort in self.cohorts.items()}
        try:
            check_faults(self.faults, self.peers, regions, self.validators)
        except Misplaced as error:
            raise _contradiction(str(error), *error.path) from None
        return self

    @model_validator(mode="after")
    def _timeline_fits(self) -> Self:
        problem = timeline_problem(self)
        if problem is not None:
            raise _contradiction(problem[0], *problem[1])
        return self

    @model_validator(mode="after")
    def _tensors_fit_protocol(self) -> Self:
        if not self.model.known_before_run or isinstance(self.timeline, Layered):
            return self
        try:
            self.plan.payload_bytes((1, shape) for shape in self.model.shapes.values())
            self.plan.fragments.shapes(tuple(self.model.shapes.items()))
        except ValueError as error:
            raise _contradiction(str(error), "protocol") from None
        try:
            _ = self.payload_bytes
        except ValueError as error:
            raise _contradiction(str(error), "deployment") from None
        return self

    @model_validator(mode="after")
    def _layers_can_be_timed(self) -> Self:
        try:
            check_layers(self)
        except CannotLayer as error:
            raise _contradiction(str(error), *error.path) from None
        return self

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        kinds = [task.kind for task in self.tasks]
        for position, kind in enumerate(kinds):
            if kind in kinds[:position]:
                raise _contradiction(f"{kind} stands twice; a run has one number for it", "tasks", position)
        return self

    @model_validator(mode="after")
    def _text_is_long_enough(self) -> Self:
        """The bundled text holds sequences of a moderate context; for a longer one, or another text, cut it and see."""
        own = self.data.path is not None
        if own or self.model.context > MODERATE_CONTEXT:
            try:
                corpus = Corpus(self.data, self.model.context, Streams(self.seed))
                if self.model.known_before_run:
                    self.model.check_tokens(corpus.largest_token)
            except ValueError as error:
                path = ("data", "path") if own else ("model", "context")
                raise _contradiction(str(error), *path) from None
        return self

    @model_validator(mode="after")
    def _one_machine_is_one_peer(self) -> Self:
        if self.plan.stays_home and self.peers > 1:
            batch = self.training.batch * self.peers
            message = (
                f"{self.protocol.kind} is one machine: write peers: 1, and training.batch: {batch} for the same tokens"
            )
            raise _contradiction(message, "peers")
        return self

    @model_validator(mode="after")
    def _claims_name_metrics(self) -> Self:
        for position, claim in enumerate(self.expect.claims if self.expect else ()):
            try:
                check_metric(claim.metric, self.cohorts, [task.kind for task in self.tasks], labels(self.faults))
            except ValueError as error:
                raise _contradiction(str(error), "expect", "claims", position, "metric") from None
        return self

    @model_validator(mode="after")
    def _everybody_is_reachable(self) -> Self:
        try:
            check_reachable(self)
        except Unreachable as error:
            raise _contradiction(str(error), *error.path) from None
        return self

    @model_validator(mode="after")
    def _machines_make_sense(self) -> Self:
        for message, *path in machine_problems(self):
            raise _contradiction(message, *path)
        return self

    @property
    def planned_rounds(self) -> int:
        """Rounds until the first end that does not depend on learning, if every peer does all its steps."""
        tokens = self.peers * self.plan.inner_steps * self.tokens_per_step
        ends: list[tuple[float | None, float]] = [
            (self.stop.rounds, 1),
            (self.stop.tokens, tokens),
            (self.stop.simulated if self.timeline.foresees else None, self.window_s),
            (self.stop.bytes, self.peers * self.payload_bytes if self.stop.bytes is not None else 0),
        ]
        return min(math.ceil(end / per_round) for end, per_round in ends if end is not None and per_round > 0)

    @property
    def plan(self) -> Plan:
        """What the protocol asks of everybody."""
        return self.protocol.plan()

    @property
    def adds_on_the_way(self) -> bool:
        """Whether a direct exchange reduces payloads as they pass: their values add up, and a mean is wanted."""
        return self.plan.reducible and isinstance(self.aggregate, Mean)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one inner step of one peer."""
        return self.training.batch * self.model.context

    @property
    def validators_by_stake(self) -> list[str]:
        """Their names from the highest stake down; the first one leads."""
        return by_stake({name: validator.stake for name, validator in self.validators.items()})

    @property
    def window_s(self) -> float:
        """Nominal length of a window in seconds; infinite where nothing bounds it."""
        return self.timeline.window_s

    @property
    def inner_step_s(self) -> float:
        """Seconds of an inner step on a machine of speed 1."""
        return self.deployment.step_s(lambda: num_parameters(self.charged_tensors))

    @property
    def payload_bytes(self) -> float:
        """Bytes of the deployment's regular payload."""
        return self.plan.payload_bytes(self.charged_tensors)

    @property
    def charged_tensors(self) -> Groups:
        """The tensors that the clock charges for, as (count, shape)."""
        named = self.deployment.tensors  # a module's own shapes are not asked for where they do not matter
        return self.deployment.groups(() if named else self.model.shapes.values())

    @property
    def size_is_known(self) -> bool:
        """False while a payload's size depends on a user's module, which only a run loads."""
        return self.model.known_before_run or bool(self.deployment.tensors)


def _contradiction(message: str, *path: Any) -> PydanticCustomError:
    """An error about settings that do not go together, which names the key to look at first."""
    text = message.replace("{", "{{").replace("}", "}}")
    return PydanticCustomError(CONTRADICTION, text, {"path": path, "message": message})
