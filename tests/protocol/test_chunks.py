"""How tensors are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.protocol.chunks import ChunkMap, cut


@pytest.mark.parametrize(
    ("shape", "height", "width", "num_chunks"),
    [
        ((8192, 8192), 64, 64, 128 * 128),
        ((28672, 8192), 64, 64, 448 * 128),
        ((96, 32), 48, 32, 2),
        ((67, 66), 1, 33, 67 * 2),
        ((8192,), 1, 64, 128),
        ((67,), 1, 1, 67),
        ((100,), 1, 50, 2),
        ((1, 1), 1, 1, 1),
    ],
)
def test_sides_are_the_largest_divisors_up_to_64(
    shape: tuple[int, ...], height: int, width: int, num_chunks: int
) -> None:
    grid = cut(shape, 64)
    assert (grid.height, grid.width, grid.num_chunks) == (height, width, num_chunks)


@pytest.mark.parametrize(
    ("shape", "k", "kept"),
    [
        ((64, 64), 64, 64),
        ((64, 64), 33, 32),
        ((64, 64), 1, 2),
        ((64,), 64, 64),
        ((63,), 64, 62),
        ((3,), 64, 2),
        ((2,), 64, 2),
        ((1,), 64, 1),
    ],
)
def test_k_is_clamped_and_even(shape: tuple[int, ...], k: int, kept: int) -> None:
    assert cut(shape, k).kept == kept


def test_chunks_sent_whole_have_no_positions() -> None:
    assert cut((64,), 64).whole
    assert cut((64,), 64).num_positions == 0
    assert not cut((63,), 64).whole
    assert cut((128, 64), 4096).num_positions == 0
    assert cut((128, 64), 4094).num_positions == 2 * 4094


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(1, 200)), st.tuples(st.integers(1, 130), st.integers(1, 130))),
        min_size=1,
        max_size=5,
    )
)
def test_chunks_partition_theta(shapes: list[tuple[int, ...]]) -> None:
    """Sent whole, every element of theta has exactly one value, and each tensor's stay inside the tensor."""
    chunks = ChunkMap([cut(shape, 4096) for shape in shapes])
    some_left_out = any(not grid.whole for grid in chunks.grids)  # one element of each odd chunk
    first_ones = [np.tile(np.arange(grid.kept), grid.num_chunks) for grid in chunks.grids if not grid.whole]
    index = chunks.flat_index(np.array([place for places in first_ones for place in places], dtype=np.uint16))
    num_parameters = sum(int(np.prod(shape)) for shape in shapes)
    assert len(np.unique(index)) == len(index)
    assert index.min() >= 0
    assert index.max() < num_parameters
    assert some_left_out or len(index) == num_parameters
    for tensor, shape in enumerate(shapes):
        inside = index[chunks.value_bounds[tensor] : chunks.value_bounds[tensor + 1]] - chunks.tensor_starts[tensor]
        assert inside.min() >= 0
        assert inside.max() < int(np.prod(shape))


def test_positions_run_row_by_row_inside_a_block() -> None:
    chunks = ChunkMap([cut((2,), 2), cut((128, 128), 2)])
    index = chunks.flat_index(np.array([0, 4095, 1, 64, 0, 65, 63, 4032], dtype=np.uint16))
    at = [2 + row * 128 + column for row, column in [(0, 0), (63, 63), (0, 65), (1, 64), (64, 0), (65, 1)]]
    assert index.tolist() == [0, 1, *at, 2 + 64 * 128 + 127, 2 + 127 * 128 + 64]
