"""The ledger: sealed blocks, each bound to the one before it, one JSON line a block.

A block's header holds the Merkle roots of its extrinsics and of their outcomes, and what its epoch paid; an authority,
which stands for the chain that the network runs on, signs it. Heights in which nothing happened have no block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from covsim.chain import merkle
from covsim.chain.accounts import Account
from covsim.chain.extrinsics import Signed, canonical, signed_of

GENESIS = "0" * 64
"""What the first block names as the one before it."""

AUTHORITY = "chain authority"

_TOO_HIGH = 2**53
_TOO_MUCH = 1e300


class Share(NamedTuple):
    """What an epoch gave the holder of a slot: tokens as a peer, by incentive, and as a validator, by dividends."""

    slot: int
    public: str
    consensus: float
    incentive: float
    dividend: float
    peer_tokens: float
    validator_tokens: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that ended at a height, over so many blocks; it paid the shares' tokens, the owner's and the burned."""

    height: int
    blocks: int
    shares: tuple[Share, ...]
    owner: float
    burned: float

    def plain(self) -> dict[str, Any]:
        """As JSON has it, a row per slot."""
        rows = [list(share) for share in self.shares]
        return {
            "height": self.height,
            "blocks": self.blocks,
            "shares": rows,
            "owner": self.owner,
            "burned": self.burned,
        }


@dataclass(frozen=True, slots=True)
class Block:
    """What was included at a height, with an outcome each (empty for accepted), and the epoch that ended there.

    `closing` marks the block that ends a run: it shows all that is hidden and pays for the blocks since the last epoch.
    """

    height: int
    parent: str
    closing: bool
    extrinsics: tuple[Signed, ...]
    outcomes: tuple[str, ...]
    epoch: Epoch | None
    signature: str

    @property
    def leaves(self) -> list[bytes]:
        """What the root of the extrinsics is over."""
        return [signed.spelled for signed in self.extrinsics]

    @property
    def header(self) -> dict[str, Any]:
        """What is signed and hashed."""
        results = [outcome.encode() for outcome in self.outcomes]
        return {
            "height": self.height,
            "parent": self.parent,
            "closing": self.closing,
            "extrinsics_root": merkle.root(self.leaves),
            "results_root": merkle.root(results),
            "epoch_sha256": hashlib.sha256(canonical(self._epoch)).hexdigest(),
        }

    @property
    def _epoch(self) -> dict[str, Any] | None:
        return None if self.epoch is None else self.epoch.plain()

    def line(self) -> bytes:
        """The block as a line of the ledger, without its end."""
        header = canonical(self.header)
        parts = {  # in the order of a canonical spelling; extrinsics know theirs
            "epoch": canonical(self._epoch),
            "extrinsics": b"[%b]" % b",".join(self.leaves),
            "header": header,
            "outcomes": canonical(list(self.outcomes)),
            "sha256": canonical(hashlib.sha256(header).hexdigest()),
            "signature": canonical(self.signature),
        }
        return b"{%b}" % b",".join(b"%b:%b" % (canonical(name), part) for name, part in parts.items())


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block and its hash, which the next one names."""

    block: Block
    sha256: str


def seal(authority: Account | None, block: Block) -> Sealed:
    """Sign a block and hash it; without an authority the signature stays empty, which the hash does not cover."""
    header = canonical(block.header)
    signed = Block(
        block.height,
        block.parent,
        block.closing,
        block.extrinsics,
        block.outcomes,
        block.epoch,
        "" if authority is None else authority.sign(header),
    )
    return Sealed(signed, hashlib.sha256(header).hexdigest())


def block_of(line: bytes) -> tuple[Block, str]:
    """The block of a ledger's line, and the hash that the line states. Raises ValueError for anything else."""
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict) or set(value) != {
        "header",
        "sha256",
        "signature",
        "extrinsics",
        "outcomes",
        "epoch",
    }:
        raise ValueError("a block has header, sha256, signature, extrinsics, outcomes and epoch")
    header, extrinsics, outcomes = value["header"], value["extrinsics"], value["outcomes"]
    if not isinstance(header, dict) or not _is_height(header.get("height")):
        raise ValueError("the header has a height")
    if not isinstance(extrinsics, list) or not isinstance(outcomes, list) or len(extrinsics) != len(outcomes):
        raise ValueError("extrinsics and their outcomes are lists, equally long")
    block = Block(
        header["height"],
        str(header.get("parent")),
        bool(header.get("closing")),
        tuple(signed_of(entry) for entry in extrinsics),
        tuple(str(outcome) for outcome in outcomes),
        None if value["epoch"] is None else _epoch_of(value["epoch"]),
        str(value["signature"]),
    )
    return block, str(value["sha256"])


def write_ledger(path: Path, blocks: Iterable[Sealed]) -> None:
    """Write the blocks as lines."""
    path.write_bytes(b"".join(sealed.block.line() + b"\n" for sealed in blocks))


def records_of(blocks: Sequence[Block], public: str) -> Iterator[tuple[int, int, Signed, str, merkle.Proof]]:
    """Everything that an account said: height, place in the block, extrinsic, outcome, and the proof of it."""
    for block in blocks:
        for index, signed in enumerate(block.extrinsics):
            if signed.public == public:
                yield block.height, index, signed, block.outcomes[index], merkle.proof(block.leaves, index)


def _epoch_of(value: Any) -> Epoch:
    if not isinstance(value, dict) or set(value) != {"height", "blocks", "shares", "owner", "burned"}:
        raise ValueError("an epoch has height, blocks, shares, owner and burned")
    whole = _is_height(value["height"]) and _is_height(value["blocks"])
    if not whole or not isinstance(value["shares"], list) or not all(_is_share(row) for row in value["shares"]):
        raise ValueError(
            "height and blocks of an epoch are whole numbers, shares are rows of a slot, a key and numbers"
        )
    if not _are_numbers([value["owner"], value["burned"]]):
        raise ValueError("what an epoch pays the owner and burns are numbers")
    shares = tuple(Share(*row) for row in value["shares"])
    return Epoch(value["height"], value["blocks"], shares, value["owner"], value["burned"])


def _is_share(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == len(Share._fields)
        and _is_height(row[0])
        and isinstance(row[1], str)
        and _are_numbers(row[2:])
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and 0 <= value < _TOO_MUCH for value in values)


def _is_height(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_HIGH
