"""An aggregator with all that comes before it: how payloads pass through, and what limits a single one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator
from covsim.protocol.aggregators.clipping import clipped
from covsim.protocol.aggregators.tolerance import any_falls_short
from covsim.protocol.base import Decoded, Layout

Limits = tuple[Tensor, ...]
"""What a payload's norms are limited to, one step after the other, float64: [T] by tensor, or [] as a whole."""


def prepared(
    aggregate: Aggregator,
    payloads: Sequence[Decoded],
    layout: Layout,
    draw: Callable[[int], np.random.Generator],
) -> Sequence[Decoded]:
    """The payloads that an aggregator combines, after all that comes before it; `draw` gives each its own stream."""
    for place, part in enumerate(aggregate.before):
        payloads = part.prepare(payloads, layout, draw(place))
    return payloads


def limits(aggregate: Aggregator, payloads: Sequence[Decoded]) -> Limits:
    """What a payload beside these would be limited to, until it is mixed with others."""
    found: list[Tensor] = []
    for part in aggregate.before:
        limit = part.limit(payloads) if payloads else None
        if limit is None:
            return tuple(found)
        found.append(limit)
        payloads = [clipped(payload, limit) for payload in payloads]
    own = aggregate.clip_norms(payloads)
    return tuple(found) if own is None else (*found, own)


def falls_short(aggregate: Aggregator, num: int) -> bool:
    """True if some part of it tolerates fewer of `num` payloads than its setting asks for."""
    return any_falls_short((*aggregate.before, aggregate), num)


def reads_weights(aggregate: Aggregator) -> bool:
    """True if it looks at `Decoded.weight`, the weight of the sender on the gather list in force."""
    return bool(getattr(aggregate, "reads_weights", False))
