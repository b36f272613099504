"""Scripts side by side against what they stand for: a simpy process each, and `all_of` over them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from covsim.nodes.side_by_side import SideBySide

Log = list[tuple[float, str]]
Waits = list[int]
WAITS = st.lists(st.integers(0, 3), max_size=4)
PARTIES = st.lists(st.lists(WAITS, max_size=4), min_size=1, max_size=3)


def script(env: simpy.Environment, log: Log, name: str, waits: Waits) -> Generator[Any, Any, None]:
    """Waits again and again; says when it goes on, and when it is thrown out."""
    past = env.event().succeed()
    try:
        for number, wait in enumerate(waits):
            log.append((env.now, f"{name} {number}"))
            yield env.timeout(wait)
            yield past  # which has been processed by then, mostly
        log.append((env.now, f"{name} ends"))
    except simpy.Interrupt:
        log.append((env.now, f"{name} is thrown out"))


def as_processes(env: simpy.Environment, scripts: list[Any]) -> tuple[simpy.Event, Callable[[], None]]:
    processes = [env.process(each) for each in scripts]

    def interrupt() -> None:
        for process in processes:
            if process.is_alive:
                process.interrupt()

    return env.all_of(processes), interrupt


def side_by_side(env: simpy.Environment, scripts: list[Any]) -> tuple[simpy.Event, Callable[[], None]]:
    parts = SideBySide(env, scripts)
    return parts.done, parts.interrupt


def played(begin: Callable[..., Any], parties: list[list[Waits]], patience: int) -> Log:
    """What happens, in order, when several wait for their scripts, each with this patience."""
    env, log = simpy.Environment(), []

    def waiting(number: int, waits: list[Waits]) -> Generator[Any, Any, None]:
        done, interrupt = begin(env, [script(env, log, f"{number}.{i}", each) for i, each in enumerate(waits)])
        log.append((env.now, f"{number} waits"))
        yield done | env.timeout(patience)
        log.append((env.now, f"{number} goes on, {done.processed}"))
        interrupt()
        log.append((env.now, f"{number} has interrupted"))
        yield env.timeout(0)
        log.append((env.now, f"{number} ends"))

    for number, waits in enumerate(parties):
        env.process(waiting(number, waits))
    env.run()
    return log


@given(PARTIES, st.integers(0, 6))
def test_all_happens_in_the_order_of_processes(parties: list[list[Waits]], patience: int) -> None:
    """Catches a script that begins, ends or is thrown out earlier or later among the events of its instant."""
    assert played(side_by_side, parties, patience) == played(as_processes, parties, patience)


def test_nobody_to_wait_for() -> None:
    """Catches a wait for ever."""
    env = simpy.Environment()
    env.run(SideBySide(env, []).done)
    assert env.now == 0


def test_a_mistake_in_a_script_is_not_lost() -> None:
    """Catches an exception that ends a script and nothing else."""

    def wrong() -> Generator[Any, Any, None]:
        yield env.timeout(1)
        raise ValueError("a mistake")

    env = simpy.Environment()
    SideBySide(env, [wrong()])
    with pytest.raises(ValueError, match="a mistake"):
        env.run()
