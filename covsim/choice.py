"""A settings field that holds any registered part: `behavior: Annotated[Behavior, OneOf(behaviors)]`.

The field is the discriminated union, by `kind`, of what is registered when the model's schema is built; a model that is
rebuilt (`model_rebuild(force=True)`) knows the parts that were added since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from covsim.registry import Part, Registry

_BARE = "bare value"


@dataclass(frozen=True)
class OneOf:
    """Annotates a field that holds a part of a registry.

    Args:
        registry: where the parts are.
        default: the kind of a mapping that names none; by default a mapping must name its kind.
        bare: the field that a bare value fills. `"kind"` makes `lazy` stand for `{kind: lazy}`; another name, say
            `"value"`, makes `3` stand for `{kind: <default>, value: 3}`. None allows mappings only.
    """

    registry: Registry[Any]
    default: str | None = None
    bare: str | None = None

    def kind_of(self, value: Any) -> str | None:
        """The kind that a mapping or a part names, the default where it names none, None if there is no telling."""
        if isinstance(value, Part):
            return str(getattr(value, "kind", None))
        if isinstance(value, dict):
            kind = value.get("kind", self.default)
            return kind if isinstance(kind, str) else None
        return value if self.bare == "kind" and isinstance(value, str) else self.default if self.bare else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The tagged union of what is registered now."""
        choices: dict[Any, CoreSchema] = {kind: handler.generate_schema(part) for kind, part in self.registry.items()}
        if self.bare:
            choices |= {f"{_BARE} {kind}": self._filling(schema) for kind, schema in choices.items()}
        return core_schema.tagged_union_schema(choices, discriminator=self._tag)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Any of the parts, or the bare value."""
        shapes = [handler(part.__pydantic_core_schema__) for _, part in self.registry.items()]
        if self.bare == "kind":
            shapes.insert(0, {"enum": list(self.registry)})
        elif self.bare:
            assert self.default is not None, "a bare value needs a default kind"
            shapes.insert(0, self.registry[self.default].model_json_schema()["properties"][self.bare])
        return {"anyOf": shapes}

    def _tag(self, value: Any) -> str | None:
        kind = self.kind_of(value)
        return kind if isinstance(value, dict | Part) or kind is None else f"{_BARE} {kind}"

    def _filling(self, schema: CoreSchema) -> CoreSchema:
        """The part's own schema, fed with a mapping that a bare value stands for."""
        return core_schema.no_info_before_validator_function(lambda value: {self.bare: value}, schema)
