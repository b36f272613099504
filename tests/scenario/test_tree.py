"""How a file is merged over what it extends."""

from __future__ import annotations

import pytest

from covsim.scenario.reader import read_text
from covsim.scenario.tree import merge, place_of


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("{a: {b: 1, c: 2}}", "{a: {c: 3, d: 4}}", {"a": {"b": 1, "c": 3, "d": 4}}),
        ("{a: [1, 2]}", "{a: [3]}", {"a": [3]}),
        ("{a: {b: 1}}", "{a: 2}", {"a": 2}),
        ("{a: 2}", "{a: {b: 1}}", {"a": {"b": 1}}),
        # null removes what was inherited
        ("{a: {b: 1, c: 2}}", "{a: {b: ~}}", {"a": {"c": 2}}),
        ("{a: 1}", "{b: ~}", {"a": 1, "b": None}),
        # another kind starts afresh, the same kind is refined
        ("{a: {kind: x, p: 1}}", "{a: {kind: y, q: 2}}", {"a": {"kind": "y", "q": 2}}),
        ("{a: {kind: x, p: 1}}", "{a: {kind: x, q: 2}}", {"a": {"kind": "x", "p": 1, "q": 2}}),
        ("{a: {kind: x, p: 1}}", "{a: {q: 2}}", {"a": {"kind": "x", "p": 1, "q": 2}}),
        ("{deployment: {preset: x, p: 1}}", "{deployment: {preset: y}}", {"deployment": {"preset": "y"}}),
        # a bare name is a mapping in disguise
        ("{behavior: x}", "{behavior: {p: 1}}", {"behavior": {"kind": "x", "p": 1}}),
        ("{deployment: x}", "{deployment: {p: 1}}", {"deployment": {"preset": "x", "p": 1}}),
        ("{behavior: {kind: x, p: 1}}", "{behavior: y}", {"behavior": "y"}),
        # a share takes the place of a count, unless both are asked for
        ("{c: {count: 3, b: 1}}", "{c: {share: rest}}", {"c": {"share": "rest", "b": 1}}),
        ("{c: {share: 0.1}}", "{c: {count: 3}}", {"c": {"count": 3}}),
        ("{c: {count: 3}}", "{c: {share: 0.1, count: 4}}", {"c": {"count": 4, "share": 0.1}}),
        ("{c: {count: 3}}", "{c: {share: ~}}", {"c": {"count": 3, "share": None}}),
        # a text of one's own takes the place of a bundled one, and back
        ("{data: {corpus: x, held_out: 0.1}}", "{data: {path: y}}", {"data": {"path": "y", "held_out": 0.1}}),
        ("{data: {path: y}}", "{data: {corpus: x}}", {"data": {"corpus": "x"}}),
    ],
)
def test_merge(base: str, over: str, merged: object) -> None:
    assert merge(read_text(base, "base"), read_text(over, "over")).plain() == merged


def test_every_value_keeps_the_place_where_it_stands() -> None:
    base = read_text("a: {p: 1, q: 2}\nb: 3\n", "base")
    merged = merge(base, read_text("\na: {q: 4}\n", "over"))
    assert str(place_of(merged, ("a", "p"))) == "base:1:8"
    assert str(place_of(merged, ("a", "q"))) == "over:2:8"
    assert str(place_of(merged, ("b",), of_key=True)) == "base:2:1"


def test_merging_changes_neither_side() -> None:
    base, over = read_text("{a: {b: 1}}", "base"), read_text("{a: {b: ~, c: 1}}", "over")
    merge(base, over)
    assert base.plain() == {"a": {"b": 1}}
    assert over.plain() == {"a": {"b": None, "c": 1}}
