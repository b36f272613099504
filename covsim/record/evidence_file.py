"""Evidence tables: reading one, a run's or a live pilot's, strictly, and making turns of it.

`docs/evidence.md` describes the columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd

from covsim.gauntlet.evidence import Evidence, Status
from covsim.nodes.rescoring import Turn
from covsim.registry import did_you_mean
from covsim.scenario.schema import LONGEST_NAME


class BadEvidence(ValueError):
    """The file cannot be used as evidence; the message is one line that says which row and column, and why."""


@dataclass(frozen=True)
class Column:
    """A column of the table: its type, what stands for a missing column or value, what values are allowed."""

    kind: type
    default: Any
    fits: Callable[[Any], bool]
    wants: str


_REQUIRED = object()
LOSSES = ("own_before", "own_after", "random_before", "random_after")


def _whole(least: int, most: int, default: Any = _REQUIRED) -> Column:
    return Column(int, default, lambda value: least <= value <= most, f"a whole number from {least} to {most}")


def _number(fits: Callable[[float], bool], wants: str, default: Any = math.nan) -> Column:
    return Column(float, default, lambda value: math.isnan(value) or fits(value), wants)


def _is_name(value: str) -> bool:
    return len(value) <= LONGEST_NAME and _NAME.fullmatch(value) is not None


def _flag(default: bool) -> Column:
    return Column(bool, default, lambda value: True, "true or false")


_MOST = 99_999  # as many rounds and peers as a scenario has
_MOST_S = 10 * 365 * 86_400.0  # a date in seconds since 1970 is more
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LOSS = _number(lambda value: value >= 0, "nats per token, from 0 up")  # infinite is the scoring's to judge
_SECONDS = _number(math.isfinite, "seconds")

COLUMNS: dict[str, Column] = {
    "round": _whole(0, _MOST),
    "simulated_s": _number(lambda value: 0 <= value <= _MOST_S, "seconds from the start, at most 10 years", _REQUIRED),
    "validator": Column(str, _REQUIRED, _is_name, f"a name of {LONGEST_NAME} letters a to z, digits, - and _ at most"),
    "uid": _whole(0, _MOST),
    "status": Column(str, _REQUIRED, lambda value: value in get_args(Status), f"one of {', '.join(get_args(Status))}"),
    "problem": Column(str, "", lambda value: True, "a text"),
    "stored_s": _SECONDS,
    "previous_stored_s": _SECONDS,
    "evaluated": _flag(False),
    "on_gather_list": _flag(False),
    "asked_as_reserve": _flag(False),
    "gathered": _flag(False),
    "own_before": _LOSS,
    "own_after": _LOSS,
    "random_before": _LOSS,
    "random_after": _LOSS,
    "overlap": _number(lambda value: 0 <= value <= 1 + 1e-9, "a share from 0 to 1"),
    "overlap_with": _whole(-1, _MOST, -1),
    "overlap_stored_s": _SECONDS,
    "steps_behind": _number(lambda value: value >= 0, "outer steps from 0 up"),
    "active": _flag(True),
}
"""Every column that scoring reads."""


def read_evidence(path: Path) -> pd.DataFrame:
    """An evidence table, checked, with every column there. Raises BadEvidence."""
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise BadEvidence(f"{path}: no parquet file can be read here: {_first_line(error)}") from error
    unknown = [name for name in frame.columns if name not in COLUMNS]
    if unknown:
        raise BadEvidence(f"{path}: column {unknown[0]!r} is not known{did_you_mean(unknown[0], COLUMNS)}")
    missing = [name for name, column in COLUMNS.items() if column.default is _REQUIRED and name not in frame.columns]
    if missing:
        raise BadEvidence(f"{path}: column {missing[0]!r} is missing")
    whole = pd.DataFrame({name: _checked(path, frame, name, column) for name, column in COLUMNS.items()})
    for check in (_each_once, _makes_sense, _in_the_order_of_time):
        check(path, whole)
    return whole


def _checked(path: Path, frame: pd.DataFrame, name: str, column: Column) -> list[Any]:
    """The values of a column as Python has them, defaults in place of what is missing. Raises BadEvidence."""
    if name not in frame.columns:
        return [column.default] * len(frame)
    values = []
    for row, value in enumerate(frame[name].tolist()):
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            if column.default is _REQUIRED:
                raise BadEvidence(f"{path}: row {row}: {name} is empty, it must be {column.wants}")
            values.append(column.default)
            continue
        known = _converted(column.kind, value)
        if known is None or not column.fits(known):
            raise BadEvidence(f"{path}: row {row}: {name} must be {column.wants}, not {value!r}")
        values.append(known)
    return values


def _each_once(path: Path, frame: pd.DataFrame) -> None:
    again = frame.duplicated(["round", "validator", "uid"])
    if again.any():
        row = frame[again].iloc[0]
        raise BadEvidence(
            f"{path}: row {_first(again)}: uid {row['uid']} stands twice in round {row['round']} of {row['validator']}"
        )


def _makes_sense(path: Path, frame: pd.DataFrame) -> None:
    """Refuse rows whose columns contradict each other: scoring would pass over them in silence. Runs write none."""
    asked = frame["on_gather_list"] | frame["asked_as_reserve"]
    looked_at = frame["evaluated"] | asked
    measured = frame["evaluated"] & (frame["status"] == "ok")
    contradictions = [
        *((name, ~frame["evaluated"] & frame[name].notna(), "is given, but evaluated is false") for name in LOSSES),
        *((name, measured & frame[name].isna(), "is empty, but the row is evaluated and ok") for name in LOSSES),
        ("asked_as_reserve", frame["on_gather_list"] & frame["asked_as_reserve"], "is true, and on_gather_list is too"),
        ("gathered", frame["gathered"] & ~asked, "is true, but on_gather_list and asked_as_reserve are false"),
        ("status", ~looked_at & (frame["status"] != "unseen"), "must be unseen, for evaluated, on_gather_list and "
         "asked_as_reserve are false"),
    ]  # fmt: skip
    for name, wrong, why in contradictions:
        if wrong.any():
            raise BadEvidence(f"{path}: row {_first(wrong)}: {name} {why}")


def _in_the_order_of_time(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a validator that is done with a round before it is done with the one before."""
    done = frame.groupby(["validator", "round"], sort=True)["simulated_s"].max().reset_index()
    back = done.groupby("validator")["simulated_s"].diff() < 0
    if back.any():
        late = done[back].iloc[0]
        window = (frame["validator"] == late["validator"]) & (frame["round"] == late["round"])
        raise BadEvidence(
            f"{path}: row {_first(window)}: simulated_s of round {late['round']} of {late['validator']} "
            "lies before that of an earlier round"
        )


def _converted(kind: type, value: Any) -> Any:
    """The value as its column has it, or None; a whole number may stand for a real one, and the other way round."""
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return value if isinstance(value, str) else None
    if not isinstance(value, int | float):
        return None
    if kind is int:
        return int(value) if float(value).is_integer() else None
    return float(value)


def evidence_of(rows: Iterable[dict[str, Any]]) -> tuple[Evidence, ...]:
    """What a validator had in hand: the rows of one window that say more than that a peer was active."""
    names = [name for name in COLUMNS if name not in ("round", "simulated_s", "validator")]
    return tuple(
        Evidence(**{name: row[name] for name in names})
        for row in rows
        if row["evaluated"] or row["on_gather_list"] or row["asked_as_reserve"] or row["gathered"]
    )


def turns_of(frame: pd.DataFrame) -> list[Turn]:
    """A turn for every window of every validator, in the order of time."""
    turns = []
    for key, window in frame.groupby(["validator", "round"], sort=True):
        (validator, round), rows = cast(tuple[str, int], key), window.to_dict("records")
        turns.append(
            Turn(
                validator=validator,
                round=int(round),
                time_s=float(window["simulated_s"].max()),
                evidence=evidence_of({str(name): value for name, value in row.items()} for row in rows),
                active=frozenset(row["uid"] for row in rows if row["active"]),
                num_drawn=int(window["evaluated"].sum()),
            )
        )
    return sorted(turns, key=lambda turn: (turn.time_s, turn.validator))


def _first(mask: pd.Series) -> int:
    return int(mask.to_numpy().argmax())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
