"""What `covsim explain` does: tell a peer's story from the folder of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from covsim.report.explain import story
from covsim.report.explain_round import story_of_round
from covsim.report.explain_tables import CannotExplain, read_peer
from covsim.report.trace import CannotTrace, write_trace

OK, BAD_INPUT = 0, 2


def explain(folder: Path, uid: int, round: int | None, validator: str | None) -> int:
    """Print a peer's story, or all of one of its rounds; returns an exit code."""
    try:
        peer = read_peer(folder, uid)
        print(story(peer, validator) if round is None else story_of_round(peer, round, validator))
    except CannotExplain as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    return OK


def trace(folder: Path, out: Path | None) -> int:
    """Write a run's timeline for Perfetto; returns an exit code."""
    path = out or folder / "trace.json"
    try:
        count = write_trace(folder, path)
    except CannotTrace as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"{error.filename or path}: cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    print(f"{path}: {count} entries; open it at https://ui.perfetto.dev, or in any viewer of Chrome traces")
    return OK
