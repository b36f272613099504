"""Turns updates into payload bytes, all those asked for at one instant in one batch.

A batch is only a matter of speed: a row's payload and error buffer are bit-equal whoever shares the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from covsim.learning.trainer import first_of_each_uid
from covsim.learning.update import Update
from covsim.nodes.learning import Exchanges, Trains
from covsim.protocol.base import Claims


@dataclass(eq=False, slots=True)
class Ticket:
    """A request for the payload of one update; without `feedback` it says just that update."""

    round: int
    uid: int
    update: Update
    claims: Claims
    feedback: bool = True
    payload: bytes | None = field(default=None)

    @property
    def kind(self) -> tuple[int, bool]:
        """Tickets of one kind are answered together."""
        return self.round, self.feedback


class Encoder:
    """Keeps open tickets and answers them together."""

    def __init__(self, trainer: Trains, exchange: Exchanges) -> None:
        self._trainer = trainer
        self._exchange = exchange
        self._open: dict[Ticket, None] = {}  # in the order in which they were asked for

    @property
    def idle(self) -> bool:
        """True when no request waits for its payload to be fetched."""
        return not self._open

    def request(self, round: int, uid: int, update: Update, claims: Claims, feedback: bool = True) -> Ticket:
        """Announce that the payload of this update will be needed at this instant."""
        ticket = Ticket(round, uid, update, claims, feedback)
        self.open(ticket)
        return ticket

    def open(self, ticket: Ticket) -> None:
        """Announce that a payload will be needed at this instant."""
        self._open[ticket] = None

    def encode(self, ticket: Ticket) -> bytes:
        """The payload of a ticket; computes all open ones of its round."""
        while ticket.payload is None:
            waiting = [other for other in self._open if other.payload is None and other.kind == ticket.kind]
            # A uid's second payload of an instant sees the error buffer that its first one left.
            self._encode_wave(ticket, first_of_each_uid(waiting)[0])
        return ticket.payload

    def close(self, ticket: Ticket) -> None:
        """The payload was fetched (or read from a tape), or is not wanted any more."""
        del self._open[ticket]

    def settle(self, uid: int, landed: bool) -> None:
        """The upload of a uid's last payload ended: it lies in the store and was on time, or not."""
        if self._exchange.buffers is not None:
            self._exchange.buffers.settle(uid, landed)

    def end_uncounted(self, uid: int) -> None:
        """A round ended in which a uid's history did not move on."""
        if self._exchange.buffers is not None:
            self._exchange.buffers.end_uncounted(uid)

    def forget(self, uid: int) -> None:
        """A uid lost what it had in memory: inner moments and error buffer."""
        self._trainer.forget(uid)
        if self._exchange.buffers is not None:
            self._exchange.buffers.forget(uid)

    def _encode_wave(self, like: Ticket, tickets: Sequence[Ticket]) -> None:
        self._trainer.run_pending()
        uids, claims = [ticket.uid for ticket in tickets], [ticket.claims for ticket in tickets]
        values = [ticket.update.value() for ticket in tickets]
        payloads = self._exchange.encode_values(like.round, uids, values, claims, like.feedback)
        for ticket, payload in zip(tickets, payloads, strict=True):
            ticket.payload = payload
