"""The deployment: whose payload bytes travel and whose seconds pass, while a small model does the learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from covsim.choice import OneOf
from covsim.scenario.deployment_presets import COVENANT_72B, PRESETS, TEMPLAR_1B, TEMPLAR_8B, Groups, llama
from covsim.scenario.inner_step import DAY_S, StepTime, step_times
from covsim.units import Seconds

__all__ = [
    "BYTES_PER_PARAMETER",
    "COVENANT_72B",
    "PRESETS",
    "TEMPLAR_1B",
    "TEMPLAR_8B",
    "Deployment",
    "Groups",
    "Tensors",
    "compression",
    "llama",
    "num_parameters",
]

BYTES_PER_PARAMETER = 4
"""Of a checkpoint, and of what compression ratios are stated against: fp32."""


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

    preset: Literal[
        "covenant-72b",
        "templar-8b",
        "templar-1b",
        "intellect-1-10b",
        "opendiloco-150m",
        "opendiloco-1.1b",
        "streaming-1b",
        "streaming-10b",
        "streaming-100b",
        "same",
    ] = Field("same", description="`same` charges for the model itself, the others for so many parameters")
    inner_step: Annotated[StepTime, OneOf(step_times, default="measured", bare="seconds")] = Field(
        description="one inner step on a machine of speed 1: a duration, or what it follows from"
    )
    tokens_per_step: int | None = Field(
        None, gt=0, le=10**12, description="tokens of an inner step of the deployment, not of the small model's"
    )
    gpus: int | None = Field(None, gt=0, le=100_000, description="GPUs of a machine of speed 1, where that is known")
    evaluation: Seconds = Field(
        ge=0, le=DAY_S, description="what a validator needs to evaluate one peer, decoding its payload included"
    )
    compression: Seconds = Field(
        0.0, ge=0, le=DAY_S, description="what a machine of speed 1 needs to make a payload, before its upload"
    )
    decoding: Seconds = Field(
        0.0, ge=0, le=DAY_S, description="what it needs per gathered payload, its own too, before the outer step"
    )
    tensors: list[Tensors] = Field(max_length=10_000, description="parameter tensors; none: those of the model")
    layers: int | None = Field(
        None, ge=1, le=10_000, description="transformer blocks; a layered timeline splits tensors and steps over them"
    )

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

    @model_validator(mode="after")
    def _knows_its_step(self) -> Self:
        for name in self.inner_step.needs:
            if getattr(self, name) is None:
                raise ValueError(f"an inner_step of kind {self.inner_step.kind} needs {name} of the deployment")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A bare name, or a mapping."""
        return {"anyOf": [{"enum": list(PRESETS)}, handler(schema)]}

    def step_s(self, parameters: Callable[[], int]) -> float:
        """Seconds of an inner step on a machine of speed 1.

        Args:
            parameters: tells how many are charged for; not asked where it does not matter.
        """
        return self.inner_step.step_s(parameters, self.tokens_per_step or 0, self.gpus or 0)

    def groups(self, model_shapes: Iterable[tuple[int, ...]]) -> Groups:
        """The tensors that are charged for as (count, shape); `model_shapes` where the deployment names none."""
        return tuple((item.count, tuple(item.shape)) for item in self.tensors) or tuple((1, s) for s in model_shapes)


def num_parameters(groups: Groups) -> int:
    """How many parameters there are in all."""
    return sum(count * math.prod(shape) for count, shape in groups)


def compression(num_parameters: int, payload_bytes: float) -> float:
    """All parameters in fp32 over what is sent of them in a round; NaN where nothing travels."""
    return BYTES_PER_PARAMETER * num_parameters / payload_bytes if payload_bytes else math.nan
