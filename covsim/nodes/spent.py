"""A peer's seconds of a round by cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import simpy

Cause = Literal["compute_s", "upload_s", "download_s"]


class Spent:
    """Seconds of the current round by cause; what is in none of them is idle."""

    def __init__(self) -> None:
        self.compute_s = 0.0
        self.upload_s = 0.0
        self.download_s = 0.0

    @contextmanager
    def on(self, cause: Cause, env: simpy.Environment) -> Iterator[None]:
        """Book the simulated time of a block to a cause."""
        began_s = env.now
        try:
            yield
        finally:
            setattr(self, cause, getattr(self, cause) + env.now - began_s)
