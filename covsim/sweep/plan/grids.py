"""Tables behind the figures: a plan at many points, a row each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from covsim.randomness import Streams
from covsim.sweep.plan.measures import Measures
from covsim.sweep.plan.setting import Setting
from covsim.units import format_duration
from covsim.world.barrier import Barrier, WaitFor
from covsim.world.clock import Windowed

FITS = 0.95
"""Where a grid changes how long a round takes, windows are as long as so many of the peers need, no upload is late."""

BANDWIDTHS = np.geomspace(0.1, 100, 25)
STEPS = np.unique(np.geomspace(1, 1000, 25).round().astype(int))
SLOWNESS = np.linspace(1, 8, 15)
SHARES = np.linspace(0, 0.5, 11)
USUAL_SLOWNESS, USUAL_SHARE = 3.0, 0.1
FIRST = 0.8  # of the peers are waited for
DEADLINE = 1.25  # of what the usual peers need
LINKS = (0.5, 1.0, 4.0, 16.0, 64.0)
_LONG_S = 1e9


def fitted(setting: Setting) -> Setting:
    """The same with all deadlines as long as nearly all need; on a barrier there is no window to be fitted."""
    patient = replace(setting, put_window_s=_LONG_S, gather_timeout_s=_LONG_S)
    timeline = setting.scenario.timeline
    if setting.barrier is not None or not isinstance(timeline, Windowed):
        return patient
    unhurried = Measures.of(replace(patient, window_s=_LONG_S))
    needed_s = np.quantile(np.concatenate([each.needed_s for each in unhurried.rounds]), FITS)
    return replace(patient, window_s=math.ceil(float(needed_s) / timeline.block - 1e-9) * timeline.block)


def utilization_grid(setting: Setting) -> pd.DataFrame:
    """Utilization over bandwidth, as a multiple of what links have and as the median uplink, and H."""
    uplink = float(np.median(setting.uplink))
    rows = []
    for factor in BANDWIDTHS:
        faster = setting.with_bandwidth(float(factor))
        for steps in STEPS:
            measured = Measures.of(fitted(faster.with_inner_steps(int(steps))))
            rows.append(
                {
                    "bandwidth": factor,
                    "uplink_bits_per_s": factor * uplink,
                    "inner_steps": int(steps),
                    "utilization": measured.utilization,
                    "round_s": measured.round_s,
                }
            )
    return pd.DataFrame(rows)


def straggler_grid(setting: Setting) -> pd.DataFrame:
    """Round time and steps that count over slowness, and over the share of slow peers, for each policy.

    Steps that count are relative to those of the first policy, a barrier for all, with nobody slow.
    """
    rows = []
    points = [("slowness", USUAL_SHARE, float(x)) for x in SLOWNESS]
    points += [("share", float(x), USUAL_SLOWNESS) for x in SHARES]
    ruled = policies(setting)
    usual = Measures.of(next(iter(ruled.values()))).useful_steps_per_hour
    for policy, under in ruled.items():
        for over, share, slowness in points:
            measured = Measures.of(slowed(under, share, slowness))
            rows.append(
                {
                    "policy": policy,
                    "over": over,
                    "share": share,
                    "slowness": slowness,
                    "round_s": measured.round_s,
                    "steps_that_count": measured.useful_steps_per_hour / usual if usual else math.nan,
                }
            )
    return pd.DataFrame(rows)


def bytes_grid(setting: Setting) -> pd.DataFrame:
    """Hours and bytes of the same inner steps, over H, for links of several speeds."""
    total_steps = setting.rounds * setting.inner_steps * setting.num_peers
    rows = []
    for factor in LINKS:
        faster = setting.with_bandwidth(factor)
        for steps in STEPS:
            measured = Measures.of(fitted(faster.with_inner_steps(int(steps))))
            hours = total_steps / measured.useful_steps_per_hour
            moved = measured.total(lambda x: x.exchange.up_bytes + x.exchange.down_bytes)
            rows.append(
                {
                    "bandwidth": factor,
                    "inner_steps": int(steps),
                    "hours": hours,
                    "bytes": hours * 3600 / measured.round_s * moved,
                }
            )
    return pd.DataFrame(rows)


def slowed(setting: Setting, share: float, slowness: float) -> Setting:
    """The same with a share of the machines, drawn from a stream of its own, so many times as slow."""
    drawn = Streams(setting.scenario.seed).numpy("plan stragglers").permutation(setting.num_peers)
    factor = np.where(drawn < round(share * setting.num_peers), slowness, 1.0)
    parts = {name: getattr(setting, name) * factor for name in ("step_s", "compression_s", "decoding_s")}
    return replace(setting, **parts)


def policies(setting: Setting) -> Mapping[str, Setting]:
    """The same peers under a barrier for all, for the first, with a deadline, and in windows as long as that."""
    first = max(1, round(FIRST * setting.num_peers))
    waits = _barrier(setting)
    everybody = replace(setting, barrier=waits)
    usual_s = float(np.median(Measures.of(everybody).rounds[0].needed_s))
    deadline = format_duration(round(DEADLINE * usual_s, 3))
    ruled = {
        "barrier for all": everybody,
        f"barrier for the first {first}": _with(everybody, WaitFor(first=first)),
        f"deadline {DEADLINE:g} x the median": _with(everybody, WaitFor(deadline=deadline)),
    }
    if setting.direct is not None:
        return ruled
    block_s = setting.scenario.timeline.block
    windows = replace(setting, barrier=None, window_s=math.ceil(DEADLINE * usual_s / block_s) * block_s)
    return {**ruled, "windows as long as that": windows}


def _barrier(setting: Setting) -> Barrier:
    own = setting.scenario.timeline
    known = own if isinstance(own, Barrier) else Barrier()  # put window and timeout are the setting's
    return known.model_copy(update={"wait_for": WaitFor(), "late": "cut", "longest": _LONG_S})


def _with(setting: Setting, wait_for: WaitFor) -> Setting:
    assert setting.barrier is not None
    return replace(setting, barrier=setting.barrier.model_copy(update={"wait_for": wait_for}))
