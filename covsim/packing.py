"""Canonical bytes of plain values, which digests are made of.

A value is a type mark and then a fixed-width or length-prefixed body; every NaN is the same NaN, and -0.0 is 0.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import count, groupby
from math import isnan
from typing import Any

Writer = Callable[..., bytes]

_FLOAT, _INT, _LENGTH = struct.Struct("<cd").pack, struct.Struct("<cq").pack, struct.Struct("<cI").pack
_NAN = b"f\0nan\0\0\0\0"
_BOOLS = {False: b"b\0", True: b"b\1"}
_MOST_TEXTS, _MOST_TUPLES = 100_000, 1_000
_texts: dict[str, bytes] = {}  # packed before; names of nodes and keys come up again and again
_tuples: dict[int, tuple[tuple[Any, ...], bytes]] = {}  # packed before, by identity: equal ones may differ in types


def packed(values: Sequence[Any]) -> bytes:
    """The canonical bytes of values, one after the other."""
    return b"".join([_PACKERS[type(value)](value) for value in values])


class Rows:
    """The canonical bytes of rows under one name, whose values mostly have the types of the rows before.

    Args:
        name: what each row begins with.
    """

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._writers: dict[tuple[type, ...], Writer] = {}  # by the types of a row's values

    def pack(self, values: Sequence[Any]) -> bytes:
        """The name, and behind it the bytes of the values."""
        return self._of(tuple(map(type, values)))(*values)

    def pack_all(self, columns: Sequence[Sequence[Any]]) -> list[bytes]:
        """The same for many rows at once, given by columns of one length; there is at least one row."""
        kinds = [set(map(type, column)) for column in columns]
        if any(len(kind) > 1 for kind in kinds):
            return list(map(self.pack, zip(*columns, strict=True)))
        return list(map(self._of(tuple(kind.pop() for kind in kinds)), *columns))

    def _of(self, kinds: tuple[type, ...]) -> Writer:
        """What packs rows of these types."""
        writer = self._writers.get(kinds)
        if writer is None:
            writer = self._writers[kinds] = _writer(self._name, kinds)
        return writer


def _writer(name: bytes, kinds: Sequence[type]) -> Writer:
    """What packs a row of values of just these types. It is compiled: three times as fast as a call for each value."""

    def one_by_one(*values: Any) -> bytes:
        return name + packed(values)

    if not kinds or not all(kind in _FIXED or kind in (str, tuple) for kind in kinds):
        return one_by_one
    scope: dict[str, Any] = {"name": name, "text": _pack_text, "known": _texts.get}
    scope |= {"many": _pack_tuple, "met": _tuples.get, "id": id}
    scope["one_by_one"] = one_by_one
    arguments = [f"v{place}" for place in range(len(kinds))]
    places, parts = count(), ["name"]
    for fixed, run in groupby(kinds, _FIXED.__contains__):
        types = list(run)
        taken = [arguments[next(places)] for _ in types]
        if fixed:
            pack = f"pack{len(parts)}"
            scope[pack] = struct.Struct("<" + "".join(_FIXED[kind][0] for kind in types)).pack
            marked = ", ".join(_FIXED[kind][1].format(value) for kind, value in zip(types, taken, strict=True))
            parts.append(f"{pack}({marked})")
        else:
            parts += [_VARYING[kind].format(value) for kind, value in zip(types, taken, strict=True)]
    row, every = " + ".join(parts), ", ".join(arguments)
    floats = [value for value, kind in zip(arguments, kinds, strict=True) if kind is float]
    if floats:  # one sum tells whether a NaN is among them; where infinities make one, the slow way is as right
        row = f"{row} if (total := {' + '.join(floats)}) == total else one_by_one({every})"
    writer: Writer = eval(f"lambda {every}: {row}", scope)
    return writer


_FIXED: dict[type, tuple[str, str]] = {
    float: ("cd", "b'f', {} + 0.0"),
    int: ("cq", "b'i', {}"),
    bool: ("c?", "b'b', {}"),
}
"""Values of a fixed width: as a struct, and what is put into it."""

_VARYING: dict[type, str] = {str: "(known({0}) or text({0}))", tuple: "(met(id({0})) or many({0}))[1]"}


def _pack_float(value: float) -> bytes:
    return _NAN if isnan(value) else _FLOAT(b"f", value + 0.0)


def _pack_int(value: int) -> bytes:
    return _INT(b"i", value)


def _pack_text(value: str) -> bytes:
    known = _texts.get(value)
    if known is None:
        body = value.encode()
        known = _LENGTH(b"s", len(body)) + body
        if len(_texts) < _MOST_TEXTS:
            _texts[value] = known
    return known


def _pack_tuple(value: tuple[Any, ...]) -> tuple[tuple[Any, ...], bytes]:
    """A tuple and its bytes. It is kept alive with them, so its identity stays its own."""
    known = _tuples.get(id(value))
    if known is None:
        body = _LENGTH(b"t", len(value)) + packed(value)
        if len(_tuples) >= _MOST_TUPLES:
            _tuples.clear()
        known = _tuples[id(value)] = value, body
    return known


class _Packers(dict[type, Callable[[Any], bytes]]):
    """How each type is packed; subclasses, such as numpy's float, as what they derive from."""

    def __missing__(self, kind: type) -> Callable[[Any], bytes]:
        base = next((base for base in (bool, int, float, str, tuple) if issubclass(kind, base)), None)
        assert base is not None, f"an event may not hold a {kind.__name__}"
        self[kind] = self[base]
        return self[kind]


_PACKERS = _Packers(
    {
        bool: _BOOLS.__getitem__,
        int: _pack_int,
        float: _pack_float,
        str: _pack_text,
        tuple: lambda value: _pack_tuple(value)[1],
    }
)
