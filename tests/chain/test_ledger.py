"""The ledger: a block comes back from its line, the line holds what it claims, and every record can be proven."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chain import SEED, Network, played

from covsim.chain import ledger, merkle
from covsim.chain.accounts import Account, is_signed
from covsim.chain.extrinsics import PayloadHash, Register, canonical
from covsim.chain.ledger import Block, block_of, records_of, write_ledger

BLOCKS = played().chain.blocks
AUTHORITY = Account.derive(SEED, ledger.AUTHORITY)


@pytest.mark.parametrize("sealed", BLOCKS, ids=lambda sealed: f"block {sealed.block.height}")
def test_a_block_comes_back_from_its_line(sealed: Any) -> None:
    """By its text, for a verdict may hold NaN, which is equal to nothing."""
    line = sealed.block.line()
    block, stated = block_of(line)
    assert repr(block) == repr(sealed.block)
    assert block.line() == line
    assert stated == sealed.sha256


@pytest.mark.parametrize("sealed", BLOCKS, ids=lambda sealed: f"block {sealed.block.height}")
def test_a_line_says_what_was_hashed_and_signed(sealed: Any) -> None:
    """Worked out from the JSON alone: the two roots, the epoch's hash, the block's, the signature."""
    value = json.loads(sealed.block.line())
    header = value["header"]
    assert value["sha256"] == sealed.sha256 == hashlib.sha256(canonical(header)).hexdigest()
    assert header["extrinsics_root"] == merkle.root([canonical(signed) for signed in value["extrinsics"]])
    assert header["results_root"] == merkle.root([outcome.encode() for outcome in value["outcomes"]])
    assert header["epoch_sha256"] == hashlib.sha256(canonical(value["epoch"])).hexdigest()
    assert is_signed(AUTHORITY.public, canonical(header), value["signature"])


def test_the_file_is_a_line_a_block(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger.jsonl", BLOCKS)
    data = (tmp_path / "ledger.jsonl").read_bytes()
    assert data.endswith(b"\n")
    assert data.splitlines() == [sealed.block.line() for sealed in BLOCKS]


def test_equal_histories_have_equal_bytes_and_others_have_not() -> None:
    again = played().chain.blocks
    assert [sealed.block.line() for sealed in again] == [sealed.block.line() for sealed in BLOCKS]
    other = Network(slots=7).found(3, {"lead": 2.0, "second": 1})
    assert other.chain.blocks[0].sha256 == BLOCKS[0].sha256
    other.say("peer1", PayloadHash(0, "00"))
    other.seal(2)
    assert other.chain.blocks[1].sha256 != BLOCKS[1].sha256


def test_every_part_of_a_block_is_in_its_hash() -> None:
    block = next(sealed.block for sealed in BLOCKS if sealed.block.epoch is not None and sealed.block.extrinsics)
    assert block.epoch is not None
    changes: list[dict[str, Any]] = [
        {"height": block.height + 1},
        {"parent": "1" * 64},
        {"closing": not block.closing},
        {"extrinsics": block.extrinsics[:-1], "outcomes": block.outcomes[:-1]},
        {"outcomes": ("no", *block.outcomes[1:])},
        {"epoch": None},
        {"epoch": dataclasses.replace(block.epoch, burned=block.epoch.burned + 1e-12)},
        {"epoch": dataclasses.replace(block.epoch, shares=block.epoch.shares[::-1])},
    ]
    hashes = {ledger.seal(AUTHORITY, dataclasses.replace(block, **change)).sha256 for change in changes}
    assert len(hashes | {ledger.seal(AUTHORITY, block).sha256}) == len(changes) + 1


# Records --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["owner", "peer1", "peer2", "peer4", "lead", "second"])
def test_everything_an_account_said_is_on_record_with_a_proof(name: str) -> None:
    blocks = [sealed.block for sealed in BLOCKS]
    public = Account.derive(SEED, name).public
    records = list(records_of(blocks, public))
    assert sum(signed.public == public for block in blocks for signed in block.extrinsics) == len(records) > 0
    roots = {block.height: block.header["extrinsics_root"] for block in blocks}
    for height, index, signed, outcome, proof in records:
        block = next(block for block in blocks if block.height == height)
        assert (block.extrinsics[index], block.outcomes[index]) == (signed, outcome)
        assert merkle.is_proven(roots[height], canonical(signed.plain()), proof)
        other = dataclasses.replace(signed, nonce=signed.nonce + 1)
        assert not merkle.is_proven(roots[height], canonical(other.plain()), proof)


def test_a_stranger_has_no_record() -> None:
    assert not list(records_of([sealed.block for sealed in BLOCKS], Account.derive(SEED, "peer9").public))


# What is no block -----------------------------------------------------------------------------------------------------

WITH_EPOCH = json.loads(next(s.block.line() for s in BLOCKS if s.block.epoch is not None))


def replaced(path: tuple[Any, ...], entry: Any) -> bytes:
    value = json.loads(json.dumps(WITH_EPOCH))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = entry
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        (("header",), []),
        (("header", "height"), True),
        (("header", "height"), -1),
        (("header", "height"), 1.0),
        (("header", "height"), 10**400),
        (("extrinsics",), {}),
        (("extrinsics",), [None]),
        (("outcomes",), ""),
        (("outcomes",), []),
        (("epoch",), []),
        (("epoch", "height"), "10"),
        (("epoch", "blocks"), 10**400),
        (("epoch", "shares"), None),
        (("epoch", "shares", 0), [0, "ab", 0.0]),
        (("epoch", "shares", 0, 0), "0"),
        (("epoch", "shares", 0, 1), 0),
        (("epoch", "shares", 0, 6), "1.0"),
        (("epoch", "shares", 0, 6), 1e308),
        (("epoch", "owner"), None),
        (("epoch", "burned"), -1.0),
        (("more",), 1),
    ],
    ids=str,
)
def test_a_block_has_its_types(path: tuple[Any, ...], entry: Any) -> None:
    assert block_of(replaced(("signature",), "x"))[0].signature == "x"
    with pytest.raises(ValueError):
        block_of(replaced(path, entry))


@pytest.mark.parametrize("line", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"header": ' + b"9" * 5000 + b"}"])
def test_other_lines_are_no_blocks(line: bytes) -> None:
    with pytest.raises(ValueError):
        block_of(line)


@given(st.integers(0, len(BLOCKS) - 1), st.data())
def test_a_damaged_line_is_read_or_raises_value_error(which: int, data: st.DataObject) -> None:
    line = bytearray(BLOCKS[which].block.line())
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(
            st.sampled_from(b'0189.e-+"[]{},:ntrufalse \\\x00\xff')
        )
    try:
        block, _ = block_of(bytes(line))
    except ValueError:
        return
    assert isinstance(block, Block)


def test_the_first_block_holds_the_registrations() -> None:
    calls = [signed.call for signed in BLOCKS[0].block.extrinsics]
    assert all(isinstance(call, Register) for call in calls)
