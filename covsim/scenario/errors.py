"""What is wrong with a scenario, and where it stands: `file:line:col: path: message`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_EXCERPT = 60  # characters of the user's text that a message repeats
LONGEST_PART = 300  # characters of a place, a path or a message


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file, counted from 1, or a source without lines such as an override on the command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of the user's. `path` is the dotted key that it concerns, empty for a file as a whole."""

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        path = "" if self.place.line == 0 and self.path in self.place.source else self.path
        return ": ".join(_on_one_line(part) for part in (str(self.place), path, self.message) if part)


class ScenarioError(ValueError):
    """A scenario cannot be used; its text has one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "an error without a problem"
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


def problem(place: Place, message: str, path: Sequence[str | int] = ()) -> ScenarioError:
    """The error for a single mistake."""
    return ScenarioError([Problem(place, dotted(path), message)])


def dotted(path: Sequence[str | int]) -> str:
    """'expect.claims.0.metric' for a path of keys and list positions."""
    return ".".join(map(str, path))


def excerpt(value: object) -> str:
    """A value as a message shows it: its repr on one line, cut when it is long."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 3] + "..."


def _on_one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_PART else text[: LONGEST_PART - 3] + "..."
