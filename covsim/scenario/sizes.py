"""How many peers each cohort has: counts as given, shares by the largest remainder, the rest to the rest."""

from __future__ import annotations

from collections.abc import Mapping

from covsim.scenario.sections import Cohort


def cohort_sizes(peers: int, cohorts: Mapping[str, Cohort]) -> dict[str, int]:
    """Peers per cohort, by name in alphabetical order; they add up to `peers`.

    Raises:
        ValueError: the cohorts hold more or fewer peers than there are, or two of them take the rest.
    """
    names = sorted(cohorts)
    rest = [name for name in names if cohorts[name].share == "rest"]
    if len(rest) > 1:
        raise ValueError(f"{' and '.join(rest)} both take the rest; only one can")
    sizes = {name: count for name in names if (count := cohorts[name].count) is not None}
    shares = {name: share for name in names if isinstance(share := cohorts[name].share, float)}
    total_share = sum(shares.values())
    if total_share > 1 + 1e-9:
        raise ValueError(f"the shares add up to {total_share * 100:.6g} %, more than 100 %")
    sizes |= _largest_remainder(shares, peers)
    left = peers - sum(sizes.values())
    if rest:
        sizes[rest[0]] = left
    if left < 0 or (left > 0 and not rest):
        hint = "" if left < 0 else "; give one of them share: rest"
        raise ValueError(f"the cohorts hold {peers - left} peers, but peers is {peers}{hint}")
    return {name: sizes[name] for name in names}


def _largest_remainder(shares: Mapping[str, float], peers: int) -> dict[str, int]:
    """Whole peers for each share whose sum is the rounded sum of the shares; equal remainders go by name."""
    exact = {name: round(share * peers, 9) for name, share in shares.items()}
    sizes = {name: int(amount) for name, amount in exact.items()}
    missing = int(sum(exact.values()) + 0.5) - sum(sizes.values())
    by_remainder = sorted(exact, key=lambda name: (sizes[name] - exact[name], name))
    return {name: sizes[name] + (name in by_remainder[:missing]) for name in shares}
