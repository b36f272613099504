"""Payloads of vectors, whole or with gaps, and every aggregator in all its forms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from covsim.protocol.aggregators import (
    Aggregator,
    aggregators,
)
from covsim.protocol.base import Claims, Decoded, Layout

LAYOUT = Layout(((5, 7), (13,)))
N = LAYOUT.num_parameters
COORDINATES = ["median", "trimmed_mean", "meamed"]
TOLERANT = ["trimmed_mean", "meamed", "krum", "multi_krum", "monna", "mda", "smea", "caf"]


def payload_of(row: Tensor, sent: Tensor, layout: Layout = LAYOUT, tokens: int = 0, weight: float = 0.0) -> Decoded:
    """What is said of a vector [N] where it is sent, bool [N]."""
    index = sent.nonzero().squeeze(1)
    value = row[index]
    starts = torch.tensor([0, *(int(np.prod(shape)) for shape in layout.shapes)]).cumsum(0)
    bounds = torch.searchsorted(index, starts).tolist()
    return Decoded(
        index,
        value,
        tensor_bounds=tuple(bounds),
        tensor_of=torch.bucketize(index, starts[1:], right=True),
        norms=torch.stack([value[a:b].double().norm() for a, b in pairwise(bounds)]),
        kept_share=torch.ones(len(index)),
        claims=Claims(tokens=tokens),
        weight=weight,
    )


def payloads_of(rows: Tensor, density: float = 1.0, layout: Layout = LAYOUT, seed: int = 0) -> list[Decoded]:
    """A payload for each row [R, N], of which about so many coordinates are sent."""
    draw = torch.Generator().manual_seed(seed)
    sent = torch.rand(rows.shape, generator=draw) < density
    return [payload_of(row, each, layout) for row, each in zip(rows, sent, strict=True)]


def normal(num: int, seed: int = 0, width: int = N) -> Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed))


def make(kind: str, **settings: Any) -> Aggregator:
    return aggregators[kind].model_validate({"kind": kind, **settings})


def forms() -> Iterator[Aggregator]:
    """Every aggregator, with both conventions for what was not sent where it has them."""
    for kind in aggregators:
        if "unsent" in aggregators[kind].model_fields:
            yield make(kind, unsent="senders")
            yield make(kind, unsent="zero_filled")
        else:
            yield make(kind)
