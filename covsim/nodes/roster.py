"""The uids of every cohort, past and present. A uid belongs to one peer for ever; a peer may come to have several."""

from __future__ import annotations

from collections.abc import Sequence

from covsim.scenario.population import PeerSpec


class Roster:
    """Deals uids, and remembers whose they are.

    Args:
        specs: the peers of the scenario, by uid.
        first_free: the first uid that is nobody's.
    """

    def __init__(self, specs: Sequence[PeerSpec], first_free: int) -> None:
        self.cohorts: dict[str, tuple[int, ...]] = {}
        self.honest: set[int] = set()
        self.first_uids: dict[int, int] = {}  # of every uid, the one that its peer had first
        self._next = first_free
        for spec in specs:
            self._enter(spec, spec.uid)

    def deal(self, spec: PeerSpec) -> int:
        """A new uid for a peer of the scenario, behind all others."""
        uid, self._next = self._next, self._next + 1
        self._enter(spec, uid)
        return uid

    def _enter(self, spec: PeerSpec, uid: int) -> None:
        self.first_uids[uid] = spec.uid
        self.cohorts[spec.cohort] = (*self.cohorts.get(spec.cohort, ()), uid)
        if spec.behavior.kind == "honest":
            self.honest.add(uid)
