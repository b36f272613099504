"""Compiled writers against packing one value after the other: a digest may not depend on how it is worked out."""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.digest import Digest
from covsim.events import Event, Trained, learned
from covsim.packing import Rows

SIMPLE = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(max_size=12),
    st.floats(allow_nan=True).map(np.float64),
)
VALUES = st.one_of(SIMPLE, st.lists(st.one_of(SIMPLE, st.tuples(SIMPLE, SIMPLE)), max_size=4).map(tuple))


def plain(value: Any) -> bytes:
    """The canonical bytes of one value, as its description says."""
    if isinstance(value, bool):
        return b"b" + bytes([value])
    if isinstance(value, int):
        return b"i" + struct.pack("<q", value)
    if isinstance(value, float):
        return b"f\0nan\0\0\0\0" if math.isnan(value) else b"f" + struct.pack("<d", 0.0 if value == 0 else value)
    if isinstance(value, str):
        return b"s" + struct.pack("<I", len(value.encode())) + value.encode()
    return b"t" + struct.pack("<I", len(value)) + b"".join(map(plain, value))


@given(st.lists(st.lists(VALUES, max_size=6), max_size=5))
@settings(max_examples=300, deadline=None)
def test_rows_are_their_values_one_by_one(rows):
    """Would catch a layout that is kept for other types, a mark that is missing, a NaN or a -0.0 that slips through."""
    writer = Rows(b"Name")
    for row in (*rows, *rows):  # the second time by what was compiled the first
        assert writer.pack(row) == b"Name" + b"".join(map(plain, row))


@pytest.mark.parametrize("row", [(math.nan, 1), (math.inf, -math.inf), (-0.0, 0.0), (-math.inf, math.inf, math.nan)])
def test_what_has_no_sum_is_packed_as_ever(row):
    """Would catch a test for NaN that takes inf - inf for one, or one that misses."""
    assert Rows(b"").pack(row) == b"".join(map(plain, row))


def test_equal_tuples_of_other_types_differ():
    """Would catch packed tuples that are remembered by value: (1,) == (True,) == (1.0,)."""
    rows = Rows(b"")
    packed = {rows.pack((each,)) for each in [(1,), (True,), (1.0,)]}
    assert len(packed) == 3


def test_many_tuples_keep_their_own_bytes():
    """Would catch a memory of tuples that goes by the identity of one that is gone."""
    rows = Rows(b"")
    for number in range(5_000):
        row = ((number, str(number)),)
        assert rows.pack(row) == plain(row[0])


@dataclass(frozen=True, slots=True)
class Learned(Event):
    """An event that tells the clock's digest from that of tensors."""

    uid: int
    loss: float = learned()


def test_a_digest_is_that_of_its_rows_in_order_whenever_somebody_looks():
    """Would catch events that are lost, doubled or reordered between two looks, and a wrong count."""
    events: list[Event] = []
    for number in range(3_000):
        events += [Trained(float(number), number, 0, 3, 4, 0.5), Learned(-0.0, number, math.nan)]
    looked, unseen = Digest(), Digest()
    for place, event in enumerate(events):
        looked.add(event)
        unseen.add(event)
        if place % 700 == 0:
            assert looked.clock
            assert looked.num_events == unseen.num_events == place + 1
    clock = b"".join(
        b"Trained" + b"".join(map(plain, (e.time_s, e.uid, e.round, e.steps, e.wanted, e.compute_s)))
        if isinstance(e, Trained)
        else b"Learned" + plain(e.time_s) + plain(e.uid)
        for e in events
    )
    came = b"".join(b"Learned" + plain(math.nan) for e in events if isinstance(e, Learned))
    assert looked.clock == unseen.clock == hashlib.sha256(clock).hexdigest()
    assert looked.learning == unseen.learning == hashlib.sha256(came).hexdigest()
