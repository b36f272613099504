"""Updates are lazy, computed once, and add up like the vectors that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from covsim.learning.update import Update


def of(*values: float) -> Update:
    return Update(lambda: torch.tensor(values))


def test_arithmetic_is_that_of_vectors() -> None:
    u, v = of(1.0, -2.0), of(0.5, 4.0)
    assert (-u).value().tolist() == [-1.0, 2.0]
    assert (3 * u).value().tolist() == [3.0, -6.0]
    assert (u * 0.5).value().tolist() == [0.5, -1.0]
    assert (u + v).value().tolist() == [1.5, 2.0]
    assert (u - v).value().tolist() == [0.5, -6.0]
    assert u.map(torch.abs).value().tolist() == [1.0, 2.0]
    assert of(3.0, 4.0).norm().value() == 5.0


def test_a_tensor_can_stand_for_itself() -> None:
    value = torch.tensor([1.0, 2.0])
    assert Update.of(value).value() is value
    assert (2 * Update.of(value)).value().tolist() == [2.0, 4.0]


@pytest.mark.usefixtures("threads")
def test_a_norm_asks_for_its_value_where_all_threads_may_be_used() -> None:
    torch.set_num_threads(2)
    seen: list[int] = []

    def compute() -> Tensor:
        seen.append(torch.get_num_threads())
        return torch.ones(4)

    assert Update(compute).norm().value() == 2.0
    assert seen == [2]


def test_everything_is_computed_late_and_once() -> None:
    calls: list[str] = []

    def base() -> Tensor:
        calls.append("base")
        return torch.ones(4)

    def clip(value: Tensor) -> Tensor:
        calls.append("clip")
        return value.clamp(max=0.5)

    clipped = Update(base).map(clip)
    norm = (clipped + clipped).norm()
    assert calls == []
    assert norm.value() == norm.value() == 2.0
    clipped.value()
    assert calls == ["base", "clip"]
