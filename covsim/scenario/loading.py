"""From a file and overrides to a scenario: read, extend, override, validate."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from covsim.choice import OneOf
from covsim.scenario import reader
from covsim.scenario.errors import Place, ScenarioError, excerpt, problem
from covsim.scenario.lookup import is_named_map
from covsim.scenario.messages import problems
from covsim.scenario.overrides import Overrides, override
from covsim.scenario.plugins import load_installed, load_plugins
from covsim.scenario.schema import Scenario
from covsim.scenario.shipped import find, shipped_scenarios
from covsim.scenario.tree import Node, merge
from covsim.scenario.tree import Path as TreePath
from covsim.sources import Source, SourceError, absolute, file_of

MAX_EXTENDS = 16  # files in one chain


@dataclass(frozen=True)
class Loaded:
    """A scenario, and the text of the file that was named, before `extends` and overrides."""

    scenario: Scenario
    source_text: str
    path: Path


class PluginsNotLoaded(ValueError):
    """The scenario names plugins, and its reader was told to run no code."""


def load(path: str | Path, overrides: Overrides = ()) -> Scenario:
    """Read a scenario file, or a shipped scenario by name, and change it as asked. Plugins that it names are imported.

    Args:
        path: a file, or the name of a scenario that ships with covsim, such as `quickstart`.
        overrides: `["a.b=c", "+a.b=c", "~a.b"]`, or a mapping such as `{"peers": 12, "model.width": 64}`.

    Raises:
        ScenarioError: a ValueError with one line per mistake, `file:line:col: path: what is wrong`.
    """
    return load_with_source(path, overrides).scenario


def load_with_source(path: str | Path, overrides: Overrides = (), plugins: bool = True) -> Loaded:
    """`load`, with the text that the file holds.

    Raises:
        ScenarioError: as `load`.
        PluginsNotLoaded: `plugins` is False and the scenario names some: what they register is unknown.
    """
    file, shown_as = find(str(path), Path())
    tree = _read_chain(file, shown_as, ())
    source_text = file.read_text(encoding="utf-8-sig")
    return Loaded(_validated(override(tree, overrides, _is_named_map), plugins), source_text, file)


def loads(text: str, source: str = "text", overrides: Overrides = ()) -> Scenario:
    """A scenario from YAML text that extends nothing but shipped scenarios. Raises ScenarioError."""
    return variations(text, source)(overrides)


def variations(text: str, source: str = "text") -> Callable[[Overrides], Scenario]:
    """What makes scenarios of one text and changes of it; the text is read once. Both raise ScenarioError."""
    tree = _extended(reader.read_text(text, source), Path(), ())
    return lambda overrides: _validated(override(tree, overrides, _is_named_map))


def _read_chain(path: Path, shown_as: str, below: tuple[Path, ...]) -> Node:
    """A file merged over all that it extends; `below` are the files that led here."""
    if not path.exists():
        raise problem(Place(shown_as), f"no such file{_nearest(path.name)}")
    return _extended(reader.read_file(path, shown_as), path.parent, (*below, path.resolve()))


def _extended(tree: Node, folder: Path, below: tuple[Path, ...]) -> Node:
    named = tree.value.pop("extends", None)
    if named is None:
        return tree
    if not isinstance(named.value, str):
        raise problem(named.place, f"must be the name of one file, not {excerpt(named.plain())}", ("extends",))
    path, shown_as = find(named.value, folder)
    if not path.exists():
        raise problem(named.place, f"there is no {excerpt(named.value)}{_nearest(named.value)}", ("extends",))
    if path.is_dir():
        raise problem(named.place, f"{excerpt(named.value)} is a directory", ("extends",))
    if path.resolve() in below:
        raise problem(named.place, f"{excerpt(named.value)} extends this file in turn: a cycle", ("extends",))
    if len(below) >= MAX_EXTENDS:
        raise problem(named.place, f"a chain of more than {MAX_EXTENDS} files", ("extends",))
    return merge(_read_chain(path, shown_as, below), tree)


def _validated(tree: Node, plugins: bool = True) -> Scenario:
    """The scenario in a tree. It is checked as strict JSON: no text for a number, no true for 1, lists for tuples."""
    _import_installed(tree)
    _import_plugins(tree, plugins)
    tree = _with_absolute_paths(tree, Scenario)
    try:
        return Scenario.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        raise ScenarioError(problems(error, Scenario, tree)) from None


def _import_installed(tree: Node) -> None:
    try:
        load_installed()
    except ValueError as error:
        raise problem(tree.place, str(error)) from None


def _import_plugins(tree: Node, allowed: bool) -> None:
    """Import the files under `plugins`; whatever is not a list of files is left to the schema to complain about."""
    named = tree.child("plugins")
    files = named.value if named is not None and isinstance(named.value, list) else []
    files = [file for file in files if isinstance(file.value, str)]
    if files and not allowed:
        names = ", ".join(str(file.value) for file in files)
        raise PluginsNotLoaded(f"names plugins, which only `covsim run` loads: {names}")
    for position, file in enumerate(files):
        path = _absolute_path(file, ("plugins", position))
        try:
            load_plugins([path])
        except SourceError as error:
            raise problem(file.place, str(error), ("plugins", position)) from None
        except ValueError as error:
            raise problem(file.place, f"{path}: {error}", ("plugins", position)) from None


def _with_absolute_paths(node: Node, kind: Any, marks: Iterable[Any] = (), path: TreePath = ()) -> Node:
    """The tree with the paths of users' files made absolute; each starts from the folder of the file it stands in.

    Args:
        node: the value at `path`.
        kind: the type that describes it, and `marks` that type's annotations.
    """
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
    if any(isinstance(mark, Source) for mark in marks):
        return Node(_absolute_path(node, path), node.place) if isinstance(node.value, str) else node
    if get_origin(kind) in (Union, UnionType):
        for option in get_args(kind):
            node = _with_absolute_paths(node, option, marks, path)
        return node
    if isinstance(node.value, list):
        inner = (get_args(kind) or (None,))[0]
        items = [_with_absolute_paths(item, inner, (), (*path, i)) for i, item in enumerate(node.value)]
        return Node(items, node.place)
    if isinstance(node.value, dict):
        fields = _fields(_chosen(node, kind, marks), node.value)
        entries = {key: _with_absolute_paths(node.value[key], *fields[key], (*path, key)) for key in node.value}
        return Node(entries, node.place, node.key_places)
    return node


def _chosen(node: Node, kind: Any, marks: Iterable[Any]) -> Any:
    """The part of a registry that a mapping names, or the type that describes it already."""
    choice = next((mark for mark in marks if isinstance(mark, OneOf)), None)
    if choice is None:
        return kind
    named = choice.kind_of({key: item.value for key, item in node.value.items()})
    return dict(choice.registry.items()).get(named or "")


def _fields(kind: Any, keys: Iterable[str]) -> dict[str, tuple[Any, Iterable[Any]]]:
    """The type of each entry of a mapping, with its annotations; None where nothing is known."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        known = {name: (field.annotation, field.metadata) for name, field in kind.model_fields.items()}
        return {key: known.get(key, (None, ())) for key in keys}
    return {key: ((get_args(kind) or (None,))[-1], ()) for key in keys}


def _absolute_path(node: Node, path: TreePath) -> str:
    """A path in a file starts from the folder of that file, one on the command line from the working folder."""
    folder = Path(node.place.source).parent if node.place.line else Path()
    file = folder / file_of(node.value).expanduser()
    if not os.path.isfile(file):  # also of a name that no file system takes
        raise problem(node.place, f"there is no file {str(file)!r}", path)
    return absolute(node.value, folder)


def _is_named_map(key: str) -> bool:
    return is_named_map(Scenario, key)


def _nearest(name: str) -> str:
    names = [Path(name).stem, *difflib.get_close_matches(Path(name).stem, shipped_scenarios(), n=1, cutoff=0.6)]
    return f" (did you mean {names[1]!r}, which ships with covsim?)" if len(names) > 1 else ""
