"""How a run is watched while it goes: one live display on a terminal, one plain line per round anywhere else.

Both are observers of the run's events and know nothing else of it.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from covsim.events import Event, HeldOutMeasured, NodeJoined, RoundSettled, Submitted, Transferred, WindowOpened
from covsim.observing import Stretch

BAR_WIDTH = 24
REFRESH_PER_S = 4


@contextmanager
def watching(title: str, num_rounds: int, console: Console, quiet: bool = False) -> Iterator[list[Watcher]]:
    """The observers to hand to a run, while it goes."""
    if quiet:
        yield []
    elif console.is_terminal:
        display = Display(title, num_rounds)
        with Live(display, console=console, refresh_per_second=REFRESH_PER_S):
            yield [display]
    else:
        yield [Lines(title, num_rounds, console)]


class Status:
    """Where a run stands, as its events tell."""

    def __init__(self) -> None:
        self.round = 0
        self.simulated_s = 0.0
        self.loss: float | None = None
        self.moved_bytes = 0.0
        self.num_peers = 0
        self.landed: dict[int, int] = {}
        self.settled: set[int] = set()
        self.active: set[int] = set()
        self._leader: str | None = None

    def observe(self, event: Event) -> bool:
        """Take note of an event; True if it completes a round."""
        self.simulated_s = event.time_s
        if isinstance(event, NodeJoined):
            self.num_peers += event.uid >= 0
        elif isinstance(event, WindowOpened):
            self.active, self.settled = self.settled, set()
        elif isinstance(event, RoundSettled):
            self.settled.add(event.uid)
        elif isinstance(event, Transferred):
            self.moved_bytes += event.num_bytes
        elif isinstance(event, Submitted):
            self.landed[event.round] = self.landed.get(event.round, 0) + event.on_time
        elif isinstance(event, HeldOutMeasured):
            return self._measured(event)
        return False

    def take_rows(self, kind: type[Event], columns: Sequence[Sequence[Any]]) -> None:
        """Take note of events of one kind, given by their fields."""
        if kind is RoundSettled:
            self.settled.update(columns[1])
        elif kind is Transferred:
            self.moved_bytes += sum(columns[5])
        elif kind is Submitted:
            for round, on_time in zip(columns[2], columns[5], strict=True):
                self.landed[round] = self.landed.get(round, 0) + on_time

    def _measured(self, event: HeldOutMeasured) -> bool:
        """The first measurement of a run is the leader's; from then on only its theta counts."""
        self._leader = self._leader or event.node
        if event.node != self._leader:
            return False
        self.loss = event.loss
        is_new = event.round + 1 > self.round
        self.round = max(self.round, event.round + 1)
        return is_new


class Watcher(abc.ABC):
    """Sees every event of a run, and takes rows of events as they are."""

    def __init__(self, title: str, num_rounds: int) -> None:
        self._title, self._num_rounds = title, num_rounds
        self._status = Status()

    @abc.abstractmethod
    def observe(self, event: Event) -> None:
        """Take note of an event."""

    def __call__(self, event: Event) -> None:
        """The same."""
        self.observe(event)

    def takers(self, kind: type[Event]) -> Sequence[Callable[[Any], None]]:
        """What sees events of a type: all."""
        return [self.observe]

    def take(self, stretch: Stretch) -> None:
        """Take note of a stretch."""
        for kind, columns in stretch.columns.items():
            self._status.take_rows(kind, columns)
        for event in stretch.events:
            self.observe(event)


class Lines(Watcher):
    """One plain line per round."""

    def __init__(self, title: str, num_rounds: int, console: Console) -> None:
        super().__init__(title, num_rounds)
        self._console = console

    def observe(self, event: Event) -> None:
        """Print a line when the event completes a round."""
        if self._status.observe(event):
            self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        status = self._status
        landed = status.landed.get(status.round - 1, 0)
        return (
            f"{self._title}  round {status.round:>3}/{self._num_rounds}  simulated {_hours(status.simulated_s)}  "
            f"loss {_loss(status.loss)}  moved {_bytes(status.moved_bytes)}  landed {landed}/{status.num_peers}"
        )


class Display(Watcher):
    """One live display: a bar, and what the last round came to."""

    def __init__(self, title: str, num_rounds: int) -> None:
        super().__init__(title, num_rounds)
        self._began = time.monotonic()

    def observe(self, event: Event) -> None:
        """Take note of an event; the display redraws itself."""
        self._status.observe(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A title line with the bar, and a line of numbers under it."""
        status = self._status
        bar = ProgressBar(total=self._num_rounds, completed=status.round, width=BAR_WIDTH)
        top = Table.grid(padding=(0, 1))
        top.add_row(
            Text(self._title, style="bold"),
            bar,
            Text(f"round {status.round}/{self._num_rounds}"),
            Text(f"{time.monotonic() - self._began:.0f} s", style="dim"),
        )
        numbers = {
            "simulated": _hours(status.simulated_s),
            "loss": _loss(status.loss),
            "moved": _bytes(status.moved_bytes),
            "peers": f"{len(status.active | status.settled) or status.num_peers}/{status.num_peers} alive",
        }
        bottom = Text()
        for label, value in numbers.items():
            bottom.append(f"{label} ", style="dim").append(f"{value}   ")
        yield top
        yield bottom


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h"


def _loss(loss: float | None) -> str:
    return f"{loss:.3f}" if loss is not None else "-"


def _bytes(num_bytes: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes / 1e3:.2f} kB"
