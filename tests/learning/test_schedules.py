"""Schedules have closed forms, are never negative, and are read from plain data."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from covsim.choice import OneOf
from covsim.schedules import Constant, Cosine, Linear, Points, Schedule, Steps, schedules

EXAMPLES: dict[str, dict[str, Any]] = {
    "constant": {},
    "cosine": {"warmup_steps": 7, "final_share": "25 %"},
    "linear": {"warmup_steps": 7, "final_share": 0.25},
    "points": {"points": [[3, 0.0], [10, 0.25], [20, 0]]},
    "steps": {"at": {"4": 0.9, "10": 0.0}},
}


class Holder(BaseModel):
    schedule: Annotated[Schedule, OneOf(schedules, default="cosine", bare="kind")]


def factors(schedule: Schedule, total_steps: int, *steps: int) -> list[float]:
    return [schedule.factor(step, total_steps) for step in steps]


def test_constant_is_one() -> None:
    assert factors(Constant(), 10, 0, 5, 500) == [1.0, 1.0, 1.0]


def test_cosine_rises_linearly_and_falls_by_half_a_cosine() -> None:
    cosine = Cosine(warmup_steps=10, final_share=0.1)
    quarter = 0.1 + 0.9 * (1 + 0.5**0.5) / 2
    expected = [0.1, 0.5, 1.0, 1.0, quarter, 0.55, 0.1, 0.1]
    assert factors(cosine, 110, 0, 4, 9, 10, 35, 60, 110, 500) == pytest.approx(expected)


def test_linear_rises_and_falls_linearly() -> None:
    linear = Linear(warmup_steps=10, final_share=0.1)
    assert factors(linear, 110, 0, 4, 9, 10, 60, 110, 500) == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1])
    assert factors(Linear(), 160, 110, 160) == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("schedule", [Cosine, Linear])
def test_a_run_may_have_no_warm_up_or_nothing_else(schedule: type[Cosine | Linear]) -> None:
    assert schedule(warmup_steps=0).factor(0, 10) == 1.0
    assert schedule(warmup_steps=20).factor(19, 10) == 1.0
    assert schedule(warmup_steps=20, final_share=0.1).factor(25, 10) == pytest.approx(0.1)


def test_steps_change_at_their_steps() -> None:
    steps = Steps(at={20: 0.5, 10: 0.9})
    assert factors(steps, 0, 0, 9, 10, 19, 20, 1000) == [1.0, 1.0, 0.9, 0.9, 0.5, 0.5]
    assert factors(Steps(at={0: 0.25}), 0, 0, 7) == [0.25, 0.25]
    assert Steps(at={}).factor(3, 10) == 1.0


def test_points_are_joined_by_straight_lines() -> None:
    anneal = Points(points=((10, 0.0), (20, 0.25), (120, 0.0)))
    assert factors(anneal, 0, 0, 10, 15, 20, 70, 120, 500) == [0.0, 0.0, 0.125, 0.25, 0.125, 0.0, 0.0]
    assert factors(Points(points=((5, 0.5),)), 0, 0, 5, 6) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("kind", list(schedules))
@given(step=st.integers(0, 300), total_steps=st.integers(0, 200))
def test_no_factor_is_negative_or_above_the_peak(kind: str, step: int, total_steps: int) -> None:
    assert 0 <= schedules[kind](**EXAMPLES[kind]).factor(step, total_steps) <= 1


@pytest.mark.parametrize("kind", list(schedules))
def test_plain_data_and_back(kind: str) -> None:
    schedule = Holder.model_validate({"schedule": {"kind": kind, **EXAMPLES[kind]}}).schedule
    assert schedule.kind == kind
    dumped = schedule.model_dump(mode="json")
    assert Holder.model_validate({"schedule": dumped}).schedule == schedule
    assert all(isinstance(key, str) for key in dumped.get("at", {}))
    assert Holder.model_validate_json(Holder(schedule=schedule).model_dump_json()).schedule == schedule


@pytest.mark.parametrize("kind", list(schedules))
def test_every_schedule_is_described(kind: str) -> None:
    part = schedules[kind]
    assert inspect.getdoc(part)
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")


def test_a_name_alone_and_settings_alone_are_read() -> None:
    assert Holder.model_validate({"schedule": "constant"}).schedule == Constant()
    assert Holder.model_validate({"schedule": {"warmup_steps": 3}}).schedule == Cosine(warmup_steps=3)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("cosine", {"warmup_steps": -1}, "greater than or equal to 0"),
        ("linear", {"final_share": 1.5}, "not a share"),
        ("steps", {"at": {"-1": 0.5}}, "greater than or equal to 0"),
        ("steps", {"at": {"1": -0.5}}, "greater than or equal to 0"),
        ("steps", {"at": {"soon": 0.5}}, "valid integer"),
        ("steps", {"at": dict.fromkeys(range(1001), 1.0)}, "at most 1000"),
        ("points", {"points": []}, "at least 1"),
        ("points", {"points": [[0, -1.0]]}, "greater than or equal to 0"),
        ("points", {"points": [[5, 1.0], [5, 0.5]]}, "must ascend: 5 stands behind 5"),
        ("points", {"points": [[5, 1.0], [9, 0.5], [7, 0.1]]}, "must ascend: 7 stands behind 9"),
        ("points", {"points": [[0, float("inf")]]}, "finite"),
        ("constant", {"at": {}}, "not permitted"),
    ],
)
def test_nonsense_is_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        schedules[kind](**settings)
