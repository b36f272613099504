"""pydantic's findings in the words of a scenario's author, at the place in the text that they concern."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from covsim.registry import did_you_mean
from covsim.scenario.errors import Problem, dotted, excerpt
from covsim.scenario.lookup import choice_at, field_at, in_unit, model_at, plain_at
from covsim.scenario.tree import Node, Path, place_of

CONTRADICTION = "contradiction"
"""Type of an error that names its own path, for rules that span sections; its context holds `path` and `message`."""

_MUST_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "none_required": "null",
    "string_pattern_mismatch": "a name of at most 64 characters a-z, 0-9, _ and -",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "entries"),
    "too_long": ("at most", "max_length", "entries"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}


def problems(error: ValidationError, root: type[BaseModel], tree: Node) -> list[Problem]:
    """One problem per spot in the text, in the order in which they stand there."""
    found: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        problem = _Finding(item, root, tree).problem()
        found.setdefault(f"{problem.place}: {problem.path}", problem)
    return sorted(found.values(), key=lambda problem: (problem.place.line, problem.place.column))


class _Finding:
    """One error of pydantic's, and the text in which it was found."""

    def __init__(self, item: ErrorDetails, root: type[BaseModel], tree: Node) -> None:
        self._item, self._root, self._tree = item, root, tree
        self._kind = item["type"]
        self._context: Mapping[str, Any] = item.get("ctx", {})
        if self._kind == CONTRADICTION:
            self._path: Path = tuple(self._context["path"])
        else:
            self._path = _path_in_text(tree, item["loc"], keep_last=self._kind == "missing")

    def problem(self) -> Problem:
        """The error, located and put into words."""
        about_key = self._kind in (CONTRADICTION, "extra_forbidden") or self._item["loc"][-1:] == ("[key]",)
        path = self._path[:-1] if self._kind == "extra_forbidden" else self._path
        return Problem(place_of(self._tree, self._path, of_key=about_key), dotted(path), self._message())

    def _message(self) -> str:
        kind, context, shown = self._kind, self._context, excerpt(self._item["input"])
        special: dict[str, Callable[[], str]] = {
            CONTRADICTION: lambda: str(context["message"]),
            "missing": lambda: "is missing",
            "value_error": lambda: str(context["error"]),
            "extra_forbidden": self._unknown_key,
            "union_tag_invalid": self._unknown_part,
            "union_tag_not_found": self._unknown_part,
            "literal_error": self._unknown_word,
        }
        if kind in special:
            return special[kind]()
        if kind in _MUST_BE:
            return f"must be {_MUST_BE[kind]}, not {shown}"
        if kind in _LIMITS:
            words, limit = _LIMITS[kind]
            with_unit = in_unit(context[limit], field_at(self._root, self._tree, self._path))
            return f"must be {words} {with_unit}, not {excerpt(plain_at(self._tree, self._path))}"
        if kind in _LENGTHS:
            words, limit, things = _LENGTHS[kind]
            return f"must have {words} {context[limit]} {things}"
        return self._item["msg"][:1].lower() + self._item["msg"][1:]

    def _unknown_key(self) -> str:
        *above, key = self._path
        model = model_at(self._root, self._tree, above)
        return f"unknown key {excerpt(key)}{did_you_mean(str(key), model.model_fields if model else ())}"

    def _unknown_word(self) -> str:
        expected, given = self._context["expected"], self._item["input"]
        return f"must be {expected}, not {excerpt(given)}{did_you_mean(str(given), _quoted(expected))}"

    def _unknown_part(self) -> str:
        """No kind, or one that is not registered; pydantic lists the tags of a union that is not from a registry."""
        choice = choice_at(self._root, self._tree, self._path)
        noun = choice.registry.noun if choice else "part"
        known = list(choice.registry) if choice else _quoted(self._context.get("expected_tags", ""))
        value = plain_at(self._tree, self._path)
        kind = value.get("kind") if isinstance(value, dict) else value
        if kind is None:
            return f"needs a kind{': ' if known else ''}{', '.join(known)}"
        if not isinstance(kind, str):
            return f"must name a {noun}, not {excerpt(kind)}"
        hint = did_you_mean(kind, known) or f" (there are {', '.join(known)})"
        return f"no {noun} is called {excerpt(kind)}{hint}"


def _path_in_text(tree: Node, loc: Sequence[str | int], keep_last: bool) -> Path:
    """pydantic's location without the tags of unions, which do not stand in the text."""
    path: list[str | int] = []
    node = tree
    for position, key in enumerate(loc):
        child = node.child(key)
        if child is not None:
            path.append(key)
            node = child
        elif keep_last and position == len(loc) - 1:
            path.append(key)
    return tuple(path)


def _quoted(text: str) -> list[str]:
    return text.split("'")[1::2]
