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

Groups = tuple[tuple[int, tuple[int, ...]], ...]
"""Tensors as (count, shape), enough to size a payload that nobody ever holds."""


def llama(layers: int, width: int, keys: int, hidden: int, vocabulary: int) -> Groups:
    """Llama's tensors: query and output, key and value, gate and up, down, norms; embeddings and head are not tied.

    Args:
        layers: transformer blocks.
        width: channels of the residual stream.
        keys: rows of the key and of the value projection, all heads together.
        hidden: channels inside the feed-forward block.
        vocabulary: tokens.
    """
    return (
        (2, (vocabulary, width)),
        (2 * layers, (width, width)),
        (2 * layers, (keys, width)),
        (2 * layers, (hidden, width)),
        (layers, (width, hidden)),
        (2 * layers + 1, (width,)),
    )


COVENANT_72B = llama(layers=80, width=8192, keys=1024, hidden=28_672, vocabulary=262_144)
"""72,747,327,488 parameters, Llama-3-70B's layers with Gemma 3's tokens. Source: Covenant-72B (arXiv 2603.08163)."""

TEMPLAR_8B = llama(layers=32, width=4096, keys=1024, hidden=14_336, vocabulary=32_000)
"""7,241,732,096 parameters, Llama-3-8B's layers with Llama 2's tokens. Source: templar v1.0, `hparams/8B.json`."""

TEMPLAR_1B = llama(layers=16, width=2048, keys=2048, hidden=8192, vocabulary=32_000)
"""1,204,881,408 parameters. Source: templar v0.2, `hparams.json`."""


def _listed(groups: Groups) -> list[dict[str, Any]]:
    return [{"count": count, "shape": list(shape)} for count, shape in groups]


# No source states what an evaluation takes (one peer's trial step and its four losses): 8 s of 72.7 B parameters are
# assumed, and of the smaller models about as much less as they are smaller.
PRESETS: dict[str, dict[str, Any]] = {
    "covenant-72b": {
        "inner_step": "40 s",  # 20 min of compute for 30 inner steps, as the report gives it
        "evaluation": "8 s",
        "tensors": _listed(COVENANT_72B),
    },
    "templar-8b": {
        "inner_step": "8.6 s",  # assumed: 30 of them fill 80 % of a window of v1.0.20, 27 blocks
        "evaluation": "1 s",
        "tensors": _listed(TEMPLAR_8B),
    },
    "templar-1b": {
        "inner_step": "60 s",  # assumed: the one gradient of a window of v0.2.88, 8 blocks, on slow machines too
        "evaluation": "0.2 s",
        "tensors": _listed(TEMPLAR_1B),
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

    preset: Literal["covenant-72b", "templar-8b", "templar-1b", "same"] = Field(
        "same",
        description="`same` charges for the model itself, the others for so many parameters: 72.7, 7.2 or 1.2 billion",
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
