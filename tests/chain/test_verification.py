"""Verification: a sealed ledger passes; whatever was done to it is found, and the line is named."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chain import SEED, Network, played

from covsim.chain import ledger
from covsim.chain.accounts import Account
from covsim.chain.extrinsics import LogVerdicts, PayloadHash, Register, sign
from covsim.chain.ledger import Block, Epoch
from covsim.chain.settings import ChainSettings
from covsim.chain.verification import Ledger, read

PLAYED = played()
SETTINGS = PLAYED.settings
LINES = [sealed.block.line() + b"\n" for sealed in PLAYED.chain.blocks]
DATA = b"".join(LINES)
AUTHORITY = Account.derive(SEED, ledger.AUTHORITY)


def lines_at_fault(data: bytes, settings: ChainSettings = SETTINGS, seed: int = SEED) -> list[int]:
    return [fault.line for fault in read(data, settings, seed).faults]


def resealed(blocks: Sequence[Block], authority: Account = AUTHORITY) -> bytes:
    """Blocks linked, hashed and signed as if they were true."""
    data, head = b"", ledger.GENESIS
    for block in blocks:
        sealed = ledger.seal(authority, dataclasses.replace(block, parent=head))
        data, head = data + sealed.block.line() + b"\n", sealed.sha256
    return data


def truths() -> list[Block]:
    return [sealed.block for sealed in PLAYED.chain.blocks]


def test_what_the_chain_sealed_has_no_fault() -> None:
    found = read(DATA, SETTINGS, SEED)
    assert found.faults == ()
    assert repr(found.blocks) == repr(tuple(truths()))
    assert found.head == PLAYED.chain.blocks[-1].sha256
    assert found.num_lines == len(LINES)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 65535), st.integers(1, 12)), max_size=12),
    st.sampled_from(["none", 1]),
    st.sampled_from(["yuma2", "yuma3"]),
)
def test_no_honest_ledger_has_a_fault(actions: list[tuple[int, int, int]], reveal: Any, rule: str) -> None:
    network = Network(slots=5, commit_reveal=reveal, consensus=rule).found(2, {"lead": 2, "second": 1})
    height = 0
    for number, (what, value, blocks) in enumerate(actions):
        if what < 2:
            network.weigh(("lead", "second")[what], value, 1, 65535 - value, height=height + 1, round=number)
        elif what == 2:
            network.register(f"peer{number + 3}")
        elif what == 3:
            network.say("peer1", PayloadHash(number, "ab"))
        for sealed in range(height + 1, height + blocks + 1):
            network.seal(sealed)
        height += blocks
    network.chain.close(height + 1)
    found = read(b"".join(each.block.line() + b"\n" for each in network.chain.blocks), network.settings, SEED)
    assert found.faults == ()
    assert found.head == network.chain.blocks[-1].sha256


# Edits ----------------------------------------------------------------------------------------------------------------


def flip(data: bytes, place: int, luck: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << luck.randrange(8)]) + data[place + 1 :]


def replace(data: bytes, place: int, luck: random.Random) -> bytes:
    other = luck.choice([byte for byte in b' 0123456789abcdefABCDEF{}[],:"-+.\\eE\n\x00\xff' if byte != data[place]])
    return data[:place] + bytes([other]) + data[place + 1 :]


def delete(data: bytes, place: int, luck: random.Random) -> bytes:
    return data[:place] + data[place + luck.choice([1, 1, 1, 2, 7]) :]


def insert(data: bytes, place: int, luck: random.Random) -> bytes:
    return data[:place] + luck.choice([b" ", b"0", b"\n", b"a", b"\t", b"\r", b",", b"\xff"]) + data[place:]


@pytest.mark.parametrize("edit", [flip, replace, delete, insert])
def test_any_edit_is_found_in_its_line(edit: Callable[[bytes, int, random.Random], bytes]) -> None:
    """500 edits of each kind at places all over the ledger; the place's line is the first at fault.

    A line owns its end, so that an edit there is its fault, or that of what then stands behind it.
    """
    luck = random.Random(edit.__name__)
    for _ in range(500):
        place = luck.randrange(len(DATA))
        edited = edit(DATA, place, luck)
        if edited == DATA:  # a digit before its like
            continue
        found = read(edited, SETTINGS, SEED)
        line = DATA[:place].count(b"\n") + 1
        assert found.faults, f"{edit.__name__} at {place} was not found"
        behind = found.faults[0].line == line + 1 and edited.startswith(b"".join(LINES[:line]))
        assert found.faults[0].line == line or behind, f"{edit.__name__} at {place}: {found.faults[0]}"


def test_one_edited_line_is_the_only_one_that_is_named() -> None:
    edited = DATA.replace(b"peer2", b"peer3", 1)
    assert lines_at_fault(edited) == [1]
    middle = [*LINES[:4], LINES[4].replace(b'"height":10', b'"height":11', 1), *LINES[5:]]
    assert lines_at_fault(b"".join(middle)) == [5]


def test_the_case_of_a_digit_counts() -> None:
    """Hexadecimal digits in capitals are another spelling of the same signature."""
    lower = f'"signature":"{truths()[0].signature}"'.encode()
    assert DATA.count(lower) == 1
    assert lines_at_fault(DATA.replace(lower, lower[:13] + lower[13:].upper())) == [1]


def test_faults_are_one_line_each_and_say_where() -> None:
    for data in (DATA.replace(b"peer1", b"pe\\nr1", 1), DATA[:-1], LINES[1], b"nonsense\n" + DATA, DATA + b"\n"):
        faults = read(data, SETTINGS, SEED).faults
        assert faults
        for fault in faults:
            assert str(fault).startswith(f"ledger.jsonl:{fault.line}: ")
            assert len(str(fault).splitlines()) == 1


# Lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(LINES) - 1))
def test_swapped_lines_are_found(index: int) -> None:
    swapped = [*LINES]
    swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
    assert lines_at_fault(b"".join(swapped))[0] == index + 1


@pytest.mark.parametrize("index", range(len(LINES) - 1))
def test_a_dropped_line_is_found(index: int) -> None:
    assert lines_at_fault(b"".join(LINES[:index] + LINES[index + 1 :])) == [index + 1]


@pytest.mark.parametrize("index", range(len(LINES)))
def test_a_line_that_stands_twice_is_found(index: int) -> None:
    assert lines_at_fault(b"".join([*LINES[: index + 1], *LINES[index:]])) == [index + 2]


@pytest.mark.parametrize("kept", range(len(LINES)))
def test_a_cut_tail_shows_in_head_and_count_only(kept: int) -> None:
    found = read(b"".join(LINES[:kept]), SETTINGS, SEED)
    assert found.faults == ()
    assert found.num_lines == kept
    assert found.head != PLAYED.chain.blocks[-1].sha256


def test_a_last_line_that_was_cut_is_at_fault() -> None:
    found = read(DATA[:-5], SETTINGS, SEED)
    assert [fault.line for fault in found.faults] == [len(LINES)]
    assert found.num_lines == len(LINES)
    assert found.head is None


# Forgeries ------------------------------------------------------------------------------------------------------------


def test_a_ledger_signed_by_somebody_else_is_wrong_from_the_first_line() -> None:
    forged = read(resealed(truths(), Account.derive(SEED, "forger")), SETTINGS, SEED)
    assert [fault.line for fault in forged.faults] == list(range(1, len(LINES) + 1))
    assert "the authority's signature does not fit" in forged.faults[0].what


def test_other_settings_or_another_seed_do_not_lead_to_this_ledger() -> None:
    assert lines_at_fault(DATA, seed=SEED + 1)[0] == 1
    cheaper = SETTINGS.model_copy(update={"emission_per_block": 1.001})
    assert lines_at_fault(DATA, cheaper) == [LINES.index(next(line for line in LINES if b'"epoch":{' in line)) + 1]


def changed(which: int, **changes: Any) -> list[Block]:
    """The true blocks, that of one height changed."""
    return [dataclasses.replace(block, **changes) if block.height == which else block for block in truths()]


def at(height: int) -> Block:
    return next(block for block in truths() if block.height == height)


def paying(epoch: Epoch | None, slot: int, tokens: float) -> Epoch:
    assert epoch is not None
    shares = list(epoch.shares)
    shares[slot] = shares[slot]._replace(peer_tokens=tokens)
    return dataclasses.replace(epoch, shares=tuple(shares))


LEAD = Account.derive(SEED, "lead")
FORGED_CALL = sign(Account.derive(SEED, "peer1"), 1, PayloadHash(0, "ab" * 32))


@pytest.mark.parametrize(
    ("blocks", "line", "what"),
    [
        (changed(10, epoch=paying(at(10).epoch, 1, 3.0)), 5, "the payments do not follow from weights and stakes"),
        (changed(10, epoch=None), 5, "the payments do not follow"),
        (changed(7, epoch=at(10).epoch), 4, "the payments do not follow"),
        (changed(4, outcomes=("", "")), 3, "the outcome of extrinsic 0 is 'weights were set 2 blocks ago"),
        (changed(2, outcomes=("no", *at(2).outcomes[1:])), 2, "the outcome of extrinsic 0 is 'accepted', it says 'no'"),
        (changed(2, extrinsics=at(2).extrinsics[1:], outcomes=at(2).outcomes[1:]), 2, "the outcome of extrinsic 0"),
        (changed(2, extrinsics=at(2).extrinsics[::-1]), 2, "the outcome of extrinsic 2 is 'nonce"),
        (changed(26, closing=False), 9, "the outcome of extrinsic 0 is 'no commitment says so, or it is not due'"),
        (changed(7, closing=True), 4, "the payments do not follow"),
        ([block for block in truths() if block.height != 10], 5, "the epoch that ended at 10 was not paid"),
        ([*truths(), dataclasses.replace(at(24), height=27)], 10, "behind the block that closes the run"),
        ([dataclasses.replace(at(7), height=10, epoch=None)], 1, "nobody owns the chain"),
        (changed(4, height=2), 3, "its height 2 is not above 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_has_the_authoritys_key_must_still_tell_the_truth(blocks: list[Block], line: int, what: str) -> None:
    """Everybody who knows the seed has it; hashes, links and signatures are right in all of these."""
    (first, *_) = read(resealed(blocks), SETTINGS, SEED).faults
    assert first.line == line
    assert what in first.what


def test_a_signature_that_was_moved_to_another_call_must_be_refused() -> None:
    """An included extrinsic that is not its signer's is fine as long as the block says that it was refused."""
    lie = dataclasses.replace(FORGED_CALL, call=PayloadHash(7, "00" * 32))
    block = at(7)
    for outcome, faults in (("the signature does not fit", []), ("", [4])):
        blocks = changed(7, extrinsics=(*block.extrinsics, lie), outcomes=(*block.outcomes, outcome))
        assert lines_at_fault(resealed(blocks)) == faults


def test_huge_numbers_in_a_forgery_are_faults_and_no_tracebacks() -> None:
    calls = [
        Register("peer9", "validator", 10**400),
        LogVerdicts(10**400, ((1, 10**400),), (1, 1), ()),
    ]
    for call in calls:
        signed = sign(LEAD, 3, call)
        forged = dataclasses.replace(at(7), extrinsics=(signed,), outcomes=("",))
        assert lines_at_fault(resealed(changed(7, extrinsics=forged.extrinsics, outcomes=("",))))[0] == 4


@given(st.sampled_from(range(len(LINES))), st.data())
def test_a_forger_with_the_key_never_makes_it_crash(which: int, data: st.DataObject) -> None:
    """Any height, extrinsics and outcomes of other blocks in any order, linked and sealed: faults or none."""
    pool = [
        (signed, outcome)
        for block in truths()
        for signed, outcome in zip(block.extrinsics, block.outcomes, strict=True)
    ]
    picked = data.draw(st.lists(st.sampled_from(pool), max_size=4))
    epochs = [block.epoch for block in truths()]
    blocks = truths()
    blocks[which] = dataclasses.replace(
        blocks[which],
        height=data.draw(st.integers(0, 60)),
        closing=data.draw(st.booleans()),
        extrinsics=tuple(signed for signed, _ in picked),
        outcomes=tuple(outcome for _, outcome in picked),
        epoch=data.draw(st.sampled_from(epochs)),
    )
    assert isinstance(read(resealed(blocks), SETTINGS, SEED), Ledger)


# Slots ----------------------------------------------------------------------------------------------------------------


def test_slots_are_told_by_height() -> None:
    found = read(DATA, SETTINGS, SEED)
    first = {"owner": 0, "peer1": 1, "peer2": 2, "peer3": 3, "lead": 4, "second": 5}
    assert found.slots_at(-1) == {}
    assert found.slots_at(0) == found.slots_at(12) == first
    (slot,) = {found.slots_at(13)["peer4"]}
    (gone,) = set(first) - set(found.slots_at(13))
    assert first[gone] == slot
    assert found.slots_at(10**6) == found.slots_at(13)


def test_what_differs_in_the_last_bit_is_not_held_against_another_machine() -> None:
    """The payments of a true epoch, off by less than a billionth; the next epochs are held against what is stated."""
    blocks = []
    for block in truths():
        epoch = block.epoch
        if epoch is not None:
            epoch = dataclasses.replace(epoch, owner=epoch.owner * (1 + 1e-12))
        blocks.append(dataclasses.replace(block, epoch=epoch))
    assert lines_at_fault(resealed(blocks)) == []
    epoch = at(10).epoch
    assert epoch is not None
    assert lines_at_fault(resealed(changed(10, epoch=dataclasses.replace(epoch, owner=epoch.owner + 1e-6)))) == [5]
