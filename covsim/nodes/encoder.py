"""Turns updates into payload bytes, all those asked for at one instant in one batch.

A batch is only a matter of speed: a row's payload and error buffer are bit-equal whoever shares the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from covsim.learning.trainer import Trainer, first_of_each_uid
from covsim.learning.update import Update
from covsim.protocol.sparseloco import ErrorFeedback


@dataclass(eq=False)
class Ticket:
    """A request for the payload of one update."""

    uid: int
    update: Update
    payload: bytes | None = field(default=None)


class Encoder:
    """Keeps open tickets and answers them together."""

    def __init__(self, trainer: Trainer, feedback: ErrorFeedback) -> None:
        self._trainer = trainer
        self._feedback = feedback
        self._open: list[Ticket] = []

    @property
    def idle(self) -> bool:
        """True when no request waits for its payload to be fetched."""
        return not self._open

    def request(self, uid: int, update: Update) -> Ticket:
        """Announce that the payload of this update will be needed at this instant."""
        ticket = Ticket(uid, update)
        self._open.append(ticket)
        return ticket

    def encode(self, ticket: Ticket) -> bytes:
        """The payload of a ticket; computes all open ones."""
        while ticket.payload is None:
            # A uid's second payload of an instant sees the error buffer that its first one left.
            self._encode_wave(first_of_each_uid([other for other in self._open if other.payload is None])[0])
        return ticket.payload

    def close(self, ticket: Ticket) -> None:
        """The payload was fetched (or read from a tape)."""
        self._open.remove(ticket)

    def _encode_wave(self, tickets: Sequence[Ticket]) -> None:
        self._trainer.run_pending()
        rows = torch.stack([ticket.update.value() for ticket in tickets])  # [P, N]
        payloads = self._feedback.encode_many([ticket.uid for ticket in tickets], rows)
        for ticket, payload in zip(tickets, payloads, strict=True):
            ticket.payload = payload
