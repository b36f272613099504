"""What links carry now: their own rate, times the part that varies, times what faults leave of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import simpy

from covsim.world.clock import alarm, on_event
from covsim.world.fairness import Resource
from covsim.world.network import Network
from covsim.world.variations import Course

Told = Callable[[float, float], object]
"""Told what a link that varies carries from now on, in bits per second, and until which second its course says so."""


class _Varying:
    """A link that varies: its course, the part that is there now, and until when; who is told of it."""

    __slots__ = ("course", "factor", "told", "until_s")

    def __init__(self, course: Course, told: Told) -> None:
        self.course, self.told = course, told
        self.factor = 1.0
        self.until_s = -math.inf


class LinkRates:
    """The rates of the links of a run.

    A link that varies is looked after only while something flows over it: its next change rings, and when nobody uses
    the link by then, the one after that does not, until it is used again.

    Args:
        env: the simulation whose time passes.
        network: what the links belong to.
    """

    def __init__(self, env: simpy.Environment, network: Network) -> None:
        self._env, self._network = env, network
        self._own: dict[Resource, float] = {}  # bits per second, without variation and faults
        self._varying: dict[Resource, _Varying] = {}
        self._faults: dict[Resource, list[float]] = {}

    def vary(self, link: Resource, course: Course, told: Told = lambda bits_per_s, until_s: None) -> None:
        """Let a link vary from now on, and tell of it while something flows; it has one course."""
        assert link not in self._varying, f"{link.name} varies already"
        self._own.setdefault(link, link.capacity_bits_per_s)
        self._varying[link] = _Varying(course, told)
        self._network.on_use = self._begin_use
        if self._network.is_used(link):
            self._begin_use(link)

    def slow(self, link: Resource, factor: float) -> None:
        """Multiply what a link carries, beside what else slows it; with 0 all that flows over it waits."""
        self._own.setdefault(link, link.capacity_bits_per_s)
        self._faults.setdefault(link, []).append(factor)
        self._set(link)

    def restore(self, link: Resource, factor: float) -> None:
        """Take back one `slow`."""
        self._faults[link].remove(factor)
        self._set(link)

    def _set(self, link: Resource) -> None:
        varying = self._varying.get(link)
        own = self._own[link] if varying is None else self._own[link] * varying.factor
        bits_per_s = own * math.prod(self._faults.get(link, ()))
        self._network.set_capacity(link, bits_per_s)
        if varying is not None and varying.until_s > self._env.now:  # else its course is asked when it is used again
            varying.told(bits_per_s, varying.until_s)

    def _begin_use(self, link: Resource) -> None:
        varying = self._varying.get(link)
        if varying is not None and varying.until_s <= self._env.now:
            self._go_on(link, varying)

    def _go_on(self, link: Resource, varying: _Varying) -> None:
        """Let a link carry what its course says for now, and look again when that changes."""
        varying.factor, varying.until_s = varying.course.at(self._env.now)
        self._set(link)
        if varying.until_s < math.inf:
            on_event(alarm(self._env, varying.until_s), lambda _: self._change(link, varying))

    def _change(self, link: Resource, varying: _Varying) -> None:
        if self._network.is_used(link):
            self._go_on(link, varying)
