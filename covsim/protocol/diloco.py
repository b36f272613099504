"""DiLoCo and its kin: dense updates, seldom; whole, in fragments that overlap with compute, or without waiting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from covsim.choice import OneOf
from covsim.protocol.compressors import Dense
from covsim.protocol.fragments import Layers
from covsim.protocol.outer import Nesterov, OuterOptimizer, Sgd, outer_optimizers
from covsim.protocol.plan import Asynchrony, OuterDelay, OverlapSteps, Plan, Protocol, protocols
from covsim.protocol.values import Fp4, Fp32, ValueFormat, value_formats
from covsim.units import Share

Values = Annotated[ValueFormat, OneOf(value_formats, default="fp32", bare="kind")]
Outer = Annotated[OuterOptimizer, OneOf(outer_optimizers, default="nesterov")]


@protocols.register
class LocalSgd(Protocol):
    """Average the parameters after H local steps: dense updates, outer rate 1, no momentum outside.

    Source: local SGD (arXiv 1805.09767), FedAvg (arXiv 1602.05629). The inner optimizer is the scenario's.
    """

    kind: Literal["local_sgd"] = "local_sgd"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H between two averages")
    values: Values = Field(default=Fp32(), description="how a value is written")

    def plan(self) -> Plan:
        """theta' = theta - mean(theta - theta_r) = mean(theta_r)."""
        return Plan(inner_steps=self.inner_steps, compressor=Dense(), values=self.values, outer=Sgd(lr=1.0))


@protocols.register
class DiLoCo(Protocol):
    """Exchange dense pseudo-gradients after H inner steps and step with Nesterov momentum.

    Source: DiLoCo (arXiv 2311.08105); H is 500 there. The delay: eager updates for overlapped communication (arXiv
    2502.12996), whose baseline it is.
    """

    kind: Literal["diloco"] = "diloco"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H between two exchanges")
    values: Values = Field(default=Fp32(), description="how a value is written")
    outer: Outer = Field(default=Nesterov(), description="how the combined pseudo-gradient moves theta")
    outer_delay: OuterDelay = 0

    def plan(self) -> Plan:
        """Everything is sent, so nothing is left to feed back."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=Dense(),
            values=self.values,
            outer=self.outer,
            outer_delay=self.outer_delay,
        )


@protocols.register
class StreamingDiLoCo(Protocol):
    """Exchange a fragment of the layers at a time, in 4 bits, while the next inner steps are done.

    Source: Streaming DiLoCo (arXiv 2501.18512): each fragment once in H steps, overlap of tau steps, mixing alpha.
    """

    kind: Literal["streaming_diloco"] = "streaming_diloco"
    inner_steps: int = Field(
        default=10, ge=1, le=100_000, description="inner steps between two fragments; times their number it is H"
    )
    fragments: Layers = Field(default=Layers(), description="how the layers are dealt over fragments")
    overlap_steps: OverlapSteps = Field(
        default=5, description="tau: inner steps done while an exchange is under way; `none` waits for it"
    )
    mixing: Share = Field(default=0.5, ge=0, lt=1, description="alpha: share of own weights that stays at merging")
    values: Values = Field(default=Fp4(), description="how a value is written")
    outer: Outer = Field(default=Nesterov(lr=0.4), description="how the combined pseudo-gradient moves theta")

    def plan(self) -> Plan:
        """Dense fragments; own weights outlive the exchange."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=Dense(),
            values=self.values,
            outer=self.outer,
            fragments=self.fragments,
            overlap_steps=None if self.overlap_steps == "none" else self.overlap_steps,
            mixing=self.mixing,
        )


@protocols.register
class AsyncDiLoCo(Protocol):
    """Nobody waits for the slow: updates go into a buffer when they are done and count less the staler they are.

    Source: FedBuff (arXiv 2106.06639) for the buffer and the weight (1 + s)^-0.5, asynchronous local SGD (arXiv
    2401.09135). A window of the timeline collects what has arrived.
    """

    kind: Literal["async_diloco"] = "async_diloco"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H of an update, however long")
    buffer: int = Field(default=4, ge=1, le=100_000, description="updates that make an outer step")
    staleness_power: float = Field(default=0.5, ge=0, le=10, description="p of the weight (1 + s)^-p, s steps behind")
    values: Values = Field(default=Fp32(), description="how a value is written")
    outer: Outer = Field(default=Nesterov(), description="how the combined pseudo-gradient moves theta")

    def plan(self) -> Plan:
        """Dense pseudo-gradients, buffered."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=Dense(),
            values=self.values,
            outer=self.outer,
            asynchrony=Asynchrony(self.buffer, self.staleness_power),
        )
