"""A scenario as whoever tests it names it, and the command that runs the very same from a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covsim.record.runner import RESULTS, Run
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.overrides import Overrides


@dataclass(frozen=True)
class Named:
    """A scenario, and how to name it: a file or a shipped name with overrides, or nothing for a value built in code."""

    scenario: Scenario
    source: str | None
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """How a message calls it."""
        changes = f" with {' '.join(self.overrides)}" if self.overrides else ""
        return f"{self.source or self.scenario.name}{changes}"

    def command(self, run: Run, seed: int, out: Path | None) -> str:
        """The `covsim run` command that makes this very run: from what was named, or from the run's own folder."""
        where = [] if out is None or out == RESULTS else ["--out", str(out)]
        if self.source is None:
            return shlex.join(["covsim", "run", str(run.folder / "resolved.yaml"), *where])
        return shlex.join(["covsim", "run", self.source, *self.overrides, "--seed", str(seed), *where])


def named(scenario: str | Path | Scenario, overrides: Overrides = ()) -> Named:
    """The scenario that a path, a shipped name or a value means.

    Raises:
        ScenarioError: it cannot be loaded so.
        ValueError: overrides of a value, which has no file to be laid over.
    """
    if isinstance(scenario, Scenario):
        if overrides:
            raise ValueError("overrides need a file or a shipped name; change a Scenario before it is handed over")
        return Named(scenario, None, ())
    loaded = load(scenario, overrides)
    texts = _texts(overrides)
    try:
        same = load(scenario, texts) == loaded
    except ScenarioError:  # a mapping may add a name, which text spells +a.b=c
        same = False
    return Named(loaded, str(scenario), texts) if same else Named(loaded, None, ())


def _texts(overrides: Overrides) -> tuple[str, ...]:
    """Overrides as they are given on the command line. JSON is YAML."""
    if not isinstance(overrides, Mapping):
        return tuple(overrides)
    return tuple(f"{path}={_text(value)}" for path, value in overrides.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.strip() == value != "" else json.dumps(value)
