"""Random scenarios with all checkers on: whatever the links, the faults and the company, no rule is broken."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from covsim.behaviors import behaviors
from covsim.events import Event, RunStopped
from covsim.record.checkers import all_checkers
from covsim.scenario import Scenario, loads
from covsim.scenario.resolve import resolved_text

FEW = range(3)
MANY = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30)]


def drawn(base: Scenario, seed: int) -> Scenario:
    """A scenario that nobody would write, but everybody may."""
    luck = random.Random(seed)
    kinds = [luck.choice(list(behaviors)) for _ in range(luck.randint(1, 4))]
    cohorts = {f"c{i}": cohort(luck, kind) for i, kind in enumerate(kinds)} | {"rest": cohort(luck, "honest", "rest")}
    sections: dict[str, Any] = {
        "version": 1,
        "name": f"swarm-{seed}",
        "seed": seed,
        "stop": {"rounds": 3},
        "peers": luck.randint(2 * len(kinds) + 1, 12),
        "cohorts": cohorts,
        "timeline": {
            "blocks_per_window": luck.choice([30, 60, 100]),
            "put_window": luck.choice(["20 s", "100 s", "300 s"]),
            "gather_timeout": luck.choice(["30 s", "200 s", "1000 s"]),
            "poll": luck.choice(["0.5 s", "7 s"]),
        },
        "store": {"read_failure": luck.choice([0, 0.05, 0.5, 1]), "retries": luck.randint(0, 3)},
        "selection": luck.choice(
            [
                {"kind": "gauntlet", "gather": luck.randint(1, 6), "reserve": luck.randint(0, 3)},
                {"kind": "random", "gather": 3, "reserve": 1, "refresh_windows": 1},
                {"kind": "all"},
                {"kind": "fixed", "uids": [0, 1]},
            ]
        ),
        "aggregate": {"over": luck.choice(["senders", "all"]), "clip": luck.choice(["median_norm", "none"])},
        "gauntlet": {
            "evaluated_per_window": luck.randint(1, 12),
            "own_sequences": 2,
            "random_sequences": 2,
            "ties": luck.choice(["shared", "drawn"]),
            "overlap": {"from_round": 0, "among": luck.choice(["gathered", "evaluated"])},
        },
    }
    kept = {"model", "training", "protocol", "deployment", "validators", "data"}
    whole = base.model_dump(mode="json", exclude_none=True, include=kept) | sections
    return loads(as_yaml(whole))


def cohort(luck: random.Random, kind: str, share: str | None = None) -> dict[str, Any]:
    size = {"share": share} if share else {"count": luck.randint(1, 2)}
    up, down = luck.choice([5, 50, 200, 2000]), luck.choice([50, 500, 5000])
    return {
        **size,
        "behavior": kind,
        "uplink": {"kind": "lognormal", "median": f"{up} Mb/s", "sigma": 0.5},
        "downlink": f"{down} Mb/s",
        "speed": {"kind": "lognormal", "sigma": luck.choice([0.0, 0.8])},
    }


def as_yaml(value: dict[str, Any]) -> str:
    """JSON is YAML."""
    return json.dumps(value)


@pytest.mark.parametrize("seed", [*FEW, *MANY])
def test_no_rule_is_broken(seed: int, tiny: Scenario, play: Any) -> None:
    scenario = drawn(tiny, seed)
    checkers = all_checkers(put_window_s=scenario.timeline.put_window)
    events: list[Event]
    events, digest = play(scenario, [checker.observe for checker in checkers])
    assert isinstance(events[-1], RunStopped), resolved_text(scenario)
    assert events[-1].rounds == 3
    assert digest.learning == play(scenario)[1].learning
