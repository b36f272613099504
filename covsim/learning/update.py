"""A vector that may not have been computed yet, with the arithmetic that behaviors need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from covsim.learning.workers import side_by_side

Result = TypeVar("Result")


class Scalar:
    """A number taken from an update, computed when it is asked for."""

    def __init__(self, compute: Callable[[], float]) -> None:
        self._compute = compute
        self._value: float | None = None

    def value(self) -> float:
        """The number; computed once."""
        if self._value is None:
            self._value = self._compute()
        return self._value


class Update:
    """A lazy flat vector [N]; expressions of updates are updates, and none is computed before its value is asked for.

    An update keeps what it was made from, so that a checkpoint finds every value that may still be asked for.
    """

    __slots__ = ("__weakref__", "_compute", "_value")

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute = compute
        self._value: Tensor | None = None

    @staticmethod
    def of(value: Tensor) -> Update:
        """The update whose value [N] is there already."""
        return Update(lambda: value)

    def value(self) -> Tensor:
        """The vector [N]; computed once, and not to be changed in place."""
        if self._value is None:
            self._value = self._compute()
        return self._value

    @staticmethod
    def combined(updates: Sequence[Update], function: Callable[[Tensor], Tensor]) -> Update:
        """The update `function(stack)`, for a function from [K, N] to [N].

        Raises ValueError for no updates; and when its value is asked for, if the function returns another shape.
        """
        if not updates:
            raise ValueError("there are no updates to combine")

        def compute() -> Tensor:
            return _applied(function, _stacked([update.value() for update in updates]))

        return Update(compute)

    def map(self, function: Callable[[Tensor], Tensor]) -> Update:
        """The update `function(value)`, for a function from [N] to [N] that leaves its argument alone.

        When its value is asked for: ValueError if the function returns another shape.
        """
        return Update(lambda: _applied(function, self.value()))

    def norm(self) -> Scalar:
        """The Euclidean norm."""

        def compute() -> float:
            value = self.value()  # here and not by a worker: it may be all of the training
            if not isinstance(value, Tensor):
                return float(value.norm())
            return _on_one_thread(lambda: float(value.norm()))

        return Scalar(compute)

    def __neg__(self) -> Update:
        return Update(lambda: -self.value())

    def __mul__(self, factor: float) -> Update:
        return Update(lambda: factor * self.value())

    def __rmul__(self, factor: float) -> Update:
        return self * factor

    def __add__(self, other: Update) -> Update:
        return Update(lambda: self.value() + other.value())

    def __sub__(self, other: Update) -> Update:
        return Update(lambda: self.value() - other.value())


def _stacked(values: Sequence[Any]) -> Any:
    """Vectors [N] as rows [K, N]; what stands for vectors stacks itself."""
    return torch.stack(list(values)) if isinstance(values[0], Tensor) else values[0].stack(values)


def _applied(function: Callable[[Any], Any], argument: Any) -> Tensor:
    """A script's function of one or more vectors [..., N], which must give one [N].

    What stands for vectors says itself what becomes of it.
    """
    if not isinstance(argument, Tensor):
        return cast(Tensor, argument.applied(function))
    value: Tensor = _on_one_thread(lambda: function(argument))
    if value.shape != argument.shape[-1:]:
        raise ValueError(
            f"a function of updates of {argument.shape[-1]} numbers must give as many; "
            f"it gave a tensor of shape {tuple(value.shape)}"
        )
    return value


def _on_one_thread(function: Callable[[], Result]) -> Result:
    """Call on one thread: torch cuts a long sum by thread, and the last bit would tell how many there are."""
    return side_by_side(lambda _: function(), 1, 1)[0]
