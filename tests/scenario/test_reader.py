"""YAML 1.2 to values and their places."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.scenario.errors import ScenarioError
from covsim.scenario.reader import MAX_DEPTH, MAX_NODES, read_text, read_value
from covsim.scenario.tree import place_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e8", 5e8),  # YAML 1.1 reads it as text
        ("no", "no"),  # ... as False
        ("12:30:00", "12:30:00"),  # ... as 45000
        ("012", 12),  # ... as 10
        ("0o17", 15),
        ("-0x1F", -31),
        ("1_000", 1000),
        ("-.5", -0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
        ("2020-01-01", "2020-01-01"),
        ("30 %", "30 %"),
        ("'7'", "7"),
        ("[1, a]", [1, "a"]),
        ("{a: {b: []}}", {"a": {"b": []}}),
        ("&x 3", 3),
    ],
)
def test_values(text: str, value: object) -> None:
    assert read_value(text, "here").plain() == value


def test_places_of_keys_and_values() -> None:
    tree = read_text("a: 1\nb:\n  c: [x,\n      y]\n", "f.yaml")
    assert str(place_of(tree, ("b", "c", 1))) == "f.yaml:4:7"
    assert str(place_of(tree, ("b", "c"), of_key=True)) == "f.yaml:3:3"
    assert str(place_of(tree, ("b", "missing"))) == "f.yaml:3:3"
    assert str(place_of(read_value("1", "command line: a=1"), ())) == "command line: a=1"


def test_an_alias_repeats_what_it_names() -> None:
    assert read_text("a: &x {p: 1}\nb: *x\n", "f").plain() == {"a": {"p": 1}, "b": {"p": 1}}


def test_limits_are_met_exactly() -> None:
    depth = MAX_DEPTH - 1  # the mapping on top is one level
    assert read_text(f"a: {'[' * depth}{']' * depth}", "f").plain()
    with pytest.raises(ScenarioError, match="nested deeper"):
        read_text(f"a: {'[' * (depth + 1)}{']' * (depth + 1)}", "f")
    items = MAX_NODES - 3  # the mapping, its key and the list
    assert len(read_text(f"a: [{'1,' * items}]", "f").plain()["a"]) == items
    with pytest.raises(ScenarioError, match="holds more than"):
        read_text(f"a: [{'1,' * (items + 1)}]", "f")


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"%@#? \n\tab1", max_size=80))
def test_any_text_is_read_or_refused_in_a_line(text: str) -> None:
    refusal = "f: "
    try:
        assert isinstance(read_text(text, "f").plain(), dict)
    except ScenarioError as error:
        refusal = str(error)
    assert refusal.startswith("f:")
    assert "\n" not in refusal
