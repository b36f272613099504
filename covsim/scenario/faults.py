"""The `faults:` section: how its entries are called, what they may name, and when the chain rests for them.

The parts themselves are in `covsim.world`: `faults` says what a fault is, `link_faults`, `store_faults`,
`node_faults` and `chain_faults` hold the kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from covsim.registry import did_you_mean
from covsim.world import chain_faults, link_faults, node_faults, store_faults  # noqa: F401  # they register the kinds
from covsim.world.faults import Fault


class Misplaced(ValueError):
    """A fault that does not fit the rest of the scenario; `path` is the key to look at first."""

    def __init__(self, message: str, *path: Any) -> None:
        super().__init__(message)
        self.path = path


def labels(faults: Sequence[Fault]) -> list[str]:
    """How each is called in events and the summary: its name or its kind, numbered from the second of a kind on."""
    seen: Counter[str] = Counter()
    called = []
    for fault in faults:
        label = fault.name or fault.kind
        seen[label] += 1
        called.append(label if seen[label] == 1 else f"{label}-{seen[label]}")
    return called


def check_faults(
    faults: Sequence[Fault], peers: int, regions: Mapping[str, str | None], validators: Collection[str]
) -> None:
    """Do nothing if all that the faults name is there.

    Args:
        faults: the section.
        peers: how many there are.
        regions: by cohort, the region it is in.
        validators: their names.

    Raises:
        Misplaced: something is not there; the message suggests the nearest.
    """
    called = labels(faults)
    for position, fault in enumerate(faults):
        here = ("faults", position)
        if called[position] in called[:position]:
            raise Misplaced(f"two faults are called {called[position]!r}", *here, "name")
        if fault.uids is not None and max(fault.uids) >= peers:
            last = peers - 1
            message = f"uid {max(fault.uids)} does not exist; {peers} peers have the uids 0 to {last}"
            raise Misplaced(message, *here, "uids")
        _check_name(fault.cohort, regions, "cohort", (*here, "cohort"))
        known = {region for region in regions.values() if region is not None}
        _check_name(fault.region, known, "region", (*here, "region"))
        for name in getattr(fault, "validators", None) or ():
            _check_name(name, validators, "validator", (*here, "validators"))


def _check_name(name: str | None, known: Collection[str], noun: str, path: tuple[str | int, ...]) -> None:
    if name is not None and name not in known:
        raise Misplaced(f"no {noun} is called {name!r}{did_you_mean(name, known)}", *path)
