"""A peer's body that takes no time: it writes down what a script asks for, with the arithmetic of real updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covsim.behaviors import Behavior
from covsim.behaviors.base import Verb
from covsim.learning.update import Scalar, Update
from covsim.randomness import Streams

TRAINED = torch.tensor([3.0, -4.0, 0.5, 0.0, 1.0, -2.0])
"""What training comes to, whatever the batches."""

N = len(TRAINED)


@dataclass(frozen=True)
class Named:
    """Batches by what was done to them."""

    name: str

    def flipped(self) -> Named:
        return Named(f"{self.name}, flipped")

    def poisoned(self, trigger: bytes, target: bytes, share: float) -> Named:
        return Named(f"{self.name}, {trigger!r} to {target!r} in {share:g}")


class StandIn:
    """One round of a peer.

    Args:
        round: which one.
        uid: who it is.
        fellows: its cohort; itself alone by default.
        listed: the gather list.
        others: what others are about to submit [K, N].
        payloads: what `payloads_of_others` and, by uid, `download` bring; what is no text of numbers cannot be read.
        told: what fellows have told, by key.
        change: how theta last changed [N].
        pay: the incentive.
        luck: what every `chance` is.
        notes: what it remembers, changed by the script.
    """

    inner_steps = 30

    def __init__(
        self,
        round: int = 0,
        uid: int = 5,
        fellows: Sequence[int] = (),
        listed: Sequence[int] = (),
        others: Tensor | None = None,
        payloads: Mapping[int, bytes] | None = None,
        told: Mapping[str, Any] | None = None,
        change: Tensor | None = None,
        pay: float = 0.0,
        luck: float = 0.0,
        notes: dict[str, Any] | None = None,
    ) -> None:
        self.round, self.uid, self.fellows = round, uid, tuple(fellows or (uid,))
        self.notes = {} if notes is None else notes
        self.calls: list[Any] = []
        self.said: dict[str, Any] = {}
        self._listed, self._others, self._payloads = listed, others, payloads or {}
        self._told, self._pay, self._luck = told or {}, pay, luck
        self._change = torch.zeros(N) if change is None else change

    @property
    def verbs(self) -> list[str]:
        """The names of the verbs that cost time, in order."""
        return [call if isinstance(call, str) else call[0] for call in self.calls]

    @property
    def submitted(self) -> Tensor:
        """The one update [N] that was submitted or encoded."""
        [update] = {id(call[1]): call[1] for call in self.calls if call[0] in ("submit", "encode")}.values()
        return update.value().clone()

    def play(self, behavior: Behavior) -> StandIn:
        """A whole round of a behavior; it must end before long."""
        script = behavior.play_round(self)
        for _ in range(1000):
            if next(script, "over") == "over":
                return self
        raise AssertionError(f"{behavior.kind} does not end its round")

    # What is free

    def chance(self, name: str) -> float:
        return self._luck

    def noise(self, scale: float, name: str = "noise") -> Update:
        return Update.of(scale * torch.randn(N, generator=Streams(1).torch(name, self.uid, self.round)))

    def last_change(self, rounds: int = 1) -> Update:
        return Update.of(rounds * self._change)

    def incentive(self) -> float:
        return self._pay

    def combine(self, updates: Sequence[Update], function: Callable[[Tensor], Tensor]) -> Update:
        return Update(lambda: function(torch.stack([update.value() for update in updates])))

    def read(self, payload: bytes) -> Update | None:
        return None if b"?" in payload else Update.of(torch.tensor([float(word) for word in payload.split()]))

    def forge(self, payload: bytes, flaw: str) -> bytes:
        return payload + flaw.encode()

    def show_sample_of(self, uid: int) -> None:
        self.calls.append(("show_sample_of", uid))

    def tell(self, key: str, value: Any) -> None:
        self.said[key] = value

    def assigned_batches(self) -> Named:
        return Named("assigned")

    def random_batches(self) -> Named:
        return Named("random")

    def expected_batches(self) -> Named:
        return Named("expected")

    def gather_list(self) -> Sequence[int]:
        return self._listed

    def observe(self, scalar: Scalar) -> float:
        return scalar.value()

    # What costs time

    def train(self, batches: Named, steps: int | None = None, rounds_behind: int = 0) -> Verb[Update]:
        yield from self._note("train", batches.name, steps, rounds_behind)
        return Update.of(TRAINED)

    def wait_for_uploads(self) -> Verb[None]:
        yield from self._note("wait_for_uploads")

    def pause(self, seconds: float) -> Verb[None]:
        yield from self._note("pause", seconds)

    def submit(self, update: Update, early: bool = False) -> Verb[None]:
        yield from self._note("submit", update, early)

    def encode(self, update: Update) -> Verb[bytes]:
        yield from self._note("encode", update)
        return text_of(update.value())

    def submit_payload(self, payload: bytes, early: bool = False) -> Verb[None]:
        yield from self._note("submit_payload", payload)

    def put(self, name: str, payload: bytes) -> Verb[None]:
        yield from self._note("put", name, payload)

    def payloads_of_others(self, most: int, until_share: float = 0.5) -> Verb[Sequence[bytes]]:
        yield from self._note("payloads_of_others", most, until_share)
        return list(self._payloads.values())[:most]

    def updates_of_others(self) -> Verb[Sequence[Update]]:
        yield from self._note("updates_of_others")
        return [] if self._others is None else [Update.of(row) for row in self._others]

    def heard(self, key: str) -> Verb[Any]:
        yield from self._note("heard", key)
        return self._told.get(key)

    def register_again(self) -> Verb[None]:
        yield from self._note("register_again")

    def first_arrival(self, among: Iterable[int]) -> Verb[int | None]:
        yield from self._note("first_arrival")
        return next((uid for uid in among if uid in self._payloads), None)

    def download(self, uid: int) -> Verb[bytes | None]:
        yield from self._note("download", uid)
        return self._payloads.get(uid)

    def sync(self) -> Verb[None]:
        yield from self._note("sync")

    def _note(self, verb: str, *arguments: Any) -> Verb[None]:
        place = len(self.calls)
        self.calls.append(f"{verb} begins")
        yield
        # A script that does not use `yield from` leaves the verb begun, or not even that.
        self.calls[place] = (verb, *arguments) if arguments else verb


def text_of(vector: Tensor) -> bytes:
    """A payload that `read` reads."""
    return b" ".join(repr(value).encode() for value in vector.tolist())
