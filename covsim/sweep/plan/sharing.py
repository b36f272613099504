"""Max-min fair rates of many single flows over a few shared links, as arrays: the engine's rule for one instant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Shared:
    """A link that several flows have in common.

    Attributes:
        name: for the table of what binds.
        bits_per_s: its capacity; infinite for no limit.
        users: which flows take it [P].
    """

    name: str
    bits_per_s: float
    users: Flags


def fair_rates(own: Floats, shared: Sequence[Shared]) -> Floats:
    """The max-min fair rate of each flow [P], in bits per second.

    The fullest shared link is settled first: its flows get their own rate or its water level, whichever is less.
    Source: Bertsekas and Gallager, Data Networks, 1992, section 6.5.2.

    Args:
        own: the most that each flow takes [P], bits per second.
        shared: links that flows have in common.
    """
    rates, is_open = own.copy(), np.ones(own.shape, dtype=bool)
    left = [link for link in shared if math.isfinite(link.bits_per_s) and link.users.any()]
    while left:
        levels = [_level(own[link.users & is_open], _room(link, rates, is_open)) for link in left]
        lowest = int(np.argmin(levels))
        if math.isinf(levels[lowest]):
            return rates
        users = left.pop(lowest).users & is_open
        rates[users] = np.minimum(own[users], levels[lowest])
        is_open &= ~users
    return rates


def _room(link: Shared, rates: Floats, is_open: Flags) -> float:
    """What is left of a link for flows that are not settled."""
    return max(0.0, link.bits_per_s - float(rates[link.users & ~is_open].sum()))


def _level(own: Floats, room: float) -> float:
    """The rate to which flows rise that share so much; infinite if there is enough for all."""
    if own.sum() <= room:
        return math.inf
    ordered = np.sort(own)
    below = np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
    levels = (room - below) / np.arange(len(ordered), 0, -1)
    return float(levels[int(np.argmax(levels <= ordered))])
