"""How tensors are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.protocol.chunks import ChunkGrid, ChunkLayout, ChunkMap, Places, clamped_even, cut
from covsim.protocol.invalid import InvalidPayload


def kept_of(shape: tuple[int, ...], k: int) -> ChunkGrid:
    """A tensor in blocks, with k kept as top-k does."""
    grid = cut(shape)
    return grid.keeping(clamped_even(k, grid.chunk_size))


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
def test_sides_of_blocks_are_the_largest_divisors_up_to_64(
    shape: tuple[int, ...], height: int, width: int, num_chunks: int
) -> None:
    grid = cut(shape)
    assert (grid.height, grid.width, grid.num_chunks) == (height, width, num_chunks)


@pytest.mark.parametrize(
    ("shape", "run"), [((8192, 8192), 4096), ((96, 32), 3072), ((67, 66), 2211), ((4099,), 1), ((100,), 100)]
)
def test_contiguous_chunks_are_runs_of_the_largest_divisor_up_to_4096(shape: tuple[int, ...], run: int) -> None:
    grid = cut(shape, "contiguous")
    assert (grid.height, grid.width) == (1, run)
    assert grid.size == math.prod(shape)
    assert grid.chunk_starts().tolist() == list(range(0, grid.size, run))


def test_rows_are_chunks_of_up_to_65536() -> None:
    assert cut((3, 65536), "rows").chunk_starts().tolist() == [0, 65536, 131072]
    assert cut((65536,), "rows").num_chunks == 1
    for shape in [(3, 65537), (65537,)]:
        with pytest.raises(ValueError, match="a row of 65537 is too long for a chunk"):
            cut(shape, "rows")


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
    assert clamped_even(k, cut(shape).chunk_size) == kept


def test_chunks_sent_whole_have_no_positions() -> None:
    assert kept_of((64,), 64).whole
    assert kept_of((64,), 64).num_positions == 0
    assert not kept_of((63,), 64).whole
    assert kept_of((128, 64), 4096).num_positions == 0
    assert kept_of((128, 64), 4094).num_positions == 2 * 4094
    assert not cut((64,)).keeping(64, odds=0.5).whole, "where the number depends on the values, positions are sent"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.tuples(st.integers(1, 200)), st.tuples(st.integers(1, 130), st.integers(1, 130))),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["blocks", "contiguous", "rows"]),
    st.integers(0, 3),
)
def test_chunks_partition_theta(shapes: list[tuple[int, ...]], layout: ChunkLayout, left_out: int) -> None:
    """Of equal first positions every element has one value at most, inside its tensor; sent whole, exactly one."""
    grids = [cut(shape, layout) for shape in shapes]
    chunks = ChunkMap([grid.keeping(max(1, grid.chunk_size - left_out)) for grid in grids])
    first_ones = [np.tile(np.arange(grid.kept), grid.num_chunks) for grid in chunks.grids if not grid.whole]
    index = chunks.full.flat_index(np.array([place for places in first_ones for place in places], dtype=np.uint16))
    num_parameters = sum(math.prod(shape) for shape in shapes)
    assert len(np.unique(index)) == len(index)
    assert index.min() >= 0
    assert index.max() < num_parameters
    assert left_out or len(index) == num_parameters
    for tensor, shape in enumerate(shapes):
        bounds = slice(chunks.full.value_bounds[tensor], chunks.full.value_bounds[tensor + 1])
        inside = index[bounds] - chunks.tensor_starts[tensor]
        assert inside.min() >= 0
        assert inside.max() < math.prod(shape)
        assert (chunks.full.tensor_of[bounds] == tensor).all()


def test_positions_run_row_by_row_inside_a_block() -> None:
    chunks = ChunkMap([kept_of((2,), 2), kept_of((128, 128), 2)])
    index = chunks.full.flat_index(np.array([0, 4095, 1, 64, 0, 65, 63, 4032], dtype=np.uint16))
    at = [2 + row * 128 + column for row, column in [(0, 0), (63, 63), (0, 65), (1, 64), (64, 0), (65, 1)]]
    assert index.tolist() == [0, 1, *at, 2 + 64 * 128 + 127, 2 + 127 * 128 + 64]


def test_the_last_position_of_a_row_of_65536() -> None:
    chunks = ChunkMap([cut((2, 65536), "rows").keeping(2)])
    assert chunks.full.flat_index(np.array([0, 65535, 1, 65535], dtype=np.uint16)).tolist() == [
        0,
        65535,
        65537,
        131071,
    ]


def test_counts_say_where_values_belong() -> None:
    chunks = ChunkMap([cut((64, 128)).keeping(8, odds=0.1), cut((10,)).keeping(3, odds=0.1)])
    places = Places(chunks, np.array([2, 0, 1]))
    assert (places.value_bounds, places.num_positions) == ([0, 2, 3], 3)
    assert places.tensor_of.tolist() == [0, 0, 1]
    assert places.kept_share.tolist() == [np.float32(2 / 4096)] * 2 + [np.float32(0.1)]
    assert places.flat_index(np.array([5, 64, 9], dtype=np.uint16)).tolist() == [5, 128, 64 * 128 + 9]
    places.check(np.array([0, 4095, 0], dtype=np.uint16))
    with pytest.raises(InvalidPayload, match="position 2 lies outside its chunk"):
        places.check(np.array([0, 4095, 10], dtype=np.uint16))


def test_how_many_exceed_a_threshold() -> None:
    """Two draws of chance 1/4: none 9/16, one 6/16, two 1/16; where one is the most, the rest counts as one."""
    assert cut((2,)).keeping(2, odds=0.25).count_odds() == pytest.approx([9 / 16, 6 / 16, 1 / 16])
    assert cut((2,)).keeping(1, odds=0.25).count_odds() == pytest.approx([9 / 16, 7 / 16])
    assert cut((2,)).keeping(1, odds=0.25).expected_kept == pytest.approx(7 / 16)
    assert cut((64, 64)).keeping(4096, odds=0.003).expected_kept == pytest.approx(4096 * 0.003)
    assert cut((64, 64)).keeping(64).expected_kept == 64
