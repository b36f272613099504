"""Work is cut evenly, done on one torch thread per piece, and leaves the setting alone."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from covsim.learning.workers import side_by_side


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize(("size", "largest", "sizes_of_two"), [(16, 12, [8, 8]), (72, 12, [12] * 6), (1, 12, [1])])
def test_pieces_are_even_and_employ_every_thread(
    num_threads: int, size: int, largest: int, sizes_of_two: list[int]
) -> None:
    torch.set_num_threads(num_threads)
    pieces = side_by_side(lambda piece: list(range(size))[piece], size, largest)
    assert list(itertools.chain(*pieces)) == list(range(size))
    lengths = [len(piece) for piece in pieces]
    assert max(lengths) <= largest
    assert max(lengths) - min(lengths) <= 1
    assert len(pieces) >= min(size, num_threads)
    if num_threads == 2:
        assert lengths == sizes_of_two


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_each_piece_has_one_torch_thread(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    barrier = threading.Barrier(num_threads, timeout=60)

    def piece(_: slice) -> int:
        barrier.wait()  # passes only if all pieces run at once
        return torch.get_num_threads()

    assert side_by_side(piece, num_threads, 1) == [1] * num_threads
    assert torch.get_num_threads() == num_threads


@pytest.mark.usefixtures("threads")
def test_a_fresh_thread_gets_the_callers_setting_afterwards() -> None:
    torch.set_num_threads(2)
    side_by_side(lambda _: None, 2, 1)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_nothing_to_do_is_fine() -> None:
    assert side_by_side(lambda _: pytest.fail("called"), 0, 4) == []


@pytest.mark.usefixtures("threads")
def test_an_error_reaches_the_caller() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda piece: 1 // piece.start, 2, 1)
    assert torch.get_num_threads() == 2
