"""Faults done to real things: processes are killed, links slowed and cut, the store refuses or goes by a wrong clock.

The values and their strikes are those of a simulation. There a fault comes before all else of its instant; here it is
done a moment early, so that it is there when nodes act, and bears the time that it should have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from covsim.emulation.supervisor import Supervisor, link_name
from covsim.events import FaultBegan, FaultEnded, PeerCrashed, StoreClockSet
from covsim.scenario import Scenario
from covsim.scenario.strikes import Strike, Strikes, timeline_with_faults
from covsim.world.clock import alarm
from covsim.world.conditions import Damage, Direction
from covsim.world.faults import Targets

Hold = AbstractContextManager[None]

EARLY_S = 0.15
"""Wall seconds by which a fault is ahead of its time."""

DONE = frozenset(
    {
        *("bad_shard", "chain_stall", "clock_skew", "crash", "flapping", "late_block", "link_cut", "link_slow"),
        *("nan_batch", "partition", "region_failure", "store_outage", "validator_offline"),
    }
)
"""The kinds of faults that can be done to real things."""

OF_LINKS = frozenset({"flapping", "link_cut", "link_slow"})
"""Those that take hold of links, which must be shaped for it."""


def fault_problems(scenario: Scenario, links: str) -> Iterator[str]:
    """Which of a scenario's faults cannot be done with links of a kind."""
    for fault in scenario.faults:
        if fault.kind not in DONE:
            yield f"fault {fault.kind} is not emulated; there are {', '.join(sorted(DONE))}"
        if fault.kind in OF_LINKS and links == "open":
            yield f"fault {fault.kind} needs links that are shaped: emulation.links: kernel or user"
        if fault.kind in ("link_cut", "flapping") and getattr(fault, "direction", "both") != "both":
            yield f"fault {fault.kind} cuts real links both ways; leave direction out"
        if fault.strikes == "store" and scenario.emulation.store != "local":
            yield f"fault {fault.kind} is done to the store, which must be a local one"


class Striking:
    """Puts the faults of a scenario to work.

    Args:
        supervisor: of the run; its clock is not set yet.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor, self._env = supervisor, supervisor.driver.env
        self._clock = timeline_with_faults(supervisor.scenario).clock(self._env)
        self._strikes = Strikes(supervisor.scenario, self._clock.opens_at)
        self._verbs = RealVerbs(supervisor)

    def begin(self) -> None:
        """The clock is set: take up what is foreseen, and what windows bring."""
        for strike in self._strikes.foreseen():
            self._env.process(self._strike(strike))
        self._window_opened(0)
        self._clock.on_open(lambda window: self._window_opened(window + 1))

    def _window_opened(self, window: int) -> None:
        """Draw what strikes in a window, one window before."""
        for strike in self._strikes.in_window(window):
            self._env.process(self._strike(strike))

    def _strike(self, strike: Strike) -> Any:
        supervisor, fault = self._supervisor, strike.fault
        yield self._early(strike.begins_s)
        self._verbs.at_s = strike.begins_s
        supervisor.take(FaultBegan(strike.begins_s, strike.label, fault.kind, tuple(strike.nodes), strike.ends_s))
        harm = fault.harm(self._verbs, strike.nodes)
        at_s = strike.begins_s + next(harm, math.inf)
        while at_s < strike.ends_s:
            yield self._early(at_s)
            self._verbs.at_s = at_s
            at_s += next(harm, math.inf)
        yield self._early(strike.ends_s)
        self._verbs.at_s = strike.ends_s
        harm.close()
        supervisor.take(FaultEnded(strike.ends_s, strike.label, fault.kind, tuple(strike.nodes)))

    def _early(self, time_s: float) -> Any:
        ahead_s = EARLY_S / self._supervisor.scenario.emulation.seconds_per_second
        return alarm(self._env, max(self._env.now, time_s - ahead_s))


class RealVerbs:
    """The verbs of `world.faults.FaultVerbs`.

    Attributes:
        at_s: the simulated second at which what is done now should be done.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.at_s = 0.0
        self._supervisor = supervisor
        self._factors: dict[tuple[str, Direction], list[float]] = {}
        self._cut: set[str] = set()  # links
        self._cut_off: Counter[str] = Counter()  # links, by partitions
        self._down: Counter[str] = Counter()
        self._away: Counter[str] = Counter()
        self._ahead_s: list[float] = []
        self._num_outages = 0

    def slowed(self, nodes: Targets, directions: Collection[Direction], factor: float) -> Hold:
        def change(what: Callable[[list[float]], None]) -> None:
            for node in nodes:
                for direction in directions:
                    what(self._factors.setdefault((node, direction), []))
                self._set_link(node)

        return _held(
            lambda: change(lambda factors: factors.append(factor)),
            lambda: change(lambda factors: factors.remove(factor)),
        )

    def cut_off(self, nodes: Targets, directions: Collection[Direction]) -> Hold:
        both = len(set(directions)) == 2

        def tell(is_cut: bool) -> None:
            for node in nodes:
                self._supervisor.push(node, "cut_off", sorted(directions), is_cut)
                if "up" in directions:
                    self._supervisor.caller.call("chain.set_unreachable", node, is_cut)
                if both:
                    self._cut_off[node] += 1 if is_cut else -1
                    self._set_link(node)

        return _held(lambda: tell(True), lambda: tell(False))

    def crashed(self, nodes: Targets) -> Hold:
        def crash() -> None:
            for node in nodes:
                self._down[node] += 1
                if self._down[node] == 1:
                    self._kill(node)
                    self._supervisor.prepare(node)

        def come_back() -> None:
            for node in nodes:
                self._down[node] -= 1
                if not self._down[node]:
                    self._supervisor.bring_back(node)

        return _held(crash, come_back)

    def restarted_after(self, nodes: Targets) -> Hold:
        def prepare() -> None:
            for node in nodes:
                self._supervisor.prepare(node)

        def restart() -> None:
            for node in nodes:
                if not self._down[node]:
                    self._kill(node)
                    self._supervisor.bring_back(node)

        return _held(prepare, restart)

    def away(self, validators: Targets) -> Hold:
        def tell(by: int) -> None:
            for node in validators:
                self._away[node] += by
                self._supervisor.push(node, "away", self._away[node] > 0)

        return _held(lambda: tell(1), lambda: tell(-1))

    def spoiled_training(self, nodes: Targets, mishap: Literal["nan", "wrong_shard"]) -> Hold:
        def tell(begins: bool) -> None:
            for node in nodes:
                self._supervisor.push(node, "mishap", mishap, begins)

        return _held(lambda: tell(True), lambda: tell(False))

    def store_down(self) -> Hold:
        def change(by: int) -> None:
            self._num_outages += by
            self._supervisor.processes["store"].order(down=self._num_outages > 0)

        return _held(lambda: change(1), lambda: change(-1))

    def store_clock(self, ahead_s: float) -> Hold:
        def change(what: Callable[[float], None]) -> None:
            what(ahead_s)
            ahead = sum(self._ahead_s)
            scale = self._supervisor.scenario.emulation.seconds_per_second
            self._supervisor.processes["store"].order(ahead_s=ahead * scale)
            self._supervisor.take(StoreClockSet(self.at_s, ahead))

        return _held(lambda: change(self._ahead_s.append), lambda: change(self._ahead_s.remove))

    def renamed(self, nodes: Targets, version: str) -> Hold:
        raise AssertionError("a scenario with it is refused")

    def damaged_uploads(self, nodes: Targets, damage: Damage, keeps: float = 0.0) -> Hold:
        raise AssertionError("a scenario with it is refused")

    def rate_limited(self, requests_per_s: float) -> Hold:
        raise AssertionError("a scenario with it is refused")

    def slow_reads(self, bits_per_s: float, delay_s: float) -> Hold:
        raise AssertionError("a scenario with it is refused")

    def _set_link(self, node: str) -> None:
        """Let a link carry what all faults together leave of it."""
        links, link = self._supervisor.links, link_name(node)
        up, down = (math.prod(self._factors.get((node, way), [])) for way in ("up", "down"))
        is_cut = up == 0 or down == 0 or self._cut_off[node] > 0
        if links.kind == "open":  # it is only told that it is cut off
            return
        if is_cut and link not in self._cut:
            self._cut.add(link)
            links.cut(link)
        elif not is_cut:
            if link in self._cut:
                self._cut.remove(link)
                links.restore(link)
            rates = self._supervisor.rates_of(node)
            links.set_rates(link, rates[0] * up, rates[1] * down)

    def _kill(self, node: str) -> None:
        supervisor = self._supervisor
        supervisor.kill(node)
        round, uid = supervisor.playing.get(node, 0), int(node.partition(":")[2])
        supervisor.take(PeerCrashed(self.at_s, node, uid, round))


@contextmanager
def _held(take: Callable[[], object], let_go: Callable[[], object]) -> Iterator[None]:
    take()
    try:
        yield
    finally:
        let_go()
