"""One process at a time works in a run's folder, by a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


class FolderInUse(ValueError):
    """Another process works in this folder; nothing in it is touched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: is running in another process")
        self.folder = folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and keep other processes out of it.

    At the end the lock's file is gone, and so are folders that were made and stayed empty. A file that a killed process
    left behind is no lock.

    Raises:
        FolderInUse: another process has locked it.
        OSError: it cannot be made or written.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still held: who waits for it finds that it is gone
            os.close(descriptor)
    finally:
        for each in missing:  # the innermost first; one that holds something stays
            with suppress(OSError):
                each.rmdir()


def _acquired(path: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _lies_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise FolderInUse(path.parent) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it after it was opened here: another file is the lock now


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
