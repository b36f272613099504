"""A13, A14: what layer-level timelines say of bandwidth, against the simulation of Streaming DiLoCo.

Every cell of table 4 is a bandwidth of the published grid, found by bisection over runs of one scenario file,
`papers/a14/<size>-<method>`, that differ in the peers' links and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from covsim.record.layered_run import watched
from covsim.scenario import load
from covsim.sweep.papers.verdicts import Verdict, ruled

TARGETS = ("A13", "A14")
GRID = tuple(10 ** (-1 + 4 * place / 49) for place in range(50))
"""Gbit/s: every printed value of table 4 lies on it."""

UTILIZATIONS = (0.50, 0.80, 0.90, 0.95, 0.99)
TABLE_4: Mapping[str, Mapping[str, Sequence[float]]] = {
    "1b": {
        "data-parallel": (86.8, 152.6, 184.2, 222.3, 569.0),
        "diloco": (1.4, 6.2, 13.3, 23.3, 86.8),
        "streaming": (1.4, 5.2, 9.1, 16.0, 28.1),
        "streaming-overlap": (1.4, 4.3, 6.2, 9.1, 11.0),
        "streaming-overlap-fp4": (0.4, 0.9, 1.7, 2.0, 3.0),
    },
    "10b": {
        "data-parallel": (104.8, 222.3, 222.3, 268.3, 471.5),
        "diloco": (1.7, 7.5, 16.0, 33.9, 104.8),
        "streaming": (1.7, 5.2, 9.1, 13.3, 19.3),
        "streaming-overlap": (1.7, 3.6, 5.2, 6.2, 7.5),
        "streaming-overlap-fp4": (0.4, 0.9, 1.4, 1.4, 1.7),
    },
    "100b": {
        "data-parallel": (184.2, 323.8, 390.7, 390.7, 471.5),
        "diloco": (3.0, 11.0, 23.3, 49.4, 184.2),
        "streaming": (2.4, 6.2, 9.1, 11.0, 19.3),
        "streaming-overlap": (1.7, 3.6, 4.3, 5.2, 5.2),
        "streaming-overlap-fp4": (0.5, 0.9, 1.1, 1.1, 1.4),
    },
}
"""Gbit/s that reach each utilization, as printed (2501.18512)."""

MOST_TWO_STEPS_OFF = 2
STEPS_OF_25B_TOKENS = 24_000


def judge() -> list[Verdict]:
    """A row per target."""
    return [*hours(), verdict(cells())]


def place_of(gigabits_per_s: float) -> int:
    """The place on the grid that a printed value stands for."""
    return min(range(len(GRID)), key=lambda place: abs(GRID[place] / gigabits_per_s - 1))


@cache
def run_at(name: str, gigabits_per_s: float) -> Mapping[str, Any]:
    """The summary of a run of a scenario over links of so many Gbit/s, in this process and without a folder."""
    link = f"{gigabits_per_s!r} Gb/s"
    done = watched(load(f"papers/a14/{name}", {"cohorts.honest.uplink": link, "cohorts.honest.downlink": link}))
    assert done is not None, "nobody interrupts it"
    return done[1]


def bandwidth_for(utilization: float, utilization_at: Callable[[int], float]) -> int:
    """The lowest place on the grid at which a utilization is reached; the last place if none does.

    Args:
        utilization: to reach.
        utilization_at: that of a run at a place on the grid; it never falls with bandwidth.
    """
    low, high = 0, len(GRID) - 1
    while low < high:
        middle = (low + high) // 2
        if utilization_at(middle) >= utilization:
            high = middle
        else:
            low = middle + 1
    return low


def column(size: str, method: str) -> pd.DataFrame:
    """The cells of one size and method: a row per utilization."""
    name = f"{size}-{method}"

    def utilization_at(place: int) -> float:
        return float(run_at(name, GRID[place])["time.compute_utilization"])

    rows = []
    for utilization, published in zip(UTILIZATIONS, TABLE_4[size][method], strict=True):
        place = bandwidth_for(utilization, utilization_at)
        rows.append(
            {
                "scenario": f"papers/a14/{name}",
                "utilization": utilization,
                "published_gbit_s": published,
                "gbit_s": GRID[place],
                "grid_steps_off": place - place_of(published),
                "utilization_there": utilization_at(place),
            }
        )
    return pd.DataFrame(rows)


@cache
def cells() -> pd.DataFrame:
    """All 75 cells."""
    return pd.concat([column(size, method) for size in TABLE_4 for method in TABLE_4[size]], ignore_index=True)


def verdict(table: pd.DataFrame) -> Verdict:
    """Reproduced: each cell within one step of the grid, at most two within two."""
    counts = Counter(table["grid_steps_off"].tolist())
    far = int((table["grid_steps_off"].abs() > 1).sum())
    good = far <= MOST_TWO_STEPS_OFF and int(table["grid_steps_off"].abs().max()) <= 2
    spelled = ", ".join(f"{counts[off]} at {off:+d}" if off else f"{counts[0]} equal" for off in sorted(counts))
    beyond = "; ".join(
        f"{scenario.removeprefix('papers/a14/')} at {utilization:.0%}"
        for scenario, utilization, off in zip(
            table["scenario"].tolist(), table["utilization"].tolist(), table["grid_steps_off"].tolist(), strict=True
        )
        if abs(off) > 1
    )
    return Verdict(
        id="A14",
        kind="gate",
        claim="Gbit/s for a compute utilization of 50, 80, 90, 95, 99 %: data parallel, DiLoCo, streaming, with "
        "overlap, with FP4; 1, 10, 100 billion parameters",
        source="2501.18512, table 4",
        expected="75 values on a grid of ratio 1.207",
        rule=f"each within one step of the grid, at most {MOST_TWO_STEPS_OFF} within two",
        ours=f"of {len(table)}, in steps of the grid: {spelled}"
        + (f" ({beyond})" if beyond else "")
        + "; nothing fitted",
        error=f"{table['grid_steps_off'].mean():+.2f} steps on average",
        status=ruled(good, not good),
    )


def hours() -> list[Verdict]:
    """1 billion parameters at 1 Gbit/s over 25 billion tokens, by the seconds that a step takes in a run."""
    parallel, streaming = (_hours(name) for name in ("1b-data-parallel", "1b-streaming-overlap-fp4"))
    errors = parallel / 109 - 1, streaming / 0.88 - 1
    good = abs(errors[0]) <= 0.10 and abs(errors[1]) <= 0.15
    compute = STEPS_OF_25B_TOKENS * 0.1 / 3600
    return [
        Verdict(
            id="A13",
            kind="gate",
            claim="1 billion parameters at 1 Gbit/s, 24,000 steps of 0.1 s: data parallel in 16 bits; streaming in "
            "FP4, H 100, overlap of a step",
            source="2501.18512",
            expected="109 h; 0.88 h (compute 0.67 h)",
            rule="within 10 %; within 15 %",
            ours=f"{parallel:.1f} h; {streaming:.3f} h (compute {compute:.2f} h)",
            error=f"{100 * errors[0]:+.1f} %; {100 * errors[1]:+.1f} %",
            status=ruled(good, not good),
        )
    ]


def _hours(name: str) -> float:
    """Hours of 24,000 steps at the pace of the scenario's rounds."""
    summary, scenario = run_at(name, 1.0), load(f"papers/a14/{name}")
    steps_a_round = getattr(scenario.timeline, "cycle", None) or scenario.plan.inner_steps
    seconds_a_step = summary["time.simulated_s"] / (summary["rounds"] * steps_a_round)
    return float(STEPS_OF_25B_TOKENS * seconds_a_step / 3600)
