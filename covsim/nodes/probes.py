"""Functions of a user's own that look at the updates of a round; each adds a column to rounds.parquet.

    def spread(updates: Mapping[int, Decoded]) -> float: ...

A probe is given the decoded payloads that the leader gathered, by uid: `index` says where in theta (or among the
coefficients of a transform) the `value`s of a payload belong. It decides nothing: no node ever sees its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from covsim import sources
from covsim.protocol.base import Decoded


class Probe:
    """One function of a user's file.

    Args:
        path: `my_probe.py:spread`.

    Raises:
        SourceError: there is no such function, or its file fails as it is imported.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._function = sources.load(path)

    def look(self, updates: Mapping[int, Decoded]) -> float:
        """The probe's number for a round. Raises SourceError if it fails or gives no number."""
        file = Path(sources.file_of(self._path))
        try:
            answer = self._function(updates)
        except Exception as error:
            raise sources.SourceError(f"{self._path}: fails on a round: {sources.blame(error, file)}") from error
        try:
            return float(answer)
        except Exception:
            raise sources.SourceError(f"{self._path}: must return a number, not {type(answer).__name__}") from None
