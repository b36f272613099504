"""Extrinsics: what was signed comes back from its bytes, and what is none raises ValueError and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.chain.accounts import Account
from covsim.chain.extrinsics import (
    Call,
    CloseRun,
    CommitBucket,
    CommitWeights,
    LogVerdicts,
    PayloadHash,
    Register,
    RevealWeights,
    SetWeights,
    Signed,
    canonical,
    kind_of,
    plain,
    sign,
    signed_of,
)

ANN = Account.derive(1, "ann")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WHOLE = st.integers(-(2**40), 2**40)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBER = st.one_of(FINITE, st.just(math.nan))
WEIGHTS = st.lists(st.tuples(WHOLE, st.one_of(st.integers(0, 65535), FINITE)), max_size=5).map(tuple)
VERDICT = st.tuples(WHOLE, TEXT, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
CALLS: dict[str, st.SearchStrategy[Any]] = {
    "register": st.builds(Register, TEXT, TEXT, NUMBER),
    "commit_bucket": st.builds(CommitBucket, TEXT),
    "payload_hash": st.builds(PayloadHash, WHOLE, TEXT),
    "set_weights": st.builds(SetWeights, WHOLE, WEIGHTS),
    "commit_weights": st.builds(CommitWeights, WHOLE, TEXT),
    "reveal_weights": st.builds(RevealWeights, WHOLE, WEIGHTS, TEXT),
    "log_verdicts": st.builds(
        LogVerdicts,
        WHOLE,
        st.lists(st.tuples(WHOLE, NUMBER), max_size=4).map(tuple),
        st.tuples(WHOLE, WHOLE),
        st.lists(VERDICT, max_size=4).map(tuple),
    ),
    "close_run": st.builds(CloseRun, TEXT, TEXT, NUMBER, WHOLE),
}
ANY_CALL = st.one_of(*CALLS.values())
EXAMPLES: dict[str, Call] = {
    "register": Register("validator:lead", "validator", 0.7),
    "commit_bucket": CommitBucket("bucket of peer:3"),
    "payload_hash": PayloadHash(3, "ab" * 32),
    "set_weights": SetWeights(3, ((0, 65535), (2, 7))),
    "commit_weights": CommitWeights(3, "cd" * 32),
    "reveal_weights": RevealWeights(3, ((0, 0.5), (2, 0.5)), "salt"),
    "log_verdicts": LogVerdicts(3, ((4, 1.5), (5, 0.0)), (20, 10), ((4, "ok", 0.1, 0.5, 25.0, 8.0, 1.5),)),
    "close_run": CloseRun("ef" * 32, "01" * 32, 2.5, 30),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_kind_has_one_spelling(kind: str) -> None:
    """It is ASCII, sorted, without spaces, and what it says first is what comes back."""
    call = EXAMPLES[kind]
    data = canonical(plain(call))
    assert kind_of(call) == kind == json.loads(data)["kind"]
    assert data.decode("ascii") == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"))
    assert signed_of(json.loads(canonical(sign(ANN, 5, call).plain()))) == sign(ANN, 5, call)


def test_no_kind_is_left_out() -> None:
    assert {type(call) for call in EXAMPLES.values()} == set(Call.__args__)  # type: ignore[attr-defined]


@given(ANY_CALL, st.integers(0, 2**40))
def test_what_was_signed_comes_back_from_its_bytes(call: Call, nonce: int) -> None:
    """To the byte; NaN, which is equal to nothing, included."""
    signed = sign(ANN, nonce, call)
    data = canonical(signed.plain())
    assert signed.spelled == data
    again = signed_of(json.loads(data))
    assert canonical(again.plain()) == data
    assert again.message == signed.message
    assert again.is_genuine
    assert repr(again) == repr(signed)


def test_numbers_that_json_cannot_hold_come_back_as_nan() -> None:
    row = (4, "missing", math.nan, math.inf, -math.inf, 0.0, -0.0)
    again = signed_of(json.loads(canonical(sign(ANN, 0, LogVerdicts(1, ((4, math.nan),), (1, 1), (row,))).plain())))
    assert isinstance(again.call, LogVerdicts)
    assert math.isnan(again.call.final_scores[0][1])
    assert [math.isnan(value) for value in again.call.verdicts[0][2:]] == [True, True, True, False, False]
    assert math.copysign(1, again.call.verdicts[0][6]) == -1
    assert again.is_genuine, "it was signed as it is spelled"


@pytest.mark.parametrize("entry", [(10**400, 1), (0, 10**400), (10**400, math.nan)])
def test_no_number_is_too_large_to_be_spelled(entry: tuple[int, float]) -> None:
    """A slot may be any whole number; what the chain makes of it is the chain's to say."""
    signed = sign(ANN, 0, SetWeights(1, (entry, (1, 2))))
    assert signed.is_genuine
    assert signed.spelled == canonical(signed.plain())


@given(ANY_CALL, ANY_CALL)
def test_another_call_has_other_bytes(one: Call, other: Call) -> None:
    assert (canonical(plain(one)) == canonical(plain(other))) == (repr(one) == repr(other))


@given(ANY_CALL)
def test_a_signature_binds_call_nonce_and_account(call: Call) -> None:
    signed = sign(ANN, 3, call)
    assert signed.is_genuine
    assert not dataclasses.replace(signed, nonce=4).is_genuine
    assert not dataclasses.replace(signed, public=Account.derive(1, "bob").public).is_genuine
    for name, other in EXAMPLES.items():
        assert dataclasses.replace(signed, call=other).is_genuine == (other == call), name


def test_a_reveal_keeps_the_digest_of_its_own_bytes() -> None:
    reveal = RevealWeights(3, ((0, 7), (2, 9)), "salt")
    spelled = b'{"kind":"reveal_weights","round":3,"salt":"salt","weights":[[0,7],[2,9]]}'
    assert reveal.digest == hashlib.sha256(spelled).hexdigest()
    others = [
        RevealWeights(4, reveal.weights, "salt"),
        RevealWeights(3, ((0, 7), (2, 10)), "salt"),
        RevealWeights(3, reveal.weights, "salz"),
        RevealWeights(3, ((0, 7.0), (2, 9)), "salt"),
    ]
    assert reveal.digest not in {other.digest for other in others}


# What is none ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FINITE, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(JSON)
def test_other_json_is_no_extrinsic(value: Any) -> None:
    with pytest.raises(ValueError):
        signed_of(value)


def _paths(value: Any) -> list[tuple[Any, ...]]:
    """The way to every entry of a JSON value, itself included."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [(), *((key, *path) for key, entry in inner for path in _paths(entry))]


def _with(value: Any, path: tuple[Any, ...], entry: Any) -> Any:
    if not path:
        return entry
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], entry)
    return copy


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_an_entry_that_is_replaced_is_read_or_refused_with_value_error(kind: str, data: st.DataObject) -> None:
    """Whatever stands in its place; and what is read back is spelled as it stood there."""
    value = json.loads(canonical(sign(ANN, 1, EXAMPLES[kind]).plain()))
    changed = _with(value, data.draw(st.sampled_from(_paths(value))), data.draw(JSON))
    try:
        signed = signed_of(changed)
    except ValueError:
        return
    assert isinstance(signed, Signed)
    assert canonical(signed.plain()) == canonical(changed)
    assert signed.is_genuine == (canonical(changed) == canonical(value))


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        (("nonce",), True),
        (("nonce",), 1.0),
        (("public",), 3),
        (("signature",), None),
        (("call",), []),
        (("call", "kind"), "set_weight"),
        (("call", "kind"), ["set_weights"]),
        (("call", "kind"), "close_run"),
        (("call", "round"), "3"),
        (("call", "round"), True),
        (("call", "weights"), {}),
        (("call", "weights", 0), [0]),
        (("call", "weights", 0), [0, 1, 2]),
        (("call", "weights", 0, 0), 0.5),
        (("call", "weights", 0, 1), "1"),
        (("call", "weights", 0, 1), False),
        (("call", "weights", 0, 1), 2**53 + 1),
        (("call", "weights", 0, 1), 10**400),
    ],
    ids=str,
)
def test_another_type_is_refused(path: tuple[Any, ...], entry: Any) -> None:
    value = json.loads(canonical(sign(ANN, 1, EXAMPLES["set_weights"]).plain()))
    with pytest.raises(ValueError):
        signed_of(_with(value, path, entry))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_fields_may_be_neither_missing_nor_more(kind: str) -> None:
    value = json.loads(canonical(sign(ANN, 1, EXAMPLES[kind]).plain()))
    for part in (value, value["call"]):
        for name in list(part):
            kept = part.pop(name)
            with pytest.raises(ValueError):
                signed_of(value)
            part[name] = kept
        part["more"] = 1
        with pytest.raises(ValueError):
            signed_of(value)
        del part["more"]
    assert signed_of(value).is_genuine
