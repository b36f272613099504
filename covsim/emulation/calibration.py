"""What an emulation says of real requests, put into the terms of a scenario, so that a simulation can be told of it.

Fitted by least squares to the long transfers of a comparison: measured = overhead + latency + moving / share. `moving`
is what the simulation says that the bytes take, over links that others share; `share` is which part of a link's rate
comes to be of use, headers and congestion control taken off, for each direction; `overhead` is what a request takes
besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from covsim.emulation.compare import CannotCompare, Pair, transfers
from covsim.emulation.comparison import long_transfers
from covsim.record.files import write_text
from covsim.scenario import Scenario
from covsim.scenario.resolve import yaml_text
from covsim.units import format_rate
from covsim.world.machine import ConstantRate

FEWEST = 10
"""Transfers of each direction below which nothing is fitted."""


@dataclass(frozen=True)
class Calibration:
    """Fitted figures of an emulation.

    Attributes:
        overhead_s: of a request, simulated seconds.
        share_up, share_down: effective part of the rate.
        num_transfers: to which they were fitted.
        left_s: root of the mean square of what the fit leaves.
    """

    overhead_s: float
    share_up: float
    share_down: float
    num_transfers: int
    left_s: float


def fitted(pair: Pair) -> Calibration:
    """Fit the figures to two runs. Raises CannotCompare where there are too few transfers."""
    frame = long_transfers(transfers(pair))
    up = frame["direction"].eq("up").to_numpy()
    if min(up.sum(), (~up).sum()) < FEWEST:
        raise CannotCompare(f"fewer than {FEWEST} long transfers each way: there is nothing to fit")
    latency_s = pair.sim.scenario.network.latency
    moving = frame["predicted_s"].to_numpy() - latency_s - pair.sim.scenario.network.request_overhead
    columns = np.column_stack([np.ones(len(frame)), moving * up, moving * ~up])
    wanted = frame["measured_s"].to_numpy() - latency_s
    found = np.linalg.lstsq(columns, wanted)[0]
    if found[0] < 0:  # no request takes less than nothing
        columns[:, 0] = 0.0
        found = np.linalg.lstsq(columns, wanted)[0]
    left = wanted - columns @ found
    share_up, share_down = (float(1 / slower) for slower in found[1:])
    return Calibration(float(found[0]), share_up, share_down, len(frame), float(np.sqrt(np.mean(left**2))))


def calibrated(scenario: Scenario, found: Calibration) -> str:
    """The scenario as YAML with the fitted figures in it: a `network:` block, and the rates of all links.

    Raises CannotCompare for links that are drawn from a distribution, whose rates cannot be written down.
    """
    values = scenario.model_dump(mode="json", exclude_none=True)
    overhead_ms = round(1000 * found.overhead_s, 1)
    values["network"]["request_overhead"] = f"{overhead_ms:g} ms"
    for name, cohort in scenario.cohorts.items():
        up, down = cohort.uplink, cohort.downlink
        if not isinstance(up, ConstantRate) or not isinstance(down, ConstantRate):
            raise CannotCompare(f"cohort {name}: links of a distribution cannot be calibrated")
        values["cohorts"][name]["uplink"] = format_rate(up.value * found.share_up)
        values["cohorts"][name]["downlink"] = format_rate(down.value * found.share_down)
    for name, node in scenario.validators.items():
        values["validators"][name]["uplink"] = format_rate(node.uplink * found.share_up)
        values["validators"][name]["downlink"] = format_rate(node.downlink * found.share_down)
    return yaml_text(values)


def write_calibrated(pair: Pair, path: Path) -> Calibration:
    """Fit, and write the scenario that a simulation is to run."""
    found = fitted(pair)
    head = (
        f"# FITTED, not measured one by one: to {found.num_transfers} transfers of an emulation over links of kind "
        f"{pair.emu.summary['emulation.links']}.\n"
        f"# A request takes {1000 * found.overhead_s:.0f} ms beside its latency; of the rates "
        f"{100 * found.share_up:.1f} % up and {100 * found.share_down:.1f} % down are effective;\n"
        f"# the fit leaves {1000 * found.left_s:.0f} ms (root mean square).\n"
    )
    write_text(path, head + calibrated(pair.sim.scenario, found))
    return found
