"""What a version of the rules has set, and how it fills in what a scenario does not give.

Sources: the Gauntlet paper (arXiv 2505.21684), the hyper-parameter files of `templar`, and its public code of about
v1.0.10, v2.0 and v2.1.2: rules that are missing there are taken to have come later. What is **not settled** by these is
named at each preset, and was decided here. Whatever a preset does not name is as in v2.1.28; of that, `beta`, `tau`,
the indicator's decay and the sync score's average also stand in older files or code, the rest (sequences of a loss, the
samples of the sync score) is not settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OVERLAP = ("overlap_halve", "overlap_reset", "overlap_exclude")
_NEGATIVE = ("bad_window", "mostly_negative", "negative_streak")

PAPER: dict[str, Any] = {
    "off": (
        *("inactive", "long_inactive", *_OVERLAP, "sync_behind", "gather_absence", "gather_quorum", "gather_miss"),
        *("evaluated_missing", "evaluated_invalid", *_NEGATIVE, "penalty_score"),
    ),
    "evaluated_per_window": 5,
    "active_windows": 5,
    "bins": 1,
    "indicator_threshold": 0.0,
    "score": {"rating": "ordinal", "indicator": "signed", "sync": False},
    "weights": {"kind": "power", "power": 2.0, "floor": "lowest", "top": 15, "burn": 0.0, "set_every_windows": 1},
    "quirks": {
        "slash_overwritten": False,
        "overlap_by_previous_stamps": False,
        "reserve_unchecked": False,
        "benched_in_bad_windows": False,
        "empty_gather_judged": False,
        "rank_without_improvement": True,
    },
}
"""The paper: score = indicator average, with its sign, x rating; the best 15 paid by (score - lowest)^2; no slashing.

Not settled: that the rating is the ordinal (its negative values make two negatives a reward, which happened); that a
missing submission plays no match, and so keeps its score; one bin, no burn, weights in every window, five windows until
a peer counts as gone; the trial factor of 0.2. The paper's filter for peers out of sync is not modeled.
"""

V0_2: dict[str, Any] = {
    "off": (*_OVERLAP, "gather_absence", "gather_quorum", *_NEGATIVE, "penalty_score"),
    "evaluated_per_window": 4,
    "active_windows": 5,
    "indicator_threshold": 0.0,
    "slashing": {"misses": (0.75,), "inactive_windows": 25, "zero_below": 0.0},
    "sync": {"cap": 5.0, "max_behind": 3.0},
    "weights": {
        **{"kind": "power", "power": 2.2, "floor": "zero", "top": "none"},
        **{"burn": 0.0, "set_every_windows": 50},
    },
    "quirks": {
        "slash_overwritten": True,
        "overlap_by_previous_stamps": False,
        "reserve_unchecked": False,
        "benched_in_bad_windows": False,
        "empty_gather_judged": False,
        "rank_without_improvement": True,
    },
}
"""v0.2.88, the 1.2B run: pay by F^2.2, nothing burned, nothing that looks for copies, no reserve.

Not modeled: the score of the earlier v0.2 (an average of gradient scores, in place of a rating, times the indicator);
the unit of steps behind, which was the learning rate. Not settled: that the sync curve was the earlier one,
(1 - x/5)^2.5; that a missed gather cost a quarter, whoever else missed it; that slashes cut the indicator average too,
and that of the average the positive part counts, as later.
"""

V1_0: dict[str, Any] = {
    "off": ("overlap_reset", "overlap_exclude", "gather_absence", *_NEGATIVE, "penalty_score"),
    "evaluated_per_window": 10,
    "active_windows": 5,
    "trial_factor": 0.1,
    "indicator_threshold": 0.0,
    "overlap": {"from_round": 0, "halve": 0.4},
    "slashing": {"misses": (0.75,), "inactive_windows": 10, "zero_below": 0.0},
    "sync": {"cap": 5.0, "max_behind": 3.0},
    "weights": {"kind": "ramp", "burn": 0.8, "set_every_windows": 13},
    "quirks": {
        "slash_overwritten": True,
        "overlap_by_previous_stamps": True,
        "reserve_unchecked": True,
        "benched_in_bad_windows": False,
        "empty_gather_judged": True,
        "rank_without_improvement": True,
    },
}
"""v1.0.20, the 8B run: the ramp, four fifths burned, copies from an overlap of 0.4 on halved.

Not settled: that the sync curve was the earlier one, (1 - x/5)^2.5, as in the code of about v1.0.10, where a higher
overlap also cost no more than half, from the first window on, and every missed gather a quarter; that v1.0.20 had
neither the floor below which scores vanish nor the check of expected tensors for reserves.
"""

V2_1_0: dict[str, Any] = {
    "off": ("gather_absence", "bad_window", "mostly_negative", "penalty_score"),
    "evaluated_per_window": 15,
    "active_windows": 5,
    "indicator_threshold": 0.0,
    "slashing": {"misses": (0.75,), "excluded_windows": 200, "inactive_windows": 10},
    "sync": {"cap": 5.0, "max_behind": 3.0},
    "weights": {"kind": "ramp", "set_every_windows": 2},
    "quirks": {"benched_in_bad_windows": False},
}
"""v2.1.0, the start of the 72B run: overlaps reset and exclude, a streak of negative evaluations benches.

Not settled: the sync curve, here the earlier one, which code of about v2.1.2 still has; that misses did not add up
yet, that an exclusion lasted 200 windows, that those who are mostly negative were not
slashed, and the guard of bad windows, all of which later code has.
"""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "v0.2": V0_2,
    "v1.0": V1_0,
    "v2.1.0": V2_1_0,
    "v2.1.28": {},
}
"""By name, what differs from the defaults, which are those of v2.1.28."""


def filled(given: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, and the preset's under them, key by key at every depth.

    A given part of another kind than the preset's replaces it wholly; so does whatever is no mapping, such as a list or
    a group that is a model already.
    """
    below = {} if _of_another_kind(given, preset) else preset
    both = {**below, **given}
    for key in below.keys() & given.keys():
        if isinstance(given[key], Mapping) and isinstance(below[key], Mapping):
            both[key] = filled(given[key], below[key])
    return both


def with_tuples(value: Any) -> Any:
    """The value with every list, at every depth of its mappings, as a tuple."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _of_another_kind(given: Mapping[str, Any], preset: Mapping[str, Any]) -> bool:
    return "kind" in given and given["kind"] != preset.get("kind")
