"""Short ways to write down what a validator saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from covsim.gauntlet.evidence import Evidence, Judgement, Standing, Standings, newcomer
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.settings import GauntletSettings
from covsim.randomness import Streams

SETTINGS = GauntletSettings()


def lots(seed: int = 0) -> Callable[[int], float]:
    """A number per uid, drawn from a seed."""
    return lambda uid: Streams(seed).uniform("lot", uid)


def seen(uid: int, gain: float, own_gain: float | None = None, **more: Any) -> Evidence:
    """A submission, in sync, measured to improve random data by `gain` and own data by `own_gain` (or a bit more)."""
    own_gain = gain + 0.01 if own_gain is None else own_gain
    losses = {"own_before": 4.0, "own_after": 4.0 * (1 - own_gain)}
    losses |= {"random_before": 5.0, "random_after": 5.0 * (1 - gain)}
    return Evidence(uid=uid, status="ok", stored_s=1.0, evaluated=True, **{**losses, "steps_behind": 0.0, **more})


def asked_in_vain(uid: int, **more: Any) -> Evidence:
    """A listed peer, in sync, of whom the gather got nothing."""
    return Evidence(**{"uid": uid, "status": "missing", "on_gather_list": True, "steps_behind": 0.0, **more})


def gathered(uid: int, **more: Any) -> Evidence:
    """A listed peer, in sync, whose payload entered the gather; it was not evaluated."""
    row: dict[str, Any] = {"status": "ok", "stored_s": 1.0, "on_gather_list": True, "gathered": True}
    return Evidence(**{"uid": uid, **row, "steps_behind": 0.0, **more})


def established(**more: Any) -> Standing:
    """A peer with a good name: final score 3, indicator average 0.5."""
    known = {"mu": 30.0, "sigma": 2.0, "indicator_average": 0.5, "final_score": 3.0, "evaluations": 30}
    return replace(newcomer(SETTINGS, 0), **{**known, **more})


def judged(
    *rows: Evidence,
    peers: Mapping[int, Standing] | None = None,
    round: int = 30,
    active: range | set[int] | None = None,
    settings: GauntletSettings = SETTINGS,
    places: tuple[int, int] = (20, 10),
) -> Judgement:
    """The judgement of one window; unless said otherwise, everybody named is active."""
    known = dict(peers or {})
    everybody = {*known, *(row.uid for row in rows)}
    return judge(
        settings,
        Standings(known),
        rows,
        round=round,
        active=everybody if active is None else active,
        places=places,
        lots=lots(round),
    )


def fired(judgement: Judgement) -> dict[str, int]:
    """How often each rule fired, those that did."""
    return {entry.rule: entry.fired for entry in judgement.coverage if entry.fired}


def eligible(judgement: Judgement, rule: str) -> int:
    """On how many peers a rule could have acted."""
    return next(entry.eligible for entry in judgement.coverage if entry.rule == rule)
