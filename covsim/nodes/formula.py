"""An update by how it came about: what a run keeps of a vector that an earlier run has computed already.

Equal formulas mean equal numbers, to the last bit. So what was encoded or observed of one is known wherever the same
formula comes up again. A formula is a digest of what it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel


class Incomparable(Exception):
    """A script's function reaches for something of which nobody can say whether it is the same in another run."""


class Formula:
    """A vector that is named and not there.

    Args:
        observe: gives the number that was taken from a formula, by a key.
        parts: what it was made from; their text names it.
    """

    __slots__ = ("_observe", "key")

    def __init__(self, observe: Callable[[str], float], *parts: object) -> None:
        self._observe = observe
        self.key = digest(*parts)

    def _of(self, *parts: object) -> Formula:
        return Formula(self._observe, *parts)

    def __neg__(self) -> Formula:
        return self._of("neg", self.key)

    def __mul__(self, factor: float) -> Formula:
        return self._of("mul", float(factor).hex(), self.key)

    __rmul__ = __mul__

    def __add__(self, other: Formula) -> Formula:
        return self._of("add", self.key, other.key)

    def __sub__(self, other: Formula) -> Formula:
        return self._of("sub", self.key, other.key)

    def norm(self) -> float:
        """Its Euclidean norm, as it was observed."""
        return self._observe(digest("norm", self.key))

    def stack(self, rows: Sequence[Formula]) -> Formula:
        """Several, for a function of several."""
        return self._of("stack", *(row.key for row in rows))

    def applied(self, function: Callable[[Any], Any]) -> Formula:
        """What a function makes of it, named by the function. Raises Incomparable."""
        return self._of("applied", identity(function), self.key)


@runtime_checkable
class Named(Protocol):
    """Something that is the same in every run of a scenario, whatever the clock does."""

    @property
    def formula_name(self) -> str:
        """What it is called in formulas."""


def digest(*parts: object) -> str:
    """A name for what some parts make up, by their text."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def identity(function: Callable[[Any], Any]) -> str:
    """A name for a function by its code and by what it has closed over. Raises Incomparable."""
    code = getattr(function, "__code__", None)
    if code is None:
        raise Incomparable(f"{function!r} has no code to compare")
    cells = [_text(cell.cell_contents) for cell in function.__closure__ or ()]
    return digest(function.__module__, function.__qualname__, _of_code(code), *cells)


def _of_code(code: CodeType) -> str:
    constants = [_of_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return digest(code.co_code.hex(), *code.co_names, *constants)


def _text(value: object) -> str:
    if isinstance(value, Formula):
        return value.key
    if isinstance(value, Named):
        return value.formula_name
    if isinstance(value, bool | int | float | str | bytes | BaseModel | None):
        return repr(value)
    if isinstance(value, tuple | list):
        return digest(*map(_text, value))
    raise Incomparable(f"a function has closed over a {type(value).__name__}")
