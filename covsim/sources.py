"""Files that a user brings, named by a path in a scenario: code as `my_model.py:build`, data as `my.txt`.

A path is relative to the file in which it is written; reading a scenario makes it absolute, so that the resolved
scenario can be read from anywhere. The identity of a run takes the content of such a file and not its place.

Code is imported when it is first used, never while a scenario is checked. It may import installed packages and the
modules and packages beside it, at the top of the file: its folder stands last on `sys.path` during the import and
only then, an installed package of the same name wins, and no bytecode is written. What it imports from beside it
belongs to it alone: another file with a sibling of the same name gets its own, and an edited sibling makes another run.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, SerializationInfo, StringConstraints

from covsim.registry import did_you_mean

MAX_SIBLINGS = 1000  # Python files that a user's file imports from beside it

BY_CONTENT = {"sources": "by content"}
"""Serialization context: `model_dump(mode="json", context=BY_CONTENT)` has fingerprints where the paths stand."""

_CODE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)", re.DOTALL)


class SourceError(ValueError):
    """A user's file cannot be used; the message is one line that says which, where and why."""


@dataclass(frozen=True)
class Source:
    """Marks a settings field that holds the path of a user's file."""


def absolute(text: str, folder: Path) -> str:
    """The path `text`, with its `:name` if it has one, as an absolute one; relative ones start from `folder`."""
    return os.path.abspath(folder / Path(text).expanduser())


def file_of(text: str) -> Path:
    """The file of `my_model.py:build` or of `my.txt`."""
    code = _CODE.fullmatch(text)
    return Path(code["file"] if code else text)


def must_be_code(text: str) -> str:
    """The text if it names a function or a class of a Python file. Raises ValueError."""
    if _CODE.fullmatch(text) is None:
        raise ValueError(f"{text!r} does not name a function in a Python file, as my_model.py:build does")
    return text


def _serialized(text: str, info: SerializationInfo) -> str:
    return fingerprint(text) if info.context == BY_CONTENT else text


SourcePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096),
    AfterValidator(lambda text: absolute(text, Path())),
    PlainSerializer(_serialized, return_type=str),
    Source(),
]
"""A settings field with the path of a user's file; where no scenario file says otherwise, from the working folder."""


def fingerprint(text: str) -> str:
    """What is in a file, whatever its place: a hash of its content, of the siblings that it imports, and its name.

    Raises SourceError if the file cannot be read.
    """
    code = _CODE.fullmatch(text)
    if code is None:
        file = Path(text)
        return (_code_hash(file) if file.suffix == ".py" else content_hash(file)) + file.suffix
    return f"{_code_hash(Path(code['file']))}.py:{code['name']}"


def content_hash(file: Path) -> str:
    """sha256 of a file of any size. Raises SourceError."""
    with readable(file):
        status = file.stat()
        return _content_hash(file, status.st_mtime_ns, status.st_size)


def load(text: str) -> Callable[..., Any]:
    """The function or class that `my_model.py:build` names; the file is imported once for each content of it.

    Raises SourceError: no such file, no such function, or the file fails as it is imported.
    """
    code = _CODE.fullmatch(must_be_code(text))
    assert code is not None
    file, name = Path(code["file"]), code["name"]
    module = _imported(file, _code_hash(file))
    if not hasattr(module, name):
        raise SourceError(f"{file}: defines no {name!r}{did_you_mean(name, vars(module))}")
    found: Callable[..., Any] = getattr(module, name)
    if not callable(found):
        raise SourceError(f"{file}: {name!r} is neither a function nor a class")
    return found


def import_file(path: str) -> ModuleType:
    """The module of a Python file, for what it does as it is imported; once for each content of it.

    Raises SourceError: no such file, or it fails.
    """
    file = Path(path)
    return _imported(file, _code_hash(file))


def blame(error: BaseException, file: Path) -> str:
    """An error that a user's file has raised, on one line, with the last line of that file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    where = f"line {lines[-1]}: " if lines else ""
    return " ".join(f"{where}{type(error).__name__}: {error}".split())


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line. Raises SourceError."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{file}: no such file") from None
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=64)
def _content_hash(file: Path, mtime_ns: int, size: int) -> str:
    """A large file is read once, not whenever the identity of a run is asked for."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _code_hash(file: Path) -> str:
    """Hash of a Python file and of all that it imports from beside it, by name and content."""
    running = hashlib.sha256()
    for path in (file, *_siblings(file)):
        with readable(path):
            name = path.relative_to(file.parent).as_posix() if path != file else ""
            running.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return running.hexdigest()


def _siblings(file: Path) -> list[Path]:
    """The files beside a Python file that its import statements reach, sorted."""
    found: set[Path] = set()
    unread = [file]
    while unread:
        for name in _imported_names(unread.pop()):
            fresh = set(_files_of(file.parent, name)) - found - {file}
            found |= fresh
            unread += fresh
        if len(found) > MAX_SIBLINGS:
            raise SourceError(f"{file}: imports more than {MAX_SIBLINGS} files from beside it")
    return sorted(found)


def _imported_names(file: Path) -> set[str]:
    """First names of the modules that a file imports; a file that is not Python fails later, as it is imported."""
    try:
        with readable(file):
            statements = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names} - {__name__.partition(".")[0]}


def _files_of(folder: Path, name: str) -> list[Path]:
    """The files of a module or a package of this name in a folder."""
    module, package = folder / f"{name}.py", folder / name
    if (package / "__init__.py").is_file():
        return list(package.rglob("*.py"))
    return [module] if module.is_file() else []


@functools.lru_cache(maxsize=64)
def _imported(file: Path, code_hash: str) -> ModuleType:
    """The module of a file, under a name of its own. Raises SourceError."""
    place = hashlib.sha256(f"{file}\0{code_hash}".encode()).hexdigest()[:16]
    module = ModuleType(f"covsim_source_{place}")
    module.__file__, module.__package__ = str(file), ""
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        with _siblings_at_hand(file):
            code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)  # past any stale bytecode
            exec(code, vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise SourceError(f"{file}: fails as it is imported: {blame(error, file)}") from error
    return module


@contextlib.contextmanager
def _siblings_at_hand(file: Path) -> Iterator[None]:
    """Let a file import what lies beside it, afresh, and leave no trace of that in the interpreter."""
    files = {str(path) for path in _siblings(file)}

    def taken_out() -> dict[str, ModuleType]:
        names = [name for name, module in sys.modules.items() if getattr(module, "__file__", None) in files]
        return {name: sys.modules.pop(name) for name in names}

    earlier, path, writes_bytecode = taken_out(), list(sys.path), sys.dont_write_bytecode
    sys.path.append(str(file.parent))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes_bytecode
        taken_out()
        sys.modules.update(earlier)
