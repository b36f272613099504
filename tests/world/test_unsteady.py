"""What keeps a machine from its pace, against closed forms: means, shares of slow rounds, shares of absence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.randomness import Streams
from covsim.world.unsteady import Absences, Preemption, Slowdowns, StepNoise, Unsteadiness

PREEMPTION = Preemption.model_validate({"every": "6 h", "lasts": "10 min"})


def test_noise_has_mean_one_and_the_spread_that_it_names() -> None:
    """A factor whose median is 1 would make every machine slower on average: exp(sigma**2 / 2) of 0.5 is 1.13."""
    noise = StepNoise(sigma=0.5)
    factors = np.array([noise.factor(Streams(1), machine, round) for machine in range(40) for round in range(100)])
    assert np.mean(factors) == pytest.approx(1, abs=4 * (np.exp(0.25) - 1) ** 0.5 / 4000**0.5)
    assert np.std(np.log(factors)) == pytest.approx(0.5, rel=0.05)
    assert StepNoise(sigma=0).factor(Streams(1), 3, 3) == 1


def test_a_machine_is_slow_in_its_share_of_rounds() -> None:
    slow = Slowdowns.model_validate({"rate": "5 %", "factor": 3, "lasts": 2})
    rounds = [slow.is_slow(Streams(2), machine, round) for machine in range(50) for round in range(1, 101)]
    assert np.mean(rounds) == pytest.approx(1 - 0.95**2, abs=0.015)


def test_a_slow_down_lasts_as_long_as_it_says() -> None:
    """Where one begins is what the same rate with one round says; it then goes on."""
    streams = Streams(3)
    one, three = (Slowdowns.model_validate({"rate": "5 %", "factor": 2, "lasts": lasts}) for lasts in (1, 3))
    begins = [round for round in range(300) if one.is_slow(streams, 7, round)]
    assert begins
    expected = {round + more for round in begins for more in range(3)}
    assert {round for round in range(300) if three.is_slow(streams, 7, round)} == {r for r in expected if r < 300}


def test_it_does_not_matter_who_is_asked_first() -> None:
    slow = Unsteadiness(StepNoise(sigma=0.3), Slowdowns.model_validate({"rate": "30 %", "factor": 2}))
    places = [(machine, round) for machine in range(5) for round in range(5)]
    forward = {place: slow.step_factor(Streams(4), *place) for place in places}
    backward = {place: slow.step_factor(Streams(4), *place) for place in reversed(places)}
    assert forward == backward
    assert len(set(forward.values())) == 25


def test_nothing_is_exactly_nothing() -> None:
    assert Unsteadiness().step_factor(Streams(0), 1, 1) == 1.0
    assert Unsteadiness().absences(Streams(0), 1) is None


def test_a_machine_is_there_for_its_share_of_the_time() -> None:
    """every / (every + lasts) in the long run; 200 machines for 30 days, 4 standard errors of about 0.2 %."""
    span_s = 30 * 86_400.0
    away = [Absences(PREEMPTION, Streams(5).numpy("preemption", machine)).away_s(0, span_s) for machine in range(200)]
    assert np.mean(away) / span_s == pytest.approx(600 / (6 * 3600 + 600), abs=0.002)


@given(began=st.floats(0, 1e6), work=st.floats(0, 1e5), seed=st.integers(0, 50))
def test_work_that_is_stretched_by_absences_is_still_the_same_work(began: float, work: float, seed: int) -> None:
    """The span that work takes holds that much work, and no absence longer than it had to wait."""
    absences = Absences(PREEMPTION, Streams(seed).numpy("preemption"))
    away_s = absences.away_while_working_s(began, work)
    ended_s = began + work + away_s
    assert absences.away_s(began, ended_s) == pytest.approx(away_s, abs=1e-6)


@given(cut=st.floats(0, 1), span=st.floats(0, 1e6), began=st.floats(0, 1e6), seed=st.integers(0, 50))
def test_absences_of_two_spans_add_up(cut: float, span: float, began: float, seed: int) -> None:
    absences = Absences(PREEMPTION, Streams(seed).numpy("preemption"))
    middle, end = began + cut * span, began + span
    parts = absences.away_s(began, middle) + absences.away_s(middle, end)
    assert parts == pytest.approx(absences.away_s(began, end), abs=1e-6)


def test_what_was_asked_before_changes_nothing() -> None:
    early, late = (Absences(PREEMPTION, Streams(6).numpy("preemption")) for _ in range(2))
    early.away_s(0, 1e3)
    early.away_while_working_s(2e5, 3e5)
    assert early.away_s(1e5, 9e5) == late.away_s(1e5, 9e5)


@pytest.mark.parametrize(
    ("part", "fields", "complaint"),
    [
        (StepNoise, {"sigma": -1}, "greater than or equal to 0"),
        (Slowdowns, {"rate": "5 %", "factor": 0.5}, "greater than or equal to 1"),
        (Slowdowns, {"rate": "5 %", "factor": 2, "lasts": 0}, "greater than or equal to 1"),
        (Preemption, {"every": 3600, "lasts": "1 s"}, "a duration needs a unit"),
        (Preemption, {"every": "0 s", "lasts": "1 s"}, "greater than or equal to 1"),
    ],
)
def test_nonsense_is_refused(part: type, fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        part(**fields)
