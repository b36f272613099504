"""The JSON Schema of scenario files, by which editors complete and check them as they are written."""

from __future__ import annotations

import json
from typing import Any

from covsim.scenario.schema import Scenario

_EXTENDS = {
    "type": "string",
    "description": "another scenario, merged under this one key by key; a file beside this one, or a shipped name",
}


def json_schema() -> dict[str, Any]:
    """The schema. Only a file that extends nothing must be complete, so keys are required at the top level alone."""
    schema: dict[str, Any] = Scenario.model_json_schema()
    required = schema["required"]
    schema = _partial(schema)
    schema["properties"]["extends"] = _EXTENDS
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "covsim scenario",
        "anyOf": [{"required": ["extends"]}, {"required": required}],
    }


def json_schema_text() -> str:
    """The schema as the text of `scenarios/schema.json`."""
    return json.dumps(json_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _partial(schema: Any) -> Any:
    """The schema with nothing required; in maps of free names, no other names, and null to remove an inherited one."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    partial = {key: _partial(value) for key, value in schema.items() if key != "required"}
    if "patternProperties" in schema:
        named = {
            pattern: {"anyOf": [entry, {"type": "null"}]} for pattern, entry in partial["patternProperties"].items()
        }
        partial |= {"patternProperties": named, "additionalProperties": False}
    return partial
