"""Which field of which model describes a spot in a scenario's text, given the parts that the text chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo

from covsim.choice import OneOf
from covsim.scenario.tree import Node

Path = Sequence[str | int]


def node_at(tree: Node, path: Path) -> Node | None:
    """The node at a path, or None where the text has none."""
    node: Node | None = tree
    for key in path:
        node = node.child(key) if node is not None else None
    return node


def plain_at(tree: Node, path: Path) -> Any:
    """The plain value at a path; None where the text has none."""
    node = node_at(tree, path)
    return node.plain() if node is not None else None


def model_at(root: type[BaseModel], tree: Node, path: Path) -> type[BaseModel] | None:
    """The model that describes the mapping at a path, or None if there is no mapping with fixed keys."""
    here: Any = root
    for depth, key in enumerate(path):
        if _is_model(here):
            field = here.model_fields.get(str(key))
            here = _held_by(field, plain_at(tree, path[: depth + 1])) if field is not None else None
        else:
            here = (get_args(here) or (None,))[-1]
    return here if _is_model(here) else None


def field_at(root: type[BaseModel], tree: Node, path: Path) -> FieldInfo | None:
    """The field that describes the value at a path, or None if it stands in a list or in a map of free names."""
    model = model_at(root, tree, path[:-1]) if path else None
    return model.model_fields.get(str(path[-1])) if model is not None else None


def choice_of(field: FieldInfo | None) -> OneOf | None:
    """The registry choice that annotates a field."""
    return next((mark for mark in _marks(field) if isinstance(mark, OneOf)), None)


def choice_at(root: type[BaseModel], tree: Node, path: Path) -> OneOf | None:
    """The registry choice that annotates the value at a path, also in a list of parts."""
    if path and isinstance(path[-1], int):
        return choice_of(field_at(root, tree, path[:-1]))
    return choice_of(field_at(root, tree, path))


def in_unit(amount: float, field: FieldInfo | None) -> str:
    """An amount as an author would write it for a field: '86400 s' for a duration, plain where there is no unit."""
    render: Any = next((mark.func for mark in _marks(field) if isinstance(mark, PlainSerializer)), "{:.12g}".format)
    return str(render(amount))


def is_named_map(root: type[BaseModel], key: str) -> bool:
    """True for a top-level key whose value maps names of the author's own choice, such as `cohorts`."""
    field = root.model_fields.get(key)
    return field is not None and get_origin(field.annotation) is dict


def _held_by(field: FieldInfo, value: Any) -> Any:
    """What a field holds in a text that gives it this value: the chosen part of a union, or its annotation."""
    choice = choice_of(field)
    if choice is not None:
        return dict(choice.registry.items()).get(choice.kind_of(value) or "")
    if get_origin(field.annotation) in (dict, list, tuple):
        return field.annotation
    models = [option for option in (field.annotation, *get_args(field.annotation)) if _is_model(option)]
    kind = value.get("kind") if isinstance(value, dict) and field.discriminator else None
    return next((model for model in models if kind is None or model.model_fields["kind"].default == kind), None)


def _marks(field: FieldInfo | None) -> list[Any]:
    """A field's annotations, those inside an optional type too."""
    if field is None:
        return []
    inner = [mark for option in get_args(field.annotation) for mark in getattr(option, "__metadata__", ())]
    return [*field.metadata, *inner]


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
