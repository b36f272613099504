"""Error buffers that are named and not there: what of an earlier run's buffers a run of lookups has to know."""

from __future__ import annotations

from typing import Any

from covsim.nodes.formula import digest
from covsim.protocol.error_feedback import ErrorFeedback


class RecordedBuffers:
    """Error buffers by their histories."""

    def __init__(self, rule: ErrorFeedback) -> None:
        self._rule = rule
        self.history: dict[int, str] = {}
        self._unsettled: dict[int, str] = {}

    def move_on(self, uid: int, sent: str) -> None:
        """A payload was encoded; `sent` names it and the buffer that it met."""
        if self._rule.commit == "landed":
            self._unsettled[uid] = digest("not landed", sent)
        self.history[uid] = sent

    def settle(self, uid: int, landed: bool) -> None:
        accumulated = self._unsettled.pop(uid, None)
        if accumulated is not None and not landed:
            self.history[uid] = accumulated

    def end_uncounted(self, uid: int) -> None:
        if self._rule.uncounted == "zeroed":
            self.forget(uid)

    def forget(self, uid: int) -> None:
        self.history.pop(uid, None)
        self._unsettled.pop(uid, None)

    def state(self) -> dict[str, Any]:
        raise AssertionError("a retimed run has no checkpoints")

    def restore(self, state: Any, /) -> None:
        raise AssertionError("a retimed run has no checkpoints")
