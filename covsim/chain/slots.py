"""Slots: who has a place on the chain, and whose place a newcomer takes when none is free."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Holder:
    """Who has a slot, since which height, and what incentive the last epoch gave it."""

    slot: int
    public: str
    name: str
    role: str
    stake: float
    registered_at: int
    incentive: float = 0.0


@dataclass
class Slots:
    """The places of a chain.

    Args:
        limit: how many there are.
        immunity: blocks for which a newcomer keeps its place whatever happens.
    """

    limit: int
    immunity: int
    holders: dict[int, Holder] = field(default_factory=dict)
    num_given: int = 0  # how often a slot changed hands
    _slot_of: dict[str, int] = field(default_factory=dict)

    def of(self, public: str) -> Holder | None:
        """The holder with this public key, or None."""
        slot = self._slot_of.get(public)
        return None if slot is None else self.holders[slot]

    def place_for(self, height: int) -> int | None:
        """A free slot, else that of the peer to be replaced, else None."""
        if len(self.holders) < self.limit:
            return len(self.holders)
        lowest = min(
            (holder for holder in self.holders.values() if self._replaceable(holder, height)),
            key=lambda holder: (holder.incentive, holder.registered_at, holder.slot),
            default=None,
        )
        return None if lowest is None else lowest.slot

    def give(self, holder: Holder) -> None:
        """Let somebody have a slot; whoever held it has none from then on."""
        before = self.holders.get(holder.slot)
        if before is not None:
            del self._slot_of[before.public]
        self.holders[holder.slot] = holder
        self._slot_of[holder.public] = holder.slot
        self.num_given += 1

    @property
    def owner(self) -> Holder | None:
        """Whose incentive is burned."""
        return next((holder for holder in self.holders.values() if holder.role == "owner"), None)

    @property
    def validators(self) -> list[Holder]:
        """By slot."""
        return [holder for _, holder in sorted(self.holders.items()) if holder.role == "validator"]

    def _replaceable(self, holder: Holder, height: int) -> bool:
        return holder.role == "peer" and height - holder.registered_at >= self.immunity
