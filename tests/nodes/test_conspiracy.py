"""The channel and the board by themselves: who hears what and when, whatever the order in which processes run."""

from __future__ import annotations

from typing import Any

import pytest
import simpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from covsim.learning.update import Update
from covsim.nodes.conspiracy import Conspiracy


def conspiracy(env: simpy.Environment, cohorts: dict[int, str], omniscient: bool = True) -> Conspiracy:
    made = Conspiracy(env, omniscient)
    for uid, cohort in cohorts.items():
        made.enroll(uid, cohort)
    return made


def test_who_belongs_together() -> None:
    made = conspiracy(simpy.Environment(), {5: "a", 2: "b", 1: "a", 9: "a"})
    assert made.fellows(1) == made.fellows(9) == (1, 5, 9)
    assert made.fellows(2) == (2,)
    made.withdraw(5)
    made.enroll(11, "a")
    assert made.fellows(1) == (1, 9, 11)
    with pytest.raises(AssertionError, match="uid 11 is enrolled"):
        made.enroll(11, "b")


@given(st.permutations([0, 1, 2, 3, 4]), st.integers(0, 3))
def test_all_who_look_at_one_instant_see_the_same(order: list[int], zeros: int) -> None:
    """Whoever was started first, and however often those who submit have yielded at that instant before.

    0 and 1 submit, 2 and 3 of two cohorts look and submit what they saw, 4 submits a second later.
    """
    env = simpy.Environment()
    made = conspiracy(env, {0: "honest", 1: "honest", 2: "one", 3: "other", 4: "honest"})
    updates = {uid: Update.of(torch.tensor([float(uid)])) for uid in range(5)}
    seen: dict[int, list[Update]] = {}

    def submits(uid: int, after_s: float) -> Any:
        yield env.timeout(after_s)
        for _ in range(zeros):
            yield env.timeout(0)
        made.note(uid, 0, updates[uid])

    def looks(uid: int) -> Any:
        yield env.timeout(10.0)
        seen[uid] = yield from made.updates_of_others(uid, 0)
        made.note(uid, 0, updates[uid])

    processes = {0: submits(0, 10.0), 1: submits(1, 10.0), 2: looks(2), 3: looks(3), 4: submits(4, 11.0)}
    for uid in order:
        env.process(processes[uid])
    env.run()
    assert seen == {2: [updates[0], updates[1]], 3: [updates[0], updates[1]]}


def test_who_looks_again_at_the_same_instant_sees_who_has_answered() -> None:
    env = simpy.Environment()
    made = conspiracy(env, {1: "one", 2: "other"})
    numbers: list[int] = []

    def looks(uid: int) -> Any:
        for _ in range(2):
            others = yield from made.updates_of_others(uid, 0)
            numbers.append(len(others))
            made.note(uid, 0, Update.of(torch.zeros(1)))

    for uid in (1, 2):
        env.process(looks(uid))
    env.run()
    assert numbers == [0, 0, 1, 1]


def test_who_waits_hears_the_first_word_and_nobody_waits_for_ever() -> None:
    env = simpy.Environment()
    made = conspiracy(env, {1: "a", 2: "a", 3: "b"}, omniscient=False)
    heard: list[tuple[int, float, Any]] = []

    def hears(uid: int, round: int, until_s: float) -> Any:
        word = yield from made.heard(uid, round, "key", until_s)
        heard.append((uid, env.now, word))

    def tells() -> Any:
        yield env.timeout(5.0)
        made.tell(1, 0, "key", "word")

    env.process(tells())
    for arguments in ((2, 0, 9.0), (2, 0, 4.0), (2, 1, 8.0), (3, 0, 7.0), (2, 0, 0.0)):
        env.process(hears(*arguments))
    env.run()
    assert heard == [(2, 0.0, None), (2, 4.0, None), (2, 5.0, "word"), (3, 7.0, None), (2, 8.0, None)]


def test_what_is_over_is_dropped() -> None:
    env = simpy.Environment()
    made = conspiracy(env, {1: "a", 2: "b"})
    for round in range(3):
        made.note(1, round, Update.of(torch.zeros(1)))
        made.tell(1, round, "key", round)
    made.forget_before(2)
    assert set(made._board) == {2}
    assert {key[0] for key in made._words} == {2}
    silent = conspiracy(env, {1: "a"}, omniscient=False)
    silent.note(1, 0, Update.of(torch.zeros(1)))
    assert not silent._board
