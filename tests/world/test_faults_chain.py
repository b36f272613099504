"""When the chain rests for a fault: exact times of blocks, on the clock that earlier faults have put back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.randomness import Streams
from covsim.world.chain_faults import ChainStall, LateBlock, chain_pauses, with_stalls
from covsim.world.clock import BlockTimes, Windowed

ROUNDS = 20


def timeline(**changes):
    """Windows of ten blocks, 120 s."""
    return Windowed(block="12 s", blocks_per_window=10, put_window="60 s", **changes)


def delayed(*faults, base=None, seed=1):
    """The second at which each window opens, with faults labeled by their position."""
    base = base or timeline()
    labeled = [(f"fault {position}", fault) for position, fault in enumerate(faults)]
    times = BlockTimes(with_stalls(base, chain_pauses(labeled, base, ROUNDS, Streams(seed))))
    return [times.block_at(10 * window) for window in range(ROUNDS)]


def test_a_stall_by_time_moves_all_windows_behind_it():
    opens = delayed(ChainStall(at="130 s", lasts="1 h"))
    assert opens[:4] == [0, 120, 3600 + 240, 3600 + 360]


def test_a_stall_by_rounds_begins_behind_the_block_that_opens_the_exchange():
    """Round 2 is exchanged in window 3, whose block is sealed before the chain stops for as long as two windows."""
    opens = delayed(ChainStall(from_round=2, to_round=4))
    assert opens[:5] == [0, 120, 240, 360, 480 + 240]


def test_a_late_block_by_rounds_is_the_one_that_opens_the_exchange():
    opens = delayed(LateBlock(from_round=2, to_round=4, lasts="30 s"))
    assert opens[:6] == [0, 120, 240, 360 + 30, 480 + 60, 600 + 60]


@pytest.mark.parametrize(("at", "first_late"), [("24 s", 2), ("25 s", 3), ("36 s", 3)])
def test_a_late_block_by_time_is_the_first_from_then_on(at, first_late):
    base = timeline()
    pauses = chain_pauses([("late", LateBlock(at=at, lasts="5 s"))], base, ROUNDS, Streams(1))
    times = BlockTimes(with_stalls(base, pauses))
    assert [times.block_at(height) for height in (first_late - 1, first_late, first_late + 1)] == [
        12 * (first_late - 1),
        12 * first_late + 5,
        12 * first_late + 17,
    ]


def test_the_first_block_of_a_run_is_never_late():
    assert delayed(LateBlock(at="0 s", lasts="5 s"))[:2] == [0, 125]
    assert delayed(ChainStall(at="0 s", lasts="5 s"))[:2] == [0, 125]


def test_a_later_fault_goes_by_the_clock_that_an_earlier_one_has_put_back():
    """Whichever stands first in the file."""
    stall, late = ChainStall(at="130 s", lasts="1 h"), LateBlock(from_round=2, to_round=3, lasts="30 s")
    assert delayed(stall, late) == delayed(late, stall)
    assert delayed(stall, late)[2:5] == [3600 + 240, 3600 + 360 + 30, 3600 + 480 + 30]


def test_where_stalls_overlap_the_chain_rests_once():
    long, short = ChainStall(at="130 s", lasts="100 s"), ChainStall(at="180 s", lasts="80 s")
    assert delayed(long, short) == delayed(ChainStall(at="130 s", lasts="130 s"))
    own = timeline(stalls=[{"at": "130 s", "lasts": "100 s"}])
    assert delayed(short, base=own) == delayed(long, short)
    assert delayed(ChainStall(at="130 s", lasts="100 s")) == delayed(base=own), "one way to do it"


def test_a_rate_hits_rounds_by_its_own_stream():
    fault = LateBlock(rate="30 %", lasts="7 s")
    base = timeline()

    def struck(label, seed=1):
        pauses = chain_pauses([(label, fault)], base, 1000, Streams(seed))[label]
        return len(pauses), pauses[0].at

    assert 250 < struck("late")[0] < 350
    assert struck("late") == struck("late")
    assert struck("late") != struck("late-2") != struck("late", seed=2)


def test_a_rate_keeps_to_its_rounds():
    base = timeline()
    pauses = chain_pauses([("x", ChainStall(rate="100 %", from_round=3, to_round=6))], base, ROUNDS, Streams(1))["x"]
    times = BlockTimes(with_stalls(base, {"x": pauses}))
    assert [times.height_at(pause.at) // 10 for pause in pauses] == [4, 5, 6]
    assert all(pause.lasts == 120 for pause in pauses)


SPANS = st.tuples(st.integers(1, 500), st.integers(1, 300))


@given(st.lists(SPANS, max_size=6))
def test_any_stalls_leave_a_clock_that_goes_forward(spans):
    """And put back what comes last by the length of their union."""
    faults = [ChainStall(at=f"{at} s", lasts=f"{lasts} s") for at, lasts in spans]
    opens = delayed(*faults)
    assert all(later >= earlier + 120 for earlier, later in pairwise(opens))
    rested = {second for at, lasts in spans for second in range(at, at + lasts)}
    assert opens[-1] == pytest.approx(120 * (ROUNDS - 1) + len(rested))
