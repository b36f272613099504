"""Is a ledger what a chain with these settings would have sealed? Every line is checked, and every extrinsic run again.

A line must be the canonical spelling of its block, so there is no byte that could be changed without notice; its hash,
roots and signature must fit, its parent must be the line before it, and the chain, run again on what was included,
must come to the same outcomes and payments. How many lines there are and what the last one is, a reader must know from
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from covsim.chain import ledger
from covsim.chain.accounts import Account, is_signed
from covsim.chain.chain import Chain
from covsim.chain.extrinsics import Register, canonical
from covsim.chain.ledger import Block, Epoch
from covsim.chain.settings import ChainSettings

_ROUNDING = 1e-9
"""Relative difference that sums in another order may make on another machine."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a ledger, and in which line, counted from 1."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"ledger.jsonl:{self.line}: {self.what}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What could be read of a ledger.

    Attributes:
        blocks: those that are sound in themselves.
        head: the hash of the last of them, as its line states it.
        faults: in the order of the lines.
        slots: slots by the names of their holders, from each height on at which somebody registered.
    """

    blocks: tuple[Block, ...]
    head: str
    faults: tuple[Fault, ...]
    slots: tuple[tuple[int, dict[str, int]], ...]

    def slots_at(self, height: int) -> dict[str, int]:
        """Who held which slot after the block at a height, by name."""
        return next((slots for since, slots in reversed(self.slots) if since <= height), {})


def read(data: bytes, settings: ChainSettings, seed: int) -> Ledger:
    """Check a ledger's bytes.

    Run again is only what comes before the first line that cannot be trusted.

    Args:
        data: of the whole file.
        settings, seed: of the scenario.
    """
    lines = data.split(b"\n")
    faults = [] if lines[-1] == b"" else [Fault(len(lines), "the last line has no end")]
    authority, chain = Account.derive(seed, ledger.AUTHORITY).public, Chain(settings, seed)
    blocks: list[Block] = []
    slots: list[tuple[int, dict[str, int]]] = []
    head, height, sound = ledger.GENESIS, -1, True
    for number, line in enumerate(lines[:-1], start=1):
        try:
            block, stated = _parsed(line, authority)
            if block.parent != head:
                raise ValueError(f"it follows block {_short(block.parent)}, the line before is {_short(head)}")
            if block.height <= height:
                raise ValueError(f"its height {block.height} is not above {height}")
            if sound:
                _run_again(chain, block, stated)
        except ValueError as problem:
            faults.append(Fault(number, str(problem)))
            sound = False
            continue
        blocks.append(block)
        if sound and any(isinstance(signed.call, Register) for signed in block.extrinsics):
            slots.append((block.height, {holder.name: holder.slot for holder in chain.slots.holders.values()}))
        head, height = stated, block.height
    return Ledger(tuple(blocks), head, tuple(faults), tuple(slots))


def _parsed(line: bytes, authority: str) -> tuple[Block, str]:
    """A line's block and the hash it states, if the line is consistent in itself. Raises ValueError."""
    try:
        block, stated = ledger.block_of(line)
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise ValueError(f"it is no block: {error}") from error
    header = canonical(block.header)
    if not is_signed(authority, header, block.signature):
        raise ValueError(f"block {block.height}: the authority's signature does not fit its content")
    if block.line() != line:
        raise ValueError(f"block {block.height}: it is not spelled canonically, or its roots or hash are not its own")
    return block, stated


def _run_again(chain: Chain, block: Block, stated: str) -> None:
    """Execute a block and compare. Raises ValueError with the first difference."""
    again = chain.execute(block.height, block.extrinsics, block.closing)
    for index, (found, expected) in enumerate(zip(block.outcomes, again.block.outcomes, strict=True)):
        if found != expected:
            raise ValueError(
                f"block {block.height}: the outcome of extrinsic {index} is {expected or 'accepted'!r}, "
                f"it says {found or 'accepted'!r}"
            )
    if not _agree(block.epoch, again.block.epoch):
        raise ValueError(f"block {block.height}: the payments do not follow from weights and stakes")
    if block.epoch == again.block.epoch and again.sha256 != stated:
        raise ValueError(f"block {block.height}: the hash {_short(stated)} is not that of its content")
    chain.blocks[-1] = ledger.Sealed(block, stated)  # on another machine the last bit of a payment may differ


def _agree(one: Epoch | None, other: Epoch | None) -> bool:
    if one is None or other is None:
        return one is other
    if (one.height, one.blocks, len(one.shares)) != (other.height, other.blocks, len(other.shares)):
        return False
    pairs = [(one.owner, other.owner), (one.burned, other.burned)]
    for mine, theirs in zip(one.shares, other.shares, strict=True):
        if mine[:2] != theirs[:2]:
            return False
        pairs += list(zip(mine[2:], theirs[2:], strict=True))
    return _all_close(pairs)


def _all_close(pairs: Sequence[tuple[float, float]]) -> bool:
    return all(math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for one, other in pairs)


def _short(sha256: str) -> str:
    return sha256[:12]
