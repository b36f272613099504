"""The one place where tensors become time: payload bytes and observed numbers, each under a label.

A run answers each request by computing; a resumed run answers the same requests, in the same order, from the tape of
the interrupted one, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Seam(Protocol):
    """Answers the clock's questions to the tensors."""

    @property
    def replaying(self) -> bool:
        """True while answers come from a tape and nothing may be trained."""

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        """The bytes of a payload."""

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        """Floats taken from tensors: losses, observed norms."""


class Computed:
    """A seam without a tape: every answer is computed."""

    replaying = False

    def payload(self, label: str, compute: Callable[[], bytes]) -> bytes:
        return compute()

    def numbers(self, label: str, compute: Callable[[], Sequence[float]]) -> tuple[float, ...]:
        return tuple(float(number) for number in compute())
