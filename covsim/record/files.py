"""Files that appear whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill an unfinished file beside `path`, put it on disk, and rename it over `path`.

    Whoever opens `path` sees the old file or the new one, also after a kill. Makes the folder if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, its line ends as they are."""
    write_whole(path, lambda part: part.write_bytes(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON; numbers that JSON cannot hold become null."""
    write_text(path, json.dumps(_plain(value), sort_keys=True, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, gzipped without a date, so that equal values give equal bytes."""
    data = gzip.compress("".join(_line(value) for value in values).encode(), compresslevel=5, mtime=0)
    write_whole(path, lambda part: part.write_bytes(data))


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a parquet file; equal frames give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    write_whole(path, lambda part: pq.write_table(table, part, compression="zstd"))


def _line(value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"
    except ValueError:  # a NaN or an infinity; looking for them first would double the time
        return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The value with every NaN and infinity as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
