"""From a file and overrides to a scenario: read, extend, override, validate."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from covsim.scenario import reader
from covsim.scenario.errors import Place, ScenarioError, excerpt, problem
from covsim.scenario.lookup import is_named_map
from covsim.scenario.messages import problems
from covsim.scenario.overrides import Overrides, override
from covsim.scenario.schema import Scenario
from covsim.scenario.shipped import find, shipped_scenarios
from covsim.scenario.tree import Node, merge

MAX_EXTENDS = 16  # files in one chain


@dataclass(frozen=True)
class Loaded:
    """A scenario, and the text of the file that was named, before `extends` and overrides."""

    scenario: Scenario
    source_text: str
    path: Path


def load(path: str | Path, overrides: Overrides = ()) -> Scenario:
    """Read a scenario file, or a shipped scenario by name, and change it as asked.

    Args:
        path: a file, or the name of a scenario that ships with covsim, such as `quickstart`.
        overrides: `["a.b=c", "+a.b=c", "~a.b"]`, or a mapping such as `{"peers": 12, "model.width": 64}`.

    Raises:
        ScenarioError: a ValueError with one line per mistake, `file:line:col: path: what is wrong`.
    """
    return load_with_source(path, overrides).scenario


def load_with_source(path: str | Path, overrides: Overrides = ()) -> Loaded:
    """`load`, with the text that the file holds. Raises ScenarioError."""
    file, shown_as = find(str(path), Path())
    tree = _read_chain(file, shown_as, ())
    source_text = file.read_text(encoding="utf-8-sig")
    return Loaded(_validated(override(tree, overrides, _is_named_map)), source_text, file)


def loads(text: str, source: str = "text") -> Scenario:
    """A scenario from YAML text that extends nothing but shipped scenarios. Raises ScenarioError."""
    return _validated(_extended(reader.read_text(text, source), Path(), ()))


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


def _validated(tree: Node) -> Scenario:
    """The scenario in a tree. It is checked as strict JSON: no text for a number, no true for 1, lists for tuples."""
    try:
        return Scenario.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        raise ScenarioError(problems(error, Scenario, tree)) from None


def _is_named_map(key: str) -> bool:
    return is_named_map(Scenario, key)


def _nearest(name: str) -> str:
    names = [Path(name).stem, *difflib.get_close_matches(Path(name).stem, shipped_scenarios(), n=1, cutoff=0.6)]
    return f" (did you mean {names[1]!r}, which ships with covsim?)" if len(names) > 1 else ""
