"""Overrides in Hydra's manner: `a.b=c` sets, `+a.b=c` adds a new name, `~a.b` removes; values are YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from covsim.registry import did_you_mean
from covsim.scenario.errors import Place, excerpt, problem
from covsim.scenario.reader import read_value
from covsim.scenario.tree import Node, merge_entries, spelled_out

Overrides = Iterable[str] | Mapping[str, Any]
"""`["a.b=c"]` as on the command line, or a mapping such as `{"a.b": c}` or `{"a": {"b": c}}`."""


def override(tree: Node, overrides: Overrides, is_named_map: Callable[[str], bool]) -> Node:
    """The tree with each override merged into it, in order. Raises ScenarioError.

    Args:
        tree: the scenario so far.
        overrides: what to change.
        is_named_map: tells top-level keys whose entries are names of the author's own choice (`cohorts`); there a
            misspelt key cannot be told from a new one, so that a new one needs the `+`.
    """
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            place = Place(f"override {path}={_shown(value)}")
            tree = _merged(tree, path.split("."), _node(value, place), place)
        return tree
    for text in overrides:
        tree = _apply(tree, text, is_named_map)
    return tree


def _apply(tree: Node, text: str, is_named_map: Callable[[str], bool]) -> Node:
    place = Place(f"command line: {text}")
    removes, adds = text.startswith("~"), text.startswith("+")
    path_text, equals, value_text = text[removes or adds :].partition("=")
    path = path_text.strip().split(".")
    if not all(path):
        raise problem(place, "is not an override such as a.b=c")
    if removes:
        if equals:
            raise problem(place, f"a removal has no value; write ~{path_text}")
        return _without(tree, path, place)
    if not equals:
        raise problem(place, f"has no value; write {path_text}=..., or ~{path_text} to remove it")
    if not adds and len(path) > 1 and is_named_map(path[0]):
        _must_be_there(tree, path, place, depth=2)
    if adds and _find(tree, path) is not None:
        raise problem(place, f"{path_text} is there already; leave out the +")
    return _merged(tree, path, read_value(value_text, place.source), place)


def _merged(tree: Node, path: list[str], value: Node, place: Place) -> Node:
    """The tree with a value merged in at a path; on the way, list entries are reached by their position."""
    head, rest = path[0], path[1:]
    if isinstance(tree.value, list):
        index = _index(tree, head, place)
        items = list(tree.value)
        items[index] = _merged(items[index], rest, value, place) if rest else value
        return Node(items, tree.place)
    if not isinstance(tree.value, dict):
        raise problem(place, f"{excerpt(tree.plain())} stands where {head!r} should be set in a mapping")
    below = tree.value.get(head)
    if rest:
        below = spelled_out(below, head) if below is not None else Node({}, place)
        if below.value is None:
            below = Node({}, place)
        new = _merged(below, rest, value, place)
        return Node({**tree.value, head: new}, tree.place, {head: place, **tree.key_places})
    return merge_entries(tree, Node({head: value}, tree.place, {head: place}))


def _without(tree: Node, path: list[str], place: Place) -> Node:
    _must_be_there(tree, path, place, len(path))
    head, rest = path[0], path[1:]
    if isinstance(tree.value, list):
        index = _index(tree, head, place)
        kept = [_without(tree.value[index], rest, place)] if rest else []
        return Node([*tree.value[:index], *kept, *tree.value[index + 1 :]], tree.place)
    entries = dict(tree.value)
    if rest:
        entries[head] = _without(entries[head], rest, place)
    else:
        del entries[head]
    return Node(entries, tree.place, tree.key_places)


def _must_be_there(tree: Node, path: list[str], place: Place, depth: int) -> None:
    """Refuse a path whose first `depth` keys are not all in the tree."""
    for position in range(depth):
        above = _find(tree, path[:position])
        assert above is not None, "the loop stops at the first gap"
        if _find(tree, path[: position + 1]) is None:
            hint = did_you_mean(path[position], above.value if isinstance(above.value, dict) else ())
            removes = place.source.startswith("command line: ~")
            adds = "" if hint or removes else f"; +{'.'.join(path)}=... adds it"
            raise problem(place, f"there is no {'.'.join(path[: position + 1])}{hint}{adds}")


def _find(tree: Node, path: list[str]) -> Node | None:
    node: Node | None = tree
    for key in path:
        if node is None:
            return None
        node = node.child(int(key) if isinstance(node.value, list) and key.isdigit() else key)
    return node


def _index(node: Node, key: str, place: Place) -> int:
    if not key.isdigit() or int(key) >= len(node.value):
        raise problem(place, f"{key!r} is no position in a list of {len(node.value)}; they count from 0")
    return int(key)


def _node(value: Any, place: Place) -> Node:
    """A Python value as a tree, every place in it being the override's."""
    if isinstance(value, Mapping):
        entries = {str(key): _node(item, place) for key, item in value.items()}
        return Node(entries, place, dict.fromkeys(entries, place))
    if isinstance(value, list | tuple):
        return Node([_node(item, place) for item in value], place)
    if value is None or isinstance(value, str | bool | int | float):
        return Node(value, place)
    raise problem(place, f"{type(value).__name__} is not a value that a scenario can hold")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else excerpt(value)
