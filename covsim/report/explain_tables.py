"""What the tables of a run's folder hold of one peer, and the words in which both forms of its story are told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from covsim.gauntlet.settings import RULES
from covsim.registry import did_you_mean
from covsim.report.ranks import Rank, ranks

Row: TypeAlias = Mapping[str, Any]
"""A row of a table by its columns; what is not known is None, and never NaN or NA."""

_NEEDED: dict[str, tuple[str, ...]] = {
    "rounds": ("round", "opened_s"),
    "peers": (
        *("round", "uid", "cohort", "behavior", "uplink_bits_per_s", "downlink_bits_per_s", "seconds_per_step"),
        *("steps", "wanted", "simulated_s", "compute_s", "upload_s", "download_s", "idle_s", "stored_s", "on_time"),
        *("mu", "sigma", "skipped", "place", "contributed", "payout", "cost", "profit"),
    ),
    "submissions": ("round", "uid", "simulated_s", "on_time", "num_bytes"),
    "evidence": (
        *("round", "validator", "uid", "status", "problem", "stored_s", "previous_stored_s", "evaluated"),
        *("on_gather_list", "asked_as_reserve", "gathered", "own_before", "own_after", "random_before"),
        *("random_after", "overlap", "overlap_with", "overlap_stored_s", "steps_behind", "active"),
    ),
    "verdicts": (
        *("round", "simulated_s", "validator", "uid", "gradient_score", "indicator", "indicator_average", "mu"),
        *("sigma", "final_score", "indicator_average_before", "mu_before", "sigma_before", "final_score_before"),
        *("weight", "reasons"),
    ),
    "weights": ("round", "validator", "uid", "weight"),
    "epochs": ("round", "height", "uid", "tokens", "consensus"),
}
_RULE = re.compile(rf"; (?=(?:{'|'.join(RULES)}): )")

STATUS = {
    "ok": "on time",
    "missing": "missing",
    "late": "late",
    "early": "early",
    "invalid": "invalid",
    "unseen": "not looked at",
}
PLACE = {"selected": "on the list", "reserve": "in reserve", "none": "not on the list"}


class CannotExplain(ValueError):
    """There is no story to tell; the message is one line that says why."""


@dataclass(frozen=True)
class PeerTables:
    """Everything that a run's tables say of one peer, and who judged whom at all.

    Attributes:
        peers: by round, the peer's row.
        opened_s: by round, when the window opened in which its payloads counted.
        seen, verdicts: by (round, validator), the peer's rows of evidence and verdicts.
        ranks: by (round, validator), the peer's place in that match.
        judged: (round, validator) of every window in which that validator judged anybody.
        validators: their names, in the order of the alphabet.
    """

    uid: int
    peers: Mapping[int, Row]
    opened_s: Mapping[int, float]
    submissions: Mapping[int, list[Row]]
    seen: Mapping[tuple[int, str], Row]
    verdicts: Mapping[tuple[int, str], Row]
    ranks: Mapping[tuple[int, str], Rank]
    weights: Mapping[tuple[int, str], float]
    set_in: frozenset[tuple[int, str]]
    epochs: Mapping[int, list[Row]]
    judged: frozenset[tuple[int, str]]
    validators: tuple[str, ...]

    def only(self, validator: str | None) -> tuple[str, ...]:
        """The validators to tell of: all, or one. Raises CannotExplain."""
        if validator is None:
            return self.validators
        if validator not in self.validators:
            hint = did_you_mean(validator, self.validators)
            raise CannotExplain(f"no validator is called {validator!r}{hint}; there are {', '.join(self.validators)}")
        return (validator,)


def read_peer(folder: Path, uid: int) -> PeerTables:
    """What a run's folder says of a peer. Raises CannotExplain."""
    tables = {name: _read(folder, name) for name in _NEEDED}
    known = sorted(set(tables["peers"]["uid"]))
    if uid not in known:
        raise CannotExplain(f"{folder}: there is no peer with uid {uid}; uids go from {known[0]} to {known[-1]}")
    judged = tables["evidence"][["round", "validator"]].drop_duplicates()
    handed = tables["weights"][["round", "validator"]].drop_duplicates()
    own = {name: list(_rows(table[table["uid"] == uid])) for name, table in tables.items() if "uid" in table}
    windows = [frozenset((int(round), str(name)) for round, name in each.to_numpy()) for each in (judged, handed)]
    return PeerTables(
        uid=uid,
        peers={row["round"]: row for row in own["peers"]},
        opened_s={row["round"]: row["opened_s"] for row in _rows(tables["rounds"])},
        submissions=_by_round(own["submissions"]),
        seen=_by_window(own["evidence"]),
        verdicts=_by_window(own["verdicts"]),
        ranks=_ranks(tables["verdicts"], uid),
        weights={window: row["weight"] for window, row in _by_window(own["weights"]).items()},
        set_in=windows[1],
        epochs=_by_round(own["epochs"]),
        judged=windows[0],
        validators=tuple(sorted({name for _, name in windows[0] | windows[1]})),
    )


def _read(folder: Path, name: str) -> pd.DataFrame:
    """The columns of a table that are needed. Raises CannotExplain."""
    path = folder / f"{name}.parquet"
    if not path.is_file():
        if name in ("rounds", "peers"):
            raise CannotExplain(f"{folder}: no finished run is here (it has no {path.name})")
        raise CannotExplain(
            f"{folder}: it has no {path.name}: the run was recorded at level summary; "
            "what validators saw is kept from level rounds on"
        )
    try:
        frame = pd.read_parquet(path, dtype_backend="numpy_nullable")  # whole numbers stay whole beside nulls
    except (OSError, ValueError) as error:
        raise CannotExplain(f"{path}: no parquet file can be read here: {_first_line(error)}") from error
    missing = [column for column in _NEEDED[name] if column not in frame.columns]
    if missing:
        raise CannotExplain(f"{path}: it has no column {missing[0]!r}; another version of covsim has written it")
    return frame[list(_NEEDED[name])]


def _rows(frame: pd.DataFrame) -> Iterator[Row]:
    """The rows as Python values, None where nothing is known."""
    columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _plain(value: Any) -> Any:
    return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value


def _ranks(verdicts: pd.DataFrame, uid: int) -> dict[tuple[int, str], Rank]:
    """A peer's places in all matches that it played."""
    windows: dict[tuple[int, str], list[Row]] = {}
    for row in _rows(verdicts):
        windows.setdefault((row["round"], row["validator"]), []).append(row)
    found = {window: ranks(rows).get(uid) for window, rows in windows.items()}
    return {window: rank for window, rank in found.items() if rank is not None}


def _by_round(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["round"], []).append(row)
    return found


def _by_window(rows: list[Row]) -> dict[tuple[int, str], Row]:
    return {(row["round"], row["validator"]): row for row in rows}


def rules_that_acted(verdict: Row) -> list[str]:
    """The reasons of a verdict, one per rule; what a payload's problem says may hold semicolons too."""
    return _RULE.split(verdict["reasons"]) if verdict["reasons"] else []


def improvement(row: Row, data: str) -> float | None:
    """Relative improvement on `own` or `random` data, (before - after) / before; None where nothing was measured."""
    before, after = row[f"{data}_before"], row[f"{data}_after"]
    return None if before is None or after is None or not before else (before - after) / before


def rating(row: Row, when: str = "") -> float:
    """mu - 3 sigma after a window, or `_before` it."""
    return float(row[f"mu{when}"] - 3 * row[f"sigma{when}"])


def played(row: Row) -> bool:
    """Whether a peer trained or sent anything in a round; one that has not joined yet only follows."""
    return bool(row["compute_s"] or row["upload_s"])


def shortfall(row: Row) -> str:
    """Why a peer has no submission that counts in a round; empty if it has one."""
    if row["skipped"]:
        return "skipped: still busy with a round before"
    if row["on_time"] is None:
        return "submitted nothing" if played(row) else "took no part"
    return "" if row["on_time"] else "its submission was not on time"


def number(value: float) -> str:
    """Four digits of a number; a value that rounds to nothing is 0."""
    return f"{value:.4g}" if abs(value) >= 1e-12 else "0"


def percent(share: float) -> str:
    """A relative change with its sign."""
    return f"{100 * share:+.3g} %"


def change(before: float, after: float) -> str:
    """'3.2 -> 2.4', or one number where four digits show no difference."""
    one, other = number(before), number(after)
    return one if one == other else f"{one} -> {other}"


def tokens(amount: float) -> str:
    """'6.358 tokens'."""
    return f"{number(amount)} tokens"


def seconds(time_s: float) -> str:
    """Simulated seconds: whole ones from 1000 on."""
    return f"{time_s:.0f} s" if abs(time_s) >= 1000 else f"{number(time_s)} s"


def size(num_bytes: float) -> str:
    """'1.99 GB': bytes with four digits at most."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if num_bytes >= factor:
            return f"{number(num_bytes / factor)} {prefix}B"
    return f"{number(num_bytes)} B"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
