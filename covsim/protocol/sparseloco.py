"""SparseLoCo: sparse, quantized pseudo-gradients with error feedback (arXiv 2508.15706), as Covenant-72B used it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from covsim.choice import OneOf
from covsim.protocol.chunks import MAX_CHUNK, MAX_RUN, ChunkLayout
from covsim.protocol.compressors import TopK
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.indices import IndexCoding
from covsim.protocol.outer import OuterOptimizer, Sgd, outer_optimizers
from covsim.protocol.plan import OuterDelay, Plan, Protocol, protocols
from covsim.protocol.values import BinMean, Sign, ValueFormat
from covsim.protocol.wire import Packing

_PAPER_RATES = {"kind": "steps", "at": {"0": 1.0, "3667": 0.65}}  # from about 110,000 inner steps on
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"outer": {"kind": "sgd", "lr": 1.0, "schedule": _PAPER_RATES}},
    "v2.1.0": {"packing": "byte_per_value", "outer": {"kind": "sgd", "lr": 1.0}},
    "v2.1.28": {"packing": "byte_per_value", "outer": {"kind": "sgd", "lr": 0.4}},
}
"""What the Covenant-72B report states, and what two releases of one-covenant/templar have set."""


@protocols.register
class SparseLoCo(Protocol):
    """Exchange the largest values of every chunk, in a few bits, after H inner steps, with error feedback.

    Source: SparseLoCo (arXiv 2508.15706), Covenant-72B (arXiv 2603.08163), one-covenant/templar.
    """

    kind: Literal["sparseloco"] = "sparseloco"
    preset: Literal["paper", "v2.1.0", "v2.1.28"] | None = Field(
        default=None, description="fills in what the report or a release has set; keys beside it replace single values"
    )
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H between two exchanges")
    k: int = Field(default=64, description="values sent of each chunk, an even number; smaller chunks are sent whole")
    layout: ChunkLayout = Field(default="blocks", description="how tensors are cut; blocks of 64 x 64 as deployed")
    bits: Literal[1, 2, 4, 8] = Field(default=2, description="bits of a sent value; 1 sends signs")
    group: Literal["tensor", "chunk"] = Field(default="tensor", description="what shares one table of values")
    indices: IndexCoding = Field(default="bits12", description="how positions in chunks are written")
    packing: Packing = Field(default="packed", description="codes share bytes, or have one each as once deployed")
    error_decay: float = Field(default=0.95, ge=0, le=1, description="beta: what the error buffer keeps per round")
    error_commit: Literal["compressed", "landed"] = Field(
        default="compressed", description="when what was sent leaves the error buffer"
    )
    error_uncounted: Literal["kept", "zeroed"] = Field(
        default="kept", description="the error buffer after a round of which nothing entered theta"
    )
    outer: Annotated[OuterOptimizer, OneOf(outer_optimizers, default="sgd")] = Field(
        default=Sgd(), description="how the combined pseudo-gradient moves theta"
    )
    outer_delay: OuterDelay = 0
    outer_rate_twice: bool = Field(
        default=False,
        description="until 2025-11-03 the outer rate was also applied when accumulating: its square was in force",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        """Fill in what the preset says; leave anything malformed to the fields' own checks."""
        name = given.get("preset") if isinstance(given, dict) else None
        return {**PRESETS[name], **given} if isinstance(name, str) and name in PRESETS else given

    @model_validator(mode="after")
    def _k_fits_a_chunk(self) -> Self:
        largest = MAX_CHUNK if self.layout == "rows" else MAX_RUN
        if not 2 <= self.k <= largest or self.k % 2:
            raise ValueError(f"k must be an even number from 2 to {largest}, the size of a chunk; it is {self.k}")
        return self

    def plan(self) -> Plan:
        """Top-k with bin means, error feedback, and an outer step over what was gathered."""
        return Plan(
            inner_steps=self.inner_steps,
            compressor=TopK(k=self.k, layout=self.layout),
            values=self._values(),
            indices=self.indices,
            packing=self.packing,
            error_feedback=ErrorFeedback(
                decay=self.error_decay, commit=self.error_commit, uncounted=self.error_uncounted
            ),
            outer=self.outer,
            outer_delay=self.outer_delay,
            outer_rate_twice=self.outer_rate_twice,
        )

    def _values(self) -> ValueFormat:
        return Sign(group=self.group) if self.bits == 1 else BinMean(bits=self.bits, group=self.group)
