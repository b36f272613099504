"""Verdicts over published claims, and where they stand: `results/published/papers.csv` and a table in the docs.

The file holds the rows of all claims, of studies and of others; whoever writes replaces rows of its own and leaves the
rest as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from covsim.record.files import write_text
from covsim.sweep.interval import Interval

Status = Literal["reproduced", "not reproduced", "inconclusive"]
Row = Mapping[str, str]

BEGIN, END = "<!-- papers: begin -->", "<!-- papers: end -->"
_NEW_PAGE = f"# Published numbers, and what covsim gets\n\n{BEGIN}\n{END}\n"
_ID = re.compile(r"([A-Za-z]+)(\d*)(.*)")


@dataclass(frozen=True)
class Verdict:
    """A row.

    Attributes:
        id: as in the table of targets, with a letter behind it where a claim has several rows: C1, C1b.
        kind: a gate must be reproduced; a report is shown beside its source.
        claim, source: what is said, and where.
        expected: the published numbers.
        rule: what makes it reproduced or not; anything else is inconclusive.
        ours: the same in covsim, with 95 % intervals.
        error: how far that is from the published numbers.
        status: what the rule makes of the numbers.
    """

    id: str
    kind: Literal["gate", "report"]
    claim: str
    source: str
    expected: str
    rule: str
    ours: str
    error: str
    status: Status


COLUMNS = tuple(field.name for field in fields(Verdict))


def ruled(yes: bool, no: bool) -> Status:
    """The status by a rule for yes and a rule for no."""
    assert not (yes and no), "a rule and its opposite"
    return "reproduced" if yes else "not reproduced" if no else "inconclusive"


def above(measured: Interval, border: float) -> Status:
    """Whether the mean is above a border, by its interval."""
    return ruled(measured.low > border, measured.high < border)


def within(measured: Interval, border: float) -> Status:
    """Whether the mean lies between -border and border, by its interval."""
    return ruled(-border < measured.low and measured.high < border, measured.low > border or measured.high < -border)


def target_of(id: str) -> str:
    """The target to which a row belongs: C1 for C1b."""
    found = _ID.fullmatch(id)
    return (found[1] + found[2]).upper() if found else id


def save(verdicts: Iterable[Verdict], targets: Collection[str], path: Path) -> list[Row]:
    """Replace the rows of some targets in a file by these; returns all rows that it holds then, in order."""
    own = {target.upper() for target in targets}
    rows: list[Row] = [row for row in read(path) if target_of(row["id"]) not in own]
    rows += [{name: str(value) for name, value in asdict(verdict).items()} for verdict in verdicts]
    rows.sort(key=lambda row: _in_order(row["id"]))
    columns = [*COLUMNS, *sorted({name for row in rows for name in row} - set(COLUMNS))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return read(path)


def read(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def document(rows: Sequence[Row], page: Path) -> None:
    """Write a table of all rows between the two marks of a page; what stands around it stays.

    A page without marks gets them at its end.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else _NEW_PAGE
    if BEGIN not in text or END not in text.split(BEGIN, 1)[1]:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    write_text(page, f"{before}{BEGIN}\n\n{_markdown(rows)}\n\n{END}{after}")


def _markdown(rows: Sequence[Row]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([row.get(name, "") for name in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(_cell(entry) for entry in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _in_order(id: str) -> tuple[str, int, str]:
    found = _ID.fullmatch(id)
    return (found[1].upper(), int(found[2] or 0), found[3]) if found else (id, 0, "")
