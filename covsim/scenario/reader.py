"""YAML 1.2 text to a tree of nodes with their places, within limits that no honest scenario meets.

ruamel.yaml splits the text into events; the tree is built here, because it must remember where each value stands,
reject duplicate keys, and stop at a bomb before it has gone off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from covsim.scenario.errors import Place, excerpt, problem
from covsim.scenario.tree import Node

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_NODES = 20_000  # values in one file, those that an alias repeats included
MAX_NUMBER_CHARACTERS = 40

_TAG = "tag:yaml.org,2002:"


def read_file(path: Path, shown_as: str) -> Node:
    """Read one scenario file, without following `extends`. Raises ScenarioError.

    Args:
        path: the file.
        shown_as: how messages name it.
    """
    place = Place(shown_as)
    if not path.exists():
        raise problem(place, "no such file")
    if not path.is_file():
        raise problem(place, "is a directory" if path.is_dir() else "is not a regular file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise problem(place, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise problem(place, f"is larger than {MAX_FILE_BYTES // 1000} kB; a scenario is a page of text")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(place, f"is not UTF-8 text (byte {error.start})") from None
    return read_text(text, shown_as)


def read_text(text: str, source: str) -> Node:
    """Read a scenario text whose top level is a mapping. Raises ScenarioError."""
    node = _Tree(text, source).document()
    if not isinstance(node.value, dict):
        what = "is empty" if node.value is None else f"must be a mapping of keys to values, not {excerpt(node.plain())}"
        raise problem(node.place if node.place.line else Place(source), what)
    return node


def read_value(text: str, source: str) -> Node:
    """Read any YAML value, as an override gives it; every place in it is the `source`. Raises ScenarioError."""
    return _Tree(text, source, with_lines=False).document()


class _Tree:
    """Builds the tree from the events of one text."""

    def __init__(self, text: str, source: str, with_lines: bool = True) -> None:
        yaml = YAML(typ="safe", pure=True)
        self._text = text
        self._events: Iterator[Any] = yaml.parse(text)
        self._resolver = yaml.resolver
        self._source = source
        self._with_lines = with_lines
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._num_nodes = 0

    def document(self) -> Node:
        """The only document of the text; a node of value None when there is none."""
        try:
            return self._document()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self._place(mark) if mark else Place(self._source)
            raise problem(where, f"not YAML: {_one_line(error.problem or error.context)}") from None
        except ReaderError as error:
            before = self._text[: error.position].split("\n")
            where = self._place(StringMark("", 0, len(before) - 1, len(before[-1]), None, 0))
            raise problem(where, "not text: a control character") from None
        except YAMLError as error:
            raise problem(Place(self._source), f"not YAML: {_one_line(str(error))}") from None

    def _document(self) -> Node:
        root = None
        while not isinstance(event := self._next(), StreamEndEvent):
            if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
                raise problem(self._place(event.start_mark), "scenarios are YAML 1.2")
            if not isinstance(event, NodeEvent):
                continue
            if root is not None:
                raise problem(self._place(event.start_mark), "a second document; a scenario file holds one")
            root = self._node(event, depth=1)
        return root or Node(None, Place(self._source))

    def _next(self) -> Any:
        return next(self._events)

    def _node(self, event: Any, depth: int) -> Node:
        place = self._place(event.start_mark)
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, place)
        self._count(1, place)
        if depth > MAX_DEPTH:
            raise problem(place, f"nested deeper than {MAX_DEPTH} levels")
        first = self._num_nodes
        if isinstance(event, ScalarEvent):
            node = Node(self._scalar(event, place), place)
        elif event.tag and event.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise problem(place, f"tags such as {excerpt(str(event.tag))} are not used in scenarios")
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(place, depth)
        else:
            node = self._mapping(place, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, 1 + self._num_nodes - first)
        return node

    def _sequence(self, place: Place, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node(items, place)

    def _mapping(self, place: Place, depth: int) -> Node:
        node = Node({}, place)
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key.value, str):
                raise problem(key.place, f"a key must be text, not {excerpt(key.plain())}; quote it if it is a name")
            if key.value == "<<":
                raise problem(key.place, "merge keys ('<<') are not part of YAML 1.2; use extends")
            if key.value in node.value:
                first = node.key_places[key.value]
                raise problem(key.place, f"key {excerpt(key.value)} stands twice (first in line {first.line})")
            node.key_places[key.value] = key.place
            node.value[key.value] = self._node(self._next(), depth + 1)
        return node

    def _alias(self, name: str, place: Place) -> Node:
        if name not in self._anchors:
            raise problem(place, f"alias *{name[:20]} points to nothing before it")
        node, size = self._anchors[name]
        self._count(size, place)
        return node

    def _scalar(self, event: ScalarEvent, place: Place) -> Any:
        if event.tag:
            raise problem(place, f"tags such as {excerpt(str(event.tag))} are not used in scenarios")
        text: str = event.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise problem(place, "half a character (a lone surrogate)")
        tag = str(self._resolver.resolve(ScalarNode, text, event.implicit)).removeprefix(_TAG)
        if tag in ("int", "float") and len(text) > MAX_NUMBER_CHARACTERS:
            raise problem(place, f"{excerpt(text)} is too long for a number")
        if tag == "int":
            return _integer(text.replace("_", ""))
        if tag == "float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        if tag == "bool":
            return text.lower() == "true"
        return None if tag == "null" else text

    def _count(self, more: int, place: Place) -> None:
        self._num_nodes += more
        if self._num_nodes > MAX_NODES:
            raise problem(place, f"holds more than {MAX_NODES} values, those that aliases repeat included")

    def _place(self, mark: StreamMark) -> Place:
        return Place(self._source, mark.line + 1, mark.column + 1) if self._with_lines else Place(self._source)


def _integer(text: str) -> int:
    """An integer of the YAML 1.2 core schema: decimal, `0x` or `0o`; leading zeros are decimal."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower(), 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def _one_line(text: str | None) -> str:
    return " ".join((text or "unreadable").split())
