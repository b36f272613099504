"""How far an update may stray among others before it sticks out: what several attacks reckon with.

Vectors are handed over by a body and used by their methods alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

Direction = Annotated[
    Literal["unit", "std", "sign"],
    Field(description="where it strays to: against the mean, the deviation of each coordinate, or the mean's signs"),
]


def deviation(stack: Any) -> Any:
    """The standard deviation of each coordinate of some updates [K, N], over K - 1; zeros [N] for a single one."""
    return stack.std(0, correction=min(1, len(stack) - 1))


def perturbation(stack: Any, direction: Direction) -> Any:
    """A direction [N] away from the mean of some updates [K, N]; zeros where they have none.

    Source: Shejwalkar and Houmansadr 2021 (NDSS): inverse unit vector, inverse standard deviation, inverse sign.
    """
    if direction == "std":
        return -deviation(stack)
    mean = stack.mean(0)
    if direction == "sign":
        return -mean.sign()
    length = float(mean.norm())
    return -mean / length if length else -mean
