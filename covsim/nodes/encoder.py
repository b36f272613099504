"""Turns updates into payload bytes, all those asked for at one instant in one batch.

A batch is only a matter of speed: a row's payload and error buffer are bit-equal whoever shares the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from covsim.learning.trainer import Trainer, first_of_each_uid
from covsim.learning.update import Update
from covsim.protocol.base import Claims
from covsim.protocol.exchange import Exchange


@dataclass(eq=False)
class Ticket:
    """A request for the payload of one update."""

    round: int
    uid: int
    update: Update
    claims: Claims
    payload: bytes | None = field(default=None)


class Encoder:
    """Keeps open tickets and answers them together."""

    def __init__(self, trainer: Trainer, exchange: Exchange) -> None:
        self._trainer = trainer
        self._exchange = exchange
        self._open: list[Ticket] = []

    @property
    def idle(self) -> bool:
        """True when no request waits for its payload to be fetched."""
        return not self._open

    def request(self, round: int, uid: int, update: Update, claims: Claims) -> Ticket:
        """Announce that the payload of this update will be needed at this instant."""
        ticket = Ticket(round, uid, update, claims)
        self._open.append(ticket)
        return ticket

    def encode(self, ticket: Ticket) -> bytes:
        """The payload of a ticket; computes all open ones of its round."""
        while ticket.payload is None:
            waiting = [other for other in self._open if other.payload is None and other.round == ticket.round]
            # A uid's second payload of an instant sees the error buffer that its first one left.
            self._encode_wave(ticket.round, first_of_each_uid(waiting)[0])
        return ticket.payload

    def close(self, ticket: Ticket) -> None:
        """The payload was fetched (or read from a tape)."""
        self._open.remove(ticket)

    def settle(self, uid: int, landed: bool) -> None:
        """The upload of a uid's last payload ended: it lies in the store and was on time, or not."""
        if self._exchange.buffers is not None:
            self._exchange.buffers.settle(uid, landed)

    def _encode_wave(self, round: int, tickets: Sequence[Ticket]) -> None:
        self._trainer.run_pending()
        rows = torch.stack([ticket.update.value() for ticket in tickets])  # [P, N]
        claims = [ticket.claims for ticket in tickets]
        payloads = self._exchange.encode(round, [ticket.uid for ticket in tickets], rows, claims)
        for ticket, payload in zip(tickets, payloads, strict=True):
            ticket.payload = payload
