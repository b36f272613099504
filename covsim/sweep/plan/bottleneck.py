"""What binds: each thing in turn is made twice as good, and what brings the most is the bottleneck."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from covsim.sweep.plan.measures import Measures
from covsim.sweep.plan.setting import Setting
from covsim.world.barrier import WaitFor
from covsim.world.clock import Windowed

LITTLE = 0.01
MOST_WAITED_FOR = 0.95
"""The window that is taken instead is as long as so many of the peers need; a barrier waits for so many."""


@dataclass(frozen=True)
class Bottleneck:
    """What binds the whole round, and what binds the exchange.

    Attributes:
        binds: its name; "nothing alone" if no single relief brings 1 %.
        of_exchange: the same of upload and gather alone, whether training hides them or not.
        reliefs: by name, the gain in useful steps per hour if it were twice as good; infinite from nothing.
    """

    binds: str
    of_exchange: str
    reliefs: Mapping[str, float]


def bottleneck(measured: Measures) -> Bottleneck:
    """What binds a setting whose rounds are known."""
    settings = dict(_reliefs(measured))
    relieved = {name: Measures.of(setting) for name, setting in settings.items()}
    base = measured.useful_steps_per_hour
    gains = {name: _gain(each.useful_steps_per_hour, base) for name, each in relieved.items()}
    gains["validators"] = max(0.0, measured.validator_load - 1)
    links = {name: 1 - relieved[name].exchange_s / measured.exchange_s for name in relieved if _is_link(name)}
    return Bottleneck(_best(gains), _best(links), dict(sorted(gains.items(), key=lambda item: -item[1])))


def _gain(value: float, base: float) -> float:
    if base > 0:
        return value / base - 1
    return math.inf if value > 0 else 0.0


def _best(gains: Mapping[str, float]) -> str:
    name = max(gains, key=lambda each: gains[each])
    return name if gains[name] >= LITTLE else "nothing alone"


def _is_link(name: str) -> bool:
    return name in ("uplinks", "downlinks", "both links") or name.startswith(("store ", "link "))


def _reliefs(measured: Measures) -> Iterator[tuple[str, Setting]]:
    setting = measured.setting
    yield "uplinks", setting.with_bandwidth(2, "up")
    yield "downlinks", setting.with_bandwidth(2, "down")
    if setting.direct is not None:
        yield "both links", setting.with_bandwidth(2)
    for link in (*setting.up_shared, *setting.down_shared):
        if math.isfinite(link.bits_per_s):
            yield link.name, setting.with_shared(link.name, 2)
    yield "machines", setting.with_machines(2)
    yield "put window", replace(setting, put_window_s=min(2 * setting.put_window_s, setting.window_s))
    yield "gather timeout", replace(setting, gather_timeout_s=2 * setting.gather_timeout_s)
    if setting.barrier is None:
        yield "window", replace(setting, window_s=_fitting_window_s(measured))
    else:
        most = max(1, math.floor(MOST_WAITED_FOR * setting.num_peers))
        first = min(most, setting.barrier.wait_for.first or most)
        waits = setting.barrier.model_copy(update={"wait_for": WaitFor(first=first)})
        yield "slowest peers", replace(setting, barrier=waits)


def _fitting_window_s(measured: Measures) -> float:
    """The window, in whole blocks, in which nearly all peers do all their steps beside the exchange."""
    setting = measured.setting
    timeline = setting.scenario.timeline
    assert isinstance(timeline, Windowed), "the calendar opens its windows"
    needed_s = np.quantile(np.concatenate([each.needed_s for each in measured.rounds]), MOST_WAITED_FOR)
    return math.ceil(max(float(needed_s), setting.put_window_s) / timeline.block - 1e-9) * timeline.block
