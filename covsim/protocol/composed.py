"""A protocol put together by hand: every part of the plan is a setting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from covsim.choice import OneOf
from covsim.protocol.compressors import Compressor, TopK, compressors
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.fragments import Fragments, Whole, fragment_rules
from covsim.protocol.indices import IndexCoding
from covsim.protocol.outer import OuterOptimizer, Sgd, outer_optimizers
from covsim.protocol.plan import OuterDelay, OverlapSteps, Plan, Protocol, protocols
from covsim.protocol.values import BinMean, ValueFormat, value_formats
from covsim.protocol.wire import Packing
from covsim.units import Share


@protocols.register
class Composed(Protocol):
    """Put a protocol together from its parts; the defaults are SparseLoCo's.

    Source: none of its own; each part names its own.
    """

    kind: Literal["composed"] = "composed"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H between two exchanges")
    compressor: Annotated[Compressor, OneOf(compressors, default="topk", bare="kind")] = Field(
        default=TopK(), description="which values are sent"
    )
    values: Annotated[ValueFormat, OneOf(value_formats, default="bin_mean", bare="kind")] = Field(
        default=BinMean(), description="how a value is written"
    )
    indices: IndexCoding = Field(default="bits12", description="how positions in chunks are written")
    packing: Packing = Field(default="packed", description="codes share bytes, or have one each")
    error_feedback: ErrorFeedback | Literal["none"] = Field(
        default=ErrorFeedback(), description="what happens to what compression leaves out; `none` drops it"
    )
    outer: Annotated[OuterOptimizer, OneOf(outer_optimizers, default="sgd")] = Field(
        default=Sgd(), description="how the combined pseudo-gradient moves theta"
    )
    fragments: Annotated[Fragments, OneOf(fragment_rules, default="layers", bare="kind")] = Field(
        default=Whole(), description="which part of theta a round exchanges"
    )
    overlap_steps: OverlapSteps = Field(
        default="none", description="inner steps done while an exchange is under way; `none` waits for it"
    )
    outer_delay: OuterDelay = 0
    mixing: Share = Field(default=0.0, ge=0, lt=1, description="share of a peer's own weights that stays at merging")

    def plan(self) -> Plan:
        """The parts as they are."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=self.compressor,
            values=self.values,
            indices=self.indices,
            packing=self.packing,
            error_feedback=None if self.error_feedback == "none" else self.error_feedback,
            outer=self.outer,
            fragments=self.fragments,
            overlap_steps=None if self.overlap_steps == "none" else self.overlap_steps,
            outer_delay=self.outer_delay,
            mixing=self.mixing,
        )
