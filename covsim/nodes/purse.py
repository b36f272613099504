"""What every peer spends and earns, round by round: an observer of the run's events, at the scenario's prices.

Compute is booked to the round it was done for, a transfer and a registration to the round whose window they ended in,
tokens to the round whose window the epoch ended in, at that round's price.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from covsim.chain.economics import EconomicsSettings
from covsim.events import EpochSettled, Event, Exchanged, Registered, Trained, Transferred, WindowOpened

_PEER = "peer:"


@dataclass(slots=True)
class Account:
    """One peer in one round: seconds of compute, bytes as charged, tokens paid for a slot, tokens earned."""

    compute_s: float = 0.0
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    registration: float = 0.0
    earned: float = 0.0


@dataclass
class Purses:
    """The accounts of all peers.

    Args:
        prices: the `economics:` section.
        planned_rounds: what a series of token prices is laid over.
    """

    prices: EconomicsSettings
    planned_rounds: int
    accounts: dict[int, dict[int, Account]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Account)))
    _prices: dict[int, float] = field(default_factory=dict)  # of a token, by round; asked for by every peer
    _round: int = 0
    _of_nodes: dict[str, Account] = field(default_factory=dict)  # in the present round, of those that moved something

    def observe(self, event: Event) -> None:
        """Book an event, if it costs or pays a peer something."""
        for take in self.takers(type(event)):
            take(event)

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What books events of a type."""
        notes: dict[type[Event], Callable[[Any], None]] = {
            Transferred: self._transferred,
            Exchanged: self._exchanged,
            Trained: self._trained,
            WindowOpened: self._opened,
            Registered: self._registered,
            EpochSettled: self._paid,
        }
        return [notes[kind]] if kind in notes else []

    def take_rows(self, kind: type[Event], columns: Sequence[Sequence[Any]]) -> None:
        """Book events of one kind, all of the present window, given by their fields."""
        if kind is Trained:
            _, uids, rounds, _, _, seconds = columns
            for uid, round, compute_s in zip(uids, rounds, seconds, strict=True):
                self.accounts[uid][round].compute_s += compute_s
        elif kind is Transferred:
            _, nodes, _, _, directions, sizes, _, _ = columns
            for node, direction, num_bytes in zip(nodes, directions, sizes, strict=True):
                self._move(node, direction, num_bytes)

    def _transferred(self, event: Transferred) -> None:
        self._move(event.node, event.direction, event.num_bytes)

    def _move(self, node: str, direction: str, num_bytes: float) -> None:
        if not node.startswith(_PEER):
            return
        account = self._of_nodes.get(node) or self._of_node(node)
        if direction == "up":
            account.up_bytes += num_bytes
        else:
            account.down_bytes += num_bytes

    def _exchanged(self, event: Exchanged) -> None:
        account = self._of_node(event.node)
        account.up_bytes += event.bytes_up
        account.down_bytes += event.bytes_down

    def _trained(self, event: Trained) -> None:
        self.accounts[event.uid][event.round].compute_s += event.compute_s

    def _opened(self, event: WindowOpened) -> None:
        self._round = max(0, event.window - 1)
        self._of_nodes.clear()

    def _registered(self, event: Registered) -> None:
        if event.uid >= 0:
            self._now(event.uid).registration += event.cost

    def _paid(self, event: EpochSettled) -> None:
        for uid, tokens in event.paid:
            self._now(uid).earned += tokens

    def price(self, round: int) -> float:
        """What a token is worth in a round."""
        return self.prices.price(round, self.planned_rounds)

    def balance(self, uid: int, round: int) -> tuple[float, float]:
        """What a peer spent in a round, in the currency of the prices, and what its tokens are worth beyond that."""
        account, price = self.accounts[uid][round], self._prices.get(round)
        if price is None:
            price = self._prices[round] = self.price(round)
        work = self.prices.cost(account.compute_s, account.up_bytes, account.down_bytes)
        cost = work + account.registration * price
        return cost, account.earned * price - cost

    def profits(self, uid: int, rounds: Sequence[int]) -> list[float]:
        """The profit of each of some rounds."""
        return [self.balance(uid, round)[1] for round in rounds]

    def earned(self, uid: int) -> float:
        """Tokens over the whole run."""
        return sum(account.earned for account in self.accounts[uid].values())

    def _of_node(self, node: str) -> Account:
        account = self._of_nodes[node] = self._now(int(node[len(_PEER) :]))
        return account

    def _now(self, uid: int) -> Account:
        return self.accounts[uid][self._round]
