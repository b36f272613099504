"""What a slow peer takes on, in closed form, and for every policy what must hold whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.world.slow import FewerSteps, Late, SlowPolicy, SmallerBatch, Stint, slow_policies


@pytest.mark.parametrize(
    ("policy", "left_s", "expected"),
    [
        (FewerSteps(), 1200.0, Stint(30, 8, 40.0)),
        (FewerSteps(), 1199.0, Stint(29, 8, 40.0)),
        (FewerSteps(), -5.0, Stint(0, 8, 40.0)),
        (Late(), 10.0, Stint(30, 8, 40.0)),
        (SmallerBatch(), 1200.0, Stint(30, 8, 40.0)),
        (SmallerBatch(), 1199.0, Stint(30, 7, 35.0)),
        (SmallerBatch(), 600.0, Stint(30, 4, 20.0)),
        (SmallerBatch(), 599.0, Stint(30, 3, 15.0)),
        # below the floor of 25 %, two of eight sequences, nothing gets faster
        (SmallerBatch(), 300.0, Stint(30, 2, 10.0)),
        (SmallerBatch(), 299.0, Stint(29, 2, 10.0)),
        (SmallerBatch(floor=0.3), 360.0, Stint(30, 2, 12.0)),
        (SmallerBatch(floor=0.0), 150.0, Stint(30, 1, 5.0)),
        (SmallerBatch(floor=0.0), 149.0, Stint(29, 1, 5.0)),
        (SmallerBatch(floor=1.0), 599.0, Stint(14, 8, 40.0)),
        (SmallerBatch(), -5.0, Stint(0, 2, 10.0)),
    ],
)
def test_30_steps_of_40_s_on_8_sequences(policy: SlowPolicy, left_s: float, expected: Stint) -> None:
    assert policy.stint(left_s, 40.0, 30, 8) == expected


@pytest.mark.parametrize("kind", list(slow_policies))
@given(
    left=st.floats(-10, 1e5),
    step=st.floats(1e-2, 1e3),
    steps=st.integers(0, 500),
    batch=st.integers(1, 256),
    floor=st.floats(0, 1),
)
def test_a_stint_asks_for_no_more_than_there_is(
    kind: str, left: float, step: float, steps: int, batch: int, floor: float
) -> None:
    """More steps than wanted, an empty batch, or steps that a cut policy cannot end in time would be caught."""
    part = slow_policies[kind]
    policy = part.model_validate({"floor": floor}) if "floor" in part.model_fields else part()
    stint = policy.stint(left, step, steps, batch)
    assert 0 <= stint.steps <= steps
    assert 1 <= stint.batch <= batch
    if policy.is_cut:
        assert stint.work_s <= max(left, 0) + 1e-6 * stint.step_s + 1e-9
    assert policy.stint(math.inf, step, steps, batch) == Stint(steps, batch, step)


@given(left=st.floats(0, 1e5), step=st.floats(1e-2, 1e3), steps=st.integers(1, 500), batch=st.integers(1, 256))
def test_a_smaller_batch_never_trains_on_fewer_steps(left: float, step: float, steps: int, batch: int) -> None:
    """And the batch is the largest that fits: with one sequence more, the steps would not all fit."""
    smaller, fewer = SmallerBatch().stint(left, step, steps, batch), FewerSteps().stint(left, step, steps, batch)
    assert smaller.steps >= fewer.steps
    if smaller.steps == steps and smaller.batch < batch:
        one_more_s = steps * step * max((smaller.batch + 1) / batch, 0.25)
        assert one_more_s > left * (1 - 1e-6)


def test_a_floor_beyond_all_is_refused() -> None:
    with pytest.raises(ValueError, match="not a share"):
        SmallerBatch(floor=1.5)
