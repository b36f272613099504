"""Parts of installed packages: a package names the modules that register them as entry points `covsim.parts`.

They are imported before the first scenario is read, also by `check`: whoever installs a package lets it run. A run
whose scenario uses such a part takes the package's version and sources into its identity.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from covsim.registry import Part
from covsim.sources import content_hash

GROUP = "covsim.parts"


@functools.cache
def import_installed() -> tuple[metadata.EntryPoint, ...]:
    """Import what installed packages name under `covsim.parts`, once; in the order of their names.

    Raises ValueError when a package fails as it is imported.
    """
    points = tuple(sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)))
    for point in points:
        try:
            point.load()
        except (Exception, SystemExit) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"installed package {_label(point)} fails as {point.value} is imported: {why}") from error
    return points


def installed_code(scenario: BaseModel) -> list[str]:
    """Version and sources of each installed package of which the scenario uses a part; empty if it uses none."""
    used = {type(part).__module__.partition(".")[0] for part in _parts_of(scenario)}
    points = {point.module.partition(".")[0]: point for point in import_installed()}
    return [f"{_label(points[name])} {_sources_hash(name)}" for name in sorted(used & points.keys())]


def _label(point: metadata.EntryPoint) -> str:
    """'my-attacks 1.0'."""
    return point.name if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _parts_of(value: Any) -> Iterator[Part]:
    """All parts that a settings value holds, itself among them."""
    if isinstance(value, Part):
        yield value
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts_of(item)


def _sources_hash(name: str) -> str:
    """Hash over the Python files of an importable module or package, by path and content."""
    spec = util.find_spec(name)
    assert spec is not None, f"{name} has been imported"
    running = hashlib.sha256()
    for folder in [Path(place) for place in spec.submodule_search_locations or ()]:
        for file in sorted(folder.rglob("*.py")):
            running.update(f"{file.relative_to(folder).as_posix()}\0{content_hash(file)}\0".encode())
    if not spec.submodule_search_locations and spec.origin:
        running.update(content_hash(Path(spec.origin)).encode())
    return running.hexdigest()
