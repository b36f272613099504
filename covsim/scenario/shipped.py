"""The scenarios that come with covsim, found by name from any folder."""

from __future__ import annotations

from pathlib import Path

import covsim

SUFFIX = ".yaml"
MATRICES = frozenset({"matrix"})
"""Files for `covsim matrix`, which lie among the scenarios and are none."""


def shipped_folder() -> Path:
    """Where they lie: inside the installed package, or beside it in a checkout."""
    package = Path(covsim.__file__).parent
    installed = package / "scenarios"
    return installed if installed.is_dir() else package.parent / "scenarios"


def shipped_scenarios() -> dict[str, Path]:
    """Name (`covenant72b`, `contrast/random`) to file, in the order of names."""
    folder = shipped_folder()
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob(f"*{SUFFIX}")}
    return {name: path for name, path in sorted(found.items()) if name not in MATRICES}


def find(name: str, beside: Path) -> tuple[Path, str]:
    """The file that a name means, and how messages call it.

    A file that exists wins; otherwise the name is looked up, with or without its suffix, among the shipped ones. If it
    is not there either, the path that was tried first is returned.

    Args:
        name: a path relative to `beside`, an absolute path, or the name of a shipped scenario.
        beside: the folder that relative paths start from.
    """
    given = beside / name
    if not given.exists():
        shipped = shipped_scenarios().get(name.removesuffix(SUFFIX))
        if shipped is not None:
            return shipped, str(shipped)
    return given, str(given)
