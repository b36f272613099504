"""What every protocol offers: a codec between rows of numbers and payload bytes, and the size of a regular payload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from covsim.protocol.outer import OuterOptimizer
from covsim.protocol.wire import InvalidPayload
from covsim.registry import Part, Registry

__all__ = ["Codec", "Decoded", "InvalidPayload", "Layout", "Protocol", "Shape", "num_elements", "protocols"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The tensors that lie one after the other in the flat parameter vector theta [N]."""

    shapes: tuple[Shape, ...]

    @property
    def num_parameters(self) -> int:
        """N."""
        return sum(num_elements(shape) for shape in self.shapes)


def num_elements(shape: Shape) -> int:
    """Elements of a tensor of this shape."""
    product = 1
    for size in shape:
        product *= size
    return product


@dataclass(frozen=True, eq=False)
class Decoded:
    """A payload read back: n values and where they belong in theta. Never mutated, for many nodes share it.

    Attributes:
        index: positions in theta [n], int64, each at most once.
        value: what the payload says there [n], float32.
        tensor_bounds: T + 1 offsets; the values of tensor t are `value[tensor_bounds[t]:tensor_bounds[t + 1]]`.
        tensor_of: the tensor of each value [n], int64.
        norms: Euclidean norm of each tensor's values [T], float64.
        kept_share: share of its chunk that was sent with each value [n], float32; 1 where the chunk went whole.
    """

    index: Tensor
    value: Tensor
    tensor_bounds: tuple[int, ...]
    tensor_of: Tensor
    norms: Tensor
    kept_share: Tensor

    def scaled(self, factors: Tensor) -> Decoded:
        """The same payload with the values of tensor t multiplied by `factors[t]`, float64 [T]."""
        return replace(self, value=self.value * factors.float()[self.tensor_of], norms=self.norms * factors)


class Codec(ABC):
    """Turns rows of accumulated pseudo-gradients into payloads, and a payload back into values.

    Attributes:
        layout: the tensors of theta [N].
        regular_bytes: length of every payload that this codec writes.
    """

    layout: Layout
    regular_bytes: int

    @property
    def num_parameters(self) -> int:
        """N."""
        return self.layout.num_parameters

    @abstractmethod
    def compress(self, accumulated: Tensor) -> tuple[list[bytes], Tensor]:
        """Encode rows [P, N], float32; also returns what their receivers will decode, dense [P, N].

        A row's result is bit-equal whoever shares the batch.
        """

    @abstractmethod
    def decode(self, payload: bytes) -> Decoded:
        """Read a payload. Raises InvalidPayload with one reason, and allocates no more than a regular payload needs."""


class Protocol(Part):
    """What is exchanged after how many inner steps, and how.

    Attributes:
        inner_steps: H, inner steps between two exchanges.
        error_decay: beta, what the error buffer keeps per round.
        outer: how the combined pseudo-gradient moves theta.
    """

    inner_steps: int
    error_decay: float
    outer: OuterOptimizer

    @abstractmethod
    def codec(self, shapes: Sequence[Shape]) -> Codec:
        """The codec for a model of these tensors. Raises ValueError for shapes that the protocol cannot cut."""

    @abstractmethod
    def payload_bytes(self, groups: Iterable[tuple[int, Shape]]) -> int:
        """Bytes of a regular payload for `count` tensors of each `shape`, by formula, at any size."""

    def regular_bytes(self, shapes: Iterable[Shape]) -> int:
        """Bytes of a regular payload for a model of these tensors."""
        return self.payload_bytes((1, shape) for shape in shapes)


protocols: Registry[Protocol] = Registry("protocol")
