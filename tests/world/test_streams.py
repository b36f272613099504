"""The address of a random stream: what its digest is over, spelled out."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from covsim.randomness import Streams

LABELS = st.lists(st.text(max_size=5) | st.integers(), max_size=5)


@given(st.integers(), st.lists(LABELS, min_size=1, max_size=4))
def test_a_number_follows_from_types_and_texts_of_the_labels(seed: int, addresses: list[list[str | int]]) -> None:
    """Catches 1 taken for "1", a % in a label, and a pattern of other labels."""
    streams = Streams(seed)
    for labels in addresses:
        address = "\x1f".join([f"{type(label).__name__}:{label}" for label in (seed, *labels)])
        digest = hashlib.blake2b(address.encode(), digest_size=16).digest()
        assert streams.uniform(*labels) == int.from_bytes(digest[:7], "little") / 2.0**56
