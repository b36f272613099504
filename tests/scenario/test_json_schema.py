"""The JSON Schema for editors accepts what covsim accepts and marks what it refuses."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from covsim.scenario import load, resolved_text, shipped_scenarios
from covsim.scenario.json_schema import json_schema
from covsim.scenario.reader import read_file, read_text

SCHEMA = json_schema()
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def accepts(value: Any, schema: dict[str, Any]) -> bool:
    """A small validator of the keywords that pydantic writes."""
    if "$ref" in schema:
        return accepts(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    checks = [
        *(any(accepts(value, option) for option in schema[key]) for key in ("anyOf", "oneOf") if key in schema),
        _has_type(value, schema.get("type")),
        value in schema.get("enum", [value]),
        value == schema.get("const", value),
    ]
    if isinstance(value, dict):
        checks += _entries(value, schema)
    elif isinstance(value, list):
        checks += [accepts(item, schema.get("items") or {}) for item in value]
        checks += [len(value) >= schema.get("minItems", 0), len(value) <= schema.get("maxItems", len(value))]
    elif isinstance(value, str):
        checks.append(re.search(schema.get("pattern", ""), value) is not None)
    elif isinstance(value, int | float):
        checks += [value >= schema.get("minimum", value), value <= schema.get("maximum", value)]
        checks += [value > schema.get("exclusiveMinimum", value - 1), value < schema.get("exclusiveMaximum", value + 1)]
    return all(checks)


def _has_type(value: Any, name: str | None) -> bool:
    if name is None or name == "null":
        return name is None or value is None
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _entries(value: dict[str, Any], schema: dict[str, Any]) -> list[bool]:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    checks = [key in value for key in schema.get("required", [])]
    for key, item in value.items():
        by_pattern = [inner for pattern, inner in patterns.items() if re.search(pattern, key)]
        inner = known.get(key) or next(iter(by_pattern), schema.get("additionalProperties", True))
        checks.append(inner if isinstance(inner, bool) else accepts(item, inner))
    return checks


@pytest.mark.parametrize("name", shipped_scenarios())
def test_it_accepts_the_shipped_files(name: str) -> None:
    assert accepts(read_file(shipped_scenarios()[name], name).plain(), SCHEMA)


@pytest.mark.parametrize("name", shipped_scenarios())
def test_it_accepts_resolved_scenarios(name: str) -> None:
    assert accepts(read_text(resolved_text(load(name)), name).plain(), SCHEMA)


BASE = Path(__file__).parent / "base.yaml"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("peeers",), 3),
        (("peers",), "many"),
        (("peers",), 0),
        (("name",), "../up"),
        (("stop",), {"round": 3}),
        (("timeline", "block"), 12),
        (("cohorts", "lazy", "behavior"), "lasy"),
        (("cohorts", "lazy", "behavior"), {"kind": "lazy", "scale": 2}),
        (("cohorts", "lazy", "uplink"), 110),
        (("cohorts", "UPPER"), {"count": 1}),
        (("deployment",), "covenant-73b"),
        (("selection",), {"kind": "gauntlet", "uids": [1]}),
        (("protocol", "k"), "all"),
    ],
)
def test_it_marks_mistakes(path: tuple[str, ...], value: Any) -> None:
    scenario = read_file(BASE, "base").plain()
    assert accepts(scenario, SCHEMA)
    spoiled = copy.deepcopy(scenario)
    inner = spoiled
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    assert not accepts(spoiled, SCHEMA)


def test_only_a_file_that_extends_may_leave_keys_out() -> None:
    assert accepts({"version": 1, "name": "a", "extends": "quickstart"}, SCHEMA)
    assert not accepts({"version": 1, "name": "a"}, SCHEMA)


def test_it_describes_every_key_of_the_top_level() -> None:
    assert all(field["description"] for field in SCHEMA["properties"].values())
