"""docs/behaviors.md: its tables list what is registered, and say of it what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from stand_in import TRAINED, StandIn, text_of

from covsim.behaviors import Behavior, behaviors, validator_behaviors
from covsim.scenario.catalog import catalog, sources

PAGE = (Path(__file__).parents[2] / "docs" / "behaviors.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
FELLOWS = (2, 5, 9)


def rows(text: str) -> dict[str, list[str]]:
    """The cells behind each name."""
    found = ROW.findall(text)
    assert len(found) == len({name for name, _ in found}), "a name stands twice"
    return {name: cells.split(" | ") for name, cells in found}


PEERS, VALIDATORS = (rows(part) for part in PAGE.split("## Validators"))


def test_every_behavior_has_its_row() -> None:
    assert sorted(PEERS) == list(behaviors)
    assert sorted(VALIDATORS) == list(validator_behaviors)


@pytest.mark.parametrize(
    ("sort", "table"), [("behaviors", PEERS), ("validator-behaviors", VALIDATORS)], ids=["peers", "validators"]
)
def test_a_row_says_what_the_class_says(sort: str, table: dict[str, list[str]]) -> None:
    """First sentence and source are those of the docstring."""
    does, comes_from = catalog(sort), sources(sort)
    for kind, cells in table.items():
        assert (cells[0], f"Source: {cells[-1]}") == (does[kind], comes_from[kind]), kind


@pytest.mark.parametrize("kind", PEERS)
def test_knowledge_is_that_of_the_class(kind: str) -> None:
    part: Any = behaviors[kind]
    levels = ("omniscient", "observed") if "reads" in part.model_fields else (None,)
    known = [(part() if level is None else part(reads=level)).knowledge for level in levels]
    assert PEERS[kind][1] == ", or ".join(known)


def verbs_of(mind: Behavior, uid: int) -> list[str]:
    """What a peer does over ten rounds in which there is everything to be had."""
    notes: dict[str, Any] = {"best": 1.0}
    told = {key: StandIn().noise(1.0) for key in ("update", f"update of {FELLOWS[0]}")}
    common: dict[str, Any] = {
        "listed": [1, *FELLOWS],
        "others": TRAINED[None],
        "payloads": {1: text_of(TRAINED)},
        "told": told,
    }
    bodies = [StandIn(round, uid, FELLOWS, notes=notes, **common).play(mind) for round in range(10)]
    return [verb for body in bodies for verb in body.verbs]


@pytest.mark.parametrize("kind", PEERS)
def test_costs_are_those_of_the_script(kind: str) -> None:
    """Over some rounds of its cohort it trains, uploads and downloads if and only if its row says so."""
    part, costs = behaviors[kind], PEERS[kind][2]
    variants = [part(), part(reads="observed")] if "reads" in part.model_fields else [part()]
    verbs = {verb for mind in variants for uid in FELLOWS for verb in verbs_of(mind, uid)}
    assert ("steps" in costs) == ("train" in verbs)
    assert ("1 up" in costs) == bool(verbs & {"submit", "submit_payload"})
    assert ("flood" in costs) == ("put" in verbs)
    assert ("down" in costs) == bool(verbs & {"download", "payloads_of_others"})
    assert ("registrations" in costs) == ("register_again" in verbs)
