"""Scenario text as a tree whose every value knows where it stands, and how one tree is merged under another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from covsim.scenario.errors import Place

Path = tuple[str | int, ...]
SHORTHANDS = {
    "behavior": "kind",
    "selection": "kind",
    "backoff": "kind",
    "refused_backoff": "kind",
    "topology": "kind",
    "shards": "kind",
    "protocol": "kind",
    "compressor": "kind",
    "values": "kind",
    "fragments": "kind",
    "schedule": "kind",
    "price_schedule": "kind",
    "membership": "kind",
    "consensus": "kind",
    "deployment": "preset",
}
"""Keys whose value may be a bare name, with the key that the name stands for: `behavior: lazy` is `{kind: lazy}`."""

ALTERNATIVES = {"count": "share", "share": "count", "corpus": "path", "path": "corpus"}
"""Keys that exclude each other: a cohort whose count was inherited may be given a share instead, a corpus a path."""


@dataclass(slots=True)
class Node:
    """A value at a place: a scalar, a list of nodes, or a mapping whose keys have places of their own."""

    value: Any
    place: Place
    key_places: dict[str, Place] = field(default_factory=dict)

    def child(self, key: str | int) -> Node | None:
        """The node under a key or a list position, or None."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            found: Node = self.value[key]
            return found
        return None

    def plain(self) -> Any:
        """The same value as plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


def merge(base: Node, over: Node, name: str = "") -> Node:
    """`base` with `over` on top, key by key; `name` is the key under which both stand.

    A list or a scalar replaces what it meets, and so does a mapping that names another `kind` (or `preset`), for the
    settings of one part mean nothing to another. A null removes what it meets, so that the default counts again, and so
    does the alternative of what it meets.
    """
    base = spelled_out(base, name)
    if not isinstance(over.value, dict) or not isinstance(base.value, dict):
        return over
    return over if _differ(base, over, SHORTHANDS.get(name, "kind")) else merge_entries(base, over)


def merge_entries(base: Node, over: Node) -> Node:
    """A mapping with the entries of another set in it, whatever kinds the two name."""
    kept = {key: node for key, node in base.value.items() if not _replaced(key, over.value)}
    for key, node in over.value.items():
        if node.value is None and key in kept:
            del kept[key]
        else:
            kept[key] = merge(kept[key], node, key) if key in kept else node
    return Node(kept, over.place, {**base.key_places, **over.key_places})


def spelled_out(node: Node, name: str) -> Node:
    """A bare name such as `behavior: lazy` as the mapping it stands for; any other node as it is."""
    if name not in SHORTHANDS or not isinstance(node.value, str):
        return node
    key = SHORTHANDS[name]
    return Node({key: Node(node.value, node.place)}, node.place, {key: node.place})


def place_of(root: Node, path: Sequence[str | int], *, of_key: bool = False) -> Place:
    """Where the value at a path stands (or its key), or the nearest thing above it that the text has."""
    place, node = root.place, root
    for key in path:
        child = node.child(key)
        if child is None:
            return node.key_places.get(str(key), place) if of_key else place
        place = node.key_places.get(str(key), child.place) if of_key else child.place
        node = child
    return place


def _replaced(key: str, over: dict[str, Node]) -> bool:
    """True if `over` sets the alternative of a key."""
    other = over.get(ALTERNATIVES.get(key, ""))
    return other is not None and other.value is not None and key not in over


def _differ(base: Node, over: Node, key: str) -> bool:
    first, second = base.value.get(key), over.value.get(key)
    return first is not None and second is not None and first.value != second.value
