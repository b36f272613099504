"""What a protocol is: a value that says what is exchanged, how it is sent, and how theta moves.

    Delta_r = theta - theta_r(H)                            H inner steps from theta, or from weights of one's own
    a_r     = decay e_r + Delta_r                           error feedback, if there is any
    hatD_r  = decode(encode(a_r)), e_r' = a_r - hatD_r      compressor, value format, index coding
    theta'  = outer step with combine(hatD_r over r)        the aggregator is a section of its own
    own'    = mixing own + (1 - mixing) theta'              only where own weights outlive an exchange

Everything that differs between SparseLoCo, DiLoCo, DeMo and their kin is a field of `Plan`; the rest of covsim reads no
other. A protocol is a part that makes one: its settings are those that its authors would turn.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from covsim.protocol.base import Shape
from covsim.protocol.codec import payload_bytes
from covsim.protocol.compressors import Compressor
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.fragments import Fragments, Whole
from covsim.protocol.indices import IndexCoding
from covsim.protocol.outer import OuterOptimizer
from covsim.protocol.values import ValueFormat
from covsim.protocol.wire import Packing
from covsim.registry import Part, Registry


@dataclass(frozen=True)
class Asynchrony:
    """Nobody waits: peers train as long as they need, and what they send counts less the staler it is.

    Attributes:
        buffer: payloads that must have come together before an outer step is taken.
        staleness_power: p; a payload s outer steps behind is multiplied by (1 + s)^-p.
    """

    buffer: int
    staleness_power: float

    def discount(self, staleness: int) -> float:
        """What a payload is multiplied by whose training began so many outer steps ago."""
        return float((1 + max(0, staleness)) ** -self.staleness_power)


@dataclass(frozen=True)
class Plan:
    """What a protocol asks of everybody.

    Attributes:
        inner_steps: H, inner steps between two exchanges.
        compressor, values, indices, packing: how a vector becomes bytes.
        outer: how the combined pseudo-gradient moves theta.
        error_feedback: what happens to what compression leaves out; None drops it.
        sends: the pseudo-gradient of H optimizer steps, or the plain gradient of one batch.
        outer_rate_twice: the historical double application of the outer rate, when accumulating and in the step.
        fragments: which part of theta a round exchanges.
        overlap_steps: inner steps of the next round that are done while an exchange is under way; None waits for it.
        outer_delay: rounds by which every outer step is taken later than it could be; exchanges run beside training.
        mixing: share of a peer's own weights that stays when they meet the new theta.
        asynchrony: None where all peers keep step with the windows.
        stays_home: True if nothing travels, for there is one machine.
    """

    inner_steps: int
    compressor: Compressor
    values: ValueFormat
    outer: OuterOptimizer
    indices: IndexCoding = "bits12"
    packing: Packing = "packed"
    error_feedback: ErrorFeedback | None = None
    sends: Literal["pseudo_gradient", "gradient"] = "pseudo_gradient"
    outer_rate_twice: bool = False
    fragments: Fragments = field(default_factory=Whole)
    overlap_steps: int | None = None
    outer_delay: int = 0
    mixing: float = 0.0
    asynchrony: Asynchrony | None = None
    stays_home: bool = False

    @property
    def reducible(self) -> bool:
        """True if payloads can be added up value by value on their way: dense, and plain floating-point numbers.

        The sum of sparse payloads has other positions than they, that of quantized ones other levels.
        """
        return self.compressor.kind == "dense" and self.values.kind in ("fp16", "fp32")

    def __post_init__(self) -> None:
        """Raise ValueError for a delay of what cannot be delayed by whole rounds."""
        if self.outer_delay and (self.keeps_own_weights or self.asynchrony is not None):
            raise ValueError(
                "outer_delay is for exchanges of all of theta after which a peer starts from theta again; "
                "leave out fragments, overlap_steps and mixing"
            )

    @property
    def in_background(self) -> bool:
        """True if an exchange is under way while a peer trains."""
        return self.overlap_steps is not None or self.outer_delay > 0

    @property
    def keeps_own_weights(self) -> bool:
        """True if a peer's weights outlive an exchange: parts of them are not exchanged, or not in time, or stay."""
        return not self.fragments.whole or self.overlap_steps is not None or self.mixing > 0

    def payload_bytes(self, groups: Iterable[tuple[int, Shape]]) -> float:
        """Bytes of a regular payload, for `count` tensors of each `shape`, by formula, at any size.

        With fragments it is the mean over a cycle. Raises ValueError for shapes that cannot be cut.
        """
        if self.stays_home:
            return 0.0
        return self.fragments.mean_bytes(tuple(groups), self._bytes_of)

    def _bytes_of(self, groups: Iterable[tuple[int, Shape]]) -> float:
        return payload_bytes(groups, self.compressor, self.values, self.indices, self.packing)


OverlapSteps = Annotated[int, Field(ge=0, le=100_000)] | Literal["none"]
"""A setting; a null would stand for the default."""

OuterDelay = Annotated[
    int,
    Field(
        ge=0,
        le=1000,
        description="rounds by which an outer step is taken later: exchanges then run beside the training of so many",
    ),
]


class Protocol(Part):
    """What is exchanged after how many inner steps, and how."""

    kind: str

    @abstractmethod
    def plan(self) -> Plan:
        """The protocol as a plan that everybody can follow."""


protocols: Registry[Protocol] = Registry("protocol")
