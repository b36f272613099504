"""Is a ledger what a chain with these settings would have sealed? Every line is checked, and every extrinsic run again.

A line must be the canonical spelling of its block, so there is no byte that could be changed without notice; its hash,
roots and signature must fit, its parent must be the line before it, and the chain, run again on what was included,
must come to the same outcomes and payments. How many lines there are and what the last one is, a reader must know from
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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
        blocks: those that are sound in themselves, at whatever place.
        num_lines: how many lines there are, sound or not.
        head: the hash of the last line's block, as the line states it; None if that is no sound block.
        faults: in the order of the lines.
        slots: slots by the names of their holders, from each height on at which somebody registered.
    """

    blocks: tuple[Block, ...]
    num_lines: int
    head: str | None
    faults: tuple[Fault, ...]
    slots: tuple[tuple[int, dict[str, int]], ...]

    def slots_at(self, height: int) -> dict[str, int]:
        """Who held which slot after the block at a height, by name."""
        return next((slots for since, slots in reversed(self.slots) if since <= height), {})


def read(data: bytes, settings: ChainSettings, seed: int) -> Ledger:
    """Check a ledger's bytes.

    Run again is only what comes before the first line that cannot be trusted; each line behind it is held against the
    one before.

    Args:
        data: of the whole file.
        settings, seed: of the scenario.
    """
    *lines, rest = data.split(b"\n")
    reader = _Reader(Account.derive(seed, ledger.AUTHORITY).public, Chain(settings, seed))
    for number, line in enumerate(lines, start=1):
        reader.take(number, line)
    num_lines = len(lines) + (rest != b"")
    if rest:
        reader.faults.append(Fault(num_lines, "the last line has no end"))
    head = None if rest else reader.head
    return Ledger(tuple(reader.blocks), num_lines, head, tuple(reader.faults), tuple(reader.slots))


@dataclass
class _Reader:
    """Takes line after line.

    Args:
        authority: the public key that signs blocks.
        chain: on which blocks are run again, as long as no line was faulty.
    """

    authority: str
    chain: Chain
    head: str | None = ledger.GENESIS  # hash of the line before, None if it is not known
    before: Block | None = None  # the last that is sound in itself
    blocks: list[Block] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    slots: list[tuple[int, dict[str, int]]] = field(default_factory=list)

    def take(self, number: int, line: bytes) -> None:
        """Check the next line."""
        try:
            block, stated = _parsed(line, self.authority)
        except ValueError as problem:
            self.faults.append(Fault(number, str(problem)))
            self.head = None
            return
        try:
            self._check_place(block)
            if not self.faults:
                self._run(block, stated)
        except ValueError as problem:
            self.faults.append(Fault(number, str(problem)))
        self.blocks.append(block)
        self.head, self.before = stated, block

    def _check_place(self, block: Block) -> None:
        """Raises ValueError for a block that cannot follow the line before."""
        if self.head not in (None, block.parent):
            raise ValueError(f"it follows block {_short(block.parent)}, the line before is {_short(str(self.head))}")
        if self.before is not None and block.height <= self.before.height:
            raise ValueError(f"its height {block.height} is not above {self.before.height}")
        if self.before is not None and self.before.closing:
            raise ValueError(f"block {block.height}: it comes behind the block that closes the run")

    def _run(self, block: Block, stated: str) -> None:
        """Run a block again, and note who holds which slot after it."""
        tempo, before = self.chain.settings.tempo, 0 if self.before is None else self.before.height
        ended = (before // tempo + 1) * tempo
        if block.height > ended and not block.closing:
            raise ValueError(f"block {block.height}: the epoch that ended at {ended} was not paid")
        _run_again(self.chain, block, stated)
        if any(isinstance(signed.call, Register) for signed in block.extrinsics):
            self.slots.append((block.height, {held.name: held.slot for held in self.chain.slots.holders.values()}))


def _parsed(line: bytes, authority: str) -> tuple[Block, str]:
    """A line's block and the hash it states, if the line is consistent in itself. Raises ValueError."""
    try:
        block, stated = ledger.block_of(line)
    except ValueError as error:
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
