"""Judgements that are remembered: those of the gauntlet, whatever the stamps, and each of its own evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.gauntlet.evidence import Evidence, Judgement, Standings
from covsim.gauntlet.settings import GauntletSettings
from covsim.nodes.books import Gauntlet, Judge
from covsim.nodes.recorded_judging import Judgements
from covsim.randomness import Streams

SETTINGS = GauntletSettings()
LOSSES = st.floats(0.5, 5.0) | st.just(math.nan)
MEASURED = st.builds(
    Evidence,
    uid=st.just(0),
    status=st.sampled_from(["ok", "missing", "late"]),
    stored_s=st.floats(0, 9),
    evaluated=st.booleans(),
    on_gather_list=st.booleans(),
    own_before=LOSSES,
    own_after=LOSSES,
    random_before=LOSSES,
    random_after=LOSSES,
    overlap=st.sampled_from([math.nan, 0.3, 1.0]),
    overlap_with=st.integers(0, 3),
    overlap_stored_s=st.floats(0, 9),
    steps_behind=st.sampled_from([math.nan, 0.0, 9.0]),
)
WINDOWS = st.lists(st.lists(MEASURED, min_size=1, max_size=4), min_size=1, max_size=4)


def lots(label: str, round: int) -> Callable[[int], float]:
    return lambda uid: Streams(0).uniform("lot", label, round, uid)


def judged(judge: Judge, label: str, windows: list[list[Evidence]]) -> list[tuple[object, ...]]:
    """What comes of windows one after the other, without the stamps; as text, for a NaN is not itself."""
    standings, found = Standings(), []
    for round, rows in enumerate(windows):
        named = [replace(row, uid=uid) for uid, row in enumerate(rows)]
        active = range(3)
        judgement = judge.judged(
            SETTINGS, standings, named, round=round, active=active, places=(2, 1), lots=lots(label, round)
        )
        standings = judgement.standings
        found.append((repr(timeless(judgement)), judge.logged(round, judgement, (2, 1)).spelled))
    return found


def timeless(judgement: Judgement) -> Judgement:
    nan = math.nan
    rows = [
        replace(each.evidence, stored_s=nan, previous_stored_s=nan, overlap_stored_s=nan) for each in judgement.verdicts
    ]
    verdicts = [replace(each, evidence=row) for each, row in zip(judgement.verdicts, rows, strict=True)]
    return replace(judgement, verdicts=tuple(verdicts))


@given(WINDOWS, WINDOWS)
def test_a_judgement_is_that_of_the_gauntlet(one: list[list[Evidence]], other: list[list[Evidence]]) -> None:
    """Catches a stamp that the rules go by, and a judgement of other evidence, standings or lots."""
    known = Judgements()
    for windows in (one, other, one):
        for label in ("lead", "second"):
            assert judged(known.of(label), label, windows) == judged(Gauntlet(), label, windows)


def test_stamps_change_no_judgement_and_are_not_asked_for() -> None:
    """Catches rows that are judged again because their payloads came at another time, which would be all of them."""
    known = Judgements()
    row = Evidence(uid=0, status="ok", stored_s=1.0, evaluated=True)
    for stored_s in (1.0, 2.0):
        judged(known.of("lead"), "lead", [[replace(row, stored_s=stored_s)]])
    assert len(known.made) == 1
    judged(known.of("lead"), "lead", [[replace(row, status="late")]])
    assert len(known.made) == 2


def test_unknown_standings_are_our_mistake() -> None:
    """Catches standings that are taken for others."""
    found = Gauntlet().judged(
        SETTINGS, Standings(), [Evidence(uid=0, status="ok")], round=0, active=[0], places=(1, 1), lots=lots("", 0)
    )
    with pytest.raises(KeyError):
        Judgements().of("lead").judged(
            SETTINGS, found.standings, [], round=1, active=[0], places=(1, 1), lots=lots("", 1)
        )
