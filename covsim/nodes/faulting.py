"""Puts the faults of a scenario to work: begins and ends their strikes on the clock, and lets validators sit out.

A strike begins and ends before all else of its instant, so it is half open like a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Literal

from pydantic import PrivateAttr
from simpy.events import URGENT

from covsim.behaviors.base import Script, ValidatorBehavior, ValidatorVerbs
from covsim.events import FaultBegan, FaultEnded, StoreClockSet
from covsim.nodes.commons import Commons
from covsim.nodes.fault_verbs import Verbs
from covsim.nodes.peer import Peer
from covsim.scenario.strikes import Strike, Strikes
from covsim.world.clock import alarm, on_event
from covsim.world.faults import Harm
from covsim.world.links import LinkRates


class Faulting:
    """What breaks in a run.

    Args:
        commons: the store, the clock and the rest.
        rates: of the links, which faults change.
        strikes: of the scenario's faults.
        peers: everybody who may be struck.
    """

    def __init__(self, commons: Commons, rates: LinkRates, strikes: Strikes, peers: Sequence[Peer]) -> None:
        self._commons, self._strikes = commons, strikes
        self._verbs = Verbs(commons, rates, {f"peer:{peer.spec.uid}": peer for peer in peers})
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap by time, then in the order of setting
        self._num_due = 0
        self._ends_with: dict[int, list[Callable[[], None]]] = {}  # by the window with which strikes end
        self._clock_ahead_s = 0.0  # of the store, as announced
        commons.chain.reachable = self._verbs.is_reachable
        for strike in strikes.foreseen():
            self._take_up(strike)
        commons.clock.on_open(self._window_opened)

    def behavior_of(self, label: str, behavior: ValidatorBehavior) -> ValidatorBehavior:
        """A validator's script, which it does not follow while a fault keeps it away."""
        return Interrupted.of(behavior, lambda: self._verbs.is_away(f"validator:{label}"))

    def _window_opened(self, window: int) -> None:
        """The faults of this instant come before those who wait for the window, and ends before beginnings."""
        for end in self._ends_with.pop(window, ()):
            end()
        for strike in self._strikes.in_window(window):
            self._take_up(strike)
        self._run_due()

    def _take_up(self, strike: Strike) -> None:
        self._at(strike.begins_s, lambda: self._begin(strike))

    def _begin(self, strike: Strike) -> None:
        now_s, kind = self._commons.env.now, strike.fault.kind
        self._commons.emit(FaultBegan(now_s, strike.label, kind, self._verbs.names_now(strike.nodes), strike.ends_s))
        harm = strike.fault.harm(self._verbs, strike.nodes)
        if strike.until_window is None:
            self._at(strike.ends_s, lambda: self._end(strike, harm))
        else:
            self._ends_with.setdefault(strike.until_window, []).append(lambda: self._end(strike, harm))
        self._go_on(strike, harm)

    def _go_on(self, strike: Strike, harm: Harm) -> None:
        """Let a fault's script run to its next wait."""
        with self._working():
            waits_s = next(harm, math.inf)
        at_s = self._commons.env.now + waits_s
        if at_s < strike.ends_s:
            self._at(at_s, lambda: self._go_on(strike, harm))

    def _end(self, strike: Strike, harm: Harm) -> None:
        with self._working():
            harm.close()
        now_s, kind = self._commons.env.now, strike.fault.kind
        self._commons.emit(FaultEnded(now_s, strike.label, kind, self._verbs.names_now(strike.nodes)))

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Let part of a script run, and announce what it has made of the store's clock."""
        self._verbs.at_work = True
        try:
            yield
        finally:
            self._verbs.at_work = False
        ahead_s = self._commons.store.conditions.clock_ahead_s
        if ahead_s != self._clock_ahead_s:
            self._clock_ahead_s = ahead_s
            self._commons.emit(StoreClockSet(self._commons.env.now, ahead_s))

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a time, before most else of its instant."""
        self._num_due += 1
        heappush(self._due, (time_s, self._num_due, action))
        on_event(alarm(self._commons.env, time_s, URGENT), lambda _: self._run_due())

    def _run_due(self) -> None:
        while self._due and self._due[0][0] <= self._commons.env.now:
            heappop(self._due)[2]()


class Interrupted(ValidatorBehavior):
    """A validator's own script, but for the rounds in which it is away; back again, it catches up first.

    No part of a scenario: a fault turns a validator's behavior into this.
    """

    kind: Literal["interrupted"] = "interrupted"
    behavior: ValidatorBehavior
    _is_away: Callable[[], bool] = PrivateAttr()
    _was_away: bool = PrivateAttr(default=False)

    @staticmethod
    def of(behavior: ValidatorBehavior, is_away: Callable[[], bool]) -> Interrupted:
        """A behavior, and the question whether a round that begins is sat out."""
        interrupted = Interrupted.model_construct(behavior=behavior)
        interrupted._is_away = is_away
        return interrupted

    def play_round(self, validator: ValidatorVerbs) -> Script:
        if self._is_away():
            self._was_away = True
            yield from validator.sit_out()
            return
        if self._was_away:
            self._was_away = False
            yield from validator.catch_up()
        yield from self.behavior.play_round(validator)
