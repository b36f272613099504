"""Recorded rates of links, from CSV files; what is wrong with a file is said with its line."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from covsim.sources import SourceError, readable
from covsim.units import format_duration

MAX_ROWS = 1_000_000

_COLUMNS = ("factor", "bits_per_s")


@dataclass(frozen=True)
class Trace:
    """What a link carried: from each second on, a part of its rate or so many bits per second."""

    seconds: tuple[float, ...]
    values: tuple[float, ...]
    are_rates: bool

    def factors(self, rate_bits_per_s: float) -> Sequence[float]:
        """Parts of a link's own rate, at most 1."""
        if not self.are_rates:
            return self.values
        return [min(1.0, value / rate_bits_per_s) for value in self.values]


def must_be_csv(path: str) -> str:
    """The path if it ends in `.csv`. Raises ValueError."""
    if Path(path).suffix != ".csv":
        raise ValueError(f"{Path(path).name!r} must end in .csv: rows of seconds and factor, or seconds and bits_per_s")
    return path


def read_trace(path: str, longest_gap_s: float) -> Trace:
    """The trace in a file.

    Raises:
        SourceError: it cannot be read, a row is no pair of positive numbers, rows are not in the order of time, the
            first is not at 0 s, or two are farther apart than `longest_gap_s`.
    """
    file = Path(path)
    with readable(file):
        status = file.stat()
        return _read(file, longest_gap_s, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _read(file: Path, longest_gap_s: float, mtime_ns: int, size: int) -> Trace:
    """Read once for each state of the file: every link of a cohort asks for it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{file}: is not UTF-8 text") from None
    lines = csv.reader(text.splitlines())
    try:
        column = _column(file, next(lines, []))
        seconds: list[float] = []
        values: list[float] = []
        for row in lines:
            at_s, value = _row(f"{file}:{lines.line_num}", row, column)
            _check_time(f"{file}:{lines.line_num}", at_s, seconds[-1] if seconds else None, longest_gap_s)
            seconds.append(at_s)
            values.append(value)
            if len(seconds) > MAX_ROWS:
                raise SourceError(f"{file}: has more than {MAX_ROWS} rows")
    except csv.Error as error:
        raise SourceError(f"{file}:{lines.line_num}: is not CSV: {error}") from None
    if not seconds:
        raise SourceError(f"{file}: has no rows")
    return Trace(tuple(seconds), tuple(values), column == "bits_per_s")


def _column(file: Path, header: Sequence[str]) -> str:
    """What the values are, by the first line."""
    names = [name.strip() for name in header]
    if len(names) != 2 or names[0] != "seconds" or names[1] not in _COLUMNS:
        raise SourceError(f"{file}:1: must be 'seconds,factor' or 'seconds,bits_per_s', not {','.join(names)!r}")
    return names[1]


def _row(where: str, row: Sequence[str], column: str) -> tuple[float, float]:
    """The two numbers of a row."""
    if len(row) != 2 or not all(cell.strip() for cell in row):
        raise SourceError(f"{where}: is a gap: a row needs seconds and {column}, and has {','.join(row)!r}")
    try:
        at_s, value = (float(cell) for cell in row)
    except ValueError:
        raise SourceError(f"{where}: {','.join(row)!r} are not two numbers") from None
    if not (math.isfinite(at_s) and math.isfinite(value)):
        raise SourceError(f"{where}: is a gap: {','.join(row)!r} are not finite")
    if value <= 0:
        raise SourceError(f"{where}: {column} must be above 0, not {value:g}; a link that is down is a fault, link_cut")
    if column == "factor" and value > 1:
        raise SourceError(f"{where}: a factor is at most 1, not {value:g}: the link's own rate is the most it carries")
    return at_s, value


def _check_time(where: str, at_s: float, before_s: float | None, longest_gap_s: float) -> None:
    """Rows begin at 0 s and follow each other closely."""
    if before_s is None:
        if at_s != 0:
            raise SourceError(f"{where}: the first row must be at 0 s, not at {at_s:g} s")
    elif at_s <= before_s:
        raise SourceError(f"{where}: must be in the order of time: {at_s:g} s stands after {before_s:g} s")
    elif at_s - before_s > longest_gap_s:
        raise SourceError(
            f"{where}: is {at_s - before_s:g} s after the row before, which is a gap: longest_gap is "
            f"{format_duration(longest_gap_s)}"
        )
