"""Error feedback: what compression leaves out of a peer's updates is not lost, it is carried over.

a  = decay e + Delta              accumulate
e' = a - hatD                     hatD is what was sent
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from covsim.registry import Part


class ErrorFeedback(Part):
    """Whether and how what was left out is carried over."""

    decay: float = Field(default=0.95, ge=0, le=1, description="beta: what the error buffer keeps per round")
    commit: Literal["compressed", "landed"] = Field(
        default="compressed",
        description="when what was sent leaves the buffer: as it is compressed, or once its upload was on time",
    )
    uncounted: Literal["kept", "zeroed"] = Field(
        default="kept", description="what becomes of the buffer in a round of which nothing entered theta"
    )


class ErrorBuffers:
    """The error buffers e of all uids, in the coordinates of theta.

    Args:
        rule: decay, and when a buffer gives up what was sent.
    """

    def __init__(self, rule: ErrorFeedback) -> None:
        self._rule = rule
        self._buffers: dict[int, Tensor] = {}
        self._unsettled: dict[int, Tensor] = {}  # a of uids whose upload is under way

    def accumulate(self, uids: Sequence[int], pseudo_gradients: Tensor, where: Tensor | None = None) -> Tensor:
        """a = beta e + Delta [P, n] for the coordinates `where` [n] of theta; e is 0 before a peer's first payload."""
        accumulated = pseudo_gradients.clone()
        for row, uid in enumerate(uids):
            if uid in self._buffers:
                buffer = self._buffers[uid]
                accumulated[row] += self._rule.decay * (buffer if where is None else buffer[where])
        return accumulated

    def keep(
        self, uids: Sequence[int], accumulated: Tensor, sent: Tensor, num_parameters: int, where: Tensor | None = None
    ) -> None:
        """e' = a - hatD, for a and hatD [P, n] at the coordinates `where` [n] of N."""
        for uid, row, left_out in zip(uids, accumulated, accumulated - sent, strict=True):
            if self._rule.commit == "landed":
                self._unsettled[uid] = self._placed(uid, row, num_parameters, where)
            self._buffers[uid] = self._placed(uid, left_out, num_parameters, where)

    def settle(self, uid: int, landed: bool) -> None:
        """An upload of this uid ended; if it came to nothing, its buffer has all of a again where the rule says so."""
        accumulated = self._unsettled.pop(uid, None)
        if accumulated is not None and not landed:
            self._buffers[uid] = accumulated

    def end_uncounted(self, uid: int) -> None:
        """A round of this uid ended in which theta stayed where it was."""
        if self._rule.uncounted == "zeroed":
            self.forget(uid)

    def forget(self, uid: int) -> None:
        """A uid lost its buffer, as in a crash."""
        self._buffers.pop(uid, None)
        self._unsettled.pop(uid, None)

    def buffer(self, uid: int) -> Tensor | None:
        """The error buffer of a uid [N]; None before its first payload."""
        return self._buffers.get(uid)

    def state(self) -> dict[str, dict[int, Tensor]]:
        """Copies of all buffers; each in memory of its own, while those kept here may be rows of a batch."""
        kept = {"buffers": self._buffers, "unsettled": self._unsettled}
        return {name: {uid: row.clone() for uid, row in rows.items()} for name, rows in kept.items()}

    def restore(self, state: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Put back what `state` gave."""
        self._buffers, self._unsettled = dict(state["buffers"]), dict(state["unsettled"])

    def _placed(self, uid: int, row: Tensor, num_parameters: int, where: Tensor | None) -> Tensor:
        """The buffer of a uid with new values [n] at some coordinates; the others stay as they are."""
        if where is None:
            return row
        before = self._buffers.get(uid)
        whole = row.new_zeros(num_parameters) if before is None else before.clone()
        whole[where] = row
        return whole
