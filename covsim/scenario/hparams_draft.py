"""A scenario on its way from the keys of a hparams file, and what all sections of it have in common.

A setting remembers the keys that it was made of, and a key that cannot be mapped as it stands is given a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from covsim.scenario.hparams_keys import CODE_DEFAULTS
from covsim.units import format_share

BLOCK_S = 12


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the scenario and the keys that it was made of: none for what is assumed or stands in the live code."""

    value: Any
    keys: tuple[str, ...] = ()


@dataclass
class Draft:
    """A scenario on its way from the keys of a hparams file.

    Attributes:
        given: the file's values by dotted key, nulls left out.
        rounds, peers: of the scenario.
        settings: by dotted path, in the order of the scenario's text.
        refused: keys that could not be mapped, or not as they stand, and why.
        caveats: keys that were mapped, and what to mind about them.
        remarks: what a reader of the scenario should know, by its section.
        absent: paths that the file says nothing about.
    """

    given: Mapping[str, Any]
    rounds: int
    peers: int
    settings: dict[str, Setting] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    caveats: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    @property
    def demo(self) -> bool:
        """True for the releases before SparseLoCo."""
        return "inner_steps" not in self.given

    def get(self, key: str) -> Any:
        """The file's value, or what the live code takes where there is none, or None."""
        return self.given.get(key, CODE_DEFAULTS.get(key))

    def positive(self, key: str) -> Any:
        """A number above 0, or None if the file has none; any other number is refused."""
        value = self.get(key)
        if value is not None and value <= 0:
            self.refuse(key, "must be above 0")
            return None
        return value

    def set(self, path: str, value: Any, *keys: str) -> None:
        """Give the scenario a setting that was made of some keys."""
        self.settings[path] = Setting(value, keys)

    def copy(self, path: str, key: str, make: Callable[[Any], Any] = lambda value: value) -> None:
        """Give the scenario what a key says, if it says something."""
        value = self.get(key)
        if value is None:
            self.absent.append(path)
        else:
            self.set(path, make(value), key)

    def refuse(self, key: str, why: str) -> None:
        """Say why a key is not mapped as it stands; the first reason counts."""
        if key in self.given:
            self.refused.setdefault(key, why)

    def mind(self, key: str, what: str) -> None:
        """Say what to mind about a key that is mapped."""
        if key in self.given:
            self.caveats[key] = what

    def remark(self, section: str, text: str) -> None:
        """Add a comment to a section of the scenario."""
        self.remarks.setdefault(section, []).append(text)

    def withdraw(self, path: str, message: str) -> bool:
        """Take back what was set at a path, or else beneath it; False if no key of the file had a part in it."""
        above = [each for each in self.settings if f"{path}.".startswith(f"{each}.")]
        concerned = above or [each for each in self.settings if each.startswith(f"{path}.")]
        blamed = [each for each in concerned if self.settings[each].keys]
        for each in blamed:
            for key in self.settings.pop(each).keys:
                self.refuse(key, f"{each} {message}")
        return bool(blamed)


def share(value: float) -> Any:
    """A share as a scenario writes it; what is no share stays a number, for the scenario to refuse."""
    return format_share(float(f"{value:.12g}")) if 0 <= value <= 1 else value


def schedule(made: Draft, path: str, keys: tuple[str, str, str], steps: int) -> None:
    """Warm-up and cosine; the file's schedule is much longer than a run here, and is squeezed as a whole."""
    warm_up, length, floor = keys
    made.set(f"{path}.kind", "cosine")
    first, then = made.get(warm_up), made.positive(length)
    if first is not None and then is not None and first >= 0:
        squeezed = round(first * steps / (first + then))
        made.set(f"{path}.warmup_steps", squeezed, warm_up, length)
        whole = f"a schedule of {first:,} + {then:,} steps is squeezed into the {steps:,} of this run"
        section, _, _ = path.partition(".")
        made.remark(section, f"{whole[:1].upper()}{whole[1:]}: {squeezed} steps of warm-up.")
        made.mind(warm_up, f"{whole}: {squeezed} of warm-up")
    else:
        made.copy(f"{path}.warmup_steps", warm_up)
    made.copy(f"{path}.final_share", floor, share)
