"""What may be done to the payloads of a round before they are combined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from covsim.protocol.base import Decoded, Layout
from covsim.registry import Part, Registry


class PreAggregator(Part):
    """Something done to the payloads of a round before they are combined."""

    @abstractmethod
    def prepare(self, payloads: Sequence[Decoded], layout: Layout, draw: np.random.Generator) -> Sequence[Decoded]:
        """The payloads that take the place of one or more; `draw` is the round's own stream, the same at every node."""

    @abstractmethod
    def limit(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """The norms to which a payload beside one or more is limited, float64: [T] by tensor, or [] as a whole.

        None where payloads are mixed: from there on none is anybody's own.
        """

    @abstractmethod
    def num_left(self, num: int) -> int:
        """How many payloads take the place of `num`."""


pre_aggregators: Registry[PreAggregator] = Registry("pre-aggregator")
