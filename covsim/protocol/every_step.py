"""Protocols that talk after every step: data parallel, DeMo and SPARTA; and the one that has nobody to talk to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from covsim.choice import OneOf
from covsim.protocol.compressors import Dct, Dense
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.fragments import RandomShare
from covsim.protocol.indices import IndexCoding
from covsim.protocol.outer import Adam, OuterOptimizer, Sgd, SignSgd, outer_optimizers
from covsim.protocol.plan import Plan, Protocol, protocols
from covsim.protocol.values import Fp16, Fp32, ValueFormat, value_formats
from covsim.schedules import Cosine
from covsim.units import Share

Values = Annotated[ValueFormat, OneOf(value_formats, default="fp32", bare="kind")]


@protocols.register
class DataParallel(Protocol):
    """Exchange dense gradients after every step and step with AdamW: what the others are measured against.

    Source: synchronous data parallelism with AdamW (arXiv 1711.05101). There is no inner optimizer.
    """

    kind: Literal["data_parallel"] = "data_parallel"
    values: Values = Field(default=Fp16(), description="how a value is written")
    outer: Annotated[OuterOptimizer, OneOf(outer_optimizers, default="adam")] = Field(
        default=Adam(lr=4e-3, weight_decay=0.1, clip_norm=1.0, schedule=Cosine()),
        description="the optimizer of everybody's mean gradient",
    )

    def plan(self) -> Plan:
        """One gradient, dense."""
        return Plan(inner_steps=1, compressor=Dense(), values=self.values, outer=self.outer, sends="gradient")


@protocols.register
class DeMo(Protocol):
    """Exchange the largest DCT coefficients of the momentum after every step, and step by their signs.

    Source: DeMo (arXiv 2411.19870), algorithm 1: the momentum m' = decay m + g is the error buffer, for what is sent
    leaves it. There is no inner optimizer.
    """

    kind: Literal["demo"] = "demo"
    k: int = Field(default=32, ge=1, le=4096, description="coefficients sent of each chunk of 64 x 64")
    error_decay: float = Field(default=0.999, ge=0, le=1, description="what the decoupled momentum keeps per step")
    values: Values = Field(default=Fp32(), description="how a coefficient is written")
    indices: IndexCoding = Field(default="int64", description="how positions are written; 8 bytes in the paper's code")
    outer: Annotated[OuterOptimizer, OneOf(outer_optimizers, default="sign_sgd")] = Field(
        default=SignSgd(lr=1e-3, schedule=Cosine()), description="the step that follows the combined coefficients"
    )

    def plan(self) -> Plan:
        """Top-k of the transformed momentum; what is sent leaves it."""
        return Plan(
            inner_steps=1,
            compressor=Dct(k=self.k),
            values=self.values,
            indices=self.indices,
            error_feedback=ErrorFeedback(decay=self.error_decay),
            outer=self.outer,
            sends="gradient",
        )


@protocols.register
class Sparta(Protocol):
    """Average a random share of the parameters after every step; between two averages peers drift apart.

    Source: SPARTA (Exo Labs, exo-explore/gym). Theta holds each coordinate as it was last averaged.
    """

    kind: Literal["sparta"] = "sparta"
    inner_steps: int = Field(default=1, ge=1, le=100_000, description="inner steps between two exchanges")
    share: Annotated[Share, Field(gt=0, le=1)] = Field(default=0.005, description="part of theta averaged each time")
    values: Values = Field(default=Fp32(), description="how a value is written")

    def plan(self) -> Plan:
        """theta'[c] = mean(theta_r[c]) at the coordinates c of the round, which peers then take over."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=Dense(),
            values=self.values,
            outer=Sgd(lr=1.0),
            fragments=RandomShare(share=self.share),
        )


@protocols.register
class Centralized(Protocol):
    """One machine with all the data and nobody to wait for: the inner optimizer alone, and no byte travels.

    Source: plain training. The scenario has one peer; its batch is what all peers of another protocol see together.
    """

    kind: Literal["centralized"] = "centralized"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps between two measurements")

    def plan(self) -> Plan:
        """The machine's weights become theta as they are, and are charged no bytes."""
        return Plan(inner_steps=self.inner_steps, compressor=Dense(), values=Fp32(), outer=Sgd(lr=1.0), stays_home=True)
