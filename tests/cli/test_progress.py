"""What is shown while a run goes."""

from __future__ import annotations

import io

from rich.console import Console

from covsim.cli_progress import watching
from covsim.events import Event, HeldOutMeasured, NodeJoined, RoundSettled, Submitted, Transferred, WindowOpened

LEAD = "validator:lead"


def events() -> list[Event]:
    """Two rounds of three peers, of which two land in the first and one is settled in the second."""
    joined = [NodeJoined(0.0, f"peer:{uid}", uid, "honest", "honest", 1e8, 5e8, 40.0) for uid in range(3)]
    landed = [Submitted(2100.0 + uid, uid, 0, 2e9, 2100.0 + uid, uid < 2, 10, "h") for uid in range(3)]
    moved = [Transferred(2100.0, f"peer:{uid}", "k", "submit", "up", 2e9, 2000.0, True) for uid in range(3)]
    settled = [RoundSettled(2900.0, uid, 0, 0.0, 1.0, 1.0, 1.0, 1.0) for uid in range(3)]
    return [
        *joined,
        NodeJoined(0.0, LEAD, -1, "validators", "validator", 1e10, 1e10, 0.0),
        HeldOutMeasured(0.0, LEAD, -1, "root", 5.545),
        WindowOpened(2040.0, 1, 170),
        *landed,
        *moved,
        HeldOutMeasured(2800.0, "validator:second", 0, "other", 9.0),
        HeldOutMeasured(2800.0, LEAD, 0, "a", 4.5),
        *settled,
        WindowOpened(4080.0, 2, 340),
        RoundSettled(5000.0, 1, 1, 0.0, 1.0, 1.0, 1.0, 1.0),
        HeldOutMeasured(5000.0, LEAD, 1, "b", 4.25),
        HeldOutMeasured(6000.0, LEAD, 1, "b", 4.0),  # the final measurement is no further round
    ]


def shown(*, terminal: bool, quiet: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with watching("demo", 2, console, quiet) as observers:
        for event in events():
            for observer in observers:
                observer(event)
    return file.getvalue()


def test_piped_output_is_one_plain_line_per_round() -> None:
    assert shown(terminal=False).splitlines() == [
        "demo  round   1/2  simulated 0.78 h  loss 4.500  moved 6.00 GB  landed 2/3",
        "demo  round   2/2  simulated 1.39 h  loss 4.250  moved 6.00 GB  landed 0/3",
    ]


def test_a_terminal_shows_one_live_display() -> None:
    last = shown(terminal=True).split("demo")[-1]
    assert "round 2/2" in last
    assert "simulated 1.67 h" in last
    assert "loss 4.000" in last
    assert "moved 6.00 GB" in last
    assert "peers 3/3 alive" in last


def test_quiet_shows_nothing() -> None:
    assert shown(terminal=False, quiet=True) == shown(terminal=True, quiet=True) == ""
