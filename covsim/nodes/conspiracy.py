"""What peers know of each other beyond the store: fellows who talk, and the updates that are about to be submitted.

The channel stands for whatever colluders use; it is free. The board is the simulator's knowledge, for the literature's
omniscient attackers; it is kept only where a scenario has one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy
from simpy.events import NORMAL, EventPriority

from covsim.learning.update import Update
from covsim.world.clock import alarm, on_event

_LAST = EventPriority(NORMAL + 1)  # behind all that happens at an instant

Waiting = Generator[simpy.Event, Any, Any]


@dataclass
class _Word:
    """What is said under a key, and who waits for it."""

    said: simpy.Event
    value: Any = None


@dataclass
class _Look:
    """One instant at which the board is looked at: all who look then see the same."""

    at_s: float
    event: simpy.Event
    seen: dict[int, Update]


class Conspiracy:
    """Who belongs together, what fellows tell each other in a round, and what is about to be submitted in it.

    Args:
        env: the simulation whose time passes.
        omniscient: whether somebody reads the board; otherwise nothing is kept on it.
    """

    def __init__(self, env: simpy.Environment, omniscient: bool) -> None:
        self.omniscient = omniscient
        self._env = env
        self._cohorts: dict[int, str] = {}  # by uid
        self._members: dict[str, list[int]] = {}  # by cohort, ascending
        self._words: dict[tuple[int, str, str], _Word] = {}  # by round, cohort and key
        self._board: dict[int, dict[int, Update]] = {}  # by round and uid
        self._looks: dict[int, _Look] = {}  # by round, the latest

    # Who belongs together -------------------------------------------------------------------------------------------

    def enroll(self, uid: int, cohort: str) -> None:
        """Make a uid one of a cohort."""
        assert uid not in self._cohorts, f"uid {uid} is enrolled"
        self._cohorts[uid] = cohort
        insort(self._members.setdefault(cohort, []), uid)

    def withdraw(self, uid: int) -> None:
        """A uid is given up, and belongs to nobody any more."""
        self._members[self._cohorts.pop(uid)].remove(uid)

    def cohort(self, uid: int) -> str:
        """The cohort of a uid."""
        return self._cohorts[uid]

    def fellows(self, uid: int) -> tuple[int, ...]:
        """The uids of this uid's cohort, its own among them, ascending."""
        return tuple(self._members[self.cohort(uid)])

    # The channel ----------------------------------------------------------------------------------------------------

    def tell(self, uid: int, round: int, key: str, value: Any) -> None:
        """Say something to the cohort of a uid; what was said before under this key is replaced."""
        word = self._word(uid, round, key)
        word.value = value
        if not word.said.triggered:
            word.said.succeed()

    def heard(self, uid: int, round: int, key: str, until_s: float) -> Waiting:
        """Wait until something is said under a key, and return it; None if nothing is until a time."""
        word = self._word(uid, round, key)
        if not word.said.triggered and self._env.now < until_s:
            yield word.said | alarm(self._env, until_s)
        return word.value

    # The board ------------------------------------------------------------------------------------------------------

    def note(self, uid: int, round: int, update: Update) -> None:
        """A uid is about to submit this update for a round; a later one of the same uid replaces it."""
        if self.omniscient:
            self._board.setdefault(round, {})[uid] = update

    def updates_of_others(self, uid: int, round: int) -> Waiting:
        """What all uids of other cohorts have noted for a round by the end of this instant, by uid.

        Raises ValueError if no behavior of the scenario has said that it is omniscient.
        """
        if not self.omniscient:
            raise ValueError(
                f"the behavior of uid {uid} asks for the updates of others, which none may know: "
                'state `knowledge = "omniscient"`'
            )
        look = self._looks.get(round)
        if look is None or look.at_s != self._env.now or look.event.processed:
            look = self._looks[round] = self._look(round)
        yield look.event
        return [update for other, update in sorted(look.seen.items()) if self._is_foreign(other, uid)]

    def forget_before(self, round: int) -> None:
        """Drop what was said and noted for earlier rounds."""
        self._words = {key: word for key, word in self._words.items() if key[0] >= round}
        self._board = {noted: updates for noted, updates in self._board.items() if noted >= round}
        self._looks = {looked: look for looked, look in self._looks.items() if looked >= round}

    def _word(self, uid: int, round: int, key: str) -> _Word:
        return self._words.setdefault((round, self.cohort(uid), key), _Word(self._env.event()))

    def _look(self, round: int) -> _Look:
        """Look at the board when all else of this instant has happened."""
        look = _Look(self._env.now, alarm(self._env, self._env.now, _LAST), {})
        on_event(look.event, lambda _: look.seen.update(self._board.get(round, {})))
        return look

    def _is_foreign(self, other: int, uid: int) -> bool:
        return self._cohorts.get(other) != self.cohort(uid)
