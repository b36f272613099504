"""What the codec's tests have in common: every legal combination of parts, rows of every kind, shapes of every kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

import torch
from hypothesis import strategies as st
from torch import Tensor

from covsim.protocol.base import Codec, Decoded, Shape
from covsim.protocol.codec import TensorCodec
from covsim.protocol.compressors import Compressor, compressors
from covsim.protocol.indices import IndexCoding
from covsim.protocol.values import ValueFormat, value_formats
from covsim.protocol.wire import Packing
from covsim.registry import Registry

SMALL_SHAPES: tuple[Shape, ...] = ((64, 64), (7, 9), (33,), (4,), (1,), (130,))
"""A full block, ragged ones, chunks that a k of 6 sends whole and one that it does not, a single element."""

INDEX_CODINGS: tuple[IndexCoding, ...] = get_args(IndexCoding)
PACKINGS: tuple[Packing, ...] = get_args(Packing)

CONTENTS = ["normal", "heavy", "zeros", "constant", "few", "ties", "tiny", "subnormal", "huge", "wide"]

shapes_strategy = st.lists(
    st.one_of(st.tuples(st.integers(1, 300)), st.tuples(st.integers(1, 140), st.integers(1, 140))),
    min_size=1,
    max_size=4,
)


def content(kind: str, num: int, seed: int) -> Tensor:
    """A row [N] of a certain kind."""
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(num, generator=draw)
    few = torch.rand(num, generator=draw) < 0.01
    return {
        "normal": normal * 1e-3,
        "heavy": normal / torch.rand(num, generator=draw).clamp(min=1e-6),
        "zeros": torch.zeros(num),
        "constant": torch.full((num,), -0.37),
        "few": torch.where(few, normal, 0.0),
        "ties": normal.mul(2).round(),
        "tiny": normal * 1e-15,
        "subnormal": normal * 1e-41,
        "huge": normal.clamp(-4, 4) * 2e37,
        "wide": normal * torch.randn(num, generator=draw).mul(8).exp(),
    }[kind]


def contents(num: int, seed: int = 0) -> Tensor:
    """One row of every kind [len(CONTENTS), N]."""
    return torch.stack([content(kind, num, seed + place) for place, kind in enumerate(CONTENTS)])


def normal_rows(num_rows: int, num_parameters: int, seed: int = 1) -> Tensor:
    """Standard normal rows [P, N]."""
    return torch.randn(num_rows, num_parameters, generator=torch.Generator().manual_seed(seed))


def dense(decoded: Decoded, num_parameters: int) -> Tensor:
    """A decoded payload as a row [N], in the space in which the payload's values live."""
    row = torch.zeros(num_parameters)
    row[decoded.index] = decoded.value
    return row


def received(codec: Codec, payload: bytes) -> Tensor:
    """What a receiver applies to theta [N]."""
    return codec.to_theta(dense(codec.decode(payload), codec.num_parameters))


class Combination(NamedTuple):
    """How rows become bytes."""

    compressor: Compressor
    values: ValueFormat
    indices: IndexCoding
    packing: Packing

    def codec(self, shapes: Sequence[Shape], **settings: Any) -> TensorCodec:
        """The codec for a model of these tensors."""
        return TensorCodec(
            shapes,
            compressor=self.compressor,
            values=self.values,
            indices=self.indices,
            packing=self.packing,
            **settings,
        )

    @property
    def name(self) -> str:
        """For messages and for the ids of tests."""
        return f"{label(self.compressor)}-{label(self.values)}-{self.indices}-{self.packing}"


def label(part: Any) -> str:
    """A part's kind and those of its settings that are one of a few."""
    choices = [str(getattr(part, field)) for field in _choices(type(part)) if field != "kind"]
    return ".".join([part.kind, *choices])


def variants(registry: Registry[Any], **settings: Any) -> list[Any]:
    """Every registered part with every setting that is one of a few, and `settings` where a part has them."""
    return [part for _, cls in registry.items() for part in _variants_of(cls, settings)]


def combinations(shapes: Sequence[Shape], k: int) -> list[Combination]:
    """All that the library agrees to for a model of these tensors."""
    every = itertools.product(variants(compressors, k=k), variants(value_formats), INDEX_CODINGS, PACKINGS)
    return [each for each in map(Combination._make, every) if refusal(each, shapes) is None]


def refusal(combination: Combination, shapes: Sequence[Shape]) -> str | None:
    """Why the library will not build the codec; None if it will."""
    try:
        combination.codec(shapes)
    except ValueError as reason:
        return str(reason)
    return None


def num_elements(shapes: Iterable[Shape]) -> int:
    """Elements of all tensors."""
    return sum(math.prod(shape) for shape in shapes)


def _choices(cls: type[Any]) -> dict[str, tuple[Any, ...]]:
    """The fields of a part that are one of a few, and of what."""
    annotations = {name: field.annotation for name, field in cls.model_fields.items()}
    return {name: get_args(each) for name, each in annotations.items() if get_origin(each) is Literal}


def _variants_of(cls: type[Any], settings: dict[str, Any]) -> Iterator[Any]:
    fixed = {name: value for name, value in settings.items() if name in cls.model_fields}
    choices = {name: options for name, options in _choices(cls).items() if name not in fixed}
    for picked in itertools.product(*choices.values()):
        yield cls(**fixed, **dict(zip(choices, picked, strict=True)))
