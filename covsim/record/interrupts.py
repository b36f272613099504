"""Ctrl-C while a run goes: the first is a question that the run asks itself, the second ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
_STDOUT = 1
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Answer whether Ctrl-C was pressed since the block was entered; the second one ends the process at once."""
    pressed = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            _leave()
        pressed = True

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # not the main thread: nobody presses Ctrl-C there
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _leave() -> NoReturn:
    """End the process without unwinding; a live display has hidden the cursor and cannot bring it back."""
    if os.isatty(_STDOUT):
        os.write(_STDOUT, _SHOW_CURSOR)
    os._exit(EXIT_CODE)
