"""Scripts that go on side by side, begun at one instant, for one who waits until all are done.

They are what a simpy process each and `all_of` over them would be, and their events fall in the same order. But nobody
else waits for one of them, so none needs events of its own to begin and to end with: of a round's events these were a
fifth.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import simpy
from simpy.events import URGENT

from covsim.world.clock import alarm, on_event

Script = Generator[Any, Any, Any]


class SideBySide:
    """Lets scripts go on side by side.

    Args:
        env: the simulation.
        scripts: what yields events, as a process does; they begin after whatever goes on now, in this order.

    Attributes:
        done: fires when the last has ended; at once if there are none.
    """

    def __init__(self, env: simpy.Environment, scripts: Iterable[Script]) -> None:
        self.env = env
        self.done = env.event()
        self._parts = [_Part(self, script) for script in scripts]
        self._left = len(self._parts)
        if self._parts:
            on_event(alarm(env, env.now, URGENT), self._begin)
        else:
            self.done.succeed()

    def interrupt(self) -> None:
        """Throw `simpy.Interrupt` into those that have not ended, after whatever goes on now, in their order."""
        if self._left:
            on_event(alarm(self.env, self.env.now, URGENT), self._interrupt)

    def ended(self) -> None:
        """One of them has."""
        self._left -= 1
        if not self._left:  # said when what is due at this instant already has been; `all_of` says it no sooner
            on_event(alarm(self.env, self.env.now), self._say)

    def _begin(self, begun: simpy.Event) -> None:
        for part in self._parts:
            part.go_on(begun)

    def _say(self, _: simpy.Event) -> None:
        self.done.succeed()

    def _interrupt(self, _: simpy.Event) -> None:
        for part in self._parts:
            part.interrupt()


class _Part:
    """One script, and the event that it waits for; None when it has ended."""

    __slots__ = ("_all", "_script", "_waits_for")

    def __init__(self, all_of_them: SideBySide, script: Script) -> None:
        self._all, self._script = all_of_them, script
        self._waits_for: simpy.Event | None = None

    def go_on(self, event: simpy.Event) -> None:
        """Tell the script of an event, and of those that it then asks for and that have been processed already."""
        waits_for: simpy.Event | None = event
        try:
            while waits_for is not None and waits_for.callbacks is None:
                assert waits_for._ok, "nothing that a script of a node waits for can fail"
                waits_for = self._script.send(waits_for._value)
        except StopIteration:
            waits_for = None
        self._wait(waits_for)

    def interrupt(self) -> None:
        """Throw an interrupt into the script, unless it has ended."""
        waited_for = self._waits_for
        if waited_for is None:
            return
        assert waited_for.callbacks is not None, "it would have gone on"
        waited_for.callbacks.remove(self.go_on)
        try:
            self._wait(self._script.throw(simpy.Interrupt("given up")))
        except StopIteration:
            self._wait(None)

    def _wait(self, event: simpy.Event | None) -> None:
        self._waits_for = event
        if event is None:
            self._all.ended()
        else:
            on_event(event, self.go_on)
