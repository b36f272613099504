"""The first Ctrl-C is a question, the second one the end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

from covsim.record.interrupts import interrupts

TWICE = """
import os, signal
from covsim.record.interrupts import interrupts
with interrupts():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("never reached")
"""


def test_the_first_one_is_remembered_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)  # Python's own, or none at all in a background job
    with interrupts() as interrupted:
        assert signal.getsignal(signal.SIGINT) is not before
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_one_ends_the_process_and_shows_the_cursor() -> None:
    ours, theirs = pty.openpty()
    try:
        assert subprocess.run([sys.executable, "-c", TWICE], stdout=theirs, check=False).returncode == 130
        assert os.read(ours, 100) == b"\x1b[?25h"
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_second_one_writes_nothing_into_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
