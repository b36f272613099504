"""What would have to change to reach a target: one number at a time, by bisection over the plan's own function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from covsim.registry import did_you_mean
from covsim.sweep.plan.measures import Deadlines, Measures
from covsim.sweep.plan.setting import CannotPlan, Setting
from covsim.units import format_duration, format_share, parse_duration, parse_share
from covsim.world.clock import Windowed

MOST_BANDWIDTH = 1000.0
"""Links are tried from a thousandth to a thousand times what they are."""

MOST_STEPS, MOST_K, MOST_WINDOW = 10_000, 4096, 100
TRIES = 20  # points of the grid on which a way to the target is looked for
NEAR = 0.002  # of a bandwidth: bisection ends there
ROUNDING = 1e-9


@dataclass(frozen=True)
class Target:
    """A measure that is to be at least, or at most, so much."""

    name: str
    value: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.value if self.at_least else value <= self.value

    def shown(self, value: float) -> str:
        """A value of this measure as text."""
        return format_duration(float(f"{value:.4g}")) if self.name == "round" else format_share(round(value, 4))

    @property
    def worst(self) -> float:
        """A value that is never good enough."""
        return -math.inf if self.at_least else math.inf


MEASURES: dict[str, Callable[[Measures], float]] = {
    "utilization": lambda measured: measured.utilization,
    "compute_share": lambda measured: measured.compute_share,
    "on_time": lambda measured: measured.deadlines.put_window,
    "all_steps": lambda measured: measured.deadlines.all_steps,
    "round": lambda measured: measured.round_s,
}


@dataclass(frozen=True)
class Answer:
    """What one number would have to be.

    Attributes:
        knob: `bandwidth`, `H`, `k`, `gather`, or `blocks_per_window` where the calendar opens the windows.
        value: what it would have to be, bandwidth as a multiple of today's; None if nothing will do.
        reaches: the measure there, or the best that can be had.
        text: the same in words.
    """

    knob: str
    value: float | None
    reaches: float | None
    text: str


def parse_target(text: str) -> Target:
    """`utilization=0.95`, `on_time=90 %`, `round=25 min`. Raises CannotPlan."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if name not in MEASURES:
        known = ", ".join(MEASURES)
        raise CannotPlan(f"no target is called {name!r}{did_you_mean(name, MEASURES)}; there are {known}")
    if not equals:
        raise CannotPlan(f"a target needs a value: {name}={'25 min' if name == 'round' else '95 %'}")
    try:
        if name == "round":
            seconds = parse_duration(value.strip())
            if seconds <= 0:
                raise ValueError("a round takes more than 0 s")
            return Target(name, seconds, False)
        return Target(name, parse_share(_number_or_text(value.strip())), True)
    except ValueError as problem:
        raise CannotPlan(f"target {name}: {problem}") from None


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def answers(setting: Setting, target: Target) -> list[Answer]:
    """What bandwidth, H, k, gather count and window would each have to be, all else being equal."""
    return [_solve(setting, target, knob) for knob in _knobs(setting)]


@dataclass(frozen=True)
class _Knob:
    """A number that can be turned, between bounds; `whole` in steps of `step`."""

    name: str
    now: float
    low: float
    high: float
    turned: Callable[[float], Setting]
    shown: Callable[[float], str]
    step: int | None = None

    def grid(self) -> Iterator[float]:
        """Values from the lowest to the highest, with the present one, evenly in logarithms."""
        points = {self.now}
        for number in range(TRIES + 1):
            points.add(self.rounded(self.low * (self.high / self.low) ** (number / TRIES)))
        yield from sorted(points)

    def rounded(self, value: float) -> float:
        """The nearest value that it can have."""
        return value if self.step is None else float(max(self.low, round(value / self.step) * self.step))

    def is_near(self, one: float, other: float) -> bool:
        """Whether there is nothing to be looked for between two values."""
        return abs(one - other) <= self.step if self.step else max(one, other) / min(one, other) < 1 + NEAR


def _knobs(setting: Setting) -> Iterator[_Knob]:
    yield _Knob("bandwidth", 1.0, 1 / MOST_BANDWIDTH, MOST_BANDWIDTH, setting.with_bandwidth, lambda x: f"{x:.3g} x")
    steps = float(setting.inner_steps)
    yield _Knob("H", steps, 1, max(MOST_STEPS, steps), lambda x: setting.with_inner_steps(int(x)), _whole, 1)
    k = getattr(setting.scenario.protocol, "k", None)
    most_k = MOST_K if k is None else max(MOST_K, k)
    yield _Knob("k", float(k or 2), 2, most_k, lambda x: setting.with_k(int(x)), _whole, 2)
    places, most = float(setting.listed.places), float(setting.num_peers)
    yield _Knob("gather", places, 1, most, lambda x: setting.with_gather(int(x)), _whole, 1)
    timeline = setting.scenario.timeline
    if isinstance(timeline, Windowed):
        now, least = timeline.blocks_per_window, math.floor(timeline.put_window / timeline.block) + 1
        block_s = timeline.block
        window = lambda x: replace(setting, window_s=x * block_s)  # noqa: E731
        yield _Knob("blocks_per_window", now, least, MOST_WINDOW * now, window, _whole, 1)


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _solve(setting: Setting, target: Target, knob: _Knob) -> Answer:
    measure, today = MEASURES[target.name], Measures.of(setting).deadlines

    @cache
    def reached(value: float) -> float:
        measured = Measures.of(knob.turned(value))
        return measure(measured) if _keeps(measured.deadlines, today) else target.worst

    try:
        found = {value: reached(value) for value in knob.grid()}
    except CannotPlan as problem:
        return Answer(knob.name, None, None, f"cannot be reached by {knob.name}: {problem}")
    good = [value for value in found if target.met(found[value])]
    if not good:
        best = max(found, key=lambda value: (found[value] if target.at_least else -found[value], -_far(value, knob)))
        most = "at most" if target.at_least else "at least"
        text = f"cannot be reached by {knob.name}: {most} {target.shown(found[best])}, at {knob.shown(best)}"
        return Answer(knob.name, None, found[best], text)
    value = _nearest(knob, found, min(good, key=lambda each: _far(each, knob)), lambda x: target.met(reached(x)))
    text = f"{knob.name} {knob.shown(value)}, from {knob.shown(knob.now)}: {target.shown(reached(value))}"
    as_it_is = f"{knob.name} {knob.shown(value)}, as it is"
    return Answer(knob.name, value, reached(value), as_it_is if value == knob.now else text)


def _keeps(deadlines: Deadlines, today: Deadlines) -> bool:
    """Whether no more peers miss a deadline than today: who uploads nothing in time saves the others a download."""
    kept = ((deadlines.put_window, today.put_window), (deadlines.gather_timeout, today.gather_timeout))
    return all(share >= before - ROUNDING for share, before in kept)


def _far(value: float, knob: _Knob) -> float:
    return abs(math.log(value / knob.now))


def _nearest(knob: _Knob, found: dict[float, float], good: float, is_met: Callable[[float], bool]) -> float:
    """The value nearest to the present one that will do, between the grid's nearest and its neighbor on the way."""
    if good == knob.now:
        return good
    between = [value for value in found if min(knob.now, good) <= value <= max(knob.now, good) and value != good]
    bad = min(between, key=lambda value: abs(value - good))
    while not knob.is_near(good, bad):
        middle = knob.rounded(math.sqrt(good * bad))
        if middle in (good, bad):
            middle = bad + math.copysign(knob.step or 0.0, good - bad)
        good, bad = (middle, bad) if is_met(middle) else (good, middle)
    return good
