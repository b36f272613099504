"""Parts by name: a part is a frozen pydantic model with a `kind`, enrolled by one decorator.

The scenario schema is the discriminated union of what is registered, so a new part is one file: YAML, the JSON
Schema, `covsim list` and the contract tests know it from then on.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A value that a scenario can name. Subclasses are final and declare `kind: Literal["..."] = "..."`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PartType = TypeVar("PartType", bound=Part)


class UnknownPart(ValueError):
    """No part of that name is registered; the message suggests the nearest one."""


class Registry(Generic[PartType]):
    """The parts of one sort, by kind.

    Args:
        noun: what one of them is called in messages, for example `"behavior"`.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._parts: dict[str, type[PartType]] = {}

    def register(self, part: type[PartType]) -> type[PartType]:
        """Enrol a part under its `kind`. Raises ValueError when another class holds that name."""
        field = part.model_fields.get("kind")
        kind = None if field is None else field.default
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"{self.noun} {part.__qualname__} declares no kind, such as kind: Literal['x'] = 'x'")
        holder = self._parts.get(kind)
        if holder is not None and not _same_definition(holder, part):
            raise ValueError(f"{self.noun} {kind!r} is registered twice: {_where(holder)} and {_where(part)}")
        self._parts[kind] = part
        return part

    def put_back(self, parts: Iterable[tuple[str, type[PartType]]]) -> None:
        """Hold these parts and no others, as `items` gave them."""
        self._parts = dict(parts)

    def __getitem__(self, kind: str) -> type[PartType]:
        if kind not in self._parts:
            raise UnknownPart(f"no {self.noun} is called {kind!r}{did_you_mean(kind, self._parts)}")
        return self._parts[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        return len(self._parts)

    def items(self) -> list[tuple[str, type[PartType]]]:
        """Kinds and classes, in the order of their names."""
        return sorted(self._parts.items())


def did_you_mean(word: str, known: Any) -> str:
    """` (did you mean 'x'?)` for the nearest of `known`, or the empty string."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def _same_definition(first: type, second: type) -> bool:
    """True for the class that a re-run notebook cell, or an edited file that is imported again, defines once more."""
    if first is second or (first.__module__, first.__qualname__) == (second.__module__, second.__qualname__):
        return True
    return first.__qualname__ == second.__qualname__ and _file(first) is not None and _file(first) == _file(second)


def _file(part: type) -> str | None:
    return getattr(sys.modules.get(part.__module__), "__file__", None)


def _where(part: type) -> str:
    try:
        return f"{inspect.getsourcefile(part)}:{inspect.getsourcelines(part)[1]}"
    except (OSError, TypeError):
        return f"{part.__module__}.{part.__qualname__}"
