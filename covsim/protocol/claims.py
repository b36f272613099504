"""What a payload says about itself. Nothing makes a sender tell the truth: rules that trust a claim can be cheated."""

from __future__ import annotations

from typing import NamedTuple


class Claims(NamedTuple):
    """The header fields that a sender fills in.

    Attributes:
        tokens: trained on for this update.
        base: outer steps behind the theta from which training began.
        seed: of random positions, 64 bits; 0 where nothing is drawn.
    """

    tokens: int = 0
    base: int = 0
    seed: int = 0
