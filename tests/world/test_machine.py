"""Step arithmetic, and distributions of rates and speeds against their closed forms."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.randomness import Streams
from covsim.world import machine
from covsim.world.machine import Machine

EXAMPLES = {
    ("link_rates", "constant"): {"value": "110 Mb/s"},
    ("link_rates", "lognormal"): {"median": "110 Mb/s", "sigma": 0.3},
    ("link_rates", "uniform"): {"low": "100 Mb/s", "high": "62.5 MB/s"},
    ("link_rates", "choice"): {"values": ["110 Mb/s", "1 Gb/s"], "weights": [3, 1]},
    ("speeds", "constant"): {},
    ("speeds", "lognormal"): {"sigma": 0.2},
    ("speeds", "uniform"): {"low": 0.5, "high": 1.5},
    ("speeds", "choice"): {"values": [0.5, 1, 2]},
    ("speeds", "pareto"): {"tail": 1.5, "slowest": 0.05},
    ("speeds", "lognormal_mixture"): {
        "sigma": 0.1,
        "stragglers": "20 %",
        "straggler_median": 0.3,
        "straggler_sigma": 0.5,
        "slowest": 0.1,
        "fastest": 1.5,
    },
}
EVERY_PART = [(family, kind) for family in ("link_rates", "speeds") for kind in getattr(machine, family)]


def test_seconds_and_steps_are_inverse():
    slow = Machine(seconds_per_step=40.0)
    assert slow.seconds(30) == 1200
    assert slow.steps_within(1200, wanted=30) == 30
    assert slow.steps_within(1199.9, wanted=30) == 29
    assert slow.steps_within(1e9, wanted=30) == 30
    assert slow.steps_within(39, wanted=30) == 0
    assert slow.steps_within(-5, wanted=30) == 0


@given(per_step=st.floats(1e-3, 1e3), steps=st.integers(0, 100_000))
def test_a_span_as_long_as_its_steps_holds_them(per_step, steps):
    assert Machine(per_step).steps_within(Machine(per_step).seconds(steps), wanted=steps + 5) == steps


def test_rounding_does_not_cost_a_step():
    assert 0.3 // 0.1 == 2
    assert Machine(0.1).steps_within(0.3, wanted=10) == 3


@pytest.mark.parametrize(("family", "kind"), EVERY_PART)
def test_every_part_draws_positive_numbers_that_its_stream_decides(family, kind):
    part = getattr(machine, family)[kind](**EXAMPLES[family, kind])
    assert part.kind == kind
    drawn = [part.draw(Streams(1).numpy("speed", uid)) for uid in range(50)]
    assert drawn == [part.draw(Streams(1).numpy("speed", uid)) for uid in range(50)]
    assert all(isinstance(number, float) and number > 0 for number in drawn)
    assert type(part).model_validate(part.model_dump()) == part


def test_lognormal_has_its_median_and_spread():
    part = machine.LognormalRate(median="110 Mb/s", sigma=0.3)
    logs = np.log([part.draw(Streams(2).numpy("uplink", uid)) for uid in range(4000)])
    assert np.exp(np.median(logs)) == pytest.approx(110e6, rel=0.03)
    assert np.std(logs) == pytest.approx(0.3, rel=0.05)


def test_uniform_fills_its_range():
    part = machine.UniformSpeed(low=0.5, high=1.5)
    drawn = [part.draw(Streams(3).numpy(uid)) for uid in range(4000)]
    assert 0.5 <= min(drawn) < 0.51
    assert 1.49 < max(drawn) < 1.5
    assert np.mean(drawn) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("tail", [0.5, 1.5, 4.0])
def test_pareto_has_the_tail_of_its_index_up_to_the_bound(tail):
    """P(time > x) = (x**-a - m**-a) / (1 - m**-a) for step times of 1 to m; a lighter tail would be found by KS."""
    part, bound = machine.ParetoSpeed(fastest=2.0, tail=tail, slowest=0.1), 20.0
    times = np.sort([2.0 / part.draw(Streams(5).numpy(uid)) for uid in range(4000)])
    assert times[0] >= 1
    assert times[-1] <= bound * (1 + 1e-12)
    expected = (1 - times**-tail) / (1 - bound**-tail)
    assert np.max(np.abs(expected - (np.arange(4000) + 0.5) / 4000)) < 1.63 / 4000**0.5  # KS at 1 %


def test_a_mixture_has_its_share_of_stragglers_and_keeps_its_bounds():
    part = machine.LognormalMixtureSpeed(**EXAMPLES["speeds", "lognormal_mixture"])
    drawn = np.array([part.draw(Streams(6).numpy(uid)) for uid in range(4000)])
    assert part.slowest <= drawn.min() < 0.12
    assert 1.3 < drawn.max() <= part.fastest
    usual = NormalDist(0, 0.1)
    late = NormalDist(np.log(0.3), 0.5)
    within = late.cdf(np.log(1.5)) - late.cdf(np.log(0.1))
    below = (late.cdf(np.log(0.6)) - late.cdf(np.log(0.1))) / within
    expected = 0.2 * below + 0.8 * usual.cdf(np.log(0.6))
    assert np.mean(drawn < 0.6) == pytest.approx(expected, abs=0.02)
    assert np.median(drawn[drawn > 0.6]) == pytest.approx(0.98, abs=0.03)


def test_a_crowd_without_spread_is_its_median():
    fields = EXAMPLES["speeds", "lognormal_mixture"] | {"sigma": 0, "straggler_sigma": 0}
    part = machine.LognormalMixtureSpeed(**fields)
    assert {part.draw(Streams(6).numpy(uid)) for uid in range(100)} == {1.0, 0.3}


def test_choice_follows_its_weights():
    part = machine.ChoiceRate(values=["110 Mb/s", "1 Gb/s", "2 Gb/s"], weights=[3, 1, 0])
    drawn = [part.draw(Streams(4).numpy(uid)) for uid in range(4000)]
    assert set(drawn) == {110e6, 1e9}
    assert drawn.count(1e9) / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("part", "fields", "complaint"),
    [
        (machine.ConstantRate, {"value": 110e6}, "a rate needs a unit"),
        (machine.ConstantRate, {"value": "0 b/s"}, "greater than 0"),
        (machine.LognormalRate, {"median": "1 Mb/s", "sigma": 9}, "less than or equal to 3"),
        (machine.LognormalRate, {"sigma": 0.2}, "Field required"),
        (machine.UniformRate, {"low": "2 Gb/s", "high": "1 Gb/s"}, "low must not be above high"),
        (machine.ChoiceRate, {"values": []}, "at least 1 item"),
        (machine.ChoiceSpeed, {"values": [1, 2], "weights": [1]}, "2 values need as many weights, not 1"),
        (machine.ChoiceSpeed, {"values": [1, 2], "weights": [0, 0]}, "at least one weight must be above 0"),
        (machine.UniformSpeed, {"low": 2, "high": 1}, "low must not be above high"),
        (machine.ConstantSpeed, {"value": -1}, "greater than 0"),
        (machine.LognormalSpeed, {"sigma": 0.2, "mean": 1}, "Extra inputs"),
        (machine.ParetoSpeed, {"tail": 2, "slowest": 3}, "low must not be above high"),
        (machine.ParetoSpeed, {"tail": 0, "slowest": 0.1}, "greater than 0"),
        (
            machine.LognormalMixtureSpeed,
            EXAMPLES["speeds", "lognormal_mixture"] | {"straggler_median": 0.05},
            "straggler_median must lie between slowest and fastest",
        ),
    ],
)
def test_a_distribution_that_cannot_be_is_refused(part, fields, complaint):
    with pytest.raises(ValidationError, match=complaint):
        part(**fields)
