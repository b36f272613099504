"""The tape: every answer that tensors gave to the clock, in order, so that an interrupted run can be re-executed.

One file of records `length, kind, label, data, crc32` (little-endian). A record that was cut by a kill is dropped at
the next opening; what lies behind the checkpoint is cut off when the run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

_HEADER = struct.Struct("<IBH")  # bytes of data, kind, bytes of label
_CHECK = struct.Struct("<I")
_KINDS: dict[int, Literal["payload", "numbers"]] = {1: "payload", 2: "numbers"}
_MARKS = {kind: mark for mark, kind in _KINDS.items()}


class TapeMismatch(RuntimeError):
    """The re-executed run asked another question than the tape answers: code, data or tape have changed."""


class Tape:
    """A `nodes.seam.Seam` that records what it computes, or answers from what was recorded.

    Args:
        path: the tape's file.
        replay_until: position, in bytes, up to which answers are read and nothing is computed; 0 for a new run.
    """

    def __init__(self, path: Path, replay_until: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Open as long as the run: `close` is the run's to call.
        self._file: BinaryIO = open(path, "r+b" if replay_until else "w+b")  # noqa: SIM115
        self._replay_until = replay_until
        self.position = 0

    @property
    def replaying(self) -> bool:
        return self.position < self._replay_until

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        if self.replaying:
            return self._read("payload", label)
        return self._write("payload", label, compute())

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        if self.replaying:
            data = self._read("numbers", label)
        else:
            values = [float(number) for number in compute()]
            data = self._write("numbers", label, struct.pack(f"<{len(values)}d", *values))
        return struct.unpack(f"<{len(data) // 8}d", data)

    def go_live(self) -> None:
        """The checkpoint is reached: drop what the interrupted run recorded after it."""
        assert self.position == self._replay_until
        self._file.seek(self.position)
        self._file.truncate()

    def sync(self) -> None:
        """Put all that was recorded on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _write(self, kind: Literal["payload", "numbers"], label: str, data: bytes) -> bytes:
        record = _record(kind, label, data)
        self._file.write(record)
        self.position += len(record)
        return data

    def _read(self, kind: Literal["payload", "numbers"], label: str) -> bytes:
        entry = _read_record(self._file)
        if entry is None or entry[:2] != (kind, label):
            found = "nothing readable" if entry is None else f"{entry[0]} {entry[1]!r}"
            raise TapeMismatch(f"the tape has {found} at byte {self.position} where the run asks for {kind} {label!r}")
        self.position = self._file.tell()
        return entry[2]


class TapeHash:
    """A seam that computes, and keeps of the tape that this would make the hash alone."""

    replaying = False

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        data = compute()
        self._hash.update(_record("payload", label, data))
        return data

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        values = tuple(float(number) for number in compute())
        self._hash.update(_record("numbers", label, struct.pack(f"<{len(values)}d", *values)))
        return values

    def sha256(self) -> str:
        """Hex digest of the tape's file."""
        return self._hash.hexdigest()


class NoTape:
    """A seam that computes and keeps nothing: for answers that take less time to give again than to read."""

    replaying = False
    position = 0

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        return compute()

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        return tuple(float(number) for number in compute())

    def go_live(self) -> None:
        """Nothing was recorded."""

    def sync(self) -> None:
        """Nothing is to be put on disk."""

    def close(self) -> None:
        """Nothing is open."""


def records(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Every whole record of a tape, as (kind, label, data)."""
    with open(path, "rb") as file:
        while (entry := _read_record(file)) is not None:
            yield entry


def _record(kind: Literal["payload", "numbers"], label: str, data: bytes) -> bytes:
    """An answer as it lies on the tape."""
    name = label.encode()
    record = _HEADER.pack(len(data), _MARKS[kind], len(name)) + name + data
    return record + _CHECK.pack(zlib.crc32(record))


def _read_record(file: BinaryIO) -> tuple[Literal["payload", "numbers"], str, bytes] | None:
    """The next record, or None at the end, at a cut record, or where the checksum fails."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    num_data, mark, num_label = _HEADER.unpack(header)
    body = file.read(num_label + num_data)
    check = file.read(_CHECK.size)
    if len(check) < _CHECK.size or _CHECK.unpack(check)[0] != zlib.crc32(header + body) or mark not in _KINDS:
        return None
    return _KINDS[mark], body[:num_label].decode(), body[num_label:]
