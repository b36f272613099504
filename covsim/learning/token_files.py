"""A user's own text as tokens: `.txt` as bytes, `.npy` and `.bin` as tokens that were made elsewhere.

A file is mapped into memory, not read into it: what is trained on is copied out sequence by sequence.
"""

from __future__ import annotations

import codecs
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covsim.sources import SourceError, readable

MAX_TOKENS = 2**32
MAX_PIECES = 64

_PART = 2**24  # bytes or tokens looked at together


@dataclass(frozen=True, eq=False)
class Tokens:
    """A text as numbers: `values` [n] of any integer type, and whether they are its bytes."""

    values: NDArray[Any]
    are_bytes: bool

    @cached_property
    def largest(self) -> int:
        """The largest token."""
        return int(self.values.max())


def must_be_tokens(path: str) -> str:
    """The path if its ending says how tokens lie in the file. Raises ValueError."""
    if Path(path).suffix not in _READERS:
        raise ValueError(f"{Path(path).name!r} must end in {', '.join(_READERS)}: text, an array, or 16-bit tokens")
    return path


def read_tokens(path: str) -> Tokens:
    """The tokens of a file, by its ending. Raises SourceError.

    `.txt`: the bytes of UTF-8 text. `.npy`: one array of whole numbers with one dimension. `.bin`: little-endian
    unsigned 16-bit numbers, as nanoGPT writes them.
    """
    file = Path(must_be_tokens(path))
    with readable(file):
        status = file.stat()
        return _read(file, status.st_mtime_ns, status.st_size)


def piece_lengths(num_tokens: int, context: int, held_out: float) -> list[int]:
    """Lengths of the nearly equal pieces into which a text of one piece is cut, so that what is held out is spread.

    At most 64, and so few that each has a sequence to hold out.
    """
    sequences = max(0, num_tokens - 1) // context
    num_pieces = min(MAX_PIECES, max(1, int(sequences * held_out)))
    bounds = [num_tokens * i // num_pieces for i in range(num_pieces + 1)]
    return [end - start for start, end in itertools.pairwise(bounds)]


@functools.lru_cache(maxsize=4)
def _read(file: Path, mtime_ns: int, size: int) -> Tokens:
    """Read once for each state of the file, for `check` and the run both look at it."""
    if not file.is_file():
        raise SourceError(f"{file}: is not a file")
    if not size:
        raise SourceError(f"{file}: is empty")
    tokens = _READERS[file.suffix](file)
    if len(tokens.values) > MAX_TOKENS:
        raise SourceError(f"{file}: holds more than {MAX_TOKENS} tokens")
    return tokens


def _read_text(file: Path) -> Tokens:
    values: NDArray[Any] = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(values), _PART):
        try:
            decoder.decode(values[start : start + _PART].tobytes(), final=start + _PART >= len(values))
        except UnicodeDecodeError:
            raise SourceError(f"{file}: is not UTF-8 text; bring other tokens as .npy or .bin") from None
    return Tokens(values, are_bytes=True)


def _read_array(file: Path) -> Tokens:
    try:
        values: NDArray[Any] = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise SourceError(f"{file}: is not an array of numbers in numpy's format: {error}") from None
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise SourceError(f"{file}: holds {values.dtype} {list(values.shape)}, not whole numbers in one dimension")
    if not len(values) or values.min() < 0:
        raise SourceError(f"{file}: holds {'negative tokens' if len(values) else 'no tokens'}")
    return Tokens(values, are_bytes=False)


def _read_16_bit(file: Path) -> Tokens:
    if file.stat().st_size % 2:
        raise SourceError(f"{file}: has an odd number of bytes, so it does not hold 16-bit tokens")
    return Tokens(np.asarray(np.memmap(file, dtype="<u2", mode="r")), are_bytes=False)


_READERS: dict[str, Callable[[Path], Tokens]] = {".txt": _read_text, ".npy": _read_array, ".bin": _read_16_bit}
