"""An update without its numbers: what a timing-only run keeps of a vector that nobody computes.

A sketch is a vector in a space with orthonormal directions: one is `useful`, the way in which training lowers the loss,
and one belongs to each origin, the batches of (shard, uid, round) that a job was trained on. The arithmetic of vectors
holds exactly, so `-2 * update`, a mean of updates or the difference of two histories mean what they always mean; single
coordinates do not exist, and a function that asks for them is refused in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from covsim.unserved import Unserved

Origin = tuple[str, int, int]
"""What a part of an update was made from: `assigned`, `random`, `false` or `noise`, and the uid and round of it."""

NO_VECTORS: Final = (
    "a script computes with single numbers of an update, and with learning: synthetic there are none; "
    "train for real (learning: trained), or choose a behavior that adds and scales updates only"
)


class Sketch:
    """A point or a difference, by its length along `useful` and along each origin.

    Args:
        useful: in regular updates: 1 is what a peer's full inner loop moves.
        parts: length along the direction of each origin, in the same unit.
    """

    __slots__ = ("parts", "useful")

    def __init__(self, useful: float = 0.0, parts: Mapping[Origin, float] | None = None) -> None:
        self.useful = useful
        self.parts: Mapping[Origin, float] = {} if parts is None else parts

    def __neg__(self) -> Sketch:
        return self * -1.0

    def __mul__(self, factor: float) -> Sketch:
        return Sketch(factor * self.useful, {origin: factor * part for origin, part in self.parts.items()})

    __rmul__ = __mul__

    def __add__(self, other: Sketch) -> Sketch:
        return Sketch(self.useful + other.useful, _sum(self.parts, other.parts, 1.0))

    def __sub__(self, other: Sketch) -> Sketch:
        return Sketch(self.useful - other.useful, _sum(self.parts, other.parts, -1.0))

    @staticmethod
    def stack(rows: Iterable[Sketch]) -> Sketches:
        """Several, for a function of several."""
        return Sketches(rows)

    def applied(self, function: Callable[[Any], Any]) -> Sketch:
        """What a function makes of it. Raises Unserved for one that needs the numbers."""
        return _applied(function, self)

    def norm(self) -> float:
        """The Euclidean norm."""
        return math.hypot(self.useful, *self.parts.values())

    @property
    def is_finite(self) -> bool:
        """Whether all of it is finite."""
        return math.isfinite(self.useful) and all(map(math.isfinite, self.parts.values()))

    def cosine(self, other: Sketch) -> float:
        """Of the angle between two; 0 where one has no length."""
        lengths = self.norm() * other.norm()
        return (self.useful * other.useful + self._common(other)) / lengths if lengths > 0 else 0.0

    def likeness(self, other: Sketch) -> float:
        """The cosine of what is theirs alone, without the useful direction that all have in common."""
        lengths = math.hypot(*self.parts.values()) * math.hypot(*other.parts.values())
        return self._common(other) / lengths if lengths > 0 else 0.0

    def _common(self, other: Sketch) -> float:
        return math.fsum(part * other.parts[origin] for origin, part in self.parts.items() if origin in other.parts)


class Sketches:
    """Several sketches as what a function of several updates is given; it may take their mean, or one of them."""

    def __init__(self, rows: Iterable[Sketch]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Sketch:
        return self._rows[place]

    def applied(self, function: Callable[[Any], Any]) -> Sketch:
        """What a function makes of them. Raises Unserved for one that needs the numbers."""
        return _applied(function, self)

    def mean(self, dim: int) -> Sketch:
        """Over all of them; `dim` is 0."""
        assert dim == 0
        return sum(self._rows, Sketch()) * (1 / len(self._rows))


def _applied(function: Callable[[Any], Any], argument: Sketch | Sketches) -> Sketch:
    try:
        value = function(argument)
    except (AttributeError, TypeError) as lacking:
        raise Unserved(NO_VECTORS) from lacking
    if not isinstance(value, Sketch):
        raise Unserved(NO_VECTORS)
    return value


def _sum(parts: Mapping[Origin, float], others: Mapping[Origin, float], sign: float) -> Mapping[Origin, float]:
    """Part by part; what cancels is gone."""
    if not others:
        return parts
    if not parts and sign > 0:
        return others
    total = dict(parts)
    for origin, part in others.items():
        total[origin] = total.get(origin, 0.0) + sign * part
    return {origin: part for origin, part in total.items() if part}
