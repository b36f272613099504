"""What single peer behaviors ask of their body: the batches, the steps and the theta that they train from."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from covsim.behaviors import DataHog, Desynced, Honest, Lazy, WrongShard
from covsim.behaviors.base import Behavior, Verb


class Recorder:
    """A peer's body that takes no time and writes down how it is made to train, and what follows."""

    inner_steps = 30

    def __init__(self) -> None:
        self.trained: list[tuple[Any, int | None, int]] = []
        self.calls: list[Any] = []

    def assigned_batches(self) -> str:
        return "assigned"

    def random_batches(self) -> str:
        return "random"

    def train(self, batches: Any, steps: int | None = None, rounds_behind: int = 0) -> Verb[Any]:
        yield
        self.trained.append((batches, steps, rounds_behind))
        return "an update"

    def submit(self, update: Any) -> Verb[None]:
        yield
        self.calls.append(("submit", update))

    def sync(self) -> Verb[None]:
        yield
        self.calls.append("sync")


@pytest.mark.parametrize(
    ("behavior", "trained"),
    [
        (Honest(), ("assigned", None, 0)),
        (WrongShard(), ("random", None, 0)),
        (DataHog(), ("assigned", 60, 0)),
        (DataHog(factor=1.55), ("assigned", 46, 0)),
        (Lazy(share=0.01), ("assigned", 1, 0)),
        (Desynced(), ("assigned", None, 3)),
        (Desynced(rounds_behind=7), ("assigned", None, 7)),
    ],
    ids=repr,
)
def test_trains_its_way_and_then_does_as_everybody_does(behavior: Behavior, trained: tuple[Any, ...]) -> None:
    body = Recorder()
    for _ in behavior.play_round(body):  # type: ignore[arg-type]
        pass
    assert body.trained == [trained]
    assert body.calls == [("submit", "an update"), "sync"]


@pytest.mark.parametrize(("part", "settings"), [(DataHog, {"factor": 0.5}), (Desynced, {"rounds_behind": 0})])
def test_settings_that_say_nothing_are_refused(part: type[Behavior], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        part(**settings)
