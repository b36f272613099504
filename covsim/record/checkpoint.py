"""A checkpoint: the tensors that a tape cannot rebuild, and where in the run they belong.

simpy processes are generators and cannot be stored. So a resumed run executes the same code from the start, answered
from the tape, and at the checkpoint's step gets its tensors back: AdamW moments, error buffers, and the values of the
updates alive at that instant.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from covsim.record.files import write_whole

_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Where the run stood, proven by its digests, and the state of the tensors."""

    step: int
    tape_position: int
    num_events: int
    digest_clock: str
    digest_learning: str
    training_wall_s: float
    total_wall_s: float
    trainer: dict[str, Any]
    feedback: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint into `folder`, then drop all but the newest two."""
    write_whole(folder / f"step-{checkpoint.step:012d}.pt", lambda part: torch.save(asdict(checkpoint), part))
    for old in sorted(folder.glob("step-*.pt"))[:-_KEPT]:
        old.unlink()


class DamagedCheckpoint(ValueError):
    """The file is not what was written."""


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint that was written whole, or None. Raises DamagedCheckpoint."""
    found = sorted(folder.glob("step-*.pt"))
    if not found:
        return None
    try:
        return Checkpoint(**torch.load(found[-1], weights_only=True))
    except (RuntimeError, EOFError, TypeError, pickle.UnpicklingError):  # what torch.load finds wrong with a file
        raise DamagedCheckpoint(f"{found[-1].name} is damaged") from None
