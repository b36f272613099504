"""What a payload is to the rest of the room: decoded values, and a codec between rows of numbers and bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from covsim.protocol.claims import Claims
from covsim.protocol.wire import InvalidPayload

__all__ = ["Claims", "Codec", "Decoded", "InvalidPayload", "Layout", "Shape", "num_elements"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The tensors that lie one after the other in the flat parameter vector theta [N]."""

    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]]) -> Layout:
        """The layout of tensors of these shapes."""
        return cls(tuple(tuple(shape) for shape in shapes))

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
        claims: what the sender says about the payload.
        missing: numbers of the tensors that a partial payload leaves out.
        weight: what the gather list in force says the sender is worth; 0 unless the aggregate asks for it.
    """

    index: Tensor
    value: Tensor
    tensor_bounds: tuple[int, ...]
    tensor_of: Tensor
    norms: Tensor
    kept_share: Tensor
    claims: Claims = field(default_factory=Claims)
    missing: tuple[int, ...] = ()
    weight: float = 0.0

    def scaled(self, factors: Tensor) -> Decoded:
        """The same payload with the values of tensor t multiplied by `factors[t]`, float64 [T]."""
        return replace(self, value=self.value * factors.float()[self.tensor_of], norms=self.norms * factors)


class Codec(ABC):
    """Turns rows of accumulated pseudo-gradients into payloads, and a payload back into values.

    Attributes:
        layout: the tensors of theta [N].
        regular_bytes: length of a regular payload by formula; every payload has it, except where what is sent decides.
    """

    layout: Layout
    regular_bytes: int

    @property
    def num_parameters(self) -> int:
        """N."""
        return self.layout.num_parameters

    @abstractmethod
    def compress(self, accumulated: Tensor, claims: Sequence[Claims] | None = None) -> tuple[list[bytes], Tensor]:
        """Encode rows [P, N], float32; also returns what their receivers will apply, dense and in theta's space [P, N].

        A row's result is bit-equal whoever shares the batch. `claims` has one entry per row; none are made by default.
        """

    @abstractmethod
    def without_tensors(self, payload: bytes, tensors: Collection[int]) -> bytes:
        """A partial payload: a whole one without the tensors of these numbers.

        Raises InvalidPayload, and ValueError if nothing would be left or there are no such tensors.
        """

    @abstractmethod
    def decode(self, payload: bytes, allow_missing: bool = False) -> Decoded:
        """Read a payload. Raises InvalidPayload with one reason, and allocates no more than a regular payload needs.

        A partial payload is refused unless `allow_missing`; what is missing from it contributes nothing.
        """

    @abstractmethod
    def to_theta(self, delta: Tensor) -> Tensor:
        """From the space in which payloads' values live to theta's [N]: the identity, or an inverse transform."""
