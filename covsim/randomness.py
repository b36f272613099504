"""Randomness is an address: a stream depends on the seed and its labels, never on who drew before.

So a peer that joins does not move the luck of the others, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Label = str | int


class Streams:
    """Independent random streams under one seed, each addressed by labels."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._patterns: dict[tuple[type, ...], str] = {}  # of addresses, by the types of their labels

    def numpy(self, *labels: Label) -> np.random.Generator:
        """A fresh numpy generator for this address."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self._digest(labels), "little")))

    def torch(self, *labels: Label) -> torch.Generator:
        """A fresh CPU torch generator for this address."""
        import torch

        generator = torch.Generator()
        generator.manual_seed(int.from_bytes(self._digest(labels)[:8], "little"))
        return generator

    def uniform(self, *labels: Label) -> float:
        """One number in [0, 1) for this address; cheaper than a generator."""
        return int.from_bytes(self._digest(labels)[:7], "little") / 2.0**56

    def _digest(self, labels: tuple[Label, ...]) -> bytes:
        kinds = tuple(map(type, labels))
        pattern = self._patterns.get(kinds)
        if pattern is None:
            named = [f"{kind.__name__}:%s" for kind in (type(self.seed), *kinds)]
            pattern = self._patterns[kinds] = "\x1f".join(named)
        address = pattern % (self.seed, *labels)
        return hashlib.blake2b(address.encode(), digest_size=16).digest()
