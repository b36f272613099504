"""Payloads as long on the wire as they are charged."""

from hypothesis import given
from hypothesis import strategies as st

from covsim.emulation.envelope import smallest, unwrapped, wire_bytes, wrapped


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_a_payload_comes_back_whole_and_its_object_is_as_long_as_asked_for(payload, num_bytes):
    """Would catch padding that eats the payload, and an object that is charged one length and has another."""
    content = wrapped(payload, num_bytes)
    assert unwrapped(content) == payload
    assert len(content) == max(num_bytes, smallest(len(payload)))


@given(st.binary(min_size=1, max_size=100), st.integers(0, 107))
def test_of_an_object_that_was_cut_short_no_more_comes_back_than_arrived(payload, kept):
    """Would catch a truncated object that passes for a whole one."""
    left = unwrapped(wrapped(payload, 0)[: min(kept, len(payload) + 7)])
    assert len(left) < len(payload)
    assert payload.startswith(left)


def test_bytes_on_the_wire_are_those_charged_times_the_scale():
    """Would catch a scale that is applied twice or not at all."""
    assert wire_bytes(5e6, 0.5) == 2_500_000
