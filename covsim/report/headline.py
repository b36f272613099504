"""The short table at the end of a run: does it learn, what does it cost, who is paid, which rules acted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from covsim.units import format_duration

_HOUR_S, _DAY_S = 3600.0, 86_400.0


def table(summary: Mapping[str, Any], folder: Path | None = None) -> Table:
    """A summary's main figures as a table for a terminal; `folder` is where the rest of the results are."""
    lines = Table(title=f"{summary['scenario']}: {summary['rounds']} rounds", show_header=False, title_justify="left")
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    for name, text in _learning(summary) + _cost(summary) + _pay(summary) + _rules(summary["rules"]):
        lines.add_row(name, text)
    if folder is not None:
        lines.add_row("results", str(folder))
    return lines


def _learning(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    start, end = _number(summary["loss.initial"], ".3f"), _number(summary["loss.final"], ".3f")
    bits = _number(summary["bits_per_byte.final"], ".2f")
    spread = _number(summary["loss.spread"], ".4f")
    return [
        ("held-out loss", f"{start} -> {end} nats per token ({bits} bits per byte)"),
        ("histories at the end", f"{summary['lineages.final']}, losses {spread} apart"),
    ]


def _cost(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    ratio, ratio_of_model = summary["network.compression_ratio"], summary["network.compression_ratio_model"]
    utilization, share = summary["time.compute_utilization"], summary["time.compute_share"]
    total_s, training_s = summary["wall.total_s"], summary["wall.training_s"]
    compression = f"{_number(ratio, '.1f')}x deployment, {_number(ratio_of_model, '.1f')}x model, against fp32"
    return [
        ("payload", f"{_size(summary['network.payload_bytes'])} as charged"),
        ("compression", compression if summary["network.payload_bytes"] else "nothing travels"),
        ("network", f"{_size(summary['network.bytes_up'])} up, {_size(summary['network.bytes_down'])} down"),
        ("simulated time", _duration(summary["time.simulated_s"])),
        ("compute", f"{_number(utilization, '.1%')} of working time, {_number(share, '.1%')} of all time"),
        (
            "participation",
            f"{_number(summary['participation.mean_contributing'], '.1f')} peers contribute to a mean round, "
            f"{summary['participation.unique']} ever; {_number(summary['late_share'], '.1%')} of submissions late",
        ),
        ("wall time", f"{_number(total_s, '.1f')} s, {_number(training_s, '.1f')} s of it training"),
    ]


def _pay(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    prefix = "pay_per_peer."
    pay = {key.removeprefix(prefix): value for key, value in summary.items() if key.startswith(prefix)}
    shown = ", ".join(f"{cohort} {_number(value, '.2f')}" for cohort, value in pay.items())
    zero = _number(summary["honest_earning_zero"], ".0%")
    return [("pay per peer", f"{shown} (honest mean = 1); {zero} of the honest earn nothing")]


def _rules(rules: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    lines = []
    for verdict in ("fired", "never fired", "could never fire"):
        named = [
            f"{rule} {entry['fired']}/{entry['eligible']}" if entry["eligible"] else rule
            for rule, entry in rules.items()
            if entry["verdict"] == verdict
        ]
        if named:
            lines.append((f"rules that {verdict}", ", ".join(named)))
    return lines


def _number(value: float | None, form: str) -> str:
    """The value, or `n/a` where there is none."""
    return "n/a" if value is None or math.isnan(value) else format(value, form)


def _size(num_bytes: float) -> str:
    """Bytes with three digits: '1.99 GB'."""
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {prefix}B"
    return f"{num_bytes:.3g} B"


def _duration(seconds: float) -> str:
    if seconds >= 2 * _DAY_S:
        return f"{seconds / _DAY_S:.2f} d"
    return f"{seconds / _HOUR_S:.2f} h" if seconds >= _HOUR_S else format_duration(round(seconds, 1))
