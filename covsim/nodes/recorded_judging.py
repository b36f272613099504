"""Judgements that were made before: a window is judged once, however many runs come to the same evidence.

A judgement follows from rules, standings and evidence, and not from when a payload came: that has become a status by
then. So that nothing else can be, the stamps are taken out before the gauntlet sees a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, final

from covsim.chain.extrinsics import LogVerdicts
from covsim.gauntlet.evidence import Evidence, Judgement, Standings
from covsim.gauntlet.settings import GauntletSettings
from covsim.nodes.books import Gauntlet

STAMPS = ("stored_s", "previous_stored_s", "overlap_stored_s")
"""Fields of evidence that only pass through a judgement."""

_timeless = attrgetter(*(item.name for item in fields(Evidence) if item.name not in STAMPS))

Question = tuple[Any, ...]


@dataclass
class Judgements:
    """All judgements of the executions of one recorded run.

    Attributes:
        made: by what they followed from.
        names: of standings, by identity; `made` keeps those alive.
        logs: what a validator said of them on chain, by the identity of the standings.
    """

    made: dict[Question, Judgement] = field(default_factory=dict)
    names: dict[int, int] = field(default_factory=dict)
    logs: dict[int, LogVerdicts] = field(default_factory=dict)

    def of(self, label: str) -> Remembering:
        """What judges for a validator."""
        return Remembering(self, label)


@final
class Remembering:
    """Judges a validator's windows, each once.

    Args:
        known: all judgements until now.
        label: the validator, whose lots of a round are its own.
    """

    def __init__(self, known: Judgements, label: str) -> None:
        self._known, self._label, self._gauntlet = known, label, Gauntlet()

    def judged(
        self,
        settings: GauntletSettings,
        standings: Standings,
        evidence: Sequence[Evidence],
        *,
        round: int,
        active: Collection[int],
        places: tuple[int, int],
        lots: Callable[[int], float],
    ) -> Judgement:
        known, present = self._known, frozenset(active)
        name = known.names[id(standings)] if standings.peers else 0
        asked = (self._label, round, name, present, places, tuple(map(_timeless, evidence)))
        found = known.made.get(asked)
        if found is None:
            rows = [_without_stamps(row) for row in evidence]
            found = self._gauntlet.judged(
                settings, standings, rows, round=round, active=present, places=places, lots=lots
            )
            known.made[asked] = found
            known.names[id(found.standings)] = len(known.made)
        return found

    def logged(self, round: int, judgement: Judgement, places: tuple[int, int]) -> LogVerdicts:
        logs, key = self._known.logs, id(judgement.standings)
        if key not in logs:
            logs[key] = self._gauntlet.logged(round, judgement, places)
        return logs[key]


def _without_stamps(row: Evidence) -> Evidence:
    return replace(row, stored_s=math.nan, previous_stored_s=math.nan, overlap_stored_s=math.nan)
