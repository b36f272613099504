"""The deployment: whose payload bytes travel and whose seconds pass, while a small model does the learning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from covsim.units import Seconds

_DAY_S = 86_400.0
_WIDTH, _KEYS, _HIDDEN, _LAYERS, _VOCABULARY = 8192, 1024, 28_672, 80, 262_144

Groups = tuple[tuple[int, tuple[int, ...]], ...]
"""Tensors as (count, shape), enough to size a payload that nobody ever holds."""

COVENANT_72B: Groups = (
    (2, (_VOCABULARY, _WIDTH)),
    (2 * _LAYERS, (_WIDTH, _WIDTH)),
    (2 * _LAYERS, (_KEYS, _WIDTH)),
    (2 * _LAYERS, (_HIDDEN, _WIDTH)),
    (_LAYERS, (_WIDTH, _HIDDEN)),
    (2 * _LAYERS + 1, (_WIDTH,)),
)
"""72,747,327,488 parameters: Llama-3-70B's layers (query and output, key and value, gate and up, down, norms) with
untied embeddings of 262,144 tokens. Source: Covenant-72B (arXiv 2603.08163)."""

PRESETS: dict[str, dict[str, Any]] = {
    "covenant-72b": {
        "inner_step": "40 s",  # 20 min of compute for 30 inner steps, as the report gives it
        "evaluation": "8 s",  # assumed: one peer's trial step and its four losses; no source states it
        "tensors": [{"count": count, "shape": list(shape)} for count, shape in COVENANT_72B],
    },
    "same": {"inner_step": "1 s", "evaluation": "0.5 s", "tensors": []},
}


class Tensors(BaseModel):
    """Parameter tensors of one shape."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    count: int = Field(1, gt=0, le=1_000_000, description="tensors of this shape")
    shape: list[Annotated[int, Field(gt=0, le=100_000_000)]] = Field(
        min_length=1, max_length=8, description="as the protocol chunks it: [rows, columns], or [length] of a vector"
    )


class Deployment(BaseModel):
    """What the clock charges for. A bare name is a preset; keys beside `preset` replace single values of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Literal["covenant-72b", "same"] = Field(
        "same", description="`same` charges for the model itself; `covenant-72b` for 72.7 B parameters on 8 GPUs"
    )
    inner_step: Seconds = Field(gt=0, le=_DAY_S, description="one inner step on a machine of speed 1")
    evaluation: Seconds = Field(ge=0, le=_DAY_S, description="what a validator needs to evaluate one peer")
    tensors: list[Tensors] = Field(max_length=10_000, description="parameter tensors; none: those of the model")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """Fill in what the preset says; leave anything malformed to the fields' own checks."""
        given = {"preset": value} if isinstance(value, str) else value
        if not isinstance(given, dict):
            return given
        name = given.get("preset", "same")
        defaults = PRESETS.get(name, PRESETS["same"]) if isinstance(name, str) else PRESETS["same"]
        return {**defaults, **given}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A bare name, or a mapping."""
        return {"anyOf": [{"enum": list(PRESETS)}, handler(schema)]}

    def groups(self, model_shapes: Iterable[tuple[int, ...]]) -> Groups:
        """The tensors that are charged for as (count, shape); `model_shapes` where the deployment names none."""
        return tuple((item.count, tuple(item.shape)) for item in self.tensors) or tuple((1, s) for s in model_shapes)


def num_parameters(groups: Groups) -> int:
    """How many parameters there are in all."""
    return sum(count * math.prod(shape) for count, shape in groups)
