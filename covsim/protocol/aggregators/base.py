"""What an aggregator is: a part that turns the payloads of a round into one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from covsim.choice import OneOf
from covsim.protocol.aggregators import clipping, mixing  # noqa: F401  # register what may come before
from covsim.protocol.aggregators.pre import PreAggregator, pre_aggregators
from covsim.protocol.base import Decoded, Layout
from covsim.registry import Part, Registry


class Aggregator(Part):
    """A way to combine the payloads of a round."""

    before: tuple[Annotated[PreAggregator, OneOf(pre_aggregators, bare="kind")], ...] = Field(
        default=(), max_length=8, description="what is done to the payloads first, in this order"
    )

    @abstractmethod
    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The combined pseudo-gradient [N] of one or more payloads; their order may touch the last bit.

        What `before` names has been done to them.
        """

    @abstractmethod
    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The norms to which a payload beside these would be limited, float64: [T] by tensor, or [] as a whole.

        None where nothing is limited.
        """


aggregators: Registry[Aggregator] = Registry("aggregator")
