"""Merkle trees over byte strings: one root for many leaves, and a short proof that a leaf is among them.

Leaves and inner nodes are hashed under different prefixes, so that neither passes for the other; an odd node moves up
as it is, which makes the same tree as a split at the largest power of two. Source: RFC 6962, section 2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Proof = tuple[tuple[str, str], ...]
"""From the leaf up: (`left` or `right`, hash in hex) of the neighbor."""


def root(leaves: Sequence[bytes]) -> str:
    """The root in hex; of no leaves, the hash of nothing."""
    level = [_leaf(leaf) for leaf in leaves]
    while len(level) > 1:
        level = _above(level)
    return level[0] if level else hashlib.sha256(b"").hexdigest()


def proof(leaves: Sequence[bytes], index: int) -> Proof:
    """The neighbors on the way from a leaf to the root. Raises IndexError."""
    level, steps = [_leaf(leaf) for leaf in leaves], []
    if not 0 <= index < len(level):
        raise IndexError(f"there is no leaf {index} among {len(level)}")
    while len(level) > 1:
        neighbor = index ^ 1
        if neighbor < len(level):
            steps.append(("left" if neighbor < index else "right", level[neighbor]))
        level, index = _above(level), index // 2
    return tuple(steps)


def is_proven(expected_root: str, leaf: bytes, steps: Proof) -> bool:
    """True if these neighbors lead from the leaf to the root."""
    node = _leaf(leaf)
    for side, neighbor in steps:
        node = _node(neighbor, node) if side == "left" else _node(node, neighbor)
    return node == expected_root


def _above(level: Sequence[str]) -> list[str]:
    return [_node(*level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]


def _leaf(data: bytes) -> str:
    return hashlib.sha256(b"\0" + data).hexdigest()


def _node(left: str, right: str) -> str:
    return hashlib.sha256(b"\1" + bytes.fromhex(left) + bytes.fromhex(right)).hexdigest()
