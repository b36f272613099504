"""The sections of a scenario that belong to no other room: who takes part, when to stop, what to claim and to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from covsim.behaviors import Behavior, Honest, behaviors
from covsim.behaviors.base import ValidatorBehavior, validator_behaviors
from covsim.behaviors.membership import Always, Membership, memberships
from covsim.behaviors.scoring import Scoring
from covsim.choice import OneOf
from covsim.units import Rate, Seconds, Share, Size, format_share, parse_share
from covsim.world.faults import Label
from covsim.world.machine import ConstantRate, ConstantSpeed, RateDistribution, SpeedDistribution, link_rates, speeds
from covsim.world.slow import FewerSteps, SlowPolicy, slow_policies
from covsim.world.unsteady import Preemption, Slowdowns, StepNoise
from covsim.world.variations import Variation, variations

_YEAR_S = 365 * 86_400.0


class Section(BaseModel):
    """A frozen group of settings that rejects keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stop(Section):
    """When a run ends: at the first of these that is reached."""

    rounds: int | None = Field(None, gt=0, le=100_000, description="settled outer steps")
    tokens: int | None = Field(None, gt=0, le=10**15, description="tokens that all peers trained on together")
    simulated: Seconds | None = Field(None, gt=0, le=100 * _YEAR_S, description="time on the virtual clock")
    loss: float | None = Field(None, gt=0, le=100, description="held-out nats per token of the lead validator's theta")
    bytes: Size | None = Field(None, gt=0, description="what peers uploaded, as charged")

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if all(end is None for end in (self.rounds, self.tokens, self.simulated, self.bytes)):
            also = " beside a loss, which may never be reached" if self.loss is not None else ""
            raise ValueError(f"give at least one of rounds, tokens, simulated or bytes{also}")
        return self


def _parse_part_of_all(value: Any) -> float | Literal["rest"]:
    return "rest" if value == "rest" else parse_share(value)


PartOfAll = Annotated[
    float | Literal["rest"],
    BeforeValidator(_parse_part_of_all),
    PlainSerializer(lambda value: value if value == "rest" else format_share(value), return_type=str),
    WithJsonSchema({"anyOf": [{"const": "rest"}, {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]
"""A share of all peers, or `rest`: whatever the other cohorts leave."""

LinkRate = Annotated[RateDistribution, OneOf(link_rates, default="constant", bare="value")]
LinkVariation = Annotated[Variation, OneOf(variations)]
Speed = Annotated[SpeedDistribution, OneOf(speeds, default="constant", bare="value")]


class Cohort(Section):
    """Peers alike: so many of them, one behavior, links and machines from the same distributions."""

    count: int | None = Field(None, ge=0, le=100_000, description="how many peers; or give a share")
    share: PartOfAll | None = Field(None, description="part of all peers; or `rest`, what others leave")
    behavior: Annotated[Behavior, OneOf(behaviors, bare="kind")] = Field(Honest(), description="their script")
    uplink: LinkRate = Field(
        ConstantRate.model_validate({"value": "110 Mb/s"}), description="each peer's link to the store, up"
    )
    downlink: LinkRate = Field(
        ConstantRate.model_validate({"value": "500 Mb/s"}), description="each peer's link to the store, down"
    )
    uplink_varies: LinkVariation | None = Field(None, description="which part of the uplink is there, over time")
    downlink_varies: LinkVariation | None = Field(None, description="which part of the downlink is there, over time")
    speed: Speed = Field(ConstantSpeed(value=1.0), description="of each machine; 1 is the deployment's, 2 is twice it")
    step_noise: StepNoise | None = Field(None, description="how a machine's step time varies from round to round")
    slowdowns: Slowdowns | None = Field(None, description="rounds in which a machine is slow")
    preemption: Preemption | None = Field(None, description="spans in which a machine is taken away")
    when_slow: Annotated[SlowPolicy, OneOf(slow_policies, bare="kind")] = Field(
        FewerSteps(), description="what a peer does whose inner steps do not all fit before the window closes"
    )
    membership: Annotated[Membership, OneOf(memberships, bare="kind")] = Field(
        Always(), description="when they take part, and whether they stay"
    )

    region: Label | None = Field(None, description="where they are, for faults that strike a region, and for latencies")

    @model_validator(mode="after")
    def _sized_once(self) -> Self:
        if (self.count is None) == (self.share is None):
            both = self.count is not None
            raise ValueError("give a count or a share, not both" if both else "needs a count or a share")
        return self


class ValidatorNode(Section):
    """A node that evaluates submissions and sets weights. The highest stake leads: it publishes the gather list."""

    behavior: Annotated[ValidatorBehavior, OneOf(validator_behaviors, bare="kind")] = Field(
        Scoring(), description="its script"
    )
    stake: float = Field(gt=0, le=1e12, description="weight of its vote, relative to the other validators' stakes")
    uplink: Rate = Field(10e9, gt=0, le=1e15, description="its link to the store, up; checkpoints pass it")
    downlink: Rate = Field(10e9, gt=0, le=1e15, description="its link to the store, down")
    uplink_varies: LinkVariation | None = Field(None, description="which part of the uplink is there, over time")
    downlink_varies: LinkVariation | None = Field(None, description="which part of the downlink is there, over time")
    region: Label | None = Field(None, description="where it is, for network.latencies and regional links")


def by_stake(stakes: Mapping[str, float]) -> list[str]:
    """The validators from the highest stake down, equals by name; the first one leads."""
    return sorted(stakes, key=lambda name: (-stakes[name], name))


class Claim(Section):
    """Something that should hold of the summary, over several seeds."""

    metric: str = Field(min_length=1, max_length=200, description="a key of summary.json, for example loss.final")
    at_least: float | None = Field(None, description="the mean over seeds is not below this")
    at_most: float | None = Field(None, description="the mean over seeds is not above this")
    versus: Literal["clean"] | None = Field(
        None, description="compare with the same scenario in which nobody cheats and nothing fails"
    )
    margin: Share | None = Field(None, description="how much worse than the clean twin it may be, relative to it")
    xfail: str | None = Field(None, min_length=1, max_length=500, description="why it is known not to hold; strict")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        bounded = self.at_least is not None or self.at_most is not None
        if bounded == (self.versus is not None):
            raise ValueError("give at_least, at_most or both; or versus: clean with a margin, but not both kinds")
        if (self.versus is None) != (self.margin is None):
            raise ValueError("versus and margin belong together: {versus: clean, margin: 2 %}")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}")
        return self


class Expect(Section):
    """Makes a scenario a regression test: each claim ends as pass, fail or inconclusive."""

    seeds: int = Field(1, gt=0, le=1000, description="runs, with seeds seed, seed + 1, ...")
    claims: list[Claim] = Field(min_length=1, max_length=100)


class Checkpointing(Section):
    """Where the leading validator puts its theta, for those who come later; only if somebody may ever miss a round."""

    every: int = Field(10, ge=1, le=100_000, description="rounds between two checkpoints in the store")


class Record(Section):
    """What a run keeps on disk."""

    level: Literal["summary", "rounds", "transfers"] = Field("transfers", description="the finest table that is kept")
    checkpoint: Seconds = Field(30.0, gt=0, le=_YEAR_S, description="wall-clock time between two checkpoints")


class Compute(Section):
    """Where the tensors live; changes how long a run takes, not what it models."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where there is one")
    transfers: Literal["single", "bundled"] = Field(
        "single", description="bundled: a peer's gather is one step, where nobody waits for another's bytes"
    )
    rounds: Literal["single", "together"] = Field(
        "single",
        description="together: the rounds of all peers are worked out at once, where transfers are bundled and every "
        "script minds its own business",
    )
    threads: int | None = Field(None, gt=0, le=1024, description="torch threads; by default torch's own choice")
