"""Where two runs of one scenario part: the first thing that was not the same, in the order of cause and effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from covsim.emulation.compare import Pair, Row, Side

Facts = dict[Any, Any]


def first_difference(pair: Pair) -> str:
    """Says in one line why the final parameters differ; empty if the same was learned all the way."""
    if pair.sim.theta == pair.emu.theta and not next(_differences(pair), ""):
        return ""
    return next(_differences(pair), "the same payloads were gathered everywhere, and yet the parameters differ")


def _differences(pair: Pair) -> Iterator[str]:
    """All that differs, round by round."""
    last = max((row["round"] for side in (pair.sim, pair.emu) for row in side.events["RoundSettled"]), default=-1)
    for round in range(-1, last + 1):
        for facts, sentence in _LOOKS:
            predicted, measured = facts(pair.sim, round), facts(pair.emu, round)
            for key in sorted({*predicted, *measured}, key=str):
                if predicted.get(key) != measured.get(key):
                    values = _said(predicted.get(key)), _said(measured.get(key))
                    yield f"round {round}: {sentence.format(key)}: {values[0]} predicted, {values[1]} measured"


def _said(value: Any) -> str:
    if value is None:
        return "nothing"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _fact(kind: str, key: str, name: str) -> Callable[[Side, int], Facts]:
    """A field of all events of a type in a round, by another of their fields."""

    def facts(side: Side, round: int) -> Facts:
        return {row[key]: _short(row[name]) for row in _rows(side, kind, round)}

    return facts


def _rows(side: Side, kind: str, round: int) -> list[Row]:
    return [row for row in side.events[kind] if row["round"] == round]


def _short(value: Any) -> Any:
    """Hashes by their beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


_LOOKS: tuple[tuple[Callable[[Side, int], Facts], str], ...] = (
    (_fact("Trained", "uid", "steps"), "inner steps of uid {}"),
    (_fact("Submitted", "uid", "payload_sha256"), "payload of uid {}"),
    (_fact("Submitted", "uid", "on_time"), "uid {} on time"),
    (_fact("Gathered", "node", "uids"), "gathered by {}"),
    (_fact("OuterStepTaken", "node", "lineage"), "history of {}"),
    (_fact("ListPublished", "effective_window", "selected"), "gather list for window {}"),
)
