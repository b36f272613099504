"""What a decoder says to bytes that it does not accept."""

from __future__ import annotations

from typing import Any


class InvalidPayload(ValueError):
    """Bytes that no encoder of this protocol writes; the message names one reason."""


def refuse(bad: Any, reason: str) -> None:
    """Raise InvalidPayload for a vector with a true entry; the place of the first one fills the gap in the reason."""
    if bad.any():
        raise InvalidPayload(reason.format(bad.argmax()))
