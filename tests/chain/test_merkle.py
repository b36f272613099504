"""Merkle trees: every leaf is provable, nothing else is, and the root is the one that can be worked out by hand."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.chain import merkle

SIZES = range(1, 34)


def leaves_of(size: int) -> list[bytes]:
    return [f"leaf {index}".encode() for index in range(size)]


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_is_proven_and_no_other(size: int) -> None:
    leaves = leaves_of(size)
    root = merkle.root(leaves)
    for index, leaf in enumerate(leaves):
        steps = merkle.proof(leaves, index)
        proven = [other for other in [*leaves, b"", b"no leaf"] if merkle.is_proven(root, other, steps)]
        assert proven == [leaf]


@pytest.mark.parametrize("size", SIZES)
def test_a_proof_is_no_longer_than_the_tree_is_high(size: int) -> None:
    assert max(len(merkle.proof(leaves_of(size), index)) for index in range(size)) == (size - 1).bit_length()


def test_a_root_of_three_by_hand() -> None:
    """Leaves under 0, nodes under 1; the odd third moves up as it is."""

    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    a, b, c = (sha(b"\0" + leaf) for leaf in (b"a", b"b", b"c"))
    assert merkle.root([b"a", b"b", b"c"]) == sha(b"\1" + sha(b"\1" + a + b) + c).hex()
    assert merkle.root([b"a"]) == a.hex()
    assert merkle.root([]) == sha(b"").hex()
    assert merkle.proof([b"a", b"b", b"c"], 2) == (("left", sha(b"\1" + a + b).hex()),)
    assert merkle.proof([b"a", b"b", b"c"], 0) == (("right", b.hex()), ("right", c.hex()))


PUBLISHED = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Roots of the first 0 to 8 leaves below, from the tests of Certificate Transparency, which follows RFC 6962."""


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_certificate_transparency_publishes(size: int) -> None:
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    assert merkle.root([bytes.fromhex(leaf) for leaf in leaves[:size]]) == PUBLISHED[size]


@given(st.lists(st.binary(max_size=8), max_size=9), st.lists(st.binary(max_size=8), max_size=9))
def test_other_leaves_have_another_root(one: list[bytes], other: list[bytes]) -> None:
    """Order, number and content count; so does where one leaf ends and the next begins."""
    assert (merkle.root(one) == merkle.root(other)) == (one == other)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_an_inner_node_does_not_pass_for_a_leaf(size: int) -> None:
    leaves = leaves_of(size)
    (_, right), *_ = merkle.proof(leaves, 0)
    (_, left), *_ = merkle.proof(leaves, 1)
    inside = bytes.fromhex(left) + bytes.fromhex(right)
    assert not merkle.is_proven(merkle.root(leaves), inside, merkle.proof(leaves, 0)[1:])
    assert not merkle.is_proven(merkle.root(leaves), b"\1" + inside, merkle.proof(leaves, 0)[1:])


def test_a_proof_fails_on_another_side_or_with_a_step_less() -> None:
    leaves = leaves_of(6)
    root, steps = merkle.root(leaves), merkle.proof(leaves, 3)
    turned = tuple(("left" if side == "right" else "right", neighbor) for side, neighbor in steps)
    assert merkle.is_proven(root, leaves[3], steps)
    assert not merkle.is_proven(root, leaves[3], turned)
    assert not merkle.is_proven(root, leaves[3], steps[:-1])
    assert not merkle.is_proven(root, leaves[3], (*steps, steps[-1]))


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=f"no leaf {index} among 3"):
        merkle.proof(leaves_of(3), index)
