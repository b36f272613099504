"""Numbers as warnings show them: with their unit, to three digits."""

from __future__ import annotations

from covsim.units import format_duration, format_flops, format_rate, format_size


def time_text(seconds: float) -> str:
    """A duration."""
    return format_duration(_three_digits(seconds))


def size_text(num_bytes: float) -> str:
    """A number of bytes."""
    return format_size(_three_digits(num_bytes))


def rate_text(bits_per_s: float) -> str:
    """A rate of a link."""
    return format_rate(_three_digits(bits_per_s))


def flops_text(flop_per_s: float) -> str:
    """Work in a second."""
    return format_flops(_three_digits(flop_per_s))


def _three_digits(number: float) -> float:
    return float(f"{number:.3g}")
