"""Theta moves, and equal histories share it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from covsim.protocol.aggregators import Mean
from covsim.protocol.base import Decoded, Layout
from covsim.protocol.lineage import Lineages, Submission
from covsim.protocol.outer import Sgd, outer_optimizers
from covsim.protocol.sparseloco import SparseLoCo

CODEC = SparseLoCo().codec([(32, 32), (32,)])


class CountedStep:
    """Mean, then SGD; counts how often it is asked and remembers the depths."""

    def __init__(self) -> None:
        self.depths: list[int] = []

    def __call__(self, theta: Tensor, payloads: Sequence[Decoded], depth: int) -> Tensor:
        self.depths.append(depth)
        return Sgd(lr=0.5).step(theta, Mean().combine(payloads, CODEC.layout), depth)


def submissions(*uids: int, seed: int = 1) -> list[Submission]:
    """One payload per uid; a seed and a uid give the same payload again."""
    return [(uid, f"{seed}-{uid}", CODEC.decode(CODEC.compress(_row(uid, seed))[0][0])) for uid in uids]


def _row(uid: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(1000 * seed + uid)
    return torch.randn(1, CODEC.num_parameters, generator=draw)


def lineages(sharing: bool = True) -> tuple[Lineages, CountedStep]:
    step = CountedStep()
    return Lineages(torch.zeros(CODEC.num_parameters), step, sharing), step


def test_equal_histories_are_one_object_in_whatever_order_payloads_came() -> None:
    histories, step = lineages()
    first = histories.child(histories.root, submissions(3, 1, 2))
    second = histories.child(histories.root, submissions(2, 3, 1))
    assert first is second
    assert step.depths == [0]
    assert histories.child(first, submissions(1)) is histories.child(second, submissions(1))
    assert step.depths == [0, 1]


def test_histories_differ_by_parent_uid_and_payload() -> None:
    histories, _ = lineages()
    root = histories.root
    children = [
        histories.child(root, submissions(1, 2)),
        histories.child(root, submissions(1)),
        histories.child(root, submissions(1, 3)),
        histories.child(root, [(3, sha256, decoded) for _, sha256, decoded in submissions(1)]),
        histories.child(root, submissions(1, 2, seed=2)),
        histories.child(histories.child(root, submissions(5)), submissions(1, 2)),
    ]
    assert len({child.key for child in children} | {root.key}) == 7
    assert [child.depth for child in children] == [1, 1, 1, 1, 1, 2]


def test_without_sharing_equal_histories_are_computed_apart_and_equal() -> None:
    """The check that sharing hides nothing: same keys, other objects, the same bits."""
    shared, _ = lineages()
    apart, step = lineages(sharing=False)
    one, other, reference = apart.root, apart.root, shared.root
    for turn in range(5):
        uids = [uid for uid in range(12) if (uid + turn) % 3]
        one = apart.child(one, submissions(*uids, seed=turn))
        other = apart.child(other, submissions(*reversed(uids), seed=turn))
        reference = shared.child(reference, submissions(*uids, seed=turn))
        assert one is not other
        assert one.key == other.key == reference.key
        assert torch.equal(one.theta, other.theta)
        assert torch.equal(one.theta, reference.theta)
    assert len(step.depths) == 10


def test_the_parents_theta_is_untouched() -> None:
    histories, _ = lineages()
    histories.child(histories.root, submissions(1, 2))
    assert torch.equal(histories.root.theta, torch.zeros(CODEC.num_parameters))


def test_lineages_that_nobody_holds_are_freed() -> None:
    histories, step = lineages()
    child = histories.child(histories.root, submissions(1))
    grandchild = histories.child(child, submissions(2))
    assert len(histories) == 2
    del child
    gc.collect()
    assert len(histories) == 1
    again = histories.child(histories.root, submissions(1))
    assert histories.child(again, submissions(2)) is grandchild
    assert step.depths == [0, 1, 0]


def test_a_root_is_known_by_its_theta() -> None:
    step = CountedStep()
    assert Lineages(torch.zeros(4), step).root.key == Lineages(torch.zeros(4), step).root.key
    assert Lineages(torch.zeros(4), step).root.key != Lineages(torch.ones(4), step).root.key


def test_an_empty_gather_has_no_child() -> None:
    histories, _ = lineages()
    with pytest.raises(AssertionError, match="brought nothing"):
        histories.child(histories.root, [])


def test_a_uid_has_one_payload() -> None:
    histories, _ = lineages()
    with pytest.raises(AssertionError, match="one payload"):
        histories.child(histories.root, submissions(1, 2) + submissions(2, seed=2))


def test_sgd_moves_against_the_pseudo_gradient() -> None:
    theta, delta = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    assert Sgd(lr=0.5).step(theta, delta, round=3).tolist() == [0.75, 2.5]
    assert Sgd(lr=0.5).learning_rate(3) == 0.5
    assert theta.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", list(outer_optimizers))
def test_every_outer_optimizer_returns_a_new_theta(kind: str) -> None:
    optimizer = outer_optimizers[kind].model_validate({"kind": kind})
    theta = torch.ones(8)
    moved = optimizer.step(theta, torch.full((8,), 0.1), round=0)
    assert (moved < theta).all()
    assert torch.equal(theta, torch.ones(8))


def test_layout_counts_parameters() -> None:
    assert Layout(((3, 4), (5,))).num_parameters == 17
