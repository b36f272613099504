"""The short table at the end of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from covsim.report import headline


def shown(summary: dict[str, Any], folder: Path | None = None) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(headline.table(summary, folder))
    return captured.get()


@pytest.fixture
def summary(run_folder: Path) -> dict[str, Any]:
    return dict(json.loads((run_folder / "summary.json").read_text()))


def test_table_says_what_a_run_amounts_to(summary: dict[str, Any]) -> None:
    text = shown(summary, Path("results/synthetic/abc"))
    for part in (
        "synthetic: 8 rounds",
        f"5.550 -> {summary['loss.final']:.3f} nats",
        f"{summary['bits_per_byte.final']:.2f} bits per byte",
        "1.99 GB",
        "146.3x deployment, 120.0x model",
        f"{summary['time.compute_utilization']:.1%} of working time",
        f"lazy {summary['pay_per_peer.lazy']:.2f}",
        "rules that fired",
        "rules that could never fire",
        "results/synthetic/abc",
    ):
        assert part in text, part


def test_what_was_never_measured_is_not_a_number(summary: dict[str, Any]) -> None:
    for key in ("loss.final", "pay_per_peer.lazy", "time.compute_utilization", "honest_earning_zero"):
        summary[key] = None
    text = shown(summary)
    assert "5.550 -> n/a nats" in text
    assert "lazy n/a" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0.0, "0 B"), (999.0, "999 B"), (1.989e9, "1.99 GB"), (4.3e12, "4.3 TB"), (2e16, "20 PB")]
)
def test_sizes_have_three_digits(num_bytes: float, text: str) -> None:
    assert headline._size(num_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(90.04, "90 s"), (63240.0, "17.57 h"), (864000.0, "10.00 d")])
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert headline._duration(seconds) == text
