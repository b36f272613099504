"""Equal histories share one theta, and payloads wait in a buffer until it is full."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from covsim.protocol.aggregators import Mean
from covsim.protocol.base import Decoded, Layout
from covsim.protocol.lineage import Lineage, Lineages, Submission, root_lineage
from covsim.protocol.outer import Nesterov, OuterState

LAYOUT = Layout(((32, 32), (32,)))
N = LAYOUT.num_parameters
OUTER = Nesterov(lr=0.5)


class CountedStep:
    """Mean, then Nesterov; remembers the depth, the round and the payloads of each call."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.rounds: list[int] = []
        self.payloads: list[tuple[Decoded, ...]] = []

    def __call__(self, lineage: Lineage, payloads: Sequence[Decoded], round: int) -> tuple[Tensor, OuterState]:
        self.depths.append(lineage.depth)
        self.rounds.append(round)
        self.payloads.append(tuple(payloads))
        return OUTER.step(lineage.theta, lineage.outer, Mean().combine(payloads, LAYOUT), 0.5)


def submissions(*uids: int, seed: int = 1) -> list[Submission]:
    """One payload per uid; a seed and a uid give the same payload again."""
    return [(uid, f"{seed}-{uid}", _payload(uid, seed)) for uid in uids]


def _payload(uid: int, seed: int) -> Decoded:
    """A hundred values of the matrix and all of the vector."""
    draw = torch.Generator().manual_seed(1000 * seed + uid)
    index = torch.cat([torch.randperm(1024, generator=draw)[:100].sort().values, torch.arange(1024, N)])
    value = torch.randn(132, generator=draw)
    return Decoded(
        index,
        value,
        tensor_bounds=(0, 100, 132),
        tensor_of=torch.tensor([0] * 100 + [1] * 32),
        norms=torch.stack([value[:100].double().norm(), value[100:].double().norm()]),
        kept_share=torch.ones(132),
    )


def root() -> Lineage:
    theta = torch.zeros(N)
    return root_lineage(theta, OUTER.initial(theta))


def lineages(buffer: int = 1, sharing: bool = True) -> tuple[Lineages, CountedStep]:
    step = CountedStep()
    return Lineages(root(), step, buffer, sharing), step


def assert_equal_bits(one: Lineage, other: Lineage) -> None:
    assert one.key == other.key
    assert torch.equal(one.theta, other.theta)
    assert all(torch.equal(*pair) for pair in zip(one.outer, other.outer, strict=True))


def test_equal_histories_are_one_object_in_whatever_order_payloads_came() -> None:
    histories, step = lineages()
    first = histories.child(histories.root, submissions(3, 1, 2), 0)
    second = histories.child(histories.root, submissions(2, 3, 1), 0)
    assert first is second
    assert step.depths == [0]
    assert histories.child(first, submissions(1), 1) is histories.child(second, submissions(1), 1)
    assert step.depths == [0, 1]


def test_payloads_are_combined_in_the_order_of_their_uids() -> None:
    histories, step = lineages()
    given = submissions(3, 1, 2)
    histories.child(histories.root, given, 0)
    assert step.payloads == [(given[1][2], given[2][2], given[0][2])]


def test_histories_differ_by_parent_uid_and_payload() -> None:
    histories, _ = lineages()
    children = [
        histories.child(histories.root, submissions(1, 2), 0),
        histories.child(histories.root, submissions(1), 0),
        histories.child(histories.root, submissions(1, 3), 0),
        histories.child(histories.root, [(3, sha256, decoded) for _, sha256, decoded in submissions(1)], 0),
        histories.child(histories.root, submissions(1, 2, seed=2), 0),
        histories.child(histories.child(histories.root, submissions(5), 0), submissions(1, 2), 1),
    ]
    assert len({child.key for child in children} | {histories.root.key}) == 7
    assert [child.depth for child in children] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("buffer", [1, 20])
def test_without_sharing_equal_histories_are_computed_apart_and_equal(buffer: int) -> None:
    """The check that sharing hides nothing: same keys, other objects, the same bits of theta and of outer memory."""
    shared, _ = lineages(buffer)
    apart, step = lineages(buffer, sharing=False)
    one, other, reference = apart.root, apart.root, shared.root
    for turn in range(6):
        uids = [uid for uid in range(12) if (uid + turn) % 3]
        one = apart.child(one, submissions(*uids, seed=turn), turn)
        other = apart.child(other, submissions(*reversed(uids), seed=turn), turn)
        reference = shared.child(reference, submissions(*uids, seed=turn), turn)
        assert one is not other
        assert_equal_bits(one, other)
        assert_equal_bits(one, reference)
    assert one.depth == {1: 6, 20: 2}[buffer]
    assert len(step.depths) == 2 * one.depth


def test_the_parents_theta_and_memory_are_untouched() -> None:
    histories, _ = lineages()
    parent = histories.child(histories.root, submissions(1), 0)
    theta, momentum = parent.theta.clone(), parent.outer[0].clone()
    child = histories.child(parent, submissions(1, 2, seed=2), 1)
    assert torch.equal(parent.theta, theta)
    assert torch.equal(parent.outer[0], momentum)
    assert not torch.equal(child.theta, theta)
    assert not torch.equal(child.outer[0], momentum)


def test_the_outer_memory_is_handed_down() -> None:
    """Two steps give what two steps of the optimizer by hand give."""
    histories, _ = lineages()
    lineage, theta, memory = histories.root, torch.zeros(N), OUTER.initial(torch.zeros(N))
    for turn in range(2):
        given = submissions(4, 6, seed=turn)
        lineage = histories.child(lineage, given, turn)
        delta = Mean().combine([decoded for _, _, decoded in given], LAYOUT)
        theta, memory = OUTER.step(theta, memory, delta, 0.5)
    assert torch.equal(lineage.theta, theta)
    assert torch.equal(lineage.outer[0], memory[0])


def test_lineages_that_nobody_holds_are_freed() -> None:
    histories, step = lineages()
    child = histories.child(histories.root, submissions(1), 0)
    grandchild = histories.child(child, submissions(2), 1)
    assert len(histories) == 2
    del child
    gc.collect()
    assert len(histories) == 1
    again = histories.child(histories.root, submissions(1), 0)
    assert histories.child(again, submissions(2), 1) is grandchild
    assert step.depths == [0, 1, 0]


def test_payloads_wait_until_the_buffer_is_full() -> None:
    """Nothing moves and no outer step is counted before; then all of them are combined, in the order of arrival."""
    histories, step = lineages(buffer=4)
    first, second, third = submissions(8, 9), submissions(3, seed=2), submissions(2, 8, seed=3)
    one = histories.child(histories.root, first, 0)
    two = histories.child(one, second, 1)
    assert step.rounds == []
    assert [len(each.waiting) for each in (histories.root, one, two)] == [0, 2, 3]
    for waiting in (one, two):
        assert waiting.depth == 0
        assert waiting.theta is histories.root.theta
        assert waiting.outer is histories.root.outer
    full = histories.child(two, third, 2)
    assert (full.depth, full.waiting) == (1, ())
    assert (step.depths, step.rounds) == ([0], [2])
    assert step.payloads == [tuple(decoded for _, _, decoded in [*first, *second, *third])]
    assert not torch.equal(full.theta, histories.root.theta)


def test_a_round_that_brings_enough_steps_at_once() -> None:
    histories, step = lineages(buffer=3)
    child = histories.child(histories.root, submissions(1, 2, 3, 4, 5), 7)
    assert (child.depth, child.waiting) == (1, ())
    assert len(step.payloads[0]) == 5
    assert histories.child(child, submissions(1, 2), 8).depth == 1


def test_what_waits_is_part_of_a_history() -> None:
    """The same payload on the same theta, after different ones that wait."""
    histories, step = lineages(buffer=2)
    one, other = (histories.child(histories.root, submissions(uid), 0) for uid in (1, 2))
    assert len({one.key, other.key, histories.root.key}) == 3
    last = submissions(3, seed=2)
    stepped, otherwise = histories.child(one, last, 1), histories.child(other, last, 1)
    assert stepped.key != otherwise.key
    assert not torch.equal(stepped.theta, otherwise.theta)
    assert step.depths == [0, 0]


def test_waiting_histories_are_shared_too() -> None:
    histories, _ = lineages(buffer=9)
    one = histories.child(histories.root, submissions(1, 2), 0)
    assert histories.child(histories.root, submissions(2, 1), 0) is one


def test_a_root_is_known_by_its_theta() -> None:
    assert root_lineage(torch.zeros(4)).key == root_lineage(torch.zeros(4)).key
    assert root_lineage(torch.zeros(4)).key != root_lineage(torch.ones(4)).key
    theta = torch.arange(4.0)
    assert root_lineage(theta).key == hashlib.sha256(theta.numpy().tobytes()).hexdigest()
    assert (root_lineage(theta).depth, root_lineage(theta).outer, root_lineage(theta).waiting) == (0, (), ())


def test_an_empty_gather_has_no_child() -> None:
    histories, _ = lineages()
    with pytest.raises(AssertionError, match="brought nothing"):
        histories.child(histories.root, [], 0)


def test_a_uid_has_one_payload() -> None:
    histories, _ = lineages()
    with pytest.raises(AssertionError, match="one payload"):
        histories.child(histories.root, submissions(1, 2) + submissions(2, seed=2), 0)


def test_layout_counts_parameters() -> None:
    assert Layout(((3, 4), (5,))).num_parameters == 17
    assert Layout.of([[3, 4], [5]]) == Layout(((3, 4), (5,)))
