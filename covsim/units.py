"""Quantities with units: '500 Mb/s', '2.8 GB', '20 min', '30 %' to bit/s, bytes, seconds, fractions, and back.

Work of a machine is '400 TFLOP/s'. A closed grammar. b is bit and B is byte; k = 1000 and Ki = 1024. A bare number for
a rate, a size or a duration is an error, because b and B differ by 8 and nobody can tell what was meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/%]*)\s*")

_RATES = {f"{prefix}{unit}/s": n * bits for prefix, n in _PREFIXES.items() for unit, bits in (("b", 1), ("B", 8))}
_WORK = {f"{prefix}FLOP/s": n for prefix, n in {**_PREFIXES, "P": 10**15, "E": 10**18}.items() if "i" not in prefix}
_SIZES = {f"{prefix}{unit}": n * size for prefix, n in _PREFIXES.items() for unit, size in (("b", 0.125), ("B", 1))}


def parse_rate(value: Any) -> float:
    """Bits per second from a text such as '500 Mb/s' or '62.5 MB/s'. Raises ValueError."""
    return _parse(value, _RATES, "a rate", "500 Mb/s")


def parse_flops(value: Any) -> float:
    """FLOP per second from a text such as '400 TFLOP/s'. Raises ValueError."""
    return _parse(value, _WORK, "a number of FLOP per second", "400 TFLOP/s")


def parse_size(value: Any) -> float:
    """Bytes from a text such as '2.8 GB' or '64 MiB'. Raises ValueError."""
    return _parse(value, _SIZES, "a size", "64 MB")


def parse_duration(value: Any) -> float:
    """Seconds from a text such as '12 s', '20 min' or '1.5 h'. Raises ValueError."""
    return _parse(value, _SECONDS, "a duration", "20 s")


def parse_share(value: Any) -> float:
    """A fraction in [0, 1] from '30 %' or 0.3. Raises ValueError."""
    share = float(value) if _is_number(value) else _parse(value, {"%": 0.01}, "a share", "30 %")
    if not 0 <= share <= 1:
        raise ValueError(f"{value!r} is not a share between 0 % and 100 %")
    return share


def format_rate(bits_per_s: float) -> str:
    """'500 Mb/s' for 5e8; parse_rate reads it back to the same number."""
    return _format(bits_per_s, "b/s")


def format_flops(flop_per_s: float) -> str:
    """'400 TFLOP/s' for 4e14; parse_flops reads it back to the same number."""
    return _format(flop_per_s, "FLOP/s")


def format_size(num_bytes: float) -> str:
    """'1.989 GB' for 1.989e9; parse_size reads it back to the same number."""
    return _format(num_bytes, "B")


def format_duration(seconds: float) -> str:
    """'180 s' for 180; parse_duration reads it back to the same number."""
    return f"{_number(seconds)} s"


def format_share(share: float) -> str:
    """'30 %' for 0.3; parse_share reads it back to the same number."""
    return f"{Decimal(repr(float(share))).scaleb(2).normalize():f} %"


def _parse(value: Any, units: Mapping[str, float], noun: str, example: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if _is_number(value) or (match and not match[2]):
        raise ValueError(f"{noun} needs a unit, for example '{example}'; {value!r} has none")
    if match is None:
        raise ValueError(f"{value!r} is not {noun} such as '{example}'")
    if match[2] not in units:
        raise ValueError(f"{match[2]!r} is not a unit of {noun}; write it like '{example}'")
    amount = float(match[1]) * units[match[2]]
    if not math.isfinite(amount):
        raise ValueError(f"{value!r} is too large for {noun}")
    if units[match[2]] >= 1:
        return amount
    return float(Decimal(match[1]) * Decimal(repr(units[match[2]])))  # in decimals: 95 % is 0.95 to the last bit


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format(amount: float, unit: str) -> str:
    for prefix in ("T", "G", "M", "k"):
        factor = _PREFIXES[prefix]
        if amount >= factor and float(_number(amount / factor)) * factor == amount:
            return f"{_number(amount / factor)} {prefix}{unit}"
    return f"{_number(amount)} {unit}"


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _quantity(parse: Any, render: Any, schema: dict[str, Any]) -> tuple[Any, ...]:
    return BeforeValidator(parse), PlainSerializer(render, return_type=str), WithJsonSchema(schema)


def _text(example: str) -> dict[str, Any]:
    return {"type": "string", "examples": [example]}


Rate = Annotated[float, *_quantity(parse_rate, format_rate, _text("500 Mb/s"))]
Flops = Annotated[float, *_quantity(parse_flops, format_flops, _text("400 TFLOP/s"))]
Size = Annotated[float, *_quantity(parse_size, format_size, _text("64 MB"))]
Seconds = Annotated[float, *_quantity(parse_duration, format_duration, _text("20 s"))]
Share = Annotated[
    float,
    *_quantity(parse_share, format_share, {"anyOf": [_text("30 %"), {"type": "number", "minimum": 0, "maximum": 1}]}),
]
