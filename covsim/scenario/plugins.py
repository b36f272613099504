"""Parts of a user's own, registered by Python files that a scenario names under `plugins:`.

A settings field that holds any registered part is the union of what was registered when its model was built, so the
models are built again once a file has added to a registry.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from covsim.learning.corpus import Data
from covsim.learning.inner_loop import Training
from covsim.registry import Part, Registry
from covsim.scenario.installed import import_installed
from covsim.scenario.registries import REGISTRIES
from covsim.scenario.schema import Scenario
from covsim.scenario.sections import Cohort
from covsim.sources import import_file

SECTIONS: tuple[type[BaseModel], ...] = (Data, Training, Cohort, Scenario)
"""Sections that hold parts; the scenario holds them all."""


_PARTS_OF: dict[str, list[tuple[Registry[Any], type[Part]]]] = {}
"""What each imported module registered: an edit that is taken back counts again."""


@functools.cache
def load_installed() -> None:
    """Make the scenario know the parts of installed packages; once. Raises ValueError when one does not work."""
    if import_installed():
        _rebuild()


def load_plugins(files: Iterable[str]) -> None:
    """Import Python files and make the scenario know the parts that they register.

    Raises:
        SourceError: a file is not there, or fails as it is imported.
        ValueError: a part does not work. Then the registries are as before.
    """
    load_installed()
    before = _known()
    try:
        for file in files:
            _register_parts_of(import_file(file))
        if _known() != before:
            _rebuild()
    except ValueError:
        for registry, parts in zip(REGISTRIES.values(), before, strict=True):
            registry.put_back(parts)
        _rebuild()
        raise


def _register_parts_of(module: ModuleType) -> None:
    """Note what a module registered as it was imported; if that was long ago, register it again."""
    name = module.__name__
    if name not in _PARTS_OF:
        every = [(registry, part) for registry in REGISTRIES.values() for _, part in registry.items()]
        _PARTS_OF[name] = [(registry, part) for registry, part in every if part.__module__ == name]
    for registry, part in _PARTS_OF[name]:
        registry.register(part)


def _rebuild() -> None:
    for registry in REGISTRIES.values():
        for kind, part in registry.items():
            try:
                part.model_rebuild(force=True)
            except (PydanticUserError, NameError) as error:  # an annotation that says nothing, for example
                raise ValueError(f"{registry.noun} {kind!r}: {str(error).splitlines()[0]}") from error
    for section in SECTIONS:
        section.model_rebuild(force=True)


def _known() -> list[list[tuple[str, type[Part]]]]:
    return [registry.items() for registry in REGISTRIES.values()]
